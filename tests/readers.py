"""Workbooks as other programs read them: by sheet, what each cell holds, "" where it holds nothing."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
from python_calamine import CalamineWorkbook
from pyxlsb import open_workbook

from xlgpt.compiler.settings import Settings
from xlgpt.verify.again import plan_again
from xlgpt.verify.compare import compare, expected_cells
from xlgpt.verify.outside import outside
from xlgpt.workbook.book import Book, Prompt
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import CellError

Grid = np.ndarray[Any, Any]
Place = tuple[int, int]


def by_openpyxl(path: Path, sheets: list[str] | None = None) -> dict[str, Grid]:
    """The saved values. An error value is a CellError."""
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    found = {}
    for name in sheets or book.sheetnames:
        cells = (cell for row in book[name].iter_rows() for cell in row if cell.value is not None)
        found[name] = _grid(
            {
                (cell.row - 1, cell.column - 1): CellError(cell.value) if cell.data_type == "e" else cell.value
                for cell in cells
            }
        )
    book.close()
    return found


def by_calamine(path: Path) -> dict[str, Grid]:
    """The saved values."""
    book = CalamineWorkbook.from_path(path)
    sheets = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in book.sheet_names}
    return {
        name: _grid({(i, j): value for i, row in enumerate(rows) for j, value in enumerate(row) if value != ""})
        for name, rows in sheets.items()
    }


def by_pyxlsb(path: Path, sheets: list[str] | None = None) -> dict[str, Grid]:
    """The saved values of an .xlsb."""
    with open_workbook(str(path)) as book:
        found = {}
        for name in sheets or book.sheets:
            with book.get_sheet(name) as sheet:
                cells = (cell for row in sheet.rows(sparse=True) for cell in row)
                found[name] = _grid({(cell.r, cell.c): cell.v for cell in cells if cell.v not in (None, "")})
        return found


def by_sheetjs(path: Path, script: Path) -> dict[str, Grid]:
    """The saved values."""
    done = subprocess.run(["node", script, path], capture_output=True, text=True, check=True, timeout=120)
    sheets = json.loads(done.stdout)
    return {name: _grid({(i, j): value for i, j, value, _ in cells}) for name, cells in sheets.items()}


def _grid(cells: dict[Place, Any]) -> Grid:
    height, width = (max((place[i] for place in cells), default=0) + 1 for i in (0, 1))
    grid = np.full((height, width), "", dtype=object)
    for place, value in cells.items():
        number = isinstance(value, int) and not isinstance(value, bool)
        grid[place] = float(value) if number else value
    return grid


def part(grid: Grid, cells: Range) -> Grid:
    """Some cells of a sheet."""
    block = grid[cells.row : cells.row + cells.height, cells.column : cells.column + cells.width]
    missing = [(0, cells.height - block.shape[0]), (0, cells.width - block.shape[1])]
    return np.pad(block, missing, constant_values="")


def problems(book: Book, read: dict[str, Grid], prompt: Prompt, settings: Settings) -> list[str]:
    """Where formulas, as they were read, do not show what NumPy computes for a prompt."""
    plan = replace(plan_again(book), prompt=prompt.text, given=settings)
    values, found = plan.values, []
    for placed in book.layout.bands.values():
        cells = book.named(placed.band.name)
        wanted = None if placed.band.varies else expected_cells(values, placed)
        if cells.sheet in read and wanted is not None:
            found.append(compare(placed.band.name, cells, part(read[cells.sheet], cells), wanted).problem)
    for (sheet, row, column), value in outside(plan).items():
        if sheet in read:
            cell = Range(sheet, row, column)
            found.append(compare("", cell, part(read[sheet], cell), np.array([[value]], dtype=object)).problem)
    return [problem for problem in found if problem]


def are_alike(sheet: str, one: Any, other: Any) -> bool:
    """The same, or as near as what is calculated from a float32 and from its shortest decimal.

    The sheet Proof has sums of thousands of numbers that cancel.
    """
    return one == other or abs(one - other) <= (1e-4 if sheet == "Proof" else 2e-6) * max(1, abs(other))
