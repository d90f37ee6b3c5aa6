"""The many cells of a sheet as blocks: a band's formulas and what they show, inputs, labels, long tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from xlgpt.compiler.layout import Placed
from xlgpt.model.notation import significant
from xlgpt.oracle.values import Values, on_sheet
from xlgpt.workbook.plan import Plan
from xlgpt.workbook.tables import Table
from xlgpt.xlsx.formula import Formulas
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.rows import Block, Calculated, Constant, Numbers

DIGITS = 7  # of the saved values of products with a column for each token: within what check allows
EMPTY: Values = np.empty(0)


def band_block(plan: Plan, placed: Placed, style: int) -> Block:
    """A band's formulas with what they show for the prompt."""
    rows = _BandRows(plan, placed)
    return Block(placed.cells, lambda i: [Calculated(placed.cells.column, style, rows.formulas[i], rows.shown(i))])


@dataclass(frozen=True)
class _BandRows:
    """Which formulas fill each row of a band, and what they show; made when the first row is asked for."""

    plan: Plan
    placed: Placed

    @cached_property
    def formulas(self) -> list[Sequence[Formulas]]:
        """Of each row, from the left."""
        cells, there = self.placed.cells, self.plan.formulas[self.placed.band.name]
        if all(formula.cells.height == cells.height for formula in there):
            return [tuple(there)] * cells.height
        rows: list[list[Formulas]] = [[] for _ in range(cells.height)]
        for formula in there:
            for row in range(formula.cells.row, formula.cells.row + formula.cells.height):
                rows[row - cells.row].append(formula)
        return list(rows)

    def shown(self, i: int) -> Values:
        """The values of a row; none in one that is not in use."""
        return self._values[i] if i < len(self._values) else EMPTY

    @cached_property
    def _values(self) -> Values:
        """[rows in use, columns]."""
        values = self.plan.values.get(self.placed.band.name, np.empty((0, 0)))
        if self.placed.band.is_transposed:  # a column for each token in use
            return significant(values.astype(np.float32, order="C"), DIGITS)
        return on_sheet(values, self.placed) if len(values) else values


def input_block(plan: Plan, placed: Placed, style: int) -> Block:
    """Cells that a person fills in, with what stands there at first."""
    cells, values = placed.cells, plan.settings.cells[placed.band.name]
    return Block(
        cells,
        lambda i: [
            Constant(column, style, None if value == "" else value)
            for column, value in enumerate(values[i], cells.column)
        ],
    )


def table_block(sheet: str, table: Table, styles: Sequence[int]) -> Block:
    """A long table, each of its columns in its style."""
    columns = list(zip(table.columns, styles, strict=True))
    return Block(
        Range(sheet, table.row, 0, table.height, len(columns)),
        lambda i: [Constant(c, style, values[i]) for c, (values, style) in enumerate(columns) if i < len(values)],
    )


def place_block(cells: Range, style: int) -> Block:
    """The number of each row, from 1."""
    return Block(cells, lambda i: [Constant(cells.column, style, i + 1)])


def number_block(cells: Range, style: int) -> Block:
    """A row with the number of each column, from 0."""
    return Block(cells, lambda _: [Numbers(cells.column, style, range(cells.width))])
