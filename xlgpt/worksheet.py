"""Reads worksheets back (ECMA-376 18.3), as xlgpt writes them and as Excel, LibreOffice and others save them again."""

import re
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from isal import igzip_lib, isal_zlib
from numpy.typing import NDArray

from xlgpt.compile import Formula
from xlgpt.errors import BrokenWorkbook, NotAWorkbook
from xlgpt.layout import Range, column_number

Scalar = float | bool | str
Values = NDArray[Any]  # [rows, columns]: float64, or objects: float, bool, str ("" where nothing is shown), CellError

PIECE = 1 << 22  # packed bytes read at a time
NEXT_CELL = b"</v></c><c><v>"
ROW_HEAD = re.compile(rb"<row\b([^>]*)>")
ROW_NUMBER = re.compile(rb'\br="(\d+)"')
CELL = re.compile(rb"<c\b([^>]*?)(?:/>|>(.*?)</c>)", re.DOTALL)
PLACE = re.compile(rb'\br="([A-Z]+)')
TYPE = re.compile(rb'\bt="(\w+)"')
VALUE = re.compile(rb"<v\b[^>]*>(.*?)</v>", re.DOTALL)
TEXT = re.compile(rb"<t\b[^>]*>(.*?)</t>", re.DOTALL)
PHONETIC = re.compile(rb"<rPh\b.*?</rPh>", re.DOTALL)
FORMULA = re.compile(rb"<f\b([^>]*?)(?:/>|>(.*?)</f>)", re.DOTALL)
ATTRIBUTE = re.compile(rb'\b(\w+)="([^"]*)"')
PREFIX = re.compile(rb"<(\w+:)worksheet\b")
ENTITY = re.compile(r"&(?:#x([0-9A-Fa-f]+)|#(\d+)|(amp|lt|gt|quot|apos));")
ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
XSTRING = re.compile(r"_x([0-9A-Fa-f]{4})_")
CORNERS = re.compile(r"\$?([A-Z]{1,3})\$?(\d+)(?::\$?([A-Z]{1,3})\$?(\d+))?")


class CellError(str):
    """An error value in a cell, such as #DIV/0!."""


@dataclass(frozen=True)
class Cells:
    """What stands on a sheet: constants by (row, column) from 0, and formulas.

    saved: what each formula showed when the file was saved; None where it was saved without being calculated.
    """

    constants: dict[tuple[int, int], Scalar] = field(default_factory=dict)
    formulas: list[Formula] = field(default_factory=list)
    saved: list[Values | None] = field(default_factory=list)

    @cached_property
    def _places(self) -> tuple[dict[int, list[tuple[int, int]]], list[int]]:
        """Formulas by the row that they fill, as (first column, formula), sorted; and those that fill several rows."""
        by_row: dict[int, list[tuple[int, int]]] = {}
        tall = []
        for i, formula in enumerate(self.formulas):
            if formula.cells.height == 1:
                by_row.setdefault(formula.cells.row, []).append((formula.cells.column, i))
            else:
                tall.append(i)
        return {row: sorted(spans) for row, spans in by_row.items()}, tall

    def over(self, cells: Range) -> Iterator[int]:
        """The formulas that fill some of these cells."""
        by_row, tall = self._places
        yield from (i for i in tall if overlap(self.formulas[i].cells, cells))
        rows: Iterable[int] = range(cells.row, cells.row + cells.height)
        if cells.height > len(by_row):
            rows = [row for row in by_row if row in rows]
        for row in rows:
            spans = by_row.get(row, [])
            first = max(0, bisect_right(spans, (cells.column, len(self.formulas))) - 1)
            for column, i in spans[first:]:
                if column >= cells.column + cells.width:
                    break
                if column + self.formulas[i].cells.width > cells.column:
                    yield i


def overlap(a: Range, b: Range) -> Range | None:
    """The cells that two blocks on a sheet have in common."""
    row, column = max(a.row, b.row), max(a.column, b.column)
    height = min(a.row + a.height, b.row + b.height) - row
    width = min(a.column + a.width, b.column + b.width) - column
    return Range(a.sheet, row, column, height, width) if height > 0 and width > 0 else None


