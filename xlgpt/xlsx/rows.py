"""A sheet's cells as a stream of rows: what stands in them, for a writer of any file format."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from xlgpt.xlsx.formula import Formulas
from xlgpt.xlsx.ranges import Range


class Constant(NamedTuple):  # as Range: these are made by the hundred thousand
    """A cell with a number or a text; None: with nothing but its style."""

    column: int
    style: int
    value: float | str | None

    @property
    def width(self) -> int:
        """How many cells it is."""
        return 1

    def shown(self, _: int) -> float | str | None:
        """What it shows."""
        return self.value


class Numbers(NamedTuple):
    """Cells side by side, each with a number."""

    column: int
    style: int
    values: Sequence[int]

    @property
    def width(self) -> int:
        """How many cells they are."""
        return len(self.values)

    def shown(self, i: int) -> float:
        """What the i-th of them shows."""
        return self.values[i]


class Calculated(NamedTuple):
    """A row of the cells from a column on that some formulas fill, and what they show: the first so many of them."""

    column: int
    style: int
    formulas: Sequence[Formulas]  # from the left; there may be gaps between them
    values: NDArray[Any]

    @property
    def width(self) -> int:
        """How many cells they reach over."""
        last = self.formulas[-1] if self.formulas else None
        return last.cells.column + last.width - self.column if last else 0

    def shown(self, i: int) -> Any:
        """What the i-th of them shows; None where that is nothing."""
        return self.values[i] if i < len(self.values) else None


Cells = Constant | Numbers | Calculated


class Row(NamedTuple):
    """A row by its number from 0: its height in points, where it has one of its own, and its cells from the left."""

    number: int
    height: float | None
    cells: Sequence[Cells]


@dataclass(frozen=True)
class Block:
    """Cells of a sheet, and what its i-th row holds of them, made when it is asked for."""

    cells: Range
    row: Callable[[int], Sequence[Cells]]


def overlapping(row: Row) -> int | None:
    """The first column that two of a row's cells claim."""
    end = 0
    for cells in row.cells:
        if cells.column < end:
            return cells.column
        end = cells.column + cells.width
    return None


def merged(labels: dict[int, list[Cells]], heights: dict[int, float], blocks: Sequence[Block]) -> Iterator[Row]:
    """All rows from the top, with the cells of single ones and of the blocks that reach there, from the left."""
    waiting = sorted(blocks, key=lambda block: -block.cells.row)
    ends = {row for block in blocks for row in range(block.cells.row, block.cells.row + block.cells.height)}
    there, until = list[Block](), 0  # before this row, the blocks that are there stay the same
    for number in sorted(ends | labels.keys() | heights.keys()):
        if number >= until:
            there = [block for block in there if number < block.cells.row + block.cells.height]
            while waiting and waiting[-1].cells.row <= number:
                there.append(waiting.pop())
            changes = [block.cells.row + block.cells.height for block in there]
            until = min(changes + [block.cells.row for block in waiting[-1:]], default=0)
        cells = list(labels.get(number, ()))
        for block in there:
            cells += block.row(number - block.cells.row)
        if len(cells) > 1:
            cells.sort(key=_column)
        yield Row(number, heights.get(number), cells)


def _column(cells: Cells) -> int:
    return cells.column
