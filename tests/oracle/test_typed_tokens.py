"""Tokens typed into rows: what they mean, that only the rows from there on depend on them, and 200 changes in a row."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlgpt
from xlgpt.engines import start
from xlgpt.engines.run import Session
from xlgpt.errors import UsageError
from xlgpt.model.checkpoint import load
from xlgpt.model.reference import forward
from xlgpt.oracle.given import as_typed, typed_token
from xlgpt.workbook.book import Book, Prompt
from xlgpt.xlsx.formula import PARTS
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import a1_range, overlap

PROMPT = "If today is Tuesday, tomorrow is"
ENGINES = ["formulas", pytest.param("libreoffice", marks=pytest.mark.libreoffice)]


@pytest.fixture(scope="module")
def small_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("typed") / "small.xlsx"
    xlgpt.build(path, "tiny", "If today is", context=7, generate=2, max_bytes=20)
    return path


@pytest.mark.parametrize(
    ("text", "is_first", "means"),
    [
        ("Friday", False, " Friday"),
        ("␣Friday", False, " Friday"),
        (" Friday", False, " Friday"),
        ("If", True, "If"),
        ('"s"', False, "s"),
        (",", False, ","),
        ("7", False, "7"),
        ('"', False, '"'),
    ],
)
def test_what_is_typed_means_a_token(text: str, is_first: bool, means: str) -> None:
    tokenizer = load("tiny").tokenizer
    assert tokenizer.text(typed_token(text, is_first, tokenizer).id) == means


@pytest.mark.parametrize("text", ["friday", "Friday!", "no such", "  ", "''", '""'])
def test_what_is_no_single_token(text: str) -> None:
    assert typed_token(text, False, load("tiny").tokenizer).id == -2


def test_every_token_that_is_a_text_can_be_typed() -> None:
    """Those that are part of a character cannot, and two that are shown alike."""
    tokenizer = load("tiny").tokenizer
    texts = [i for i, token in enumerate(tokenizer.tokens) if token.decode("utf-8", "ignore").isprintable() and token]
    cannot = [i for i in texts if as_typed(i, False, tokenizer) is None]
    assert all(len(tokenizer.tokens[i]) == 1 and not tokenizer.tokens[i].isascii() for i in cannot)


@pytest.mark.quick(1)
@pytest.mark.parametrize("engine", ENGINES)
def test_typed_tokens_are_read_like_the_text_that_they_spell(engine: str, tiny_book: Path) -> None:
    """Over the fourth token, and two behind the last: the answer is that to the text which they spell."""
    book, model = Book(tiny_book), load("tiny")
    ids = model.tokenizer.encode("If today is Friday, tomorrow is Saturday.")
    with Session(tiny_book, engine) as session:
        answer = session.answer(PROMPT, 0, {"typed_tokens": _cells(book, {3: "Friday", 7: "Saturday", 8: "."})})
    assert answer.next_token_id == forward(ids, model.weights, model.config)["logits"][-1].argmax()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ({2: "no such"}, "What was typed at position 2 is no single token: see the sheet Tokens."),
        ({5: "is"}, "A token was typed below an empty row: see the sheet Tokens."),
    ],
)
def test_what_is_wrong_is_said(typed: dict[int, str], says: str, small_book: Path) -> None:
    with pytest.raises(UsageError) as failure:
        xlgpt.run(small_book, tokens=0, engine="formulas", settings={"typed_tokens": _cells(Book(small_book), typed)})
    assert str(failure.value) == says


def test_a_prompt_that_begins_as_the_one_before_is_typed(monkeypatch: pytest.MonkeyPatch, small_book: Path) -> None:
    prompts: list[str] = []
    texts = ["If today is", "If today is Friday", "If today was", "If today", "If it is", "The bird", "The"]
    with Session(small_book, "formulas") as session:
        calculate = session._engine.calculate

        def seen(prompt: Prompt, settings: Any) -> None:
            prompts.append(prompt.text)
            calculate(prompt, settings)

        monkeypatch.setattr(session._engine, "calculate", seen)
        answers = [session.answer(text, 1).next_token_id for text in texts]
    model = load("tiny")
    wanted = [
        forward(model.tokenizer.encode(text), model.weights, model.config)["logits"][-1].argmax() for text in texts
    ]
    assert answers == wanted
    assert prompts == ["If today is"] * 3 + [""] * 2 + ["The bird", ""]


@pytest.mark.slow
def test_rows_above_depend_on_nothing_that_is_typed_below(small_book: Path) -> None:
    """Followed through all formulas as a spreadsheet program does, whatever their values are.

    Only whether the row above has to choose a token depends on whether one is typed below it.
    """
    book = Book(small_book)
    users = _users(book)
    model_sheets = {s.name for s in book.layout.sheets if not s.stage.optional}
    token_bands = [p for p in book.layout.bands.values() if p.band.rows == "token" and p.band.formula]
    token_bands = [p for p in token_bands if p.cells.sheet in model_sheets or p.band.name == "steering.at"]
    for row in (2, 5):
        dirty = _dirty(book.named("typed_tokens").cell(row, 0), users)
        for placed in token_bands:
            above = placed.cells.rows(0, row)
            there = [cells for cells in dirty if overlap(cells, above)]
            if placed.band.name.startswith("next."):
                there = [cells for cells in there if cells.row < above.row + row - 1]
            assert not there, (placed.band.name, row)
        last = book.named("blocks.0.resid_post").rows(row, row + 1)
        assert any(overlap(cells, last) for cells in dirty)


@pytest.mark.quick(1)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "count", [8, pytest.param(40, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.long)]
)
def test_changes_one_after_the_other(engine: str, count: int, small_book: Path) -> None:
    """Typed over, behind the last, emptied again; each answer is NumPy's for the tokens that there are then."""
    book, model, random = Book(small_book), load("tiny"), np.random.default_rng(7)
    words = [i for i, t in enumerate(model.tokenizer.tokens) if t.isalpha() and as_typed(i, False, model.tokenizer)]
    ids: dict[int, int] = {}
    calculating = start(engine, book, 60)
    try:
        for _ in range(count):
            row = int(random.integers(0, 5))
            if row in ids and random.random() < 0.4 and not any(other > row for other in ids):
                del ids[row]
            elif row < 3 or row - 1 in ids or row == 3:
                ids[row] = int(random.choice(words))
            typed = {row: as_typed(i, row == 0, model.tokenizer) for row, i in ids.items()}
            cells = _cells(book, {row: text for row, text in typed.items() if text})
            calculating.calculate(book.prompt, book.settings.changed({"typed_tokens": cells, "max_new_tokens": 0}))
            there = list(book.prompt.ids)
            for place in sorted(ids):
                there[place : place + 1] = [ids[place]]
            logits = forward(there, model.weights, model.config)["logits"][-1]
            shown = calculating.read(book.named("logits"))[:, 0].astype(float)
            np.testing.assert_allclose(shown, logits, atol=1e-6)
    finally:
        calculating.close()


