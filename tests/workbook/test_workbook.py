"""Whole files, read back by openpyxl: what stands where, under which name, and with which value."""

import re
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from openpyxl.utils import range_boundaries
from openpyxl.workbook import Workbook
from openpyxl.worksheet.formula import ArrayFormula

import xlgpt
from xlgpt.compiler.layout import Layout
from xlgpt.compiler.template import optional_sheets
from xlgpt.model.checkpoint import load
from xlgpt.workbook import write
from xlgpt.workbook.book import Book
from xlgpt.workbook.columns import column_widths, pixels
from xlgpt.xlsx.archive import sheet_names

PROMPT = "If today is Tuesday, tomorrow is"
VOLATILE = {"NOW", "TODAY", "RAND", "RANDBETWEEN", "OFFSET", "INDIRECT", "CELL", "INFO"}
ON_THE_SCREEN = {  # of a view: what is set, and what changes by it
    "Anatomy": ("anatomy.token", "anatomy.into", "anatomy.out"),
    "Attention": ("attention.token", "attention.status", "attention.attends_to", "attention.pattern"),
    "Logit lens": ("lens.target", "lens.status", "lens.token"),
    "Facts": ("facts.strongest", "facts.status", "facts.promotes", "facts.responds"),
    "Circuit": ("circuit.heads", "circuit.mlps", "circuit.status", "circuit.head_adds", "circuit.final_bias_adds"),
    "Steering": ("steering.to", "steering.status", "steering.share", "steering.probability"),
    "Features": ("features.on", "features.promotes", "features.activation"),
    "Proof": ("proof.status", "proof.changed.steering", "proof.range.verdict"),
}
MODERN = {"LET", "LAMBDA", "FILTER", "SEQUENCE", "XLOOKUP", "SORT", "UNIQUE", "BYROW", "TAKE", "TEXTSPLIT", "VSTACK"}


@pytest.fixture(scope="module")
def book(tiny_book: Path) -> Workbook:
    return openpyxl.load_workbook(tiny_book)


@pytest.fixture(scope="module")
def layout(tiny_book: Path) -> Layout:
    return Book(tiny_book).layout


@pytest.fixture(scope="module")
def shown(tiny_book: Path) -> Workbook:
    return openpyxl.load_workbook(tiny_book, data_only=True)


def values(book: Workbook, name: str) -> list[list[object]]:
    """The cells that a defined name refers to."""
    sheet, _, area = book.defined_names[name].attr_text.rpartition("!")
    left, top, right, bottom = range_boundaries(area.replace("$", ""))
    rows = book[sheet.strip("'")].iter_rows(top, bottom, left, right, values_only=True)
    return [list(row) for row in rows]


def test_sheets_in_the_order_of_the_forward_pass(book: Workbook) -> None:
    blocks, weights = [f"Block {i}" for i in range(4)], ["wte", "wpe", *(f"h.{i}" for i in range(4)), "ln_f"]
    tables = ["Vocabulary", "Merges", "Unicode"]
    assert book.sheetnames == [
        "Home",
        "Tokens",
        "BPE merges",
        "Embeddings",
        *blocks,
        "LM head",
        "Argmax",
        "Generate",
        *optional_sheets().values(),
        *tables,
        *weights,
    ]


@pytest.mark.slow
def test_every_weight_reads_back_bit_for_bit(shown: Workbook) -> None:
    weights = load("tiny").weights
    for name, shape in weights.shapes().items():
        cells = np.array(values(shown, name), dtype=np.float64).astype(np.float32)
        assert np.array_equal(cells.reshape(shape), weights.tensor(name)), name


@pytest.mark.slow
def test_names_that_users_hold_on_to(shown: Workbook) -> None:
    ids = load("tiny").tokenizer.encode(PROMPT)
    assert values(shown, "prompt") == [[PROMPT]]
    written = load("tiny").tokenizer.encode(" Wednesday.")
    assert values(shown, "token_ids") == [[i] for i in ids + written] + [[-1]] * (14 - len(ids))
    assert values(shown, "completion") == [[" Wednesday."]]
    assert values(shown, "n_tokens") == [[len(ids)]]
    assert values(shown, "next_token") == [[" Wednesday"]]
    assert load("tiny").tokenizer.encode(" Wednesday") == values(shown, "next_token_id")[0]
    assert len(values(shown, "logits")) == len(values(shown, "probabilities")) == 1280
    assert sum(row[0] for row in values(shown, "probabilities")) == pytest.approx(1)  # type: ignore[misc]
    for block in range(4):
        for name in (
            "resid_pre",
            "ln1.normalized",
            "attn.pattern",
            "attn.z",
            "attn_out",
            "mlp.pre",
            "mlp.post",
            "resid_post",
        ):
            assert len(values(shown, f"blocks.{block}.{name}")) == 16


