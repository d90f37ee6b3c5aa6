"""What there is to check on a sheet, and what is wrong with it at first sight, before anything is calculated."""

from dataclasses import dataclass

import numpy as np

from xlgpt.book import Book
from xlgpt.compare import filled
from xlgpt.layout import Placed, Range
from xlgpt.report import BandResult
from xlgpt.template import STEPS
from xlgpt.worksheet import overlap, part


@dataclass(frozen=True)
class CheckedSheet:
    """A sheet with formulas: its bands, the cells each takes, and the formulas that belong to none.

    Bands stand in the order of their calculation: where one is wrong, so may be those after it.
    """

    name: str
    bands: tuple[tuple[Placed, Range], ...]
    others: tuple[Range, ...]  # blocks of cells
    formulas: int
    missing: tuple[BandResult, ...]  # bands whose cells are not what they should be, before anything is calculated


def plan_of(book: Book, name: str) -> CheckedSheet:
    """What is to be checked on a sheet, and what is wrong with it at first sight."""
    there = book.cells(name)
    bands, missing, inside = [], [], set()
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
            inside |= {block for block in formulas if overlap(block, cells) == block}
    bands.sort(key=lambda band: band[0].band.rows not in STEPS)  # the tokenizer's steps, then what sums them up
    others = [formula.cells for formula in there.formulas if formula.cells not in inside]
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
    below: list[Range] = []
    for one in sorted(cells, key=lambda c: (c.column, c.width, c.row)):
        last = below[-1] if below else None
        if last and (last.column, last.width, last.row + last.height) == (one.column, one.width, one.row):
            below[-1] = last.rows(0, last.height + one.height)
        else:
            below.append(one)
    blocks: list[Range] = []
    for one in sorted(below, key=lambda c: (c.row, c.height, c.column)):
        last = blocks[-1] if blocks else None
        if last and (last.row, last.height, last.column + last.width) == (one.row, one.height, one.column):
            blocks[-1] = last.columns(0, last.width + one.width)
        else:
            blocks.append(one)
    return blocks
