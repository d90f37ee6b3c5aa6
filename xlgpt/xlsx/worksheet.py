"""Reads worksheets back (ECMA-376 18.3), as xlgpt writes them and as Excel, LibreOffice and others save them again."""

import io
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from lxml import etree
from numpy.typing import NDArray

from xlgpt.errors import BrokenWorkbook
from xlgpt.xlsx.archive import Archive
from xlgpt.xlsx.formula import Formula
from xlgpt.xlsx.ranges import Range, column_letters, column_number

Scalar = float | bool | str
Values = NDArray[Any]  # [rows, columns]: float64, or objects: float, bool, str ("" where nothing is shown), CellError

LONGEST_ROW = 1 << 24  # bytes; of 16,384 cells, a thousand each
NEXT_CELL = b"</v></c><c><v>"
REFERENCED = re.compile(rb'<c r="([A-Z]+)\d+"(?: s="\d+")?(?: t="n")?><v>')
ROW_HEAD = re.compile(rb"<row\b([^>]*)>")
ROW_NUMBER = re.compile(rb'\br="(\d+)"')
PREFIX = re.compile(rb"<(\w+:)worksheet\b")
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
    """The cells that two blocks have in common; None where there is none, or where they stand on two sheets."""
    if a.sheet != b.sheet:
        return None
    row, column = max(a.row, b.row), max(a.column, b.column)
    height = min(a.row + a.height, b.row + b.height) - row
    width = min(a.column + a.width, b.column + b.width) - column
    return Range(a.sheet, row, column, height, width) if height > 0 and width > 0 else None


def within(block: Range, wanted: Range) -> tuple[slice, slice]:
    """Which rows and columns of a block some of its cells are."""
    return _slices(wanted.row - block.row, wanted.height, wanted.column - block.column, wanted.width)


@lru_cache(1 << 16)  # a workbook has some of them a million times
def _slices(row: int, height: int, column: int, width: int) -> tuple[slice, slice]:
    return slice(row, row + height), slice(column, column + width)


def part(values: Values, of: Range, wanted: Range) -> Values:
    """The values of some of a block's cells."""
    return values[within(of, wanted)]


def a1_range(sheet: str, reference: str) -> Range | None:
    """The cells that D8, $D$8:$ACQ$39 and the like mean; None for anything else."""
    found = CORNERS.fullmatch(reference)
    if not found:
        return None
    columns = sorted((column_number(found[1]), column_number(found[3] or found[1])))
    rows = sorted((int(found[2]), int(found[4] or found[2])))
    return Range(sheet, rows[0] - 1, columns[0], rows[1] - rows[0] + 1, columns[1] - columns[0] + 1)


def without_escapes(text: str) -> str:
    """A text in which _xHHHH_ is the character that it stands for."""
    return XSTRING.sub(lambda code: chr(int(code[1], 16)), text) if "_x" in text else text


def rows(path: Path, part: str) -> Iterator[tuple[int, bytes]]:
    """Each row of a worksheet: its number from 0, and the XML of its cells. Raises BrokenWorkbook."""
    rest, prefix, number, ended = b"", b"", -1, False
    for piece in Archive(path).pieces(part):
        if not rest and number < 0:
            found = PREFIX.search(piece[:4096])
            prefix = found[1] if found else b""
        *whole, rest = (rest + piece).split(b"</%brow>" % prefix)
        for row in whole:
            number, cells = _row(
                row.replace(b"<" + prefix, b"<").replace(b"</" + prefix, b"</") if prefix else row, number
            )
            yield number, cells
        if len(rest) > LONGEST_ROW:
            raise BrokenWorkbook(f"{path}: the part {part} is damaged below row {number + 1}; take an intact copy.")
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
    if cells.startswith(b"<c><v>"):
        printed = cells[6:-8].replace(NEXT_CELL, b",")
    else:
        letters = REFERENCED.findall(cells)
        if letters != _letters(len(letters)):
            return None
        printed = REFERENCED.sub(b",", cells).replace(b"</v></c>", b"")[1:]
    if b"u" in printed or b"l" in printed:  # true, false, null: JSON's, and no numbers
        return None
    try:
        found: list[float] = orjson.loads(b"[%b]" % printed)
    except orjson.JSONDecodeError:
        return None
    return found


@cache
def _letters(count: int) -> list[bytes]:
    """Of the first columns."""
    return [column_letters(i).encode() for i in range(count)]


def read_cells(path: Path, sheet: str, part: str, strings: list[str]) -> Cells:
    """Everything that stands on a sheet. Raises BrokenWorkbook."""
    reader, number = _Reader(sheet, strings), -1
    try:
        for _, row in etree.iterparse(_File(path, part), tag="{*}row", resolve_entities=False):
            number = int(row.get("r", number + 2)) - 1
            reader.read(number, row)
            row.clear()
    except (ValueError, IndexError, OverflowError) as e:
        raise unreadable(path, sheet, number) from e
    except etree.XMLSyntaxError as e:
        raise BrokenWorkbook(f"{path}: the part {part} is damaged below row {number + 1}; take an intact copy.") from e
    saved = [None if i in reader.bare else settled(values) for i, values in enumerate(reader.saved)]
    return Cells(reader.constants, reader.formulas, saved)


