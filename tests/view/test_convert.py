"""What the page loads of a workbook: the same model, in IronCalc's own file; what cannot be shown is said."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MICRO, run_xlgpt
from serving import serving

import xlgpt
from xlgpt.engines.engine import inputs
from xlgpt.engines.ironcalc import IronCalc
from xlgpt.errors import EngineFailed, EngineNotFound, OutputError, TooManyCells, XlgptError
from xlgpt.verify.again import plan_again
from xlgpt.verify.cases import Case, usual
from xlgpt.verify.outside import outside
from xlgpt.verify.sheets_to_check import CheckedSheet, plan_of
from xlgpt.verify.trial import Trial
from xlgpt.view import export
from xlgpt.view.convert import convert
from xlgpt.view.formulas import CAPITAL, chosen_vector, marked
from xlgpt.workbook.book import Book

FILES = {"index.html": b"<!doctype html>", "page.js": b"1", "worker.js": b"2", "ironcalc.wasm": b"\0asm"}
FILES |= {"book.ic.gz": b"\x1f\x8b", "book.json": b"{}"}


class PageFile(IronCalc):
    """The file that the page loads, in the engine that the page has, natively."""

    def __init__(self, book: Book, folder: Path):
        import ironcalc

        saved = folder / "book.ic"
        saved.write_bytes(convert(book.path).model)
        self._book, self._module = book, ironcalc
        self._model = ironcalc.load_from_icalc(str(saved), "en")
        self._sheets = {sheet["name"]: i for i, sheet in enumerate(self._model.get_worksheets_properties())}
        switches = [sheet.stage.switch for sheet in book.layout.sheets if sheet.stage.switch]
        off = book.settings.changed({**dict.fromkeys(switches, 0), "max_new_tokens": 0})
        self._set = inputs(book, book.prompt, off)


def sheets_of(book: Book) -> list[CheckedSheet]:
    """The sheets with formulas."""
    places = outside(plan_again(book))
    names = (name for name in book.sheets if name not in book.weights.sheets)
    return [sheet for name in names if (sheet := plan_of(book, name, places)).formulas]


def drawn_from_all(case: Case) -> Case:
    """IronCalc cannot choose among the most likely tokens; the page lets it draw from all."""
    return replace(case, settings=case.settings.changed({"top_p": 1})) if case.about.startswith("top p") else case


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("model", ["micro", "tiny"])
def test_every_cell_of_every_sheet_shows_what_numpy_says(tmp_path: Path, model: str) -> None:
    """Also on the sheets that the page's own workbook leaves out: Attention, Facts, Anatomy, Proof.

    For a small model in every usual case; for the bundled one, which has vectors and features, with a token typed over
    another, and with every row and every sheet in use.
    """
    path = tmp_path / "book.xlsx"
    if model == "micro":
        xlgpt.build(path, str(MICRO), "hello world", context=10, max_bytes=40, generate=3)
    else:
        xlgpt.build(path, "tiny", context=12, max_bytes=64, generate=4)
    book = Book(path)
    assert {"Attention", "Logit lens", "Facts", "Circuit", "Anatomy", "Proof"} < set(book.sheets)
    assert {"Steering", "Features"} < set(book.sheets) or model == "micro"
    trial = Trial(book, PageFile(book, tmp_path), sheets_of(book))
    cases = [case for group in usual(book, model == "tiny", sorts=False) for case in group]
    for case in cases[1:3] if model == "tiny" else cases:
        found = trial.result(drawn_from_all(case))
        assert [sheet.problems for sheet in found.sheets if sheet.problems] == [], case.about
        assert sum(band.cells for sheet in found.sheets for band in sheet.bands) > 5_000


@pytest.mark.browser
@pytest.mark.slow
def test_a_port_that_is_taken_is_said_in_a_sentence(tmp_path: Path) -> None:
    xlgpt.build(tmp_path / "book.xlsx", str(MICRO), context=6, max_bytes=20, generate=2, sheets="none")
    with serving(FILES) as server:
        done = run_xlgpt("view", tmp_path / "book.xlsx", "--no-open", "--port", str(server.server_port))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"xlgpt: Port {server.server_port} is in use.*--port.*\.\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nothing.xlsx", "--no-open"], 1, r"xlgpt: There is no file nothing\.xlsx\."),
        (["pyproject.toml", "--no-open"], 1, r"xlgpt: pyproject\.toml is no \.xlsx or \.xlsb workbook"),
        (["a.xlsx", "--port", "70000"], 2, r"70000"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments: list[str], code: int, sentence: str) -> None:
    done = run_xlgpt("view", *arguments, cwd=Path(__file__).parents[2])
    assert done.returncode == code
    assert re.search(sentence, done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_without_the_right_ironcalc_it_says_how_to_get_it(tiny_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ironcalc", None)
    with pytest.raises(EngineNotFound, match=r"pip install 'xlgpt\[view\]'"):
        convert(tiny_book)
    newer = type("ironcalc", (), {"__version__": "0.9.1"})
    monkeypatch.setitem(sys.modules, "ironcalc", newer)
    with pytest.raises(EngineNotFound, match=r"0\.9\.1 is installed.*environment of its own"):
        convert(tiny_book)


def test_too_many_cells_are_refused(tiny_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlgpt.view.convert.MOST_CELLS", 100_000)
    with pytest.raises(TooManyCells, match=r"has [5-9]\d\d,\d{3} cells; a page in the browser holds 100,000"):
        convert(tiny_book)


def test_too_many_capitals_are_refused(tiny_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlgpt.view.convert.MOST_CAPITALS", 25)
    with pytest.raises(EngineFailed, match=r"have 26 capital letters; .* 25 at most\. Open it in"):
        convert(tiny_book)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        export(FILES, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(XlgptError):
            export(FILES, folder)


def test_a_chosen_vector_is_found_by_its_exact_letters(tiny_book: Path) -> None:
    book = Book(tiny_book)
    formula, names = chosen_vector(book), book.named("steering.names")
    assert formula.count("EXACT(") == names.height > 5
    assert f"EXACT(steering.vector,{names.cell(2, 0).first})*3" in formula


@pytest.mark.parametrize(
    ("text", "wanted"), [("The", f"T{CAPITAL}he"), ("the", "the"), ("É", f"É{CAPITAL}"), ("3", "3")]
)
def test_capitals_are_marked(text: str, wanted: str) -> None:
    assert marked(text, "ET" + "É") == wanted