@pytest.mark.slow
def test_attention_has_no_cell_for_a_later_token(shown: Workbook) -> None:
    pattern = np.array(values(shown, "blocks.1.attn.pattern"), dtype=object).reshape(16, 4, 16)
    used = len(load("tiny").tokenizer.encode(PROMPT))
    for row in range(used):
        assert all(cell is None for cell in pattern[row, :, row + 1 :].flat)
        assert pattern[row, :, : row + 1].astype(float).sum(axis=-1) == pytest.approx(np.ones(4))


def formulas(book: Workbook) -> list[tuple[str, str, str]]:
    found = []
    for sheet in book.worksheets:
        for row in sheet.iter_rows():
            for cell in row:
                if cell.data_type == "f":
                    text = cell.value.text if isinstance(cell.value, ArrayFormula) else cell.value
                    found.append((sheet.title, cell.coordinate, text))
    return found


def test_formulas_every_program_knows_and_none_volatile(book: Workbook) -> None:
    used = {
        name for _, _, text in formulas(book) for name in re.findall(r"([A-Z][A-Z.]*)\(", re.sub(r'"[^"]*"', "", text))
    }
    assert "MMULT" in used
    assert not used & (VOLATILE | MODERN)


def test_attention_looks_only_at_its_row_and_above(book: Workbook) -> None:
    """The last row of the keys and values that a row of attention reads is its own token's."""
    for name, source in (("attn.attn_scores", "attn.k"), ("attn.z", "attn.v")):
        top, read = first_row(book, f"blocks.0.{name}"), first_row(book, f"blocks.0.{source}")
        for token in range(16):
            cell = book["Block 0"].cell(top + token, 4).value
            rows = {int(row) for row in re.findall(r"[A-Z]+(\d+)", cell.text.partition(",")[2])}
            assert max(row for row in rows if read <= row < read + 16) == read + token
            assert read in rows


def first_row(book: Workbook, name: str) -> int:
    return row_of(book.defined_names[name].attr_text.rpartition("!")[2].replace("$", "").partition(":")[0])


def row_of(cell: str) -> int:
    return int(re.sub(r"[A-Z]+", "", cell))


def test_every_formula_has_a_saved_value(tiny_book: Path) -> None:
    with zipfile.ZipFile(tiny_book) as archive:
        for part in archive.namelist():
            if part.startswith("xl/worksheets/sheet"):
                for cell in re.findall(rb"<c [^>]*>(?:(?!</c>).)*<f.*?</c>", archive.read(part)):
                    assert re.search(rb"<v>[^<]+</v>", cell) or b't="str"' in cell, (part, cell[:200])


def test_the_prompt_is_text_and_calculation_is_automatic_for_a_small_model(tiny_book: Path) -> None:
    workbook = zipfile.ZipFile(tiny_book).read("xl/workbook.xml").decode()
    assert 'calcMode="manual"' not in workbook
    assert "fullCalcOnLoad" not in workbook


def test_every_sheet_links_home(book: Workbook) -> None:
    for sheet in book.worksheets[1:]:
        assert sheet["A1"].hyperlink.location == "Home!A1", sheet.title
    linked = {
        cell.hyperlink.location.rpartition("!")[0].strip("'")
        for row in book["Home"].iter_rows()
        for cell in row
        if cell.hyperlink
    }
    assert linked >= set(book.sheetnames) - {"Home"}


def test_every_band_has_a_title_its_name_and_a_sentence(book: Workbook, layout: Layout) -> None:
    for sheet in layout.sheets:
        there = {cell.coordinate: cell.value for row in book[sheet.name].iter_rows() for cell in row}
        for placed in (placed for group in sheet.groups if not group[0].band.table for placed in group):
            title, sentence = there[f"A{placed.top + 1}"], there[f"A{placed.top + 2}"]
            assert title.lower() == placed.band.title.lower()
            assert sentence.startswith(placed.band.about)  # a view may say more
            on_the_row = [there.get(f"{column}{placed.top + 1}") for column in "BCDEFGH"]
            assert any(str(value).startswith(f"{placed.band.name}    ") for value in on_the_row), placed.band.name


def test_every_column_of_a_table_has_a_title_its_name_and_a_sentence(book: Workbook, layout: Layout) -> None:
    for sheet in layout.sheets:
        for placed in (placed for group in sheet.groups if group[0].band.table for placed in group):
            top, column, band = placed.top + 1, placed.cells.column + 1, placed.band
            above = [book[sheet.name].cell(row, column).value for row in range(top + 1, top + 4)]
            assert above == [band.title, band.name, band.about]


