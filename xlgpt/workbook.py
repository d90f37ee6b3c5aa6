"""Writes the workbook: the furniture, with the cells streamed into their places."""

import io
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import numpy as np
from threadpoolctl import threadpool_limits

from xlgpt.cells import Strings, constant, formula_row
from xlgpt.compile import Formula
from xlgpt.furniture import FROZEN_ROWS, furnish, numbered
from xlgpt.home import HOME, PROMPT
from xlgpt.layout import LABEL_COLUMNS, PlacedWeight, Range, Sheet, column_letters
from xlgpt.package import Package, Packed, replacing
from xlgpt.plan import Plan
from xlgpt.tables import Table
from xlgpt.upright import with_upright
from xlgpt.values import Values, on_sheet
from xlgpt.weightsheet import WORTH_IT, Tensor, workers

Progress = Callable[[str, int, int], None]  # the phase, how much is done, of how much
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRINGS = "xl/sharedStrings.xml"
BLANK = re.compile(rb'<c r="([A-Z]+\d+)" s="(\d+)"/>')
ROW = re.compile(rb'<row r="(\d+)"[^>]*>.*?</row>', re.DOTALL)
STYLED = re.compile(rb'<c r="([A-Z]+)\d+" s="(\d+)"')
EMPTY_TEXT = re.compile(rb'(<c r="[A-Z]+\d+"(?: s="\d+")?)(><f>[^<]*</f><v></v>)')
SPANS = re.compile(rb' spans="\d+:\d+"')  # of the cells that XlsxWriter knows of, so not those of the row
DIMENSION = re.compile(rb'<dimension ref="A1:[A-Z]+(\d+)"/>')
FIRST_NUMBER = re.compile(rb'(<c r="%b" (s="\d+"))/>' % Range("", FROZEN_ROWS - 1, LABEL_COLUMNS).first.encode())


@dataclass(frozen=True)
class Written:
    """What a build made: the file, its size in bytes, its cells and the formulas among them."""

    path: Path
    size: int
    cells: int
    formulas: int


def write_workbook(path: Path, plan: Plan, progress: Progress) -> Written:
    """Write the file beside its target and move it into place. Raises OutputError, WorkbookTooLarge, BadCheckpoint."""
    with replacing(path) as file, Package(file) as package, _packing(plan, path) as packed:
        progress("Calculating the prompt", 0, 1)
        plan.values  # noqa: B018 - made when first asked for
        progress("Making the sheets", 0, 1)
        skeleton = zipfile.ZipFile(io.BytesIO(furnish(plan)))
        names = sheet_names(skeleton)
        written = _write_parts(package, skeleton, names, plan)
        parts, done = {name: part for part, name in names.items()}, 0
        for name, tensors in _tensors(plan).items():
            progress("Writing weights", done, plan.model.parameters)
            xml = skeleton.read(parts[name])
            package.add(parts[name], _weight_sheet(xml, plan.layout.weight_sheets()[name], map(packed, tensors)))
            done += sum(tensor.size for tensor in tensors)
        progress("Writing weights", done, done)
    return replace(written, path=path, size=path.stat().st_size)


def _tensors(plan: Plan) -> dict[str, list[Tensor]]:
    """The tensors of each weight sheet, the largest sheet first, so that all processes end at about the same time."""
    sheets = {
        name: [Tensor(p.weight.name, p.cells.height, p.cells.width, plan.model.weights) for p in placed]
        for name, placed in plan.layout.weight_sheets().items()
    }
    return dict(sorted(sheets.items(), key=lambda sheet: -sum(tensor.size for tensor in sheet[1])))


Rows = Iterable[bytes | Packed]


@contextmanager
def _packing(plan: Plan, path: Path) -> Iterator[Callable[[Tensor], Rows]]:
    """What gives a tensor's rows: this process, or others that pack them meanwhile where that is worth it."""
    if plan.model.parameters < WORTH_IT:
        yield Tensor.rows
        return
    tensors = [tensor for sheet in _tensors(plan).values() for tensor in sheet]
    with (
        TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder,
        workers(tensors, Path(folder)) as packed,
        threadpool_limits(1),  # NumPy's threads would spend more time waiting for each other than they save
    ):
        yield lambda tensor: [packed(tensor)]


def _weight_sheet(xml: bytes, weights: list[PlacedWeight], rows: Iterable[Rows]) -> Rows:
    """A sheet of weights: what the skeleton holds of it, and below the line about each tensor its rows."""
    lines = {int(row[1]) - 1: BLANK.sub(b"", row[0]) for row in ROW.finditer(xml)}
    before, _, rest = xml.partition(b"<sheetData>")
    last = weights[-1].cells
    used = Range("", 0, 0, last.row + last.height, max(placed.cells.width for placed in weights))
    yield DIMENSION.sub(b'<dimension ref="%b"/>' % used.a1.encode(), before) + b"<sheetData>" + lines[0]
    for placed, its_rows in zip(weights, rows, strict=True):
        yield lines[placed.cells.row - 1]
        yield from its_rows
    yield b"</sheetData>" + rest.partition(b"</sheetData>")[2]


