"""The stream of a sheet's cells: what XlsxWriter is given cell by cell, and blocks of many, row by row."""

import io
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import xlsxwriter
from lxml import etree
from readers import by_calamine, part

import xlgpt
from xlgpt.errors import TemplateError
from xlgpt.workbook.streamed_worksheet import StreamedWorksheet
from xlgpt.xlsx.cells import SheetData, Strings
from xlgpt.xlsx.formula import Formula, alone
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.rows import Block, Calculated, Constant, Row
from xlgpt.xlsx.worksheet import a1_range


def _sheet(*blocks: Block) -> list[Row]:
    book = xlsxwriter.Workbook(io.BytesIO(), {"in_memory": True})
    book.worksheet_class = StreamedWorksheet
    sheet = book.add_worksheet("Sheet1")
    sheet.write(0, 0, "a label")
    sheet.write(4, 3, 7)
    for block in blocks:
        sheet.add_block(block)
    book.close()
    return list(sheet.rows())


def _column(row: int, column: int, height: int) -> Block:
    return Block(Range("Sheet1", row, column, height), lambda i: [Constant(column, 0, float(i))])


def test_rows_and_cells_come_in_their_order() -> None:
    rows = _sheet(_column(2, 5, 3), _column(3, 1, 4))
    there = {row.number: [(cell.column, cell.shown(0)) for cell in row.cells] for row in rows}
    assert list(there) == [0, 2, 3, 4, 5, 6]
    assert there[4] == [(1, 1.0), (3, 7), (5, 2.0)]


@pytest.mark.parametrize("block", [_column(0, 0, 1), _column(2, 3, 9)])
def test_two_things_in_one_cell_are_refused(block: Block) -> None:
    with pytest.raises(TemplateError, match=r"Two things would stand in 'Sheet1'!\$[AD]\$[15]"):
        _sheet(block)


def test_formulas_side_by_side_with_a_gap() -> None:
    """The values are those of the cells that they stand in, not of the formulas in turn."""
    formulas = [alone(Formula(Range("S", 0, column, 1, 2), "X", is_array=True)) for column in (2, 6)]
    row = Row(0, None, [Calculated(2, 0, formulas, np.arange(6.0))])
    xml = SheetData(Strings()).row(row).decode()
    assert [piece.split("<")[0] for piece in xml.split("<v>")[1:]] == ["0.0", "1.0", "4.0", "5.0"]


@pytest.mark.slow
def test_charts_keep_what_they_draw(tiny_book: Path) -> None:
    """A program that shows charts without calculating draws what the saved values say."""
    saved = by_calamine(tiny_book)
    with zipfile.ZipFile(tiny_book) as archive:
        charts = [etree.fromstring(archive.read(part)) for part in archive.namelist() if "/charts/chart" in part]
    assert len(charts) >= 8
    for numbers in (numbers for chart in charts for numbers in chart.iterfind(".//{*}val/{*}numRef")):
        sheet, _, cells = numbers.findtext("{*}f").rpartition("!")
        place = a1_range(sheet, cells)
        assert place
        there = [value or 0 for value in part(saved[sheet.strip("'")], place).flat]
        kept = {int(point.get("idx")): float(point.findtext("{*}v")) for point in numbers.iterfind(".//{*}pt")}
        assert kept == pytest.approx(dict(enumerate(there)))


@pytest.mark.slow
def test_a_text_that_begins_with_an_equals_sign_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    xlgpt.build(path, "random:n_layer=1,n_embd=8,n_head=2,vocab_size=1280", "=1+1", context=6, sheets="none")
    cell = openpyxl.load_workbook(path)["Home"]["B7"]
    assert (cell.data_type, cell.value) in (("s", "=1+1"), ("f", "=1+1"))
    assert openpyxl.load_workbook(path, data_only=True)["Home"]["B7"].value == "=1+1"
