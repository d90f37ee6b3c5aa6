"""A formula, the cells it fills, and the parts that its text is made of."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from xlgpt.xlsx.ranges import Range, Whole, column_letters

PARTS = re.compile(
    r"""
    (?P<text>"(?:[^"]|"")*")
  | (?P<error>\#[A-Z/0]+[!?]?)
  | (?P<function>[A-Za-z_][\w.]*\()
  | (?P<reference>
        (?:(?:'(?:[^']|'')+'|[A-Za-z_][\w.]*)!)?                             # a sheet
        (?:\$?[A-Z]{1,3}\$?\d+(?::\$?[A-Z]{1,3}\$?\d+)?(?![\w.])|[A-Za-z_\\][\w.]*)  # cells, or a name
    )
  | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    """,
    re.VERBOSE,
)


def with_cells(text: str, names: Mapping[str, str]) -> str:
    """A formula with the cells for its names; names: in small letters, what each stands for."""

    def cells(part: re.Match[str]) -> str:
        return names.get(part[0].casefold(), part[0]) if part["reference"] else part[0]

    return PARTS.sub(cells, text)


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula without its `=`, and the cells it fills.

    An array formula fills them all at once; any other is that of the first cell, and the cells below it have the same,
    moved along.
    """

    cells: Range
    text: str
    is_array: bool

    def by_cell(self) -> "Iterator[Formula]":
        """The formula of each cell, where each has its own; an array formula as it is."""
        if self.is_array or self.cells.height == 1:
            yield self
            return
        from openpyxl.formula.translate import Translator  # seldom needed, and a third of what `import xlgpt` takes

        first = Translator(f"={self.text}", origin=self.cells.first)
        for i in range(self.cells.height):
            cell = self.cells.cell(i, 0)
            yield Formula(cell, str(first.translate_formula(cell.first)).removeprefix("="), False)


class Corner(NamedTuple):
    """A cell that formulas alike name, each another: its row and column in each of them, or the one in all."""

    row: Whole
    column: Whole
    row_stays: bool = False  # written with $
    column_stays: bool = False

    def texts(self, count: int) -> list[str]:
        """As each of so many formulas writes it."""
        before, between = "$" * self.column_stays, "$" * self.row_stays
        return [
            f"{before}{column_letters(column)}{between}{row + 1}"
            for column, row in zip(_each(self.column, count), _each(self.row, count), strict=True)
        ]


class Number(NamedTuple):
    """A whole number that is another in each of some formulas."""

    values: Whole

    def texts(self, count: int) -> list[str]:
        """As each of so many formulas writes it."""
        return list(map(str, _each(self.values, count)))


Piece = str | Corner | Number


def _each(values: Whole, count: int) -> list[int]:
    return [values] * count if isinstance(values, int) else values.tolist()


@dataclass(frozen=True, slots=True)
class Formulas:
    """Formulas side by side that differ in nothing but some cells and numbers in them; often but one.

    cells: those of the first. step: how many columns each stands behind the one before. pieces: of their text; what is
    not the same in all is a Corner or a Number, which has as many values.
    """

    cells: Range
    step: int
    count: int
    pieces: tuple[Piece, ...]
    is_array: bool

    @property
    def width(self) -> int:
        """How many columns they reach over."""
        return self.step * (self.count - 1) + self.cells.width

    def written(self, write: Callable[[str], str]) -> "Formulas":
        """The same with what is the same in all of them written in another way."""
        pieces = tuple([write(piece) if isinstance(piece, str) else piece for piece in self.pieces])
        return Formulas(self.cells, self.step, self.count, pieces, self.is_array)

    def texts(self) -> list[str]:
        """The text of each."""
        if self.count == 1:
            return ["".join([piece if isinstance(piece, str) else piece.texts(1)[0] for piece in self.pieces])]
        fixed = "".join([piece.replace("%", "%%") if isinstance(piece, str) else "%s" for piece in self.pieces])
        varying = [piece.texts(self.count) for piece in self.pieces if not isinstance(piece, str)]
        return [fixed % each for each in zip(*varying, strict=True)] if varying else [fixed % ()] * self.count

    def each(self) -> Iterator[Formula]:
        """Them one by one."""
        for i, text in enumerate(self.texts()):
            yield Formula(self.cells._replace(column=self.cells.column + i * self.step), text, self.is_array)


def alone(formula: Formula) -> Formulas:
    """One that is like no other."""
    return Formulas(formula.cells, formula.cells.width, 1, (formula.text,), formula.is_array)