def _write_parts(package: Package, skeleton: zipfile.ZipFile, names: dict[str, str], plan: Plan) -> Written:
    """All parts but the sheets of weights."""
    sheets = {sheet.name: sheet for sheet in plan.layout.sheets}
    weights = plan.layout.weight_sheets()
    filled = [formula for band in plan.formulas.values() for formula in band]
    cells = plan.model.parameters + sum(formula.cells.height * formula.cells.width for formula in filled)
    cells += sum(max(placed.cells.height for placed in s.upright) for s in plan.layout.sheets if s.upright)
    cells += sum(map(numbered, plan.layout.sheets))
    cells += sum(sum(map(len, table.columns)) for table in plan.tables.values())
    formulas = sum(1 if formula.is_array else formula.cells.height for formula in filled)
    strings = Strings(skeleton.read(STRINGS))
    for part in skeleton.namelist():
        xml, name = skeleton.read(part), names.get(part, "")
        cells += xml.count(b"<c r=") - len(BLANK.findall(xml))
        formulas += xml.count(b"<f>")
        if name in sheets or name in plan.tables:
            lines = _lines(sheets[name], plan) if name in sheets else {}
            xml = _numbered(xml, sheets[name]) if name in sheets else xml
            xml = _filled(xml, lines, plan.tables.get(name), strings)
            package.add(part, with_upright(xml, sheets[name], plan) if name in sheets else [xml])
        elif name == HOME:
            package.add(part, [_with_prompt(_typed(xml), plan.prompt, strings)])
        elif name not in weights and part != STRINGS:
            package.add(part, [_unstarted(xml) if part == "xl/workbook.xml" else xml])
    package.add(STRINGS, [strings.xml()])
    return Written(Path(), 0, cells, formulas)


def sheet_names(book: zipfile.ZipFile) -> dict[str, str]:
    """The name on the tab of each worksheet part, in the order of the tabs."""
    relations = ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))
    targets = {e.get("Id"): posixpath.join("/xl", e.get("Target", "")).lstrip("/") for e in relations}
    sheets = ElementTree.fromstring(book.read("xl/workbook.xml")).iter(f"{{{MAIN}}}sheet")
    return {targets[e.get(f"{{{RELATION}}}id")]: e.get("name", "") for e in sheets}


def _unstarted(xml: bytes) -> bytes:
    """Without the wish for a full calculation on loading: the saved values are right."""
    return xml.replace(b' fullCalcOnLoad="1"', b"")


def _with_prompt(xml: bytes, prompt: str, strings: Strings) -> bytes:
    """The home sheet with the prompt in the cell that was left blank for it."""

    def fill(blank: re.Match[bytes]) -> bytes:
        return constant(blank[1], prompt, int(blank[2]), strings) if blank[1] == PROMPT and prompt else blank[0]

    return BLANK.sub(fill, xml)


def _typed(xml: bytes) -> bytes:
    """XlsxWriter leaves out the type of a formula's empty text."""
    return EMPTY_TEXT.sub(rb'\1 t="str"\2', xml)


Line = list[tuple[Formula, int, Values | None]]  # the formulas of a band's row, which row of theirs it is, its values
Lines = dict[bytes, Line]  # by the cell that it begins with


def _lines(sheet: Sheet, plan: Plan) -> Lines:
    """Every row of formulas' cells on a sheet, but for those that stand upright."""
    lines: Lines = {}
    for placed in (placed for placed in sheet.bands if not placed.band.is_upright):
        cells, name, letters = placed.cells, placed.band.name, column_letters(placed.cells.column).encode()
        values = on_sheet(plan.values[name], placed) if name in plan.values else np.empty((0, 0))
        for formula in plan.formulas[name]:
            left, width = formula.cells.column - cells.column, formula.cells.width
            for row in range(formula.cells.height):
                i = formula.cells.row - cells.row + row
                shown = values[i, left : left + width] if i < len(values) else None
                lines.setdefault(b"%b%d" % (letters, formula.cells.row + row + 1), []).append((formula, row, shown))
    return lines


def _numbered(xml: bytes, sheet: Sheet) -> bytes:
    """A sheet with the numbers of its columns: thousands, and XlsxWriter looks for cells as far right in every row."""
    right = column_letters(max(placed.cells.column + placed.cells.width for placed in sheet.bands) - 1).encode()
    numbers = [b"<v>%d</v></c>" % i for i in range(numbered(sheet))]

    def fill(blank: re.Match[bytes]) -> bytes:
        return blank[1] + b">" + (b"<c %b>" % blank[2]).join(numbers)

    xml = DIMENSION.sub(rb'<dimension ref="A1:%b\1"/>' % right, xml, count=1)
    return FIRST_NUMBER.sub(fill, xml, count=1)


def _filled(xml: bytes, lines: Lines, table: Table | None, strings: Strings) -> bytes:
    """A sheet with the formulas' cells in place of the blank ones, and with all rows of its long table."""

    def fill(blank: re.Match[bytes]) -> bytes:
        if blank[1] not in lines:  # an input that nobody has filled in
            return blank[0]
        return _cells(lines[blank[1]], int(blank[2]))

    xml = SPANS.sub(b"", _typed(xml))
    if table:
        first = next(row for row in ROW.finditer(xml) if int(row[1]) == table.row + 1)
        xml = xml[: first.start()] + b"".join(_table_rows(first[0], table, lines, strings)) + xml[first.end() :]
    return BLANK.sub(fill, xml)


def _cells(line: Line, style: int) -> bytes:
    return b"".join([formula_row(formula, row, values, style) for formula, row, values in line])


def _table_rows(first: bytes, table: Table, lines: Lines, strings: Strings) -> Iterator[bytes]:
    """The rows of a long table, in the styles of the blank one that stands for them."""
    styles = [(letters, int(style)) for letters, style in STYLED.findall(first)]
    constants = dict(zip((letters for letters, _ in styles), table.columns, strict=False))
    for i in range(table.height):
        number = b"%d" % (table.row + 1 + i)
        cells = (
            constant(letters + number, constants[letters][i], style, strings)
            if letters in constants
            else _cells(lines[letters + number], style)
            for letters, style in styles
            if letters not in constants or i < len(constants[letters])
        )
        yield b'<row r="%b">%b</row>' % (number, b"".join(cells))
