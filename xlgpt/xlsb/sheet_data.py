"""A sheet's rows as records ([MS-XLSB] 2.1.7.62, CELLTABLE), many cells at a time.

All are records of the specification but for the short cells of a large model's weights (ShortCell says whose they are).
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.xlsb.cells import (
    ArrayFormula,
    Blank,
    NumberFormula,
    Real,
    Rk,
    RowHeader,
    SharedText,
    ShortReal,
    ShortRk,
    Span,
    TextFormula,
)
from xlgpt.xlsb.elements import block_of
from xlgpt.xlsb.fields import Record
from xlgpt.xlsb.place import Place
from xlgpt.xlsb.ptg import EXPRESSION_OF
from xlgpt.xlsb.records import record, record_head
from xlgpt.xlsb.scope import Kind
from xlgpt.xlsb.styles import END_STRINGS, BeginStrings, SharedString
from xlgpt.xlsb.tokens import Alike, Compiled, Compiler, member
from xlgpt.xlsx.cells import with_prefixes
from xlgpt.xlsx.formula import Formulas, alone
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.rows import Calculated, Cells, Constant, Numbers, Row

USUAL_HEIGHT = 300  # twips, 15 points
OWN_HEIGHT = bytes((0, 0x20, 0))
USUAL = bytes(3)
SEGMENT = 1024  # columns to a span
WHOLE = 1 << 29  # whole numbers below fit the 30 bits of an RkNumber ([MS-XLSB] 2.5.123)
CHUNK = 1 << 15  # cells made at a time

_SHORT_HEAD = [("id", "u1"), ("size", "u1"), ("style", "<u4")]
_HEAD = [("id", "u1"), ("size", "u1"), ("column", "<u4"), ("style", "<u4")]
REALS, SHORT_REALS = (np.dtype([*head, ("value", "<f8")]) for head in (_HEAD, _SHORT_HEAD))
RKS, SHORT_RKS = (np.dtype([*head, ("value", "<u4")]) for head in (_HEAD, _SHORT_HEAD))
OF: dict[np.dtype[Any], type[Record]] = {
    REALS: Real,
    SHORT_REALS: ShortReal,
    RKS: Rk,
    SHORT_RKS: ShortRk,
}  # which record has that form
_FORMULA = [("flags", "<u2"), ("length", "<u4"), ("token", "u1"), ("row", "<u4"), ("extra", "<u4"), ("first", "<u4")]
NUMBER_MEMBERS = np.dtype([*_HEAD, ("value", "<f8"), *_FORMULA])
EMPTY_MEMBERS = np.dtype([*_HEAD, ("value", "<u4"), *_FORMULA])  # the value: the length of the text
_NUMBER = struct.Struct("<IIdHI")
_INT, _DOUBLE = struct.Struct("<I"), struct.Struct("<d")
_BLANK, _WHOLE, _REAL = (struct.Struct(f"<BBII{value}") for value in ("", "I", "d"))  # id, size, column, style, value


def number_rows(
    matrix: NDArray[np.float32], first: int = 0, as_rk: bool = False, is_short: bool = False
) -> Iterator[bytes]:
    """A matrix as rows of numbers from column A on, each the float32 exactly, from the row of that number on.

    as_rk: of the double that each is, only the upper 30 bits, where all others are 0. is_short: all cells of a row but
    the first are short, which takes a third less of the file.
    """
    height, width = matrix.shape
    full, rest = (RKS, SHORT_RKS) if as_rk else (REALS, SHORT_REALS)
    cells = [_made(full, 1 if is_short else width), _made(rest, width - 1 if is_short else 0)]
    cells[0]["column"] = np.arange(len(cells[0]))
    head = RowHeader(0, 0, USUAL_HEIGHT, USUAL, _spans([(0, width)])).record()
    usual = np.frombuffer(head + b"".join(each.tobytes() for each in cells), np.uint8)
    place = head.index(bytes(8))  # of the row's number, behind which its style is 0, too
    middle = len(head) + cells[0].nbytes
    values = _cut if as_rk else np.asarray
    rows = np.tile(usual, (min(height, step := max(1, CHUNK // width)), 1))
    for start in range(0, height, step):
        piece = values(matrix[start : start + step])
        here = rows[: len(piece)]
        numbers = np.arange(first + start, first + start + len(piece), dtype="<u4")
        here[:, place : place + 4] = numbers[:, None].view(np.uint8)
        here[:, len(head) : middle].view(full)["value"] = piece[:, : len(cells[0])]
        here[:, middle:].view(rest)["value"] = piece[:, len(cells[0]) :]
        yield here.tobytes()


def _made(form: np.dtype[Any], count: int) -> NDArray[Any]:
    """Cells of one form, each 0."""
    made = np.zeros(count, form)
    made["id"], made["size"] = OF[form].identity, form.itemsize - 2
    return made


def _cut(numbers: NDArray[np.float32]) -> NDArray[np.uint32]:
    """The upper 30 bits of the double that each number is, as an RkNumber ([MS-XLSB] 2.5.123)."""
    return (numbers.astype(np.float64).view(np.uint64) >> np.uint64(32)).astype(np.uint32) & np.uint32(0xFFFFFFFC)


class Strings:
    """The workbook's shared strings, each once, in the order in which cells ask for them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._uses = 0

    def index(self, text: str) -> int:
        """The number of a text, which is added where it is new."""
        self._uses += 1
        return self._numbers.setdefault(text, len(self._numbers))

    def part(self) -> bytes:
        """The whole part."""
        items = (SharedString(0, text, b"").record() for text in self._numbers)
        return BeginStrings(self._uses, len(self._numbers)).record() + b"".join(items) + record(END_STRINGS)


