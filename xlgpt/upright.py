"""Bands with a column for each token: thousands of rows of formulas alike, streamed below the rest of their sheet."""

import re
from collections.abc import Iterator
from xml.sax.saxutils import escape

import numpy as np
import orjson
from numpy.typing import NDArray

from xlgpt.compile import Formula
from xlgpt.layout import LABEL_COLUMNS, Placed, Sheet, column_letters
from xlgpt.plan import Plan

DIMENSION = re.compile(rb'<dimension ref="([A-Z]+\d+):([A-Z]+)\d+"/>')
CHUNK = 256  # rows compressed at a time
NUMBERS = column_letters(LABEL_COLUMNS - 1).encode()  # the column that numbers the rows


def with_upright(xml: bytes, sheet: Sheet, plan: Plan) -> Iterator[bytes]:
    """A sheet's XML, in which the first row of its upright bands stands blank, with all their rows."""
    if not sheet.upright:
        yield xml
        return
    row = sheet.upright[0].cells.row
    height = max(placed.cells.height for placed in sheet.upright)
    before, _, rest = xml.partition(b'<row r="%d"' % (row + 1))
    first, _, after = rest.partition(b"</row>")
    styles = dict(re.findall(rb'<c r="([A-Z]+)\d+" s="(\d+)"', first))
    yield DIMENSION.sub(rb'<dimension ref="\1:\g<2>%d"/>' % (row + height), before, count=1)
    groups = 0
    lines: list[list[bytes]] = []
    for placed in sheet.upright:
        style = int(styles[column_letters(placed.cells.column).encode()])
        lines.append(list(_lines(placed, plan, style, groups)))
        groups += placed.cells.width if placed.band.per == "filled" else 0
    number = int(styles[NUMBERS])
    for start in range(0, height, CHUNK):
        yield b"".join(
            b'<row r="%d"><c r="%b%d" s="%d"><v>%d</v></c>' % (row + i, NUMBERS, row + i, number, i)
            + b"".join(band[i - 1] for band in lines if i <= len(band))
            + b"</row>"
            for i in range(start + 1, min(start + CHUNK, height) + 1)
        )
    yield after


def _lines(placed: Placed, plan: Plan, style: int, group: int) -> Iterator[bytes]:
    """A band's cells, row by row, the first with the formulas. Saved values have the digits of a float32."""
    cells, formulas = placed.cells, plan.formulas[placed.band.name]
    values = plan.values.get(placed.band.name, np.empty((cells.height, 0)))
    is_array = placed.band.is_array
    later = [b"" if is_array else b'<f t="shared" si="%d"/>' % (group + i) for i in range(cells.width)]
    first = [_first(formula, group + i) for i, formula in enumerate(formulas)]
    letters = column_letters(cells.column).encode()
    for i, shown in enumerate(_printed(values)):
        place = b' r="%b%d"' % (letters, cells.row + 1 + i)
        line = [
            _cell(place if j == 0 else b"", style, formula, shown[j] if j < len(shown) else None)
            for j, formula in enumerate(first if i == 0 else later)
        ]
        yield b"".join(line)


def _first(formula: Formula, group: int) -> bytes:
    """The formula at the top of a token's column."""
    kind = b'array"' if formula.is_array else b'shared" si="%d"' % group
    return b'<f t="%b ref="%b">%b</f>' % (kind, formula.cells.a1.encode(), escape(formula.text).encode())


def _cell(place: bytes, style: int, formula: bytes, shown: bytes | None) -> bytes:
    if shown is not None:
        return b'<c%b s="%d">%b<v>%b</v></c>' % (place, style, formula, shown)
    if formula:
        return b'<c%b s="%d" t="str">%b<v></v></c>' % (place, style, formula)
    return b'<c%b s="%d"/>' % (place, style)


def _printed(values: NDArray[np.float64]) -> Iterator[list[bytes]]:
    """The numbers of each row."""
    for row in values.astype(np.float32, order="C"):
        yield orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",") if len(row) else []
