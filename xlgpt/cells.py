"""Cells as XML (ECMA-376 18.3.1.4), many at a time."""

import re
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import orjson
from numpy.typing import NDArray

from xlgpt.compile import Formula
from xlgpt.layout import column_letters

CHUNK = 1 << 15  # numbers formatted at a time: their XML fits a core's cache

# What XML cannot hold stands as _xHHHH_ (ECMA-376 22.9.2.19, ST_Xstring); so does an underscore that would begin one.
COUNTS = re.compile(rb' (count|uniqueCount)="\d+"(?: (count|uniqueCount)="\d+")?')
UNWRITABLE = re.compile(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")

RECENT = re.compile(r"\b(?=UNI(CODE|CHAR)\()")  # functions that are newer than the format carry a prefix in the file


def escaped(text: str) -> str:
    """A text with what no XML can hold as _xHHHH_."""
    return UNWRITABLE.sub(lambda found: f"_x{ord(found[0]):04X}_", text)


def xstring(text: str) -> str:
    """A text as it stands inside an element."""
    return escape(escaped(text))


def number_rows(matrix: NDArray[np.float32]) -> Iterator[bytes]:
    """A matrix as rows of plain cells, each the shortest decimal that reads back to the same float32."""
    matrix = np.ascontiguousarray(matrix)
    step = max(1, CHUNK // matrix.shape[1])
    for start in range(0, len(matrix), step):
        rows = (orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] for row in matrix[start : start + step])
        cells = b"</v></c></row><row><c><v>".join(row.replace(b",", b"</v></c><c><v>") for row in rows)
        yield b"<row><c><v>%b</v></c></row>" % cells


class Strings:
    """The workbook's shared strings (ECMA-376 18.4): those that XlsxWriter wrote, and more after them."""

    def __init__(self, xml: bytes):
        self._xml = xml
        self._first = xml.count(b"<si>")
        self._more: dict[str, int] = {}

    def index(self, text: str) -> int:
        """The number of a text, which is added where it is new."""
        return self._first + self._more.setdefault(text, len(self._more))

    def xml(self) -> bytes:
        """The whole part."""
        items = (f'<si><t xml:space="preserve">{xstring(text)}</t></si>' for text in self._more)
        head, _, end = COUNTS.sub(b"", self._xml, count=1).rpartition(b"</sst>")
        return head + "".join(items).encode() + b"</sst>" + end


def constant(cell: bytes, value: int | str, style: int, strings: Strings) -> bytes:
    """A cell with a number or a text."""
    if isinstance(value, str):
        return b'<c r="%b" s="%d" t="s"><v>%d</v></c>' % (cell, style, strings.index(value))
    return b'<c r="%b" s="%d"><v>%d</v></c>' % (cell, style, value)


def formula_row(formula: Formula, row: int, values: NDArray[Any] | None, style: int) -> bytes:
    """One row of a formula's cells with their saved values; without values, cells that show nothing."""
    cells = formula.cells
    shown = [b""] * cells.width if values is None else _shown(values)
    kind = b' t="str"' if values is None or isinstance(values[0], str) else b""
    opening = b'<c r="%b%d" s="%d"' % (column_letters(cells.column).encode(), cells.row + row + 1, style)
    if row == 0:
        place = b' t="array" ref="%b"' % cells.a1.encode() if formula.is_array else b""
        head = b"%b%b><f%b>%b</f><v>%b</v></c>" % (opening, kind, place, _written(formula.text), shown[0])
    else:
        head = opening + (b"/>" if values is None else b"%b><v>%b</v></c>" % (kind, shown[0]))
    if len(shown) == 1:
        return head
    if values is None:
        return head + b'<c s="%d"/>' % style * (len(shown) - 1)
    between = b'</v></c><c s="%d"%b><v>' % (style, kind)
    return head + between[8:] + between.join(shown[1:]) + b"</v></c>"


def _written(formula: str) -> bytes:
    """A formula as the file holds it."""
    return escape(RECENT.sub("_xlfn.", formula) if "UNI" in formula else formula).encode()


def _shown(values: NDArray[Any]) -> list[bytes]:
    if values.dtype == object:
        return [(xstring(value) if isinstance(value, str) else str(value)).encode() for value in values]
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