class SheetData:
    """The rows of one sheet as records.

    Cells that share a formula in .xlsx hold each its own, as a shared one may not refer to other sheets.
    """

    def __init__(self, strings: Strings, compiler: Compiler):
        self._strings, self._compiler = strings, compiler
        self._like: tuple[float | None, list[tuple[int, int]]] | None = None  # height and stretches of the row before
        self._head = b"", b""  # before and behind its number
        self._moving: dict[int, tuple[Formulas, Callable[[int], Compiled]]] = {}  # by column
        self.cells = self.formulas = 0  # written so far; cells without a value do not count

    def row(self, row: Row) -> bytes:
        """A row with all its cells."""
        like = row.height, [(each.column, each.width) for each in row.cells]
        if like != self._like:
            self._like, self._head = like, _head(*like)
        before, behind = self._head
        number = row.number.to_bytes(4, "little")
        return b"".join([before, number, behind, *[self._cells(each, row.number) for each in row.cells]])

    def _cells(self, cells: Cells, number: int) -> bytes:
        match cells:
            case Calculated():
                return b"".join(self._calculated(cells, number))
            case Numbers():
                self.cells += cells.width
                return b"".join([_number(i, cells.style, value) for i, value in enumerate(cells.values, cells.column)])
        return self._constant(cells)

    def _constant(self, cell: Constant) -> bytes:
        if cell.value is None:
            return _BLANK.pack(Blank.identity, 8, cell.column, cell.style)
        self.cells += 1
        if isinstance(cell.value, str):
            return _WHOLE.pack(SharedText.identity, 12, cell.column, cell.style, self._strings.index(cell.value))
        return _number(cell.column, cell.style, cell.value)

    def _calculated(self, cells: Calculated, number: int) -> Iterator[bytes]:
        """Some formulas' cells in a row, and what they show."""
        for alike in cells.formulas:
            start = alike.cells.column - cells.column
            shown = cells.values[start : start + alike.width]
            self.cells += alike.count * alike.cells.width
            if alike.is_array and number != alike.cells.row:
                yield from _members(alike.cells.column, alike.cells.width, cells.style, shown, alike.cells)
            else:
                self.formulas += alike.count
                yield from self._alike(alike, number, shown, cells.style)

    def _alike(self, alike: Formulas, number: int, shown: NDArray[Any], style: int) -> Iterator[bytes]:
        """Formulas side by side; behind the first cell of an array formula stands the formula itself."""
        compiled = self._compiled(alike, number)
        if compiled is None:
            for i, formula in enumerate(alike.each()):
                yield from self._alike(alone(formula), number, shown[i * alike.step :][: alike.cells.width], style)
            return
        if alike.step == 1 and alike.count > 1:
            yield from _side_by_side(alike, style, shown, compiled)
            return
        for i in range(alike.count):
            yield from _one_of(alike, i, style, shown, compiled)

    def _compiled(self, alike: Formulas, number: int) -> Alike | None:
        """The tokens of formulas side by side, or of the cell of one that cells below share."""
        kind = Kind.ARRAY if alike.is_array else Kind.CELL
        if not alike.is_array and alike.cells.height > 1:
            return Alike.one(self._moved(alike, number))
        return self._compiler.alike(alike.written(with_prefixes), kind)

    def _moved(self, formula: Formulas, number: int) -> Compiled:
        """The formula of a cell, of those that share one."""
        known = self._moving.get(formula.cells.column)
        if known is None or known[0] is not formula:
            known = formula, self._compiler.moving(with_prefixes(formula.texts()[0]))
            self._moving[formula.cells.column] = known
        return known[1](number - formula.cells.row)


