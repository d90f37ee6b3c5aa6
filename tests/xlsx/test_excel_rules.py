"""Nothing that Excel would repair, refuse or misread: its rules, held against every kind of workbook that we write.

Nobody here has Excel. Where a rule comes from is said beside it; ../shared/tools/lint_xlsx.py knows more of them.
"""

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import MICRO, SHARED
from lxml import etree

import xlgpt
from xlgpt.workbook import plan
from xlgpt.workbook.book import Book
from xlgpt.xlsx.worksheet import a1_range

LINT = SHARED / "tools" / "lint_xlsx.py"
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
OWN_CALCULATION = 191029  # calcId of the newest Excel: it believes what a file of that number saved
MOST_NUMBER_FORMATS = 150  # Excel allows 200 to 250, by its language (Excel specifications and limits)
SLICE = 1024  # rows of an embedding matrix that one product may take
CORNER = r"\$?[A-Z]+\$?\d+"
PIECE = re.compile(rf"(\w+\()?(?:(wte\.weight|lm_head\.weight)\b|(wte|lm_head)!({CORNER}:{CORNER}))")
RANGES = ("INDEX(", "COUNT(", "ROWS(", "COLUMNS(")  # functions that take a range as it is


@dataclass(frozen=True)
class Cell:
    """A cell's XML: where it stands, if it says so, its style, and its formula, if it has one."""

    sheet: str
    place: str | None
    style: str
    formula: Any


def cells(path: Path) -> Iterator[Cell]:
    book = Book(path)
    with zipfile.ZipFile(path) as archive:
        for sheet in book.sheets:
            with archive.open(book.part(sheet)) as part:
                for _, row in etree.iterparse(part, tag=f"{MAIN}row"):
                    for cell in row:
                        formula = cell.find(f"{MAIN}f") if len(cell) else None
                        yield Cell(sheet, cell.get("r"), cell.get("s", "0"), formula)
                    row.clear()


