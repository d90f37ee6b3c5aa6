"""Cells that a person fills in: what stands there at first, and the list or the rule for what may."""

from typing import Any

from xlgpt.compiler.layout import Placed
from xlgpt.compiler.template import size
from xlgpt.workbook.blocks import input_block
from xlgpt.workbook.plan import Plan
from xlgpt.workbook.styles import Styles, number_of


def write_input(worksheet: Any, styles: Styles, plan: Plan, placed: Placed) -> None:
    """An input band with its first values; a list offers what else may stand in each cell."""
    band, cells = placed.band, placed.cells
    worksheet.add_block(input_block(plan, placed, number_of(styles.cells[band.format][band.kind])))
    if band.list:
        rule = {"validate": "list", "source": _offered(plan, band.list), "input_title": band.title[:32]}
        corner = (cells.row + cells.height - 1, cells.column + cells.width - 1)
        others = {"show_error": False} if band.rows == "token" else {"error_type": "warning"}  # any token may be typed
        worksheet.data_validation(cells.row, cells.column, *corner, rule | others)


def _offered(plan: Plan, listed: str | tuple[float | str, ...]) -> str | list[float | str]:
    """What a list offers: texts and numbers, some cells, the positions in use, or a dimension's numbers, from 0."""
    if not isinstance(listed, str):
        return list(listed)
    if listed == "token":
        return "=INDEX(position,1):INDEX(position,MAX(1,n_tokens))"
    if listed in plan.layout.names:
        return f"={plan.layout.names[listed].absolute}"
    return list(range(size(listed, plan.model.config)))
