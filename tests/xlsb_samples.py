"""Workbooks that Excel saved as .xlsb: their records, and their formulas with where each stands."""

import os
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import SHARED

from xlgpt.xlsb import cells, ptg, sheet, workbook
from xlgpt.xlsb.fields import Block, Record
from xlgpt.xlsb.place import ORIGIN, Place
from xlgpt.xlsb.records import read_records
from xlgpt.xlsb.scope import Kind, Scope
from xlgpt.xlsb.tokens import Compiled

DATA = Path(__file__).parent / "data" / "xlsb"  # a few that hold the most, under the Apache License 2.0
MORE = [Path(folder) for folder in os.environ.get("XLGPT_XLSB_SAMPLES", "").split(os.pathsep) if folder]
EXCEL = SHARED / "xlsb-excel"

FORMULA_CELLS: dict[int, type[Record]] = {
    record.identity: record
    for record in (cells.TextFormula, cells.NumberFormula, cells.BooleanFormula, cells.ErrorFormula)
}


@dataclass(frozen=True)
class Workbook:
    path: Path
    parts: dict[str, list[tuple[int, bytes]]]  # the records of the workbook, its sheets, styles and strings
    sheets: dict[str, str]  # a part's sheet
    scope: Scope


@dataclass(frozen=True)
class Found:
    where: str
    kind: Kind
    sheet: str | None
    place: Place
    compiled: Compiled


def workbooks(folder: Path) -> Iterator[Workbook]:
    """Those that are whole; of Excel's three are empty, and one is locked by a password."""
    for path in sorted(folder.glob("*.xlsb")):
        if zipfile.is_zipfile(path) and "xl/_rels/workbook.bin.rels" in zipfile.ZipFile(path).namelist():
            yield opened(path)


def opened(path: Path) -> Workbook:
    wanted = re.compile(r"xl/(workbook|styles|sharedStrings|(work|chart|macro|dialog)sheets/sheet\d+)\.bin")
    with zipfile.ZipFile(path) as archive:
        parts = {n: list(read_records(archive.read(n))) for n in archive.namelist() if wanted.fullmatch(n)}
        relations = archive.read("xl/_rels/workbook.bin.rels").decode()
    targets = {
        re.search(r'\bId="([^"]*)"', tag)[1]: "xl/" + re.search(r'Target="([^"]*)"', tag)[1].removeprefix("/xl/")
        for tag in re.findall(r"<Relationship [^>]*>", relations)
    }
    records = parts["xl/workbook.bin"]
    names = (workbook.Sheet.read(payload) for identity, payload in records if identity == workbook.Sheet.identity)
    sheets = {targets[each.relation]: each.name for each in names if each.relation in targets}
    return Workbook(path, parts, sheets, workbook.scope(records))


def formulas(book: Workbook) -> Iterator[Found]:
    """Every formula but those of cells that say where an array or a shared formula begins."""
    for part, records in book.parts.items():
        name, around = book.sheets.get(part), ORIGIN
        for identity, payload in records:
            if identity == cells.RowHeader.identity:
                around = Place(cells.RowHeader.read(payload).row, 0)
            elif identity == sheet.BeginConditional.identity:
                around = _first(sheet.BeginConditional.read(payload).cells[0])
            for kind, place, compiled in _formulas(identity, payload, around):
                if compiled.tokens and compiled.tokens[0] != ptg.EXPRESSION_OF:
                    yield Found(f"{book.path.name} {part} {place}", kind, name, place, compiled)


def _formulas(identity: int, payload: bytes, around: Place) -> Iterable[tuple[Kind, Place, Compiled]]:
    if identity in FORMULA_CELLS:
        cell = FORMULA_CELLS[identity].read(payload)
        yield Kind.CELL, Place(around.row, cell.column), cell.formula
    elif identity in (426, 427):
        formula = (cells.ArrayFormula if identity == 426 else cells.SharedFormula).read(payload)
        place = _first(formula.cells)
        yield Kind.ARRAY if identity == 426 else Kind.SHARED, place, formula.formula
    elif identity == workbook.DefinedName.identity:
        yield Kind.NAME, ORIGIN, workbook.DefinedName.read(payload).formula
    elif identity == sheet.Validation.identity:
        validation = sheet.Validation.read(payload)
        place = _first(validation.cells[0])
        yield Kind.LIST if validation.flags & 15 == 3 else Kind.VALIDATION, place, validation.first
        yield Kind.VALIDATION, place, validation.second
    elif identity == sheet.BeginRule.identity:
        for formula in sheet.BeginRule.read(payload).formulas:
            yield Kind.CONDITION, around, formula


def _first(block: Block) -> Place:
    return Place(block.first_row, block.first_column)


def tokens(formula: Compiled) -> Iterator[tuple[int, bytes]]:
    """Each token, with its class taken out, and its bytes ([MS-XLSB] 2.5.98): written anew, apart from text.py."""
    data, at = formula.tokens, 0
    while at < len(data):
        code = data[at]
        token = code & 0x1F | 0x20 if code >= 0x20 else code
        if token == 0x17:
            size = 3 + 2 * struct.unpack_from("<H", data, at + 1)[0]
        elif token == 0x18:
            size = 14 if data[at + 1] == 0x19 else 6
        elif token == 0x19 and data[at + 1] == 4:
            size = 6 + 2 * struct.unpack_from("<H", data, at + 2)[0]
        elif 0x03 <= token <= 0x16:
            size = 1
        else:
            size = _SIZES[token]
        yield token, data[at : at + size]
        at += size


_SIZES = {1: 5, 0x19: 4, 0x1C: 2, 0x1D: 2, 0x1E: 3, 0x1F: 9, 0x20: 15, 0x21: 3, 0x22: 4, 0x23: 5, 0x24: 7, 0x25: 13}
_SIZES |= {0x26: 7, 0x27: 7, 0x28: 7, 0x29: 3, 0x2A: 7, 0x2B: 13, 0x2C: 7, 0x2D: 13, 0x39: 7, 0x3A: 9, 0x3B: 15}
_SIZES |= {0x3C: 9, 0x3D: 15}


def defined(formula: Compiled, scope: Scope) -> Compiled:
    """A formula with zeros for the bytes that mean nothing, and the first of several references to the same sheets."""
    data = bytearray()
    for token, code in tokens(formula):
        match token:
            case 0x20 | 0x2A | 0x2B:
                code = code[:1] + bytes(len(code) - 1)
            case 0x26:
                code = code[:1] + bytes(4) + code[5:]
            case 0x3C | 0x3D:
                code = code[:3] + bytes(len(code) - 3)
            case 0x19 if code[1] in (ptg.SUM, ptg.VOLATILE):
                code = code[:2] + bytes(2)
        if 0x39 <= token <= 0x3D:
            sheets = scope.sheets[int.from_bytes(code[1:3], "little")]
            if sheets is not None:
                code = code[:1] + scope.sheet_numbers[sheets.lower()].to_bytes(2, "little") + code[3:]
        data += code
    return Compiled(bytes(data), formula.extra)