def _cells(book: Book, typed: dict[int, str]) -> np.ndarray[Any, Any]:
    cells = np.full((book.context, 1), "", dtype=object)
    for row, text in typed.items():
        cells[row, 0] = text
    return cells


def _users(book: Book) -> dict[tuple[str, int], list[tuple[Range, Range]]]:
    """By sheet and row: the cells that some formula refers to there, and the formula's own."""
    users = defaultdict(list)
    for sheet in book.sheets:
        if sheet in book.weights.sheets:
            continue
        for formula in book.cells(sheet).formulas:
            for cells in set(_precedents(book, sheet, formula.text)):
                for row in range(cells.row, cells.row + cells.height):
                    users[cells.sheet, row].append((cells, formula.cells))
    return users


def _precedents(book: Book, sheet: str, text: str) -> Iterator[Range]:
    for part in PARTS.finditer(text):
        if part.lastgroup == "reference":
            of, _, within = part[0].rpartition("!")
            cells = a1_range(of.strip("'") or sheet, within)
            if cells or book.has(within):
                yield cells or book.named(within)


def _dirty(cell: Range, users: dict[tuple[str, int], list[tuple[Range, Range]]]) -> set[Range]:
    """Everything that follows from a cell."""
    found, left = {cell}, [cell]
    while left:
        changed = left.pop()
        for row in range(changed.row, changed.row + changed.height):
            for cells, own in users.get((changed.sheet, row), ()):
                if own not in found and overlap(cells, changed):
                    found.add(own)
                    left.append(own)
    return found
