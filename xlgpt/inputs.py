"""Cells that a person fills in: what stands there at first, and the list or the rule for what may."""

from typing import Any

import numpy as np

from xlgpt.layout import Placed
from xlgpt.look import Look
from xlgpt.plan import Plan
from xlgpt.template import size


def write_input(worksheet: Any, look: Look, plan: Plan, placed: Placed) -> None:
    """An input band with its first values; a list offers what else may stand in each cell."""
    band, cells = placed.band, placed.cells
    style = look.cells[band.format][band.kind]
    for (row, column), value in np.ndenumerate(plan.settings.cells[band.name]):
        if value == "":
            worksheet.write_blank(cells.row + row, cells.column + column, None, style)
        else:
            worksheet.write(cells.row + row, cells.column + column, value, style)
    if band.list:
        rule = {"validate": "list", "source": _offered(plan, band.list), "input_title": band.title[:32]}
        corner = (cells.row + cells.height - 1, cells.column + cells.width - 1)
        worksheet.data_validation(cells.row, cells.column, *corner, rule | {"error_type": "warning"})


def _offered(plan: Plan, listed: str | tuple[float | str, ...]) -> str | list[float | str]:
    """What a list offers: texts and numbers, some cells, the positions in use, or a dimension's numbers, from 0."""
    if not isinstance(listed, str):
        return list(listed)
    if listed == "token":
        return "=INDEX(position,1):INDEX(position,MAX(1,n_tokens))"
    if listed in plan.layout.names:
        return f"={plan.layout.names[listed].absolute}"
    return list(range(size(listed, plan.model.config)))