KINDS: dict[str, dict[str, object]] = {
    "short": {"model": "tiny", "context": 6, "max_bytes": 24, "generate": 2},
    "tiny": {"model": "tiny"},
    "without views": {"model": "tiny", "sheets": "none", "context": 6, "max_bytes": 24, "precision": 4},
    "dot products": {"model": "tiny", "matmul": "sumproduct"},
    "dot products that write on": {"model": "tiny", "matmul": "sumproduct", "generate": 8},
    "48 layers": {
        "model": "random:n_layer=48,n_embd=16,n_head=2,vocab_size=1280",
        "context": 4,
        "max_bytes": 16,
        "generate": 2,
    },
    "48 layers, dot products": {
        "model": "random:n_layer=48,n_embd=16,n_head=2,vocab_size=1280",
        "context": 4,
        "max_bytes": 16,
        "matmul": "sumproduct",
    },
}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, tiny_book: Path) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("kinds")

    def book(kind: str) -> Path:
        if kind == "tiny":
            return tiny_book
        path = folder / f"{kind}.xlsx"
        if not path.exists():
            xlgpt.build(path, **KINDS[kind])  # type: ignore[arg-type]
        return path

    return book


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workbook as a large model has it, whose weights do not say where they stand."""
    path = tmp_path_factory.mktemp("bare") / "bare.xlsx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "BARE_FROM", 0)
        xlgpt.build(path, "tiny", context=6, max_bytes=24, generate=2)
    return path


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", KINDS)
def test_the_rules_hold(kind: str, books: Callable[[str], Path]) -> None:
    """One pass over all cells, for each rule that is about cells."""
    path = books(kind)
    book, text = Book(path), text_styles(path)
    for cell in cells(path):
        assert cell.place, f"{cell.sheet}: a cell without a reference, which IronCalc refuses and Gnumeric misplaces"
        if cell.formula is None:
            continue
        where, formula = f"{cell.sheet}!{cell.place}", cell.formula.text or ""
        assert cell.style not in text, f"{where}: a formula in a cell formatted as text becomes text when it is edited"
        assert len(formula) <= 8192, where
        if cell.formula.get("t") == "shared":  # [MS-XLS] 2.5.198.118
            assert "!" not in formula, f"{where}: a shared formula refers to another sheet"
        for piece in PIECE.finditer(formula):  # Excel turns a range in an array operation into an array first
            function, name, sheet, range_ = piece.groups()
            height = book.named(name).height if name else a1_range(sheet, range_).height
            as_it_is = function in RANGES or formula[piece.start() : piece.end() + 1] == f"SUM({name})"
            assert as_it_is or height <= SLICE, f"{where} multiplies {height:,} rows of the embedding matrix"


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", KINDS)
def test_there_are_few_number_formats(kind: str, books: Callable[[str], Path]) -> None:
    with zipfile.ZipFile(books(kind)) as archive:
        styles = ElementTree.fromstring(archive.read("xl/styles.xml"))
    assert 10 < len(list(styles.iter(f"{MAIN}numFmt"))) <= MOST_NUMBER_FORMATS


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", ["tiny", "dot products"])
def test_excel_calculates_it_on_loading(kind: str, books: Callable[[str], Path]) -> None:
    """Excel counts 😀 as two characters, and the saved `wide_units` says one: it must not be believed there."""
    with zipfile.ZipFile(books(kind)) as archive:
        calculation = ElementTree.fromstring(archive.read("xl/workbook.xml")).find(f"{MAIN}calcPr")
    assert calculation is not None
    assert int(calculation.get("calcId", "0")) < OWN_CALCULATION or calculation.get("fullCalcOnLoad") == "1"
    assert Book(books(kind)).cells("Tokens")  # wide_units stands there
    wide = Book(books(kind)).named("wide_units")
    assert any(f.text == "LEN(_xlfn.UNICHAR(128512))" for f in Book(books(kind)).cells(wide.sheet).formulas)


@pytest.mark.slow
def test_the_weights_of_a_large_model_say_their_names_in_text_boxes(bare: Path) -> None:
    """Their cells have no reference, and hold numbers alone; every cell with a formula has one all the same."""
    book = Book(bare)
    places = {sheet: [c.place for c in cells(bare) if c.sheet == sheet and not c.place] for sheet in ("h.0", "Block 0")}
    assert len(places["h.0"]) == sum(book.named(n).height * book.named(n).width for n in book.weights.sheets["h.0"])
    assert not places["Block 0"]
    assert all(cell.place for cell in cells(bare) if cell.formula is not None)
    with zipfile.ZipFile(bare) as archive:
        assert b't="s"' not in archive.read(book.part("h.0"))
        drawings = [archive.read(name) for name in archive.namelist() if name.startswith("xl/drawings/drawing")]
    shown = [drawing for drawing in drawings if b"h.0.attn.c_attn.weight" in drawing]
    assert len(shown) == 1
    assert xlgpt.check(bare, model="tiny", prompts=("The cow says",)).passed


def test_a_label_is_a_text_in_a_cell_where_cells_may_be_texts(books: Callable[[str], Path]) -> None:
    book = Book(books("short"))
    cells_ = book.named("h.1.attn.c_attn.weight")
    label = book.cells("h.1").constants[cells_.row - 1, 0]
    assert str(label).startswith("h.1.attn.c_attn.weight   96 × 288 = 27,648 weights: makes queries, keys and values")


def text_styles(path: Path) -> set[str]:
    """The cell styles whose number format is text (ECMA-376 18.8.30: 49, or @)."""
    with zipfile.ZipFile(path) as archive:
        styles = ElementTree.fromstring(archive.read("xl/styles.xml"))
    codes = {e.get("numFmtId"): e.get("formatCode") for e in styles.iter(f"{MAIN}numFmt")}
    formats = styles.find(f"{MAIN}cellXfs")
    assert formats is not None
    return {str(i) for i, e in enumerate(formats) if e.get("numFmtId") == "49" or codes.get(e.get("numFmtId")) == "@"}


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("kind", KINDS)
def test_lint_finds_nothing(kind: str, books: Callable[[str], Path]) -> None:
    lint(books(kind))


@pytest.mark.slow
@pytest.mark.shared
def test_lint_finds_nothing_in_other_models(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    models = [
        make_checkpoint(
            lambda t: t.update({"lm_head.weight": t["wte.weight"][::-1].copy()}), "untied", tie_word_embeddings=False
        )
    ]
    models.append(make_checkpoint(None, "scaled", scale_attn_by_inverse_layer_idx=True, activation_function="relu"))
    for i, model in enumerate([*models, MICRO]):
        xlgpt.build(tmp_path / f"{i}.xlsx", str(model), context=6, max_bytes=24, generate=2)
        lint(tmp_path / f"{i}.xlsx")


def lint(path: Path) -> None:
    done = subprocess.run([sys.executable, LINT, path], capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.stdout.splitlines()[-1:] == ["0 findings"], done.stdout + done.stderr
