"""SheetJS reads Excel's tokens to the text that we read them to."""

import json
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xlsb_samples import DATA, EXCEL, FORMULA_CELLS, Workbook, workbooks

from xlgpt.errors import UnsupportedFormula
from xlgpt.xlsb import cells, ptg
from xlgpt.xlsb.place import Place
from xlgpt.xlsb.text import formula_text
from xlgpt.xlsb.tokens import Compiled
from xlgpt.xlsx.ranges import MAX_COLUMNS, MAX_ROWS, column_letters, column_number

Texts = dict[tuple[str, int, int], Any]


def texts(book: Workbook) -> Texts:
    """Every formula cell's text that we can read, by sheet, row and column."""
    found: Texts = {}
    for part, records in book.parts.items():
        for place, compiled in formula_cells(records):
            try:
                found[book.sheets.get(part, ""), *place] = formula_text(compiled, book.scope, place)
            except UnsupportedFormula:
                continue
    return found


def formula_cells(records: list[tuple[int, bytes]]) -> Iterator[tuple[Place, Compiled]]:
    """Cells with their formula, those of a shared one with its; of an array's the first."""
    row, shared, last = 0, {}, None
    for identity, payload in records:
        if identity == cells.RowHeader.identity:
            (row,) = struct.unpack_from("<I", payload)
        elif identity in FORMULA_CELLS:
            cell = FORMULA_CELLS[identity].read(payload)
            last = Place(row, cell.column)
            if cell.formula.tokens[0] != ptg.EXPRESSION_OF:
                yield last, cell.formula
            elif (first := first_cell(cell.formula)) in shared:
                yield last, shared[first]
        elif identity == cells.SharedFormula.identity:
            shared[last] = cells.SharedFormula.read(payload).formula
            yield last, shared[last]
        elif identity == cells.ArrayFormula.identity:
            yield last, cells.ArrayFormula.read(payload).formula


def first_cell(formula: Compiled) -> Place:
    return Place(*struct.unpack_from("<I", formula.tokens, 1), *struct.unpack("<I", formula.extra))


def by_sheetjs(path: Path, script: Path) -> Texts:
    done = subprocess.run(["node", script, path], capture_output=True, text=True, check=True, timeout=120)
    sheets = json.loads(done.stdout)
    return {(name, i, j): text for name, found in sheets.items() for i, j, _, text in found if text}


def normal(text: str) -> str:
    """What both write alike: SheetJS quotes few sheets, leaves out `_xlfn.` and the sheet of cells that are gone,
    prints e for E in numbers, drops spaces at a function's end, and does not wrap what is above a shared formula."""
    text = re.sub(r"(?:'(?:[^']|'')*'|[\w.:]+)!#REF!", "#REF!", text).replace("_xlfn.", "")
    text = re.sub(r"'((?:[^'!]|'')*)'!", r"\1!", text)
    text = re.sub(r"(\d)e(?=[+-]\d)", r"\1E", text)
    text = re.sub(r" +\)", ")", text).rstrip()
    return re.sub(r"(?<![\w.$\"])(\$?)([A-Z]{1,3})(\$?)(\d+)(?![\w.(])", wrapped, text)


def wrapped(cell: re.Match[str]) -> str:
    column_dollar, letters, row_dollar, digits = cell.groups()
    column = column_letters(column_number(letters) % MAX_COLUMNS)
    return f"{column_dollar}{column}{row_dollar}{(int(digits) - 1) % MAX_ROWS + 1}"


@pytest.mark.node
@pytest.mark.parametrize(
    ("folder", "expected"),
    [(DATA, (1_858, 1)), pytest.param(EXCEL, (25_355, 10_291), marks=[pytest.mark.shared, pytest.mark.long])],
)
def test_sheetjs_reads_the_same_formulas(folder: Path, expected: tuple[int, int], sheetjs: Path) -> None:
    """Of some cells with a shared formula that begins in another row, it gives the place of that cell instead."""
    equal = unread = 0
    for book in workbooks(folder):
        if any("chartsheets" in part or "dialogsheets" in part for part in book.parts):
            continue  # read.js prints cells, of which these have none
        theirs, ours = by_sheetjs(book.path, sheetjs), texts(book)
        for place, text in ours.items():
            if isinstance(theirs[place], str):
                assert normal(theirs[place]) == normal(text), f"{book.path.name} {place}"
                equal += 1
            else:
                unread += 1
    assert (equal, unread) == expected
