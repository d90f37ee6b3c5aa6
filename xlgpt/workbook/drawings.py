"""Boxes with words that lie over the cells of a sheet (ECMA-376 20.5)."""

import re
from typing import Any

from xlgpt.compiler.layout import FIRST_ROW, Sheet
from xlgpt.workbook.plan import Plan
from xlgpt.workbook.styles import ACCENT, FILL, INK, LINE, MUTED


def write_shapes(worksheet: Any, plan: Plan, sheet: Sheet) -> None:
    """The boxes of a drawing."""
    for shape in sheet.stage.shapes:
        left, top, width, height = shape.box
        text = re.sub(r"\{(\w+)\}", lambda found: f"{getattr(plan.layout.config, found[1]):,}", shape.text)
        properties: dict[str, Any] = {
            "x_offset": left,
            "y_offset": top,
            "width": width,
            "height": height,
            "fill": {"color": FILL[shape.kind]} if shape.kind in FILL else {"none": True},
            "line": {"color": ACCENT.get(shape.kind, LINE), "width": 1.25} if shape.kind else {"none": True},
            "font": {"name": "Calibri", "size": shape.font, "color": INK if shape.kind in FILL else MUTED},
            "align": {
                "vertical": "top" if shape.kind == "frame" else "middle",
                "horizontal": "center",
                "text": "center",
            },
            "object_position": 1,
        }
        worksheet.insert_textbox(FIRST_ROW, 0, text, properties)
