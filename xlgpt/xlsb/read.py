"""Reads an .xlsb back: its sheets and names, its strings, what stands on a sheet, and many numbers at once."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from xlgpt.errors import BrokenWorkbook, NotAWorkbook, UnsupportedFormula
from xlgpt.xlsb import ptg, workbook
from xlgpt.xlsb.cells import END, ArrayFormula, NumberFormula, Real, RowHeader, SharedFormula, ShortReal, TextFormula
from xlgpt.xlsb.package_parts import BOOK, STRINGS
from xlgpt.xlsb.place import Place
from xlgpt.xlsb.records import head, read_record, read_records, record_head
from xlgpt.xlsb.scope import Scope
from xlgpt.xlsb.sheet_data import EMPTY_MEMBERS, NUMBER_MEMBERS, OF
from xlgpt.xlsb.styles import SharedString
from xlgpt.xlsb.text import Texts, formula_text
from xlgpt.xlsb.tokens import Compiled
from xlgpt.xlsx.archive import Archive
from xlgpt.xlsx.formula import Formula
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import CellError, Cells, Scalar, Values, settled, unreadable

RELATIONS = "xl/_rels/workbook.bin.rels"
AHEAD = 1 << 20  # bytes that are there before a row is read: the largest record of ours and the largest row have fewer
ERRORS = {code: text for text, code in ptg.ERRORS.items()}
_CELL = struct.Struct("<II")
FEW = 3  # cells side by side that a formula fills are read one by one
GUESS = 512  # of them in a row, so many in most rows of a large model
_TOKEN = {form: form.fields["token"][1] for form in (NUMBER_MEMBERS, EMPTY_MEMBERS) if form.fields}  # bytes before it


class Index(NamedTuple):
    """The sheets by their names, each its part; what each defined name, in small letters, refers to; and of which
    formulas have numbers.
    """

    sheets: dict[str, str]
    names: dict[str, str]
    local: frozenset[str]
    scope: Scope


def read_index(path: Path, archive: Archive) -> Index:
    """What a workbook's own part says. Raises BrokenWorkbook."""
    try:
        records = list(read_records(archive.read(BOOK)))
        scope = workbook.scope(records)
        targets = {e.get("Id"): e.get("Target", "") for e in etree.fromstring(archive.read(RELATIONS))}
        sheets = [workbook.Sheet.read(payload) for identity, payload in records if identity == workbook.Sheet.identity]
        parts = {sheet.name: f"xl/{targets[sheet.relation].removeprefix('/xl/')}" for sheet in sheets}
        found = [workbook.DefinedName.read(p) for identity, p in records if identity == workbook.DefinedName.identity]
        names = {n.name.casefold(): _name_text(n, scope) for n in found if n.sheet == workbook.NO_SHEET}
        local = frozenset(n.name.casefold() for n in found if n.sheet != workbook.NO_SHEET)
    except (KeyError, IndexError, NotAWorkbook, etree.XMLSyntaxError) as e:
        raise BrokenWorkbook(
            f"{path}: the list of its sheets is damaged; build the workbook again, or take an intact copy."
        ) from e
    return Index(parts, names, local, scope)


def _name_text(name: workbook.DefinedName, scope: Scope) -> str:
    """What a name refers to; a formula that xlgpt does not write is none of its names."""
    try:
        return formula_text(name.formula, scope)
    except UnsupportedFormula:
        return "#NAME?"


def read_strings(path: Path, archive: Archive) -> list[str]:
    """The shared strings. Raises BrokenWorkbook."""
    if STRINGS not in archive:
        return []
    try:
        records = read_records(archive.read(STRINGS))
        return [SharedString.read(payload).text for identity, payload in records if identity == SharedString.identity]
    except NotAWorkbook as e:
        raise BrokenWorkbook(f"{path}: the part {STRINGS} is damaged; take an intact copy.") from e