def _one_of(alike: Formulas, i: int, style: int, shown: NDArray[Any], compiled: Alike) -> Iterator[bytes]:
    """The cells of one of some formulas side by side."""
    start, cells = i * alike.step, alike.cells._replace(column=alike.cells.column + i * alike.step)
    here = shown[start : start + cells.width]
    if not alike.is_array:
        yield _formula(cells.column, style, _first(here), compiled.of(i))
        return
    yield _formula(cells.column, style, _first(here), member(Place(cells.row, cells.column)))
    yield ArrayFormula(block_of(cells), 0, compiled.of(i)).record()
    if cells.width > 1:
        yield from _members(cells.column + 1, cells.width - 1, style, here[1:], cells)


Fields = list[bytes | NDArray[np.uint8]]  # of records of one size: the same in all, or [records, bytes]


def _side_by_side(alike: Formulas, style: int, shown: NDArray[Any], compiled: Alike) -> Iterator[bytes]:
    """Formulas of a cell each, with no cell between them: at once those that show numbers, or nothing."""
    values: list[Any] = [*shown.tolist(), *[None] * (alike.count - len(shown))]
    first = 0
    for kind, stretch in groupby(values, _kind_shown):
        run = list(stretch)
        last = first + len(run)
        if kind == "text":
            for i in range(first, last):
                yield from _one_of(alike, i, style, shown, compiled)
        else:
            columns = _bytes(np.arange(first, last) + alike.cells.column)
            yield _together(_cells_of(alike, style, columns, run if kind == "number" else None, compiled, first, last))
        first = last


def _cells_of(
    alike: Formulas, style: int, columns: NDArray[np.uint8], shown: list[Any] | None, compiled: Alike, *stretch: int
) -> Fields:
    """The records of a stretch of formulas of a cell each, by their fields. shown: numbers; None shows nothing."""
    tokens, row = compiled.tokens[slice(*stretch)], _INT.pack(alike.cells.row)
    formula: Fields = [_INT.pack(tokens.shape[1]), tokens, _INT.pack(len(compiled.extra)) + compiled.extra]
    behind: Fields = []
    if alike.is_array:
        behind = _record(ArrayFormula.identity, row, row, columns, columns, b"\0", *formula)
        formula = [_INT.pack(5) + bytes((EXPRESSION_OF,)) + row + _INT.pack(4), columns]  # as `member` has it
    identity, value = (
        (TextFormula.identity, bytes(4)) if shown is None else (NumberFormula.identity, _bytes(shown, "<f8"))
    )
    return [*_record(identity, columns, _INT.pack(style), value, bytes(2), *formula), *behind]


def _record(identity: int, *fields: bytes | NDArray[np.uint8]) -> Fields:
    """Records with these fields behind their head."""
    size = sum(len(each) if isinstance(each, bytes) else each.shape[1] for each in fields)
    return [record_head(identity, size), *fields]


def _together(fields: Fields) -> bytes:
    """Records by their fields, one behind the other."""
    count = max(len(each) for each in fields if not isinstance(each, bytes))
    wide = (np.broadcast_to(np.frombuffer(f, np.uint8), (count, len(f))) if isinstance(f, bytes) else f for f in fields)
    return np.hstack([*wide]).tobytes()


def _bytes(values: Any, form: str = "<u4") -> NDArray[np.uint8]:
    """The bytes of each number."""
    return np.asarray(values, form)[:, None].view(np.uint8)


def _first(shown: NDArray[Any]) -> Any:
    return shown[0] if len(shown) else None


def _formula(column: int, style: int, shown: Any, formula: Compiled) -> bytes:
    """A formula's cell; it shows a number, a text or nothing."""
    if shown is None or isinstance(shown, str) or shown != shown:
        return TextFormula(column, style, shown if isinstance(shown, str) else "", 0, formula).record()
    tokens, extra = formula
    payload = _NUMBER.pack(column, style, shown, 0, len(tokens)) + tokens + struct.pack("<I", len(extra)) + extra
    return record(NumberFormula.identity, payload)


