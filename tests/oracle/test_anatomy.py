"""The sheet Anatomy: its counts against the numbers that are published, its lengths against NumPy."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import xlgpt
from xlgpt import OpenWorkbook
from xlgpt.compiler.compile import formulas
from xlgpt.compiler.layout import Room, lay_out
from xlgpt.model import reference
from xlgpt.model.checkpoint import load
from xlgpt.model.config import GPT2Config

PROMPT = "Mike is quick. He moves"
SMALL = "random:n_layer=1,n_embd=8,n_head=2"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("anatomy") / "tiny.xlsx"
    xlgpt.build(path, model="tiny", context=8, sheets="anatomy")
    return path


def counted(config: GPT2Config) -> dict[str, list[int]]:
    """What the formulas of the counts say, worked out by Python's own arithmetic."""
    layout = lay_out(config, Room(4, 16, 2, ("anatomy",)), 0)
    sheet = next(sheet for sheet in layout.sheets if sheet.name == "Anatomy")
    found: dict[str, list[int]] = {}
    for name in ("anatomy.attn", "anatomy.mlp", "anatomy.norms", "anatomy.numbers"):
        found[name] = []
        for formula in formulas(layout, sheet, layout.bands[name]):
            text = re.sub(r"ROWS\(([\w.]+)\)", lambda m: str(layout.names[m[1]].height), formula.text)
            text = re.sub(r"COLUMNS\(([\w.]+)\)", lambda m: str(layout.names[m[1]].width), text)
            text = re.sub(r"SUM\(([\w.]+)\)", lambda m: str(sum(found[m[1]])), text)
            names = {"CHOOSE": lambda i, *values: values[i - 1]}
            found[name].append(eval(text, names))
    return found


def test_gpt2_small_has_its_124_million_numbers() -> None:
    """Radford et al. 2019; the count of the Hub's openai-community/gpt2."""
    config = GPT2Config(n_layer=12, n_head=12, n_embd=768, n_inner=3072, n_positions=1024, vocab_size=50257)
    found = counted(config)
    assert sum(found["anatomy.numbers"]) == 124_439_808
    assert found["anatomy.numbers"][:2] == [38_597_376, 786_432]
    assert found["anatomy.mlp"] == [4_722_432] * 12
    assert found["anatomy.attn"] == [2_362_368] * 12
    assert sum(found["anatomy.mlp"]) / (12 * 7_087_872) == pytest.approx(2 / 3, abs=0.001)


def test_an_lm_head_of_its_own_counts() -> None:
    config = load(SMALL).config
    assert counted(config)["anatomy.numbers"][-1] == 0
    assert counted(replace(config, tie_word_embeddings=False))["anatomy.numbers"][-1] == 8 * config.vocab_size


@pytest.mark.slow
@pytest.mark.libreoffice
@pytest.mark.parametrize(("chosen", "token"), [("", 5), (2, 2), (99, 5), (-3, 0)])
def test_the_way_of_a_vector_in_libreoffice(in_libreoffice: OpenWorkbook, chosen: int | str, token: int) -> None:
    model = load("tiny")
    ids = model.tokenizer.encode(PROMPT)
    seen = reference.forward(ids, model.weights, model.config)
    names = ("anatomy.row", "anatomy.text", "anatomy.into", "anatomy.adds_attn", "anatomy.adds_mlp", "anatomy.out")
    row, text, into, attention, mlp, out = in_libreoffice.read(
        *names, prompt=PROMPT, settings={"anatomy.token": chosen}
    ).values()
    assert (row[0, 0], text[0, 0]) == (token + 1, model.tokenizer.shown(ids[token]))
    for block in range(4):
        before, after = (seen[f"blocks.{block}.{name}"][token] for name in ("resid_pre", "resid_post"))
        assert into[block, 0] == pytest.approx(np.linalg.norm(before), abs=1e-5)
        assert out[block, 0] == pytest.approx(np.linalg.norm(after), abs=1e-5)
        assert abs(out[block, 0] - into[block, 0]) <= attention[block, 0] + mlp[block, 0]  # the triangle inequality


@pytest.mark.slow
def test_check_passes_and_an_empty_prompt_has_no_way(tmp_path: Path) -> None:
    xlgpt.build(tmp_path / "empty.xlsx", model=SMALL, prompt="", context=4)
    assert xlgpt.check(tmp_path / "empty.xlsx", prompts=("",)).passed
    shown = xlgpt.read(tmp_path / "empty.xlsx", "anatomy.out", "anatomy.total", engine="formulas")
    assert shown["anatomy.out"].tolist() == [[""]]
    weights = load(SMALL).weights
    assert shown["anatomy.total"][0, 0] == sum(weights.tensor(name).size for name in weights.shapes())


def test_an_unknown_name_gets_a_sentence(book: Path) -> None:
    with pytest.raises(xlgpt.XlgptError, match=r"no cells of the name 'anatomy.none'"):
        xlgpt.read(book, "anatomy.none", engine="formulas")
    with pytest.raises(
        xlgpt.XlgptError, match=r"no setting 'anatomy.out'.* The workbook has .*shown_position, .*anatomy.token"
    ):
        xlgpt.read(book, "anatomy.out", settings={"anatomy.out": 1}, engine="formulas")
