"""The workbook at work in LibreOffice: its own calculation against the NumPy reference, and what an edit costs."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from readers import by_calamine, part

from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.model.checkpoint import load
from xlgpt.oracle.values import expected
from xlgpt.verify.compare import expected_cells
from xlgpt.workbook.book import Book, Prompt

pytestmark = pytest.mark.libreoffice
PROMPTS = ["If today is Tuesday, tomorrow is", "Mike pulls out his", "Mike is a Jedi. He pulls out his", "The cow says"]


@pytest.fixture(scope="module")
def engine(tiny_book: Path) -> Iterator[LibreOffice]:
    engine = LibreOffice(Book(tiny_book))
    yield engine
    engine.close()


SHEETS = ("Tokens", "BPE merges", "Generate")


def prompt_of(text: str) -> Prompt:
    return Prompt(text, tuple(load("tiny").tokenizer.encode(text)))


def read(engine: LibreOffice, tiny_book: Path, name: str) -> np.ndarray:
    return engine.read(Book(tiny_book).named(name))


@pytest.mark.quick(1)
@pytest.mark.parametrize("text", PROMPTS)
def test_changed_tokens_change_the_prediction(engine: LibreOffice, tiny_book: Path, text: str) -> None:
    model, prompt = load("tiny"), prompt_of(text)
    engine.calculate(prompt)
    book = Book(tiny_book)
    truth = expected(text, model, book.layout, book.settings)
    assert read(engine, tiny_book, "next_token")[0, 0] == truth["next_token"][0]
    logits = read(engine, tiny_book, "logits")[:, 0].astype(float)
    assert np.abs(logits - truth["logits"]).max() < 1e-5  # float32 weights against their decimals
    assert read(engine, tiny_book, "status")[0, 0] == "ok"


@pytest.mark.slow
def test_an_edit_of_the_last_token_leaves_all_other_rows_as_they_were(engine: LibreOffice, tiny_book: Path) -> None:
    """Counts the cells that change, bit for bit, in every band with a row per token."""
    prompt = prompt_of("Mike is a Jedi. He pulls out his")
    settings = Book(tiny_book).settings.changed({"max_new_tokens": 0})
    engine.calculate(prompt, settings)
    layout = Book(tiny_book).layout
    model = [sheet for sheet in layout.sheets if sheet.name != "Generate" and not sheet.stage.optional]
    by_sheet = {sheet.name: [p.band.name for p in sheet.bands if p.band.rows == "token"] for sheet in model}
    still = {*by_sheet["Tokens"], "pos_embed"} - {"tokens", "token_ids"}  # as many tokens as before, none of them typed
    bands = [name for names in by_sheet.values() for name in names]
    before = {name: read(engine, tiny_book, name) for name in bands}
    edited = prompt_of("Mike is a Jedi. He pulls out her")
    assert edited.ids[:-1] == prompt.ids[:-1]
    start = time.perf_counter()
    engine.calculate(edited, settings)
    print(f"an edit of the last token takes {time.perf_counter() - start:.3f} s")
    last = len(prompt.ids) - 1
    for name in bands:
        changed = (read(engine, tiny_book, name) != before[name]).any(axis=1)
        assert np.flatnonzero(changed).tolist() == ([] if name in still else [last]), name


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("", "no token"),
        ("one two three " * 4, "tokens long; this workbook has rows for 16."),
        ("one two three " * 9, "tokens long; the model knows 64 positions."),
        ("a" * 129, "longer than 128 bytes"),
        ("漢" * 43, "longer than 128 bytes"),
        ("😀" * 300, "longer than 128 bytes"),
        (42.0, "a number"),
    ],
)
def test_what_is_wrong_is_said_and_no_token_shown(
    engine: LibreOffice, tiny_book: Path, typed: str | float, sentence: str
) -> None:
    engine.calculate(Prompt(typed, ()))  # type: ignore[arg-type]
    assert read(engine, tiny_book, "n_tokens")[0, 0] == 0
    assert all(value == -1 for value in read(engine, tiny_book, "token_ids")[:, 0])
    assert sentence in read(engine, tiny_book, "status")[0, 0]
    assert read(engine, tiny_book, "next_token")[0, 0] == ""
    assert read(engine, tiny_book, "next_token_id")[0, 0] == ""


@pytest.mark.slow
def test_what_home_shows_is_there_without_a_calculation(tiny_book: Path) -> None:
    book = Book(tiny_book)
    engine = LibreOffice(book)
    try:
        engine._ask("set", ("Tokens", 200, 20, 1, 1), [[1]])  # nothing depends on it; nothing was calculated
        answer = engine.read(book.named("next_token"))[0, 0]
        shares = engine.read(book.named("top.probability"))[:, 0].astype(float)
    finally:
        engine.close()
    assert answer.strip() == "Wednesday"  # LibreOffice trims a saved text until it calculates it
    assert 0.9 < shares[0] <= 1
    assert (np.diff(shares) <= 0).all()


@pytest.mark.slow
def test_saved_values_are_what_libreoffice_calculates(tiny_book: Path) -> None:
    book = Book(tiny_book)
    engine = LibreOffice(book)
    try:
        engine.calculate(book.prompt)
        shown = by_calamine(tiny_book)
        truth = expected(book.prompt.text, load("tiny"), book.layout, book.settings)
        for name in ("blocks.0.attn.pattern", "blocks.3.mlp.post", "blocks.3.resid_post", "ln_final.normalized"):
            cells = book.named(name)
            saved = np.array(
                [[None if v == "" else v for v in row] for row in part(shown[cells.sheet], cells)], dtype=float
            )
            calculated = engine.read(cells)
            used = ~np.isnan(saved)
            assert used.sum() == np.count_nonzero(truth[name])  # attention pays nothing to a later token
            assert np.abs(calculated[used].astype(float) - saved[used]).max() < 1e-5
    finally:
        engine.close()


def test_rows_that_are_not_in_use_stay_empty_before_the_first_calculation(tiny_book: Path) -> None:
    """In manual mode LibreOffice calculates arrays as they are read, from saved values: an empty saved text is lost."""
    book = Book(tiny_book)
    in_use = len(book.prompt.ids) + len(load("tiny").tokenizer.encode(" Wednesday."))
    engine = LibreOffice(book)
    try:
        for name in ("blocks.0.resid_pre", "blocks.3.attn.pattern", "blocks.2.ln1.scale", "ln_final.normalized"):
            rows = engine.read(book.named(name))[in_use:]
            assert rows.size
            assert all(value == "" for value in rows.flat), name
    finally:
        engine.close()


@pytest.mark.slow
def test_no_cell_shows_a_stray_0_before_the_first_calculation(tiny_book: Path) -> None:
    """LibreOffice loads a saved empty text as 0; where it is no array, only a format without zeros hides that."""
    book = Book(tiny_book)
    values = expected(book.prompt.text, load("tiny"), book.layout, book.settings)
    sheets = openpyxl.load_workbook(tiny_book)
    hidden = {"positive": "0;;", "text": ";;;@", "signed": "0.000;-0.000;", "share": "0.0%;-0.0%;"}
    engine = LibreOffice(book)
    try:
        for placed in (placed for sheet in book.layout.sheets if sheet.name in SHEETS for placed in sheet.bands):
            wanted, cells = expected_cells(values, placed), placed.cells
            stray = (engine.read(cells) != wanted) & (wanted == "")
            if stray.any():
                style = sheets[cells.sheet].cell(cells.row + 1, cells.column + 1).number_format
                assert style == hidden.get(placed.band.format), placed.band.name
    finally:
        engine.close()