def _head(height: float | None, stretches: list[tuple[int, int]]) -> tuple[bytes, bytes]:
    """A row's header before and behind its number."""
    twips, flags = (USUAL_HEIGHT, USUAL) if height is None else (round(20 * height), OWN_HEIGHT)
    header = RowHeader(0, 0, twips, flags, _spans(stretches)).payload()
    return record(RowHeader.identity, header)[: -len(header)], header[4:]


def _members(column: int, width: int, style: int, shown: NDArray[Any], of: Range) -> Iterator[bytes]:
    """Cells side by side that an array formula fills; where nothing is to be shown, a text of no length."""
    if not len(shown):
        yield _empty(column, width, style, of)
        return
    if width == 1 and (number := shown[0]) == number and isinstance(number, float):  # as in tall formulas
        before, behind = _around(column, style, of.row, of.column)
        yield before + _DOUBLE.pack(number) + behind
        return
    if shown.dtype != object and len(shown) == width and not np.isnan(shown).any():
        yield _inner(column, style, shown, of)
        return
    values = [*shown.tolist(), *[None] * (width - len(shown))]
    for kind, stretch in groupby(values, _kind_shown):
        run = list(stretch)
        if kind == "text":
            inner = member(Place(of.row, of.column))
            yield b"".join(_formula(column + i, style, text, inner) for i, text in enumerate(run))
        elif kind == "number":
            yield _inner(column, style, run, of)
        else:
            yield _empty(column, len(run), style, of)
        column += len(run)


def _kind_shown(value: Any) -> str:
    if value is None or value == "" or value != value:
        return "nothing"
    return "text" if isinstance(value, str) else "number"


def _inner(column: int, style: int, shown: Sequence[Any] | NDArray[Any], of: Range) -> bytes:
    """Cells side by side that an array formula fills, each with a number."""
    made = _alike(column, len(shown), style, of.row, of.column, NUMBER_MEMBERS).copy()
    made["value"] = shown
    return made.tobytes()


@lru_cache(256)
def _around(column: int, style: int, first_row: int, first_column: int) -> tuple[bytes, bytes]:
    """A cell that an array formula fills, before and behind the number that it shows."""
    cell, place = _alike(column, 1, style, first_row, first_column, NUMBER_MEMBERS).tobytes(), np.dtype(_HEAD).itemsize
    return cell[:place], cell[place + _DOUBLE.size :]


def _empty(column: int, width: int, style: int, of: Range) -> bytes:
    """The same, each with nothing."""
    return _alike(column, width, style, of.row, of.column, EMPTY_MEMBERS).tobytes() if width else b""


@lru_cache(256)  # the rows of a tall formula have the same
def _alike(column: int, width: int, style: int, first_row: int, first_column: int, form: np.dtype[Any]) -> NDArray[Any]:
    """Cells side by side that an array formula fills, each 0 or with nothing."""
    made = np.zeros(width, form)
    made["id"] = (NumberFormula if form is NUMBER_MEMBERS else TextFormula).identity
    made["size"], made["style"] = form.itemsize - 2, style
    made["column"] = np.arange(column, column + width)
    made["length"], made["token"], made["row"] = 5, EXPRESSION_OF, first_row
    made["extra"], made["first"] = 4, first_column
    return made


def _number(column: int, style: int, value: float) -> bytes:
    """A cell with a number; a whole one in 30 bits, where it fits."""
    if value == (whole := int(value)) and abs(whole) < WHOLE:
        return _WHOLE.pack(Rk.identity, 12, column, style, (whole << 2 | 2) & 0xFFFFFFFF)
    return _REAL.pack(Real.identity, 16, column, style, value)


def _spans(stretches: Iterable[tuple[int, int]]) -> tuple[Span, ...]:
    """Between which columns there are cells, in each 1,024; stretches: from the left, first column and how many."""
    found: dict[int, Span] = {}
    for column, width in (stretch for stretch in stretches if stretch[1]):
        last = column + width - 1
        for segment in range(column // SEGMENT, last // SEGMENT + 1):
            first, end = max(column, segment * SEGMENT), min(last, (segment + 1) * SEGMENT - 1)
            found[segment] = Span(found[segment].first if segment in found else first, end)
    return tuple(found.values())
