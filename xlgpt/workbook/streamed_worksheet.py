"""A worksheet of XlsxWriter's without its cells: it writes all that stands around them; they are a stream of rows."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from xlsxwriter.worksheet import CellBlankTuple, CellFormulaTuple, CellNumberTuple, CellStringTuple, Worksheet

from xlgpt.errors import TemplateError
from xlgpt.xlsx.formula import Formula, alone
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.rows import Block, Calculated, Cells, Constant, Row, merged, overlapping
from xlgpt.xlsx.worksheet import overlap

POINTS = 0.75  # to a pixel


class StreamedWorksheet(Worksheet):  # type: ignore[misc]  # XlsxWriter has types, and no marker that says so
    """Takes single cells as XlsxWriter does, and blocks of many; `rows` gives them all, once the workbook is closed."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks: list[Block] = []
        self._labels: dict[int, list[Cells]] = {}

    def add_block(self, block: Block) -> None:
        """Cells that are made row by row while the file is written."""
        cells = block.cells
        self._check_dimensions(cells.row, cells.column)
        self.reach(cells)
        self._blocks.append(block)

    def add_formulas(
        self, row: int, column: int, formulas: Sequence[str], style: int, shown: Sequence[float | str]
    ) -> None:
        """A formula without its `=` in each of some cells below each other, and what each shows."""

        def cell(i: int) -> tuple[Cells]:
            formula = Formula(Range(self.name, row + i, column), formulas[i], False)
            return (Calculated(column, style, (alone(formula),), np.array([shown[i]], dtype=object)),)

        self.add_block(Block(Range(self.name, row, column, len(shown)), cell))

    def reach(self, cells: Range) -> None:
        """Say that the sheet reaches as far as these cells, which are written by others."""
        self._check_dimensions(cells.row + cells.height - 1, cells.column + cells.width - 1)

    def rows(self) -> Iterator[Row]:
        """Every row from the top. Raises TemplateError where two things stand in one cell."""
        usual = self.original_row_height
        heights = {row: info.height * POINTS for row, info in self.row_info.items() if info.height != usual}
        for row in merged(self._labels, heights, self._blocks):
            column = overlapping(row)
            if column is not None:
                cell = Range(self.name, row.number, column).absolute
                raise TemplateError(f"Two things would stand in {cell}; give one of them another place.")
            yield row

    def _get_range_data(self, *corners: int) -> list[Any]:
        """What charts keep of the cells that they draw, row by row."""
        top, left, bottom, right = corners
        return [self._shown(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)]

    def _shown(self, row: int, column: int) -> Any:
        """What a cell shows; None where nothing stands."""
        block = next((b for b in self._blocks if overlap(b.cells, Range(self.name, row, column))), None)
        if not block:
            return super()._get_range_data(row, column, row, column)[0]
        for cells in block.row(row - block.cells.row):
            if cells.column <= column < cells.column + cells.width:
                return cells.shown(column - cells.column)
        return None

    def _prepare_formula(self, formula: str, expand_future_functions: bool = False) -> str:
        """A formula as the file holds it. One that only names a cell calls none of the 30 functions looked for."""
        if formula.startswith("=") and "(" not in formula:
            return formula.removeprefix("=")
        return str(super()._prepare_formula(formula, expand_future_functions))

    def _write_sheet_data(self) -> None:
        for row, cells in self.table.items():
            if cells:
                self._labels[row] = [self._cell(row, column, cell) for column, cell in cells.items()]
        self._xml_empty_tag("sheetData")

    def _cell(self, row: int, column: int, cell: Any) -> Cells:
        """One of XlsxWriter's cells. Its style gets its number here, as it does where XlsxWriter writes it."""
        style = cell.format._get_xf_index() if cell.format else 0
        match cell:
            case CellNumberTuple():
                return Constant(column, style, cell.number)
            case CellStringTuple():
                return Constant(column, style, self.str_table._get_shared_string(cell.string))
            case CellFormulaTuple():
                formula = Formula(Range(self.name, row, column), cell.formula, False)
                return Calculated(column, style, (alone(formula),), np.array([cell.value], dtype=object))
            case CellBlankTuple():
                return Constant(column, style, None)
        raise NotImplementedError(type(cell).__name__)