def test_names_and_titles_do_not_run_into_each_other(layout: Layout) -> None:
    """Of a table's columns: letters of 8 points in Consolas, of 10 in bold Calibri, measured as pixels of a cell."""
    for sheet in layout.sheets:
        widths = column_widths(sheet)
        for placed in (placed for group in sheet.groups if group[0].band.table for placed in group):
            room = sum(pixels(widths[placed.cells.column + i]) for i in range(placed.cells.width))
            assert 5.87 * len(placed.band.name) < room, placed.band.name
            assert 6.4 * len(placed.band.title) < room, placed.band.name


def test_what_is_set_and_the_picture_of_the_answer_share_a_screen(shown: Workbook, layout: Layout) -> None:
    """In a window of 1,440 x 900: some 1,400 x 700 pixels of cells."""
    for name, bands in ON_THE_SCREEN.items():
        sheet = next(sheet for sheet in layout.sheets if sheet.name == name)
        widths = column_widths(sheet)
        drawn = shown[name]
        for band in bands:
            cells = layout.names[band]
            right = sum(pixels(widths[column]) for column in range(cells.column + min(cells.width, 5)))
            heights = (drawn.row_dimensions[row + 1].height or 15 for row in range(cells.row + min(cells.height, 4)))
            assert right <= 1440, band
            assert sum(heights) / 0.75 <= 700, band


@pytest.mark.slow
def test_home_shows_the_prompt_in_pieces_and_offers_others(book: Workbook, shown: Workbook) -> None:
    tokens = [cell.value for cell in shown["Home"][8][1:15] if cell.column_letter != "F" and cell.value]
    tokenizer = load("tiny").tokenizer
    assert tokens == [tokenizer.shown(i) for i in tokenizer.encode(PROMPT)]
    (choice,) = (rule for rule in book["Home"].data_validations.dataValidation if rule.type == "list")
    assert (choice.type, choice.showErrorMessage) == ("list", False)
    offered = [
        cell.value for (cell,) in book["Home"][choice.formula1.replace("$", "").partition("!")[2] or choice.formula1]
    ]
    assert PROMPT in offered
    assert all(len(tokenizer.encode(text)) <= 16 for text in offered)


def test_no_format_depends_on_a_formula(tiny_book: Path) -> None:
    """In manual mode LibreOffice does not calculate those, and Home's pieces would be white.

    Two sheets that look inside do without: in a large model they are white until automatic calculation is on.
    On Home and Proof, four verdicts are red or green.
    """
    with zipfile.ZipFile(tiny_book) as archive:
        tabs = {part: name for part, name in sheet_names(archive).items()}
        sheets = [archive.read(part) for part, name in tabs.items() if name not in ("Attention", "Logit lens")]
    assert sum(sheet.count(b'<cfRule type="cellIs"') for sheet in sheets) == 13 + 2 * 4
    assert not any(b'<cfRule type="expression"' in sheet for sheet in sheets)


def test_panes_are_frozen(book: Workbook) -> None:
    assert [sheet.freeze_panes for sheet in book.worksheets[3:9]] == ["C5", *["D5"] * 5]


def test_same_build_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first.xlsx", tmp_path / "second.xlsx"
    for path in (first, second):
        xlgpt.build(path, model="tiny", context=3, max_bytes=8, generate=1)
    assert _parts(first) == _parts(second)


@pytest.mark.slow
def test_helpers_write_what_one_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, helped = tmp_path / "alone.xlsx", tmp_path / "helped.xlsx"
    xlgpt.build(alone, model="tiny", context=4, max_bytes=16)
    monkeypatch.setattr(write, "WORTH_IT", 0)
    xlgpt.build(helped, model="tiny", context=4, max_bytes=16)
    assert _parts(alone) == _parts(helped)


def _parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {
            part: archive.read(part) for part in archive.namelist() if part != "docProps/core.xml"
        }  # holds the time


@pytest.mark.slow
def test_an_empty_prompt_says_so(tmp_path: Path) -> None:
    xlgpt.build(
        tmp_path / "empty.xlsx", model="random:n_layer=1,n_embd=8,n_head=2,vocab_size=1280", prompt="", context=4
    )
    shown = openpyxl.load_workbook(tmp_path / "empty.xlsx", data_only=True)
    assert values(shown, "n_tokens") == [[0]]
    assert not values(shown, "next_token")[0][0]
    assert "no token" in str(values(shown, "status")[0][0])
