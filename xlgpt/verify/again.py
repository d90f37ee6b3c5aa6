"""The workbook that the templates make of the facts in a file: what that file is held against. It is not written."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from xlgpt.workbook.book import Book
from xlgpt.workbook.frame import framed
from xlgpt.workbook.plan import Plan
from xlgpt.xlsx.formula import Formula
from xlgpt.xlsx.rows import Calculated, Row
from xlgpt.xlsx.worksheet import Cells, Scalar


def plan_again(book: Book) -> Plan:
    """The plan that a workbook was built from, by the facts in it."""
    return Plan(book.model, book.prompt.text, book.layout, book.settings, book.notation, is_read=True)


class Again:
    """A plan's sheets but for the rows of weights: their cells, and the parts of the file around them."""

    def __init__(self, plan: Plan):
        self._frame = framed(plan)
        self._parts = {sheet.name: part for part, sheet in self._frame.sheets.items()}

    @property
    def sheets(self) -> list[str]:
        """The sheets, in the order of their tabs."""
        return list(self._parts)

    def xml(self, sheet: str) -> bytes:
        """A sheet's part without its rows."""
        return self._frame.file.read(self._parts[sheet])

    @cached_property
    def parts(self) -> dict[str, bytes]:
        """All parts that are no sheets."""
        names = (name for name in self._frame.file.namelist() if name not in self._frame.sheets)
        return {name: self._frame.file.read(name) for name in names}

    def cells(self, sheet: str) -> Cells:
        """What stands on a sheet, as it would be read back; no formula shows anything."""
        constants: dict[tuple[int, int], Scalar] = {}
        formulas: list[Formula] = []
        for row in self._frame.sheets[self._parts[sheet]].rows():
            constants |= _constants(row)
            formulas += _formulas(row)
        return Cells(constants, formulas, [np.empty((0, 0))] * len(formulas))


def _constants(row: Row) -> Iterator[tuple[tuple[int, int], Scalar]]:
    for cells in row.cells:
        if not isinstance(cells, Calculated):
            for i in range(cells.width):
                shown = cells.shown(i)
                if shown is not None:
                    yield (row.number, cells.column + i), shown if isinstance(shown, str) else float(shown)


def _formulas(row: Row) -> Iterator[Formula]:
    """The formulas that begin in a row; one that cells below it share, for each of them."""
    for cells in row.cells:
        if isinstance(cells, Calculated):
            for alike in cells.formulas:
                if alike.cells.row == row.number:
                    for formula in alike.each():
                        yield from formula.by_cell()
