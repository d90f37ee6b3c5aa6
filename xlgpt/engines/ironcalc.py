"""Calculates a workbook in IronCalc, a spreadsheet engine in Rust: nothing to install but a Python package."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from xlgpt.compiler.settings import Settings
from xlgpt.engines.engine import Engine, Traits, inputs
from xlgpt.errors import EngineFailed, EngineNotFound, UsageError
from xlgpt.workbook.book import Book, Prompt
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import CellError, Values, rows

NO_IRONCALC = "IronCalc was not found. Install it with `pip install 'xlgpt[ironcalc]'`."
OTHERS = "use --engine libreoffice or --engine formulas"
NO_XLSB = f"IronCalc reads no .xlsb: {OTHERS}."
BARE = f"IronCalc reads no cells that do not say where they stand, as the weights of a large workbook: {OTHERS}."
NO_GELU = f"IronCalc (0.9) takes NORMSDIST of one number only; the gelu of this model is of a whole row: {OTHERS}."
NO_SINGLE = (
    "IronCalc (0.9) takes INDEX of a single cell for an error, and this workbook has room for one new token: build it "
    f"with --generate 2 or more, or {OTHERS}."
)
NO_DOTS = (
    "IronCalc (0.9) takes MATCH in a single cell for an error, which stands in this workbook's dot products: build it "
    f"with --matmul mmult, or {OTHERS}."
)
NO_SORTING = (
    "IronCalc (0.9) takes LARGE for one rank only, so it cannot sample among the most likely tokens: leave out "
    f"top k and top p, or {OTHERS}."
)
PANIC = "PanicException"  # of pyo3, which has no name to import: a failure in Rust that its authors did not foresee


class IronCalc(Engine):
    """An engine. Raises EngineNotFound, EngineFailed."""

    traits = Traits(sorts=False)

    def __init__(self, book: Book):
        try:
            import ironcalc
        except ImportError as e:
            raise EngineNotFound(NO_IRONCALC) from e
        if book.scope:
            raise EngineFailed(NO_XLSB)
        if _is_bare(book):
            raise EngineFailed(BARE)
        if book.config.activation_function == "gelu":
            raise EngineFailed(NO_GELU)
        if book.matmul == "sumproduct":
            raise EngineFailed(NO_DOTS)
        if book.new_tokens == 1:
            raise EngineFailed(NO_SINGLE)
        self._book, self._module = book, ironcalc
        self._set = inputs(book, book.prompt)
        with self._doing("loading"):
            self._model = ironcalc.load_from_xlsx(str(book.path), "en", "UTC", "en")
            self._sheets = {sheet["name"]: i for i, sheet in enumerate(self._model.get_worksheets_properties())}

    def calculate(self, prompt: Prompt, settings: Settings | None = None) -> None:
        """Set the cells that differ and calculate the whole workbook. Raises UsageError, EngineFailed."""
        if _sorts(settings or self._book.settings):
            raise UsageError(NO_SORTING)
        with self._doing("calculating"):
            for cells, values in inputs(self._book, prompt, settings).items():
                for row, column in np.argwhere(values != self._set[cells]):
                    self._write(cells.cell(int(row), int(column)), values[row, column])
                self._set[cells] = values
            self._model.evaluate()

    def read(self, cells: Range) -> Values:
        """What the cells show."""
        sheet, top, left = self._place(cells)
        places = [(top + i, left + j) for i in range(cells.height) for j in range(cells.width)]
        shown = [self._shown(sheet, row, column) for row, column in places]
        values: Values = np.empty(len(shown), dtype=np.float64 if set(map(type, shown)) == {float} else object)
        values[:] = shown
        return values.reshape(cells.height, cells.width)

    def close(self) -> None:
        """Nothing was started."""

    def _place(self, cells: Range) -> tuple[int, int, int]:
        """The first of some cells, as IronCalc counts: the sheet from 0, its row and column from 1."""
        return self._sheets[cells.sheet], cells.row + 1, cells.column + 1

    def _write(self, cell: Range, value: Any) -> None:
        """A text stays a text, whatever it looks like; an empty one empties the cell."""
        place = self._place(cell)
        if value == "":
            self._model.clear_cell_contents(*place)
        elif isinstance(value, str):
            self._model.update_cell_with_text(*place, value)
        else:
            self._model.update_cell_with_number(*place, float(value))

    def _shown(self, sheet: int, row: int, column: int) -> Any:
        value = self._model.get_cell_value(sheet, row, column)
        if isinstance(value, str) and value.startswith("#"):
            is_error = self._model.get_cell_type(sheet, row, column) == self._module.CellType.ErrorValue
            return CellError(value) if is_error else value
        return "" if value is None else value

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Turns what IronCalc raises into a sentence."""
        try:
            yield
        except BaseException as e:
            if isinstance(e, self._module.WorkbookError) or type(e).__name__ == PANIC:
                said = str(e).splitlines()[0].rstrip(".")
                raise EngineFailed(f"IronCalc failed while {what} {self._book.path}: {said}.") from e
            raise


def _sorts(settings: Settings) -> bool:
    """Whether a token is to be sampled among the most likely ones."""
    writes, temperature, top_k = (settings.counted(name) for name in ("max_new_tokens", "temperature", "top_k"))
    return writes > 0 and temperature > 0 and (top_k > 0 or settings.counted("top_p") < 1)


def _is_bare(book: Book) -> bool:
    """Whether the sheets of weights hold nothing but numbers, which do not say where they stand."""
    first = book.named("wte.weight")
    line = next((cells for row, cells in rows(book.path, book.part(first.sheet)) if row == first.row), b"")
    return b" r=" not in line[: line.find(b">")]
