"""Cells that a person fills in: what stands there at first, and the list or the rule for what may."""

from typing import Any

from xlgpt.compiler.layout import Placed
from xlgpt.compiler.template import size
from xlgpt.errors import TooLongForExcel
from xlgpt.workbook.blocks import input_block
from xlgpt.workbook.plan import Plan
from xlgpt.workbook.styles import Styles, number_of

MOST_CHARACTERS = 255  # of a list that stands in its cell's rule (Excel's specifications and limits)


def write_input(worksheet: Any, styles: Styles, plan: Plan, placed: Placed) -> None:
    """An input band with its first values; a list offers what else may stand in each cell."""
    band, cells = placed.band, placed.cells
    worksheet.add_block(input_block(plan, placed, number_of(styles.cells[band.format][band.kind])))
    if band.list:
        offered = _offered(plan, band.list)
        _check_length(plan, placed, offered)
        rule = {"validate": "list", "source": offered, "input_title": band.title[:32]}
        corner = (cells.row + cells.height - 1, cells.column + cells.width - 1)
        others = {"show_error": False} if band.rows == "token" else {"error_type": "warning"}  # any token may be typed
        worksheet.data_validation(cells.row, cells.column, *corner, rule | others)


def _check_length(plan: Plan, placed: Placed, offered: str | list[float | str]) -> None:
    """XlsxWriter would leave the list out. Raises TooLongForExcel."""
    length = len(offered if isinstance(offered, str) else ",".join(map(str, offered)))
    if length > MOST_CHARACTERS:
        raise TooLongForExcel(
            f"With {plan.model.config.n_layer} blocks the list at {placed.band.name} has {length} characters, and "
            f"Excel takes {MOST_CHARACTERS}: leave the sheet {placed.cells.sheet} out with --sheets."
        )


def _offered(plan: Plan, listed: str | tuple[float | str, ...]) -> str | list[float | str]:
    """What a list offers: texts and numbers, some cells, the positions in use, or a dimension's numbers, from 0."""
    if not isinstance(listed, str):
        return list(listed)
    if listed == "token":
        return "=INDEX(position,1):INDEX(position,MAX(1,n_tokens))"
    if listed in plan.layout.names:
        return f"={plan.layout.names[listed].absolute}"
    return list(range(size(listed, plan.model.config)))