def number(rk: int) -> float:
    """An RkNumber ([MS-XLSB] 2.5.123): the upper 30 bits of a double, or a whole number, or a hundredth of these."""
    signed = rk - (1 << 32) if rk >> 31 else rk
    value = float(signed >> 2) if rk & 2 else float(struct.unpack("<d", struct.pack("<Q", (rk & ~3) << 32))[0])
    return value / 100 if rk & 1 else value


def _numbers(rks: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The same, of many."""
    whole = (rks.view(np.int32) >> 2).astype(np.float64)
    cut = ((rks & np.uint32(0xFFFFFFFC)).astype(np.uint64) << np.uint64(32)).view(np.float64)
    values = np.where(rks & 2, whole, cut)
    return np.where(rks & 1, values / 100, values)


class Run(NamedTuple):
    """Numbers that stand side by side in a row, and in which columns."""

    row: int
    columns: NDArray[np.uint32]
    values: NDArray[np.float64]


def number_runs(path: Path, part: str) -> Iterator[Run]:
    """All plain numbers of a sheet, from the top, some of a row at a time; never more of the part than 20 MB at once.

    Raises BrokenWorkbook.
    """
    row, column, ended = 0, -1, False
    guesses = dict.fromkeys(_FORMS.values(), 1024)
    try:
        for data in _stretches(Archive(path).pieces(part)):
            at, last = 0, len(data.whole) - data.kept
            while at < last:
                identity, size, start = head(data.whole, at)
                form = _FORMS.get((identity, size))
                if form is None:
                    if start + size > len(data.whole):
                        raise BrokenWorkbook(_cut(path, part))
                    if identity == RowHeader.identity:
                        (row,) = struct.unpack_from("<I", data.whole, start)
                        column = -1
                    elif identity in _VALUES:
                        (column,) = struct.unpack_from("<I", data.whole, start)
                    elif identity in _SHORT:
                        column += 1
                    ended = ended or identity == END
                    at = start + size
                    continue
                run = _run(data.whole, at, form, guesses[form])
                guesses[form] = len(run)
                at += run.nbytes
                is_short = identity in _SHORT
                columns = np.arange(column + 1, column + 1 + len(run), dtype=np.uint32) if is_short else run["column"]
                column = int(columns[-1])
                yield Run(row, columns, run["value"] if identity in _REAL else _numbers(run["value"].copy()))
            data.read_to = at
    except (struct.error, IndexError, ValueError, NotAWorkbook) as e:
        raise BrokenWorkbook(_cut(path, part)) from e
    if not ended:
        raise BrokenWorkbook(_cut(path, part))


def _cut(path: Path, part: str) -> str:
    return f"{path}: the part {part} ends in the middle of its rows; take an intact copy."


_FORMS = {(record.identity, form.itemsize - 2): form for form, record in OF.items()}
_REAL = {Real.identity, ShortReal.identity}


def _run(data: bytes, at: int, form: np.dtype[Any], guess: int) -> NDArray[Any]:
    """The records of a form that follow each other from a place on; quickest where they are as many as guessed."""
    most = (len(data) - at) // form.itemsize
    if not most:
        raise IndexError("a cell is cut off")
    count = 0
    while count < most:
        count = min(max(2 * count, guess + 1), most)
        records = np.frombuffer(data, form, count, at)
        heads = np.ndarray(count, "<u2", data, at, form.itemsize)  # id and size
        differs = heads != heads[0]
        end = int(differs.argmax())
        if differs[end]:
            return records[:end]
    return records


@dataclass
class _Stretch:
    """Some of a part; of its last bytes only so many are there that a record which begins before them is whole."""

    whole: bytes
    kept: int
    read_to: int = 0


def _stretches(pieces: Iterable[bytes]) -> Iterator[_Stretch]:
    rest = b""
    for piece in pieces:
        rest += piece
        if len(rest) > 2 * AHEAD:
            stretch = _Stretch(rest, AHEAD)
            yield stretch
            rest = rest[stretch.read_to :]
    yield _Stretch(rest, 0)


def read_cells(path: Path, sheet: str, part: str, strings: list[str], scope: Scope) -> Cells:
    """Everything that stands on a sheet. Raises BrokenWorkbook."""
    reader, data, at = _Reader(sheet, strings, Texts(scope)), b"".join(Archive(path).pieces(part)), 0
    try:
        while at < len(data):
            run = _members(data, at)
            if run is None:
                identity, payload, at = read_record(data, at)
                reader.read(identity, payload)
            else:
                reader.take(run)
                at += run.nbytes
        return reader.cells()
    except (NotAWorkbook, struct.error, IndexError, KeyError, UnicodeDecodeError) as e:
        raise unreadable(path, sheet, reader.row) from e
    except UnsupportedFormula as e:
        raise BrokenWorkbook(f"{path}: a formula in row {reader.row + 1} of the sheet {sheet!r}: {e}") from e


class _Members(NamedTuple):
    """Cells of a row that a formula of another cell fills: the first that it stands in, and what they show."""

    row: int
    columns: NDArray[np.int64]
    first: Place
    values: NDArray[Any] | Scalar


_MEMBERS = {record_head(NumberFormula.identity, NUMBER_MEMBERS.itemsize - 2): NUMBER_MEMBERS}
_MEMBERS |= {record_head(TextFormula.identity, EMPTY_MEMBERS.itemsize - 2): EMPTY_MEMBERS}


def _members(data: bytes, at: int) -> NDArray[Any] | None:
    """The cells side by side from a place on that formulas of other cells fill; None where there are few, or none."""
    form = _MEMBERS.get(data[at : at + 2])
    if form is None or data[at + _TOKEN[form]] != ptg.EXPRESSION_OF:
        return None
    several = at + FEW * form.itemsize
    if data[at : at + 2] != data[several : several + 2]:
        return None
    run = _run(data, at, form, GUESS)
    others = (run["token"] != ptg.EXPRESSION_OF) | (run["length"] != 5) | (run["extra"] != 4)
    if form is EMPTY_MEMBERS:
        others |= run["value"] != 0
    count = int(others.argmax()) if others.any() else len(run)
    return run[:count] if count else None


@dataclass
class _Reader:
    """Takes a sheet record by record and tells constants from formulas and from what formulas showed."""

    sheet: str
    strings: list[str]
    texts: Texts
    row: int = -1
    column: int = -1
    constants: dict[tuple[int, int], Scalar] = field(default_factory=dict)
    formulas: list[Formula] = field(default_factory=list)
    saved: list[Values] = field(default_factory=list)
    members: list[_Members] = field(default_factory=list)
    arrays: dict[Place, int] = field(default_factory=dict)  # the number of an array formula by its first cell
    shared: dict[Place, Compiled] = field(default_factory=dict)

    def take(self, run: NDArray[Any]) -> None:
        """The records of cells that formulas of other cells fill."""
        edges = np.flatnonzero((run["row"][1:] != run["row"][:-1]) | (run["first"][1:] != run["first"][:-1])) + 1
        for start, end in pairwise([0, *edges.tolist(), len(run)]):
            of = run[start:end]
            first = Place(int(of["row"][0]), int(of["first"][0]))
            values = of["value"] if run.dtype == NUMBER_MEMBERS else ""
            self.members.append(_Members(self.row, of["column"].astype(np.int64), first, values))
        self.column = int(run["column"][-1])

    def read(self, identity: int, payload: bytes) -> None:
        """One record."""
        if identity == RowHeader.identity:
            (self.row,) = struct.unpack_from("<I", payload)
        elif identity == ArrayFormula.identity:
            self._array(ArrayFormula.read(payload))
        elif identity == SharedFormula.identity:
            formula = SharedFormula.read(payload)
            self.shared[Place(self.row, self.column)] = formula.formula
        elif identity in _VALUES:
            self.column = _CELL.unpack_from(payload)[0]
            self._cell(identity, payload, 8)
        elif identity in _SHORT:
            self.column += 1
            self._cell(_SHORT[identity], payload, 4)

    def _cell(self, identity: int, payload: bytes, at: int) -> None:
        value, at = _VALUES[identity](payload, at, self.strings)
        if identity not in _FORMULAS:
            if value is not None:
                self.constants[self.row, self.column] = value
            return
        (length,) = struct.unpack_from("<I", payload, at + 2)
        tokens, extra = payload[at + 6 : at + 6 + length], payload[at + 10 + length :]
        place = Place(self.row, self.column)
        if tokens[0] == ptg.EXPRESSION_OF:
            first = Place(struct.unpack_from("<I", tokens, 1)[0], struct.unpack_from("<I", extra)[0])
            self.members.append(_Members(self.row, np.array([self.column]), first, value))
            return
        self._add(Range(self.sheet, *place), self.texts.of(Compiled(tokens, extra), place), False)
        self.saved[-1][0, 0] = value

    def _array(self, array: ArrayFormula) -> None:
        top, bottom, left, right = array.cells
        cells = Range(self.sheet, top, left, bottom - top + 1, right - left + 1)
        self.arrays[Place(top, left)] = len(self.formulas)
        self._add(cells, self.texts.of(array.formula), True)

    def _add(self, cells: Range, text: str, is_array: bool) -> None:
        self.formulas.append(Formula(cells, text, is_array))
        self.saved.append(np.full((cells.height, cells.width), "", dtype=object))

    def cells(self) -> Cells:
        """All of it, once the sheet has ended."""
        for row, columns, first, values in self.members:
            if first in self.arrays:
                self.saved[self.arrays[first]][row - first.row, columns - first.column] = values
                continue
            for column, value in zip(columns.tolist(), np.broadcast_to(values, len(columns)).tolist(), strict=True):
                text = formula_text(self.shared[first], self.texts.scope, Place(row, column))  # it moves: read for each
                self._add(Range(self.sheet, row, column), text, False)
                self.saved[-1][0, 0] = value
        order = sorted(range(len(self.formulas)), key=lambda i: self.formulas[i].cells[1:3])
        return Cells(self.constants, [self.formulas[i] for i in order], [settled(self.saved[i]) for i in order])


def _text(payload: bytes, at: int, _: list[str]) -> tuple[Scalar, int]:
    (length,) = struct.unpack_from("<I", payload, at)
    end = at + 4 + 2 * length
    return payload[at + 4 : end].decode("utf-16-le", "surrogatepass"), end


def _of_string(payload: bytes, at: int, strings: list[str]) -> tuple[Scalar, int]:
    return strings[struct.unpack_from("<I", payload, at)[0]], at + 4


def _real(payload: bytes, at: int, _: list[str]) -> tuple[Scalar, int]:
    return float(struct.unpack_from("<d", payload, at)[0]), at + 8


_VALUES: dict[int, Any] = {
    1: lambda payload, at, _: (None, at),
    2: lambda payload, at, _: (number(struct.unpack_from("<I", payload, at)[0]), at + 4),
    3: lambda payload, at, _: (CellError(ERRORS[payload[at]]), at + 1),
    4: lambda payload, at, _: (payload[at] != 0, at + 1),
    5: _real,
    6: _text,
    7: _of_string,
    8: _text,
    9: _real,
    10: lambda payload, at, _: (payload[at] != 0, at + 1),
    11: lambda payload, at, _: (CellError(ERRORS[payload[at]]), at + 1),
}
_FORMULAS = range(8, 12)
_SHORT = {12: 1, 13: 2, 14: 3, 15: 4, 16: 5, 17: 6, 18: 7}  # cells that leave out their column