class _File(io.RawIOBase):
    """A part as a file to read from."""

    def __init__(self, path: Path, part: str):
        self._pieces, self._rest = Archive(path).pieces(part), b""

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def unreadable(path: Path, sheet: str, row: int) -> BrokenWorkbook:
    """The failure for a row, from 0, whose cells hold what no cell can."""
    return BrokenWorkbook(f"{path}: row {row + 1} of the sheet {sheet!r} cannot be read; build the workbook again.")


def settled(values: Values) -> Values:
    """The same values as float64 where all are numbers."""
    return values.astype(np.float64) if all(type(value) is float for value in values.flat) else values


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a row: its column, its formula's element, and what it holds or shows; None where that is nothing."""

    column: int
    formula: Any
    value: Scalar | None


def cells_of(row: Any, strings: list[str]) -> Iterator[Cell]:
    """The cells of a row's element that are not empty. Raises ValueError, IndexError, OverflowError."""
    column = -1
    for cell in row:
        place = cell.get("r")
        column = column_number(place.rstrip("0123456789")) if place else column + 1
        formula, kind, text = None, cell.get("t", "n"), None
        for inside in cell:
            match inside.tag.rpartition("}")[2]:
                case "f":
                    formula = inside
                case "v":
                    text = inside.text or ""
                case "is":
                    text = text_of(inside)
        if formula is not None or text is not None:
            yield Cell(column, formula, _value(kind, text, strings))


def text_of(element: Any) -> str:
    """The text of a shared or an inline string, its runs together, without how it is pronounced (18.4.8, 18.4.6)."""
    texts = (e.text or "" for e in element.iter("{*}t") if not e.getparent().tag.endswith("rPh"))
    return without_escapes("".join(texts))


def _value(kind: str, text: str | None, strings: list[str]) -> Scalar | None:
    """What a cell of a type holds (18.18.11)."""
    if text is None or (not text and kind == "n"):
        return None
    match kind:
        case "n":
            return float(text)
        case "s":
            return strings[int(text)]
        case "b":
            return text == "1"
        case "e":
            return CellError(text)
        case "inlineStr":
            return text
    return without_escapes(text)


class _Reader:
    """Takes a sheet row by row and tells constants from formulas and from what formulas showed."""

    def __init__(self, sheet: str, strings: list[str]):
        self.sheet, self.strings = sheet, strings
        self.constants: dict[tuple[int, int], Scalar] = {}
        self.formulas: list[Formula] = []
        self.saved: list[Values] = []
        self.bare: set[int] = set()  # formulas without a saved value
        self._tall: list[int] = []  # array formulas that reach below the row of their first cell
        self._shared: dict[str, Any] = {}  # the formula that others repeat, at its cell

    def read(self, number: int, row: Any) -> None:
        """One row's element."""
        there: dict[int, Scalar] = {}
        here = [i for i in self._tall if number < self.formulas[i].cells.row + self.formulas[i].cells.height]
        for cell in cells_of(row, self.strings):
            if cell.formula is not None:
                here.append(self._add_formula(number, cell.column, cell.formula))
                if cell.value is None:
                    self.bare.add(here[-1])
            if cell.value is not None:
                there[cell.column] = cell.value
        self._tall = [i for i in here if self.formulas[i].cells.height > 1]
        for i in here:
            cells = self.formulas[i].cells
            line = [there.pop(c, "") for c in range(cells.column, cells.column + cells.width)]
            self.saved[i][number - cells.row] = line
        self.constants.update({(number, column): value for column, value in there.items()})

    def _add_formula(self, row: int, column: int, element: Any) -> int:
        cells, text, kind = Range(self.sheet, row, column), element.text or "", element.get("t")
        if kind == "array":
            cells = a1_range(self.sheet, element.get("ref", "")) or cells
        if kind == "shared":
            text = self._share(element.get("si", ""), text, cells)
        self.formulas.append(Formula(cells, text.removeprefix("="), kind == "array"))
        self.saved.append(np.full((cells.height, cells.width), "", dtype=object))
        return len(self.formulas) - 1

    def _share(self, group: str, text: str, cells: Range) -> str:
        """A shared formula (ECMA-376 18.3.1.40): written out once, then moved along."""
        if text:
            from openpyxl.formula.translate import Translator  # seldom needed, and a third of what `import xlgpt` takes

            self._shared[group] = Translator(f"={text}", origin=cells.first)
            return text
        master = self._shared.get(group)
        return str(master.translate_formula(cells.first)) if master else ""
