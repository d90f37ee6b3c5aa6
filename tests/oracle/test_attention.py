"""The sheet Attention: what it shows of the patterns, held against plain loops over them, and in LibreOffice."""

from pathlib import Path

import numpy as np
import pytest
from conftest import MICRO, read_in_python

import xlgpt
from xlgpt import OpenWorkbook
from xlgpt.compiler.layout import Room, lay_out
from xlgpt.compiler.settings import defaults
from xlgpt.model import reference
from xlgpt.model.checkpoint import Model, load
from xlgpt.oracle.views import Run
from xlgpt.oracle.views.attention import attention

PROMPT = "If today is Tuesday, tomorrow is"  # " is" stands there twice
Patterns = np.ndarray  # [L, H, T, T]


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("attention") / "tiny.xlsx"
    xlgpt.build(path, model="tiny", prompt=PROMPT, context=12, sheets="attention")
    return path


def thought(model: Model, ids: list[int]) -> Run:
    layout = lay_out(model.config, Room(max(12, len(ids)), 16, 8, ("attention",)), 0)
    seen = reference.forward(ids, model.weights, model.config)
    return Run(model, layout, defaults(layout, is_large=False), tuple(ids), len(ids), len(ids), len(ids) - 1, seen)


def by_hand(patterns: Patterns, ids: list[int], layer: int, head: int) -> dict[str, float]:
    """The three habits of a head, by the words on the sheet."""
    found = {"previous": 0.0, "first": 0.0, "same": 0.0}
    for token in range(2, len(ids)):
        row = patterns[layer][head][token]
        found["previous"] += row[token - 1]
        found["first"] += row[0]
        found["same"] += sum(row[key] for key in range(token + 1) if ids[key] == ids[token])
    return {name: total / (len(ids) - 2) for name, total in found.items()}


def test_habits_of_the_patterns_that_transformers_computes() -> None:
    truth = np.load(MICRO / "expected.npz")
    ids = [int(i) for i in np.ravel(truth["ids"])]
    patterns = truth["attentions"].reshape(-1, *truth["attentions"].shape[-3:])
    found = attention(thought(load(str(MICRO)), ids))
    for layer, head in np.ndindex(*patterns.shape[:2]):
        for name, share in by_hand(patterns, ids, layer, head).items():
            assert found[f"attention.{name}"][layer, head] == pytest.approx(share, abs=1e-5)
        assert found["attention.most"][layer, head] == pytest.approx(patterns[layer, head, -1].max(), abs=1e-5)


@pytest.mark.libreoffice
def test_the_chosen_head_in_libreoffice(in_libreoffice: OpenWorkbook) -> None:
    """The last head of the last block goes from the last " is" to the day that is known."""
    model = load("tiny")
    ids = model.tokenizer.encode(PROMPT)
    seen = reference.forward(ids, model.weights, model.config)
    names = [f"attention.{name}" for name in ("pattern", "attends_to", "sees", "status", "previous", "first", "same")]
    pattern, attends_to, sees, status, *habits = in_libreoffice.read(
        *names, settings={"attention.block": 3, "attention.head": 3}
    ).values()
    assert (sees[0, 0], status[0, 0]) == ("␣Tuesday", "ok")
    assert attends_to.shape == (4, 4)
    assert attends_to[3, 3] == "␣Tuesday"
    wanted = seen["blocks.3.attn.pattern"][3]
    for row, column in np.ndindex(7, 7):
        if column <= row:
            assert pattern[row, column] == pytest.approx(wanted[row, column], abs=1e-5)
        else:
            assert pattern[row, column] == ""
    patterns = np.stack([seen[f"blocks.{layer}.attn.pattern"] for layer in range(4)])
    for layer, head in np.ndindex(4, 4):
        by_words = by_hand(patterns, ids, layer, head)
        assert [habit[layer, head] for habit in habits] == pytest.approx(list(by_words.values()), abs=1e-5)


@pytest.mark.slow
def test_heads_stand_in_the_order_of_what_they_do(book: Path) -> None:
    names = ("attention.same", "attention.same_head", "attention.same_share")
    matrix, heads, shares = read_in_python(book, *names).values()
    named = {f"block {layer}, head {head}": matrix[layer, head] for layer, head in np.ndindex(4, 4)}
    assert shares[:, 0].tolist() == sorted(matrix.flat, reverse=True)[:8]
    assert [named[head] for head in heads[:, 0]] == shares[:, 0].tolist()


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ({"attention.block": 9}, "There is no block 9: this model has 0 to 3, and 3 is shown."),
        ({"attention.block": "first"}, "There is no block first: this model has 0 to 3, and 0 is shown."),
        ({"attention.head": -1}, "There is no head -1: a block has 0 to 3, and 0 is shown."),
        ({"attention.token": 40}, "There is no token at position 40; 6 is shown."),
        ({"attention.token": ""}, "ok"),
    ],
)
def test_what_is_not_there_is_said(book: Path, cells: dict[str, object], sentence: str) -> None:
    shown = read_in_python(book, "attention.status", "attention.sees", settings=cells)
    assert shown["attention.status"][0, 0] == sentence
    assert shown["attention.sees"][0, 0]


def test_off_it_shows_nothing_and_calculates_no_pattern(book: Path) -> None:
    names = ("attention.pattern", "attention.attends_to", "attention.same_head", "attention.status")
    for cells in read_in_python(book, *names, settings={"attention.on": 0}).values():
        assert set(cells.flat) == {""}


def test_a_short_prompt_has_no_habits(book: Path) -> None:
    names = ("attention.previous", "attention.first_head", "attention.attends_to")
    previous, head, attends_to = read_in_python(book, *names, prompt="If today").values()
    assert set(previous.flat) == set(head.flat) == {""}
    assert set(attends_to.flat) <= {"If", "␣today"}