def part(values: Values, of: Range, wanted: Range) -> Values:
    """The values of some of a block's cells."""
    row, column = wanted.row - of.row, wanted.column - of.column
    return values[row : row + wanted.height, column : column + wanted.width]


def a1_range(sheet: str, reference: str) -> Range | None:
    """The cells that D8, $D$8:$ACQ$39 and the like mean; None for anything else."""
    found = CORNERS.fullmatch(reference)
    if not found:
        return None
    columns = sorted((column_number(found[1]), column_number(found[3] or found[1])))
    rows = sorted((int(found[2]), int(found[4] or found[2])))
    return Range(sheet, rows[0] - 1, columns[0], rows[1] - rows[0] + 1, columns[1] - columns[0] + 1)


def unescaped(raw: bytes) -> str:
    """The text that XML holds, with its entities resolved."""
    text = raw.decode("utf-8", errors="replace")
    if "&" not in text:
        return text
    return ENTITY.sub(lambda e: ENTITIES[e[3]] if e[3] else chr(int(e[1], 16) if e[1] else int(e[2])), text)


def xtext(raw: bytes) -> str:
    """A cell's text: entities and _xHHHH_ resolved (ECMA-376 22.9.2.19)."""
    text = unescaped(raw)
    return XSTRING.sub(lambda code: chr(int(code[1], 16)), text) if "_x" in text else text


def unpacked(path: Path, part: str) -> Iterator[bytes]:
    """A part of the archive in pieces. Raises BrokenWorkbook where it is not whole."""
    broken = f"{path}: the part {part} is damaged; build the workbook again, or take an intact copy."
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            entry = archive.getinfo(part)
            if entry.compress_type != zipfile.ZIP_DEFLATED:
                yield archive.read(part)
                return
            file.seek(entry.header_offset)
            name, extra = struct.unpack("<26xHH", file.read(30))
            file.seek(name + extra, 1)
            left, crc, inflate = entry.compress_size, 0, isal_zlib.decompressobj(-15)
            while left > 0:
                packed = file.read(min(PIECE, left))
                if not packed:
                    raise BrokenWorkbook(broken)
                left -= len(packed)
                piece = inflate.decompress(packed)
                crc = isal_zlib.crc32(piece, crc)
                yield piece
            if crc != entry.CRC:
                raise BrokenWorkbook(broken)
    except KeyError as e:
        raise BrokenWorkbook(f"{path} lacks the part {part}; take an intact copy.") from e
    except (igzip_lib.IsalError, zipfile.BadZipFile, struct.error) as e:  # type: ignore[misc]  # isal's stub calls it an instance
        raise BrokenWorkbook(broken) from e
    except OSError as e:
        raise NotAWorkbook(f"{path} cannot be read: {e.strerror}.") from e


def rows(path: Path, part: str) -> Iterator[tuple[int, bytes]]:
    """Each row of a worksheet: its number from 0, and the XML of its cells. Raises BrokenWorkbook."""
    rest, prefix, number, ended = b"", b"", -1, False
    for piece in unpacked(path, part):
        if not rest and number < 0:
            found = PREFIX.search(piece[:4096])
            prefix = found[1] if found else b""
        *whole, rest = (rest + piece).split(b"</%brow>" % prefix)
        for row in whole:
            number, cells = _row(
                row.replace(b"<" + prefix, b"<").replace(b"</" + prefix, b"</") if prefix else row, number
            )
            yield number, cells
        ended = ended or b"sheetData>" in rest or b"sheetData/>" in rest
    if not ended:
        raise BrokenWorkbook(f"{path}: the part {part} ends in the middle of its rows; take an intact copy.")


def _row(row: bytes, before: int) -> tuple[int, bytes]:
    """A row's number and its cells; empty rows, which have no end tag, may stand in front of it."""
    if row.startswith(b"<row><c>"):
        return before + 1, row[5:]
    number, end = before, 0
    for head in ROW_HEAD.finditer(row):
        found = ROW_NUMBER.search(head[1])
        number, end = int(found[1]) - 1 if found else number + 1, head.end()
    return number, row[end:]


def numbers(cells: bytes) -> list[float] | None:
    """A row of nothing but plain numbers from column A on, quickly; None where it is anything else."""
    if not cells.startswith(b"<c><v>"):
        return None
    try:
        found: list[float] = orjson.loads(b"[%b]" % cells[6:-8].replace(NEXT_CELL, b","))
    except orjson.JSONDecodeError:
        return None
    return found


