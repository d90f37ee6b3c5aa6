"""What there is to check on a sheet, and what is wrong with it at first sight, before anything is calculated."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from xlgpt.compiler.layout import Placed
from xlgpt.compiler.template import STEPS
from xlgpt.verify.compare import filled
from xlgpt.verify.report import BandResult
from xlgpt.workbook.book import Book
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import overlap, part


@dataclass(frozen=True)
class CheckedSheet:
    """A sheet with formulas: its bands, the cells each takes, and the formulas that belong to none.

    Bands stand in the order of their calculation: where one is wrong, so may be those after it.
    """

    name: str
    bands: tuple[tuple[Placed, Range], ...]
    others: tuple[Range, ...]  # blocks of cells, whether a formula stands there or not
    formulas: int
    missing: tuple[BandResult, ...]  # bands whose cells are not what they should be, before anything is calculated


def plan_of(book: Book, name: str, outside: Iterable[tuple[str, int, int]]) -> CheckedSheet:
    """What is to be checked on a sheet, and what is wrong with it at first sight.

    outside: the cells of all formulas that must stand outside the bands: sheet, row and column, from 0.
    """
    there = book.cells(name)
    bands, missing = [], []
    for placed in book.layout.bands.values():
        cells = book.named(placed.band.name)
        if cells.sheet != name:
            continue
        formulas = [there.formulas[i].cells for i in there.over(cells)]
        problem = _misplaced(placed, cells) or _uncovered(placed, cells, formulas)
        if problem:
            missing.append(BandResult(placed.band.name, problem=problem))
        if not _misplaced(placed, cells):
            bands.append((placed, cells))
    bands.sort(key=lambda band: band[0].band.rows not in STEPS)  # the tokenizer's steps, then what sums them up
    others = [Range(sheet, row, column) for sheet, row, column in outside if sheet == name]
    return CheckedSheet(name, tuple(bands), tuple(_blocks(others)), len(there.formulas), tuple(missing))


def _misplaced(placed: Placed, cells: Range) -> str:
    wanted = placed.cells
    if (cells.height, cells.width) == (wanted.height, wanted.width):
        return ""
    return (
        f"Its name stands for {cells.height} × {cells.width} cells; the model needs {wanted.height} × {wanted.width}."
    )


def _uncovered(placed: Placed, cells: Range, formulas: list[Range]) -> str:
    """Whether each cell that should hold a formula does."""
    if not placed.band.formula:
        return ""
    covered = ~filled(placed)
    for block in formulas:
        common = overlap(block, cells)
        if common:
            part(covered, cells, common)[:] = True
    if covered.all():
        return ""
    row, column = (int(i) for i in np.argwhere(~covered)[0])
    return f"{cells.cell(row, column).absolute} holds no formula, so nothing there is calculated."


def _blocks(cells: list[Range]) -> list[Range]:
    """The same cells in fewer blocks: neighbours below each other, then side by side, become one."""
    columns = _joined(sorted(cells, key=lambda c: (c.column, c.width, c.row)), _below)
    return _joined(sorted(columns, key=lambda c: (c.row, c.height, c.column)), _beside)


def _joined(cells: list[Range], both: Callable[[Range, Range], Range | None]) -> list[Range]:
    """Each with those that follow it, as long as the two make one block."""
    blocks: list[Range] = []
    for one in cells:
        whole = both(blocks[-1], one) if blocks else None
        if whole:
            blocks[-1] = whole
        else:
            blocks.append(one)
    return blocks


def _below(a: Range, b: Range) -> Range | None:
    follows = (a.column, a.width, a.row + a.height) == (b.column, b.width, b.row)
    return a.rows(0, a.height + b.height) if follows else None


def _beside(a: Range, b: Range) -> Range | None:
    follows = (a.row, a.height, a.column + a.width) == (b.row, b.height, b.column)
    return a.columns(0, a.width + b.width) if follows else None
