"""A formula, the cells it fills, and the parts that its text is made of."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from xlgpt.xlsx.ranges import Range

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


@dataclass(frozen=True)
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