def read_cells(path: Path, sheet: str, part: str, strings: list[str]) -> Cells:
    """Everything that stands on a sheet. Raises BrokenWorkbook."""
    reader = _Reader(sheet, strings)
    for number, row in rows(path, part):
        reader.read(number, row)
    saved = [None if i in reader.bare else _settled(values) for i, values in enumerate(reader.saved)]
    return Cells(reader.constants, reader.formulas, saved)


def _settled(values: Values) -> Values:
    """The same values as float64 where all are numbers."""
    return values.astype(np.float64) if all(type(value) is float for value in values.flat) else values


class _Reader:
    """Takes a sheet row by row and tells constants from formulas and from what formulas showed."""

    def __init__(self, sheet: str, strings: list[str]):
        self.sheet, self.strings = sheet, strings
        self.constants: dict[tuple[int, int], Scalar] = {}
        self.formulas: list[Formula] = []
        self.saved: list[Values] = []
        self.bare: set[int] = set()  # formulas without a saved value
        self._tall: list[int] = []  # array formulas that reach below the row of their first cell
        self._shared: dict[bytes, tuple[str, str]] = {}  # the formula that others repeat, and its cell

    def read(self, row: int, cells: bytes) -> None:
        """One row."""
        there: dict[int, Scalar] = {}
        here = [i for i in self._tall if row < self.formulas[i].cells.row + self.formulas[i].cells.height]
        column = -1
        for attributes, inside in CELL.findall(cells):
            place = PLACE.search(attributes) if b"r=" in attributes else None
            column = column_number(place[1].decode()) if place else column + 1
            if not inside:
                continue
            if b"<f" in inside:
                here.append(self._add_formula(row, column, inside))
            value = cell_value(attributes, inside, self.strings)
            if value is None and b"<f" in inside:
                self.bare.add(here[-1])
            if value is not None:
                there[column] = value
        self._tall = [i for i in here if self.formulas[i].cells.height > 1]
        for i in here:
            cells_ = self.formulas[i].cells
            line = [there.pop(c, "") for c in range(cells_.column, cells_.column + cells_.width)]
            self.saved[i][row - cells_.row] = line
        self.constants.update({(row, column): value for column, value in there.items()})

    def _add_formula(self, row: int, column: int, inside: bytes) -> int:
        cells, text, is_array = Range(self.sheet, row, column), "", False
        found = FORMULA.search(inside)
        if found:
            given = dict(ATTRIBUTE.findall(found[1]))
            text = unescaped(found[2] or b"")
            is_array = given.get(b"t") == b"array"
            if is_array and b"ref" in given:
                cells = a1_range(self.sheet, given[b"ref"].decode()) or cells
            if given.get(b"t") == b"shared":
                text = self._share(given.get(b"si", b""), text, cells)
        self.formulas.append(Formula(cells, text.removeprefix("="), is_array))
        self.saved.append(np.full((cells.height, cells.width), "", dtype=object))
        return len(self.formulas) - 1

    def _share(self, group: bytes, text: str, cells: Range) -> str:
        """A shared formula (ECMA-376 18.3.1.40): written out once, then moved along."""
        if text:
            self._shared[group] = text, cells.first
            return text
        from openpyxl.formula.translate import Translator  # seldom needed, and a third of what `import xlgpt` takes

        master, origin = self._shared.get(group, ("", cells.first))
        return str(Translator(f"={master}", origin=origin).translate_formula(cells.first))


def cell_value(attributes: bytes, inside: bytes, strings: list[str]) -> Scalar | None:
    """What a cell holds, or shows; None where that is nothing."""
    kind = TYPE.search(attributes)
    if kind and kind[1] == b"inlineStr":
        return "".join(xtext(text) for text in TEXT.findall(PHONETIC.sub(b"", inside)))
    found = VALUE.search(inside)
    if not found or (not found[1] and not kind):
        return None
    match kind[1] if kind else b"n":
        case b"n":
            return float(found[1])
        case b"s":
            return strings[int(found[1])]
        case b"b":
            return found[1] == b"1"
        case b"e":
            return CellError(unescaped(found[1]))
    return xtext(found[1])
