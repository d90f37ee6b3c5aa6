"""What formulas outside the bands show: the labels of rows and columns, and the home sheet.

A new workbook gets these values as saved ones; here the same code writes them for any prompt, and they are kept.
"""

from collections.abc import Sequence
from typing import Any

from xlgpt.workbook.frame import write_sheets
from xlgpt.workbook.plan import Plan
from xlgpt.xlsx.worksheet import Scalar

Place = tuple[str, int, int]  # a sheet, a row and a column, from 0


def outside(plan: Plan) -> dict[Place, Scalar]:
    """What the cell of each formula outside the bands must show."""
    book = _Book()
    write_sheets(book, plan)
    return book.shown


class _Nothing:
    """Stands in for what XlsxWriter offers: takes every call, does nothing."""

    def __getattr__(self, name: str) -> Any:
        return self._ignore

    def __int__(self) -> int:
        return 0

    def _ignore(self, *arguments: Any, **options: Any) -> "_Nothing":
        return self


class _Book(_Nothing):
    """A workbook that keeps what formulas show."""

    def __init__(self) -> None:
        self.shown: dict[Place, Scalar] = {}

    def add_worksheet(self, name: str) -> "_Sheet":
        return _Sheet(name, self.shown)


class _Sheet(_Nothing):
    def __init__(self, name: str, shown: dict[Place, Scalar]) -> None:
        self._name, self._shown = name, shown

    def write_formula(self, row: int, column: int, formula: str, style: Any = None, value: Any = 0) -> None:
        self._shown[self._name, row, column] = value if isinstance(value, str) else float(value)

    def add_formulas(self, row: int, column: int, formulas: Sequence[str], style: int, shown: Sequence[Any]) -> None:
        for i, (formula, value) in enumerate(zip(formulas, shown, strict=True)):
            self.write_formula(row + i, column, formula, value=value)
