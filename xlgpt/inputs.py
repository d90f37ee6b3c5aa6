"""Cells that a person fills in: what stands there at first, and the list or the rule for what may."""

from typing import Any

import numpy as np

from xlgpt.layout import Placed
from xlgpt.look import Look
from xlgpt.plan import Plan


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
        source = f"={plan.layout.names[band.list].absolute}" if isinstance(band.list, str) else list(band.list)
        rule = {"validate": "list", "source": source, "error_type": "warning", "input_title": band.title[:32]}
        corner = (cells.row + cells.height - 1, cells.column + cells.width - 1)
        worksheet.data_validation(cells.row, cells.column, *corner, rule)
