"""Bands with a column for each token: thousands of rows of formulas alike, streamed below the rest of their sheet."""

import re
from collections.abc import Iterator
from itertools import zip_longest
from xml.sax.saxutils import escape

import numpy as np
import orjson
from numpy.typing import NDArray

from xlgpt.compile import Formula
from xlgpt.layout import LABEL_COLUMNS, Placed, Sheet, column_letters
from xlgpt.plan import Plan
from xlgpt.precision import significant

DIMENSION = re.compile(rb'<dimension ref="([A-Z]+\d+):([A-Z]+)\d+"/>')
DIGITS = 7
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
            + _joined(sheet.upright, lines, i)
            + b"</row>"
            for i in range(start + 1, min(start + CHUNK, height) + 1)
        )
    yield after


def _joined(upright: tuple[Placed, ...], lines: list[list[bytes]], i: int) -> bytes:
    """The i-th row of all bands, from 1. The place of a cell is written where the cell before it is not there."""
    row, end = b"", LABEL_COLUMNS
    for placed, line in zip(upright, lines, strict=True):
        if i <= len(line):
            cells = placed.cells.rows(i - 1, i)
            row += (
                line[i - 1]
                if cells.column == end
                else line[i - 1].replace(b"<c", b'<c r="%b"' % cells.first.encode(), 1)
            )
            end = cells.column + cells.width
    return row


def _lines(placed: Placed, plan: Plan, style: int, group: int) -> Iterator[bytes]:
    """A band's cells, row by row, the first with the formulas. Saved values have 7 digits, within what check allows."""
    cells, formulas = placed.cells, plan.formulas[placed.band.name]
    values = plan.values.get(placed.band.name, np.empty((cells.height, 0)))
    is_array = placed.band.is_array
    later = [b"" if is_array else b'<f t="shared" si="%d"/>' % (group + i) for i in range(cells.width)]
    first = [_first(formula, group + i) for i, formula in enumerate(formulas)]
    for i, shown in enumerate(_printed(values)):
        line = zip_longest(first if i == 0 else later, shown)
        yield b"".join(_cell(style, formula, value) for formula, value in line)


def _first(formula: Formula, group: int) -> bytes:
    """The formula at the top of a token's column."""
    kind = b'array"' if formula.is_array else b'shared" si="%d"' % group
    return b'<f t="%b ref="%b">%b</f>' % (kind, formula.cells.a1.encode(), escape(formula.text).encode())


def _cell(style: int, formula: bytes, shown: bytes | None) -> bytes:
    if shown is not None:
        return b'<c s="%d">%b<v>%b</v></c>' % (style, formula, shown)
    if formula:
        return b'<c s="%d" t="str">%b<v></v></c>' % (style, formula)
    return b'<c s="%d"/>' % style


def _printed(values: NDArray[np.float64]) -> Iterator[list[bytes]]:
    """The numbers of each row."""
    for row in significant(values.astype(np.float32, order="C"), DIGITS):
        yield orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",") if len(row) else []
