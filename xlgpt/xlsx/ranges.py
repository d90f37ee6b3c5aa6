"""Cells and blocks of them, and how formulas write them."""

from functools import cache
from typing import Any, NamedTuple

from numpy.typing import NDArray

MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384  # ECMA-376 leaves it open; Excel and LibreOffice agree on these
Whole = int | NDArray[Any]  # a whole number, or one for each of some cells


@cache
def column_letters(column: int) -> str:
    """0 is A, 26 is AA."""
    column, last = divmod(column, 26)
    return (column_letters(column - 1) if column else "") + chr(65 + last)


def column_number(letters: str) -> int:
    """A is 0, AA is 26."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - 64
    return number - 1


class Range(NamedTuple):  # made by the hundred thousand: a dataclass takes thrice as long
    """A block of cells. Rows and columns count from 0, as in Python."""

    sheet: str
    row: int
    column: int
    height: int = 1
    width: int = 1

    @property
    def first(self) -> str:
        """The top left cell, such as D8."""
        return f"{column_letters(self.column)}{self.row + 1}"

    @property
    def a1(self) -> str:
        """Such as D8:ACQ39, or D8 for one cell."""
        if self.height == self.width == 1:
            return self.first
        return f"{self.first}:{column_letters(self.column + self.width - 1)}{self.row + self.height}"

    @property
    def absolute(self) -> str:
        """Such as 'Block 0'!$D$8:$ACQ$39: what a defined name refers to."""
        corners = [f"${column_letters(self.column)}${self.row + 1}"]
        if (self.height, self.width) != (1, 1):
            corners.append(f"${column_letters(self.column + self.width - 1)}${self.row + self.height}")
        return f"{quoted(self.sheet)}!{':'.join(corners)}"

    def seen_from(self, sheet: str) -> str:
        """How a formula on a sheet writes it."""
        return self.a1 if sheet == self.sheet else f"{quoted(self.sheet)}!{self.a1}"

    def rows(self, start: int, stop: int) -> "Range":
        """Some of its rows."""
        return Range(self.sheet, self.row + start, self.column, stop - start, self.width)

    def cell(self, row: int, column: int) -> "Range":
        """One of its cells."""
        return Range(self.sheet, self.row + row, self.column + column)

    def columns(self, start: int, stop: int) -> "Range":
        """Some of its columns."""
        return Range(self.sheet, self.row, self.column + start, self.height, stop - start)


def quoted(sheet: str) -> str:
    """A sheet's name as formulas and links write it."""
    return sheet if sheet.isalpha() else f"'{sheet}'"
