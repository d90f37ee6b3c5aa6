"""Cells as tokens write them: rows and columns, each of which may move with the formula (absolute: $)."""

import re
from typing import NamedTuple

from xlgpt.errors import UnsupportedFormula
from xlgpt.xlsx.ranges import MAX_COLUMNS, MAX_ROWS, column_letters, column_number

_CORNER = re.compile(r"(\$?)([A-Z]+)(\$?)(\d+)|(\$?)([A-Z]+)|(\$?)(\d+)")
COLUMN_MOVES, ROW_MOVES, COLUMN_MASK = 0x4000, 0x8000, 0x3FFF  # [MS-XLSB] 2.5.98.13, ColRelShort


class Place(NamedTuple):
    """A cell. Rows and columns count from 0."""

    row: int
    column: int


ORIGIN = Place(0, 0)


class Corner(NamedTuple):
    """A row and a column; the column's flags say which of them move with the formula."""

    row: int
    column: int

    @property
    def moves(self) -> tuple[bool, bool]:
        """Whether its row and its column move with the formula."""
        return bool(self.column & ROW_MOVES), bool(self.column & COLUMN_MOVES)

    def seen_from(self, place: Place) -> "Corner":
        """What moves as its distance from a place, modulo the size of a sheet."""
        row_moves, column_moves = self.moves
        row = (self.row - place.row) % MAX_ROWS if row_moves else self.row
        column = (self.column - place.column) & COLUMN_MASK if column_moves else self.column & COLUMN_MASK
        return Corner(row, column | self.column & ~COLUMN_MASK)

    def moved_to(self, place: Place) -> "Corner":
        """The inverse of `seen_from`."""
        return self.seen_from(Place(-place.row, -place.column))


def read_cells(text: str) -> tuple[Corner, ...]:
    """The corners of cells such as B$2, A1:$C3, A:C or 1:3: one for a cell, else two. Raises UnsupportedFormula."""
    corners = []
    for part, whole in zip(text.split(":"), (False, True), strict=False):
        found = _CORNER.fullmatch(part)
        if not found:
            raise UnsupportedFormula(f"{text} are no cells.")
        column_dollar, letters, row_dollar, digits = found.group(1, 2, 3, 4)
        if found[6]:
            column_dollar, letters, row_dollar, digits = found[5], found[6], "$", str(MAX_ROWS if whole else 1)
        elif found[8]:
            column_dollar, row_dollar, digits = "$", found[7], found[8]
            letters = column_letters(MAX_COLUMNS - 1 if whole else 0)
        row, column = int(digits) - 1, column_number(letters)
        if not (0 <= row < MAX_ROWS and column < MAX_COLUMNS):
            raise UnsupportedFormula(f"{text} lies outside of a sheet's {MAX_ROWS:,} rows and {MAX_COLUMNS:,} columns.")
        flags = (0 if column_dollar else COLUMN_MOVES) | (0 if row_dollar else ROW_MOVES)
        corners.append(Corner(row, column | flags))
    return tuple(corners)


def cells_text(corners: tuple[Corner, ...]) -> str:
    """The inverse of `read_cells`."""
    if len(corners) == 2:
        first, last = corners
        if first.row == 0 and last.row == MAX_ROWS - 1 and not (first.moves[0] or last.moves[0]):
            return f"{_column(first)}:{_column(last)}"
        columns = first.column & COLUMN_MASK, last.column & COLUMN_MASK
        if columns == (0, MAX_COLUMNS - 1) and not (first.moves[1] or last.moves[1]):
            return f"{_row(first)}:{_row(last)}"
    return ":".join(_column(corner) + _row(corner) for corner in corners)


def _column(corner: Corner) -> str:
    return ("" if corner.moves[1] else "$") + column_letters(corner.column & COLUMN_MASK)


def _row(corner: Corner) -> str:
    return f"{'' if corner.moves[0] else '$'}{corner.row + 1}"
