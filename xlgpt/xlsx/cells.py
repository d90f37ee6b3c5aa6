"""Cells as XML (ECMA-376 18.3.1.4), many at a time."""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import orjson
from numpy.typing import NDArray

from xlgpt.xlsx.archive import MAIN
from xlgpt.xlsx.formula import Formulas
from xlgpt.xlsx.ranges import column_letters
from xlgpt.xlsx.rows import Calculated, Cells, Constant, Numbers, Row

DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
NOTHING = b' t="str"><v>'  # of a formula's cell: its type and its value
CHUNK = 1 << 15  # numbers formatted at a time: their XML fits a core's cache

# What XML cannot hold stands as _xHHHH_ (ECMA-376 22.9.2.19, ST_Xstring); so does an underscore that would begin one.
UNWRITABLE = re.compile(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")

RECENT = re.compile(r"\b(?=UNI(CODE|CHAR)\()")  # functions that are newer than the format carry a prefix in the file


def escaped(text: str) -> str:
    """A text with what no XML can hold as _xHHHH_."""
    return UNWRITABLE.sub(lambda found: f"_x{ord(found[0]):04X}_", text)


def xstring(text: str) -> str:
    """A text as it stands inside an element."""
    return escape(escaped(text))


def number_rows(matrix: NDArray[np.float32], first: int = 0, is_bare: bool = False) -> Iterator[bytes]:
    """A matrix as rows of plain cells, each the shortest decimal that reads back to the same float32.

    first: the row, from 0, in which they begin. is_bare: no cell says where it stands, which takes a third less of the
    file and a tenth of the time, but Gnumeric and IronCalc cannot read it.
    """
    matrix = np.ascontiguousarray(matrix)
    if not is_bare:
        for number, row in enumerate(matrix, first + 1):
            cells = _template(0, len(row)).replace(b"#", b'%d"' % number) % tuple(_numbers(row))
            yield b'<row r="%d">%b</row>' % (number, cells)
        return
    step = max(1, CHUNK // matrix.shape[1])
    for start in range(0, len(matrix), step):
        rows = (orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1] for row in matrix[start : start + step])
        cells = b"</v></c></row><row><c><v>".join(row.replace(b",", b"</v></c><c><v>") for row in rows)
        yield b"<row><c><v>%b</v></c></row>" % cells


class Strings:
    """The workbook's shared strings (ECMA-376 18.4), each once, in the order in which cells ask for them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def index(self, text: str) -> int:
        """The number of a text, which is added where it is new."""
        return self._numbers.setdefault(text, len(self._numbers))

    def part(self) -> bytes:
        """The whole part."""
        items = "".join(f'<si><t xml:space="preserve">{xstring(text)}</t></si>' for text in self._numbers)
        return f'{DECLARATION}<sst xmlns="{MAIN}">{items}</sst>'.encode()


class SheetData:
    """The rows of one sheet as XML."""

    def __init__(self, strings: Strings):
        self._strings = strings
        self._groups: dict[int, int] = {}  # of the formula that a column's cells share, by the column
        self.cells = self.formulas = 0  # written so far; cells without a value do not count

    def row(self, row: Row) -> bytes:
        """A row with all its cells."""
        number = row.number + 1
        head = b'<row r="%d"' % number
        if row.height:
            head += b' ht="%b" customHeight="1"' % printed(row.height)
        if not row.cells:
            return head + b"/>"
        return b"%b>%b</row>" % (head, b"".join([self._cells(cells, number) for cells in row.cells]))

    def _cells(self, cells: Cells, number: int) -> bytes:
        match cells:
            case Calculated():
                return self._calculated(cells, number)
            case Numbers():
                self.cells += cells.width
                return _side_by_side(_numbers(np.array(cells.values)), cells.column, number, cells.style)
        return self._constant(cells, number)

    def _constant(self, cell: Constant, number: int) -> bytes:
        place = b'<c r="%b%d" s="%d"' % (_letters(cell.column), number, cell.style)
        if cell.value is None:
            return place + b"/>"
        self.cells += 1
        if isinstance(cell.value, str):
            return b'%b t="s"><v>%d</v></c>' % (place, self._strings.index(cell.value))
        return b"%b><v>%b</v></c>" % (place, printed(cell.value))

    def _calculated(self, cells: Calculated, number: int) -> bytes:
        """Some formulas' cells in a row, and what they show."""
        shown, pieces = _shown(cells.values), list[bytes]()
        for alike in cells.formulas:
            self.cells += alike.count * alike.cells.width
            start = alike.cells.column - cells.column
            pieces += self._alike(alike, number, shown[start : start + alike.width], cells.style)
        return b"".join(pieces)

    def _alike(self, alike: Formulas, number: int, shown: list[bytes], style: int) -> Iterator[bytes]:
        """Formulas side by side. The first cell of all holds each; of those that share it, each says so."""
        cells, width = alike.cells, alike.cells.width
        is_first, is_shared = number == cells.row + 1, not alike.is_array and cells.height > 1
        if not (is_first or is_shared):
            yield self._results(cells.column, width, number, shown, style)
            return
        self.formulas += alike.count
        if is_first and is_shared:
            self._groups[cells.column] = len(self._groups)
        texts = alike.written(_written).texts() if is_first else [""]
        for i, text in enumerate(texts):
            start = i * alike.step
            column, here = cells.column + start, shown[start : start + width]
            kind, value = (here[0] if here else NOTHING).split(b"><v>", 1)
            formula = self._text(alike, column, text.encode(), is_first, is_shared)
            yield b'<c r="%b%d" s="%d"%b><f%b<v>%b</v></c>' % (_letters(column), number, style, kind, formula, value)
            if width > 1:
                yield self._results(column + 1, width - 1, number, here[1:], style)

    def _results(self, column: int, width: int, number: int, shown: list[bytes], style: int) -> bytes:
        """Cells that a formula fills besides its first; without values they are empty."""
        if shown or not width:
            return _side_by_side(shown, column, number, style) if width else b""
        return _blank_template(column, width).replace(b"#", b"%d" % number).replace(b"@", b"%d" % style)

    def _text(self, alike: Formulas, column: int, text: bytes, is_first: bool, is_shared: bool) -> bytes:
        """What stands behind `<f`: the formula, or which one it shares."""
        if not (is_shared or alike.is_array):
            return b">%b</f>" % text
        if not is_first:
            return b' t="shared" si="%d"/>' % self._groups[column]
        kind = b"array" if alike.is_array else b'shared" si="%d' % self._groups[column]
        return b' t="%b" ref="%b">%b</f>' % (kind, alike.cells._replace(column=column).a1.encode(), text)


def printed(value: float) -> bytes:
    """The shortest decimal that reads back to the same number."""
    return orjson.dumps(int(value) if value == int(value) and abs(value) < 1 << 53 else float(value))


def _side_by_side(shown: list[bytes], column: int, number: int, style: int) -> bytes:
    """Cells that show this, in the row of that number, from 1."""
    return _template(column, len(shown)).replace(b"#", b'%d" s="%d"' % (number, style)) % tuple(shown)


@cache
def _letters(column: int) -> bytes:
    return column_letters(column).encode()


@lru_cache(4096)
def _template(column: int, width: int) -> bytes:
    """Cells with a value: # stands for the row's number and the style, %b for the type and the value."""
    return b"".join(b'<c r="%b#%%b</v></c>' % _letters(i) for i in range(column, column + width))


@lru_cache(4096)
def _blank_template(column: int, width: int) -> bytes:
    """Cells without a value: # stands for the row's number, @ for the style."""
    return b"".join(b'<c r="%b#" s="@"/>' % _letters(i) for i in range(column, column + width))


def _written(formula: str) -> str:
    """A formula, or a piece of one, as the file holds it."""
    return escape(with_prefixes(formula))


def with_prefixes(formula: str) -> str:
    """A formula whose functions are called as a file calls them."""
    return RECENT.sub("_xlfn.", formula) if "UNI" in formula else formula


def _shown(values: NDArray[Any]) -> list[bytes]:
    """What each cell shows: its type and its value."""
    return [_one(value) for value in values] if values.dtype == object else _numbers(values)


def _one(value: Any) -> bytes:
    return b' t="str"><v>%b' % xstring(value).encode() if isinstance(value, str) else b"><v>%b" % printed(value)


def _numbers(values: NDArray[Any]) -> list[bytes]:
    """Numbers, the shortest decimals that are the same; NaN shows nothing."""
    if not len(values):
        return []
    decimals = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    return (b"><v>" + decimals.replace(b",", b",><v>").replace(b"><v>null", NOTHING)).split(b",")
