"""Writes the workbook: the furniture, with the cells streamed into their places."""

import io
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from xlgpt.cells import Strings, constant, formula_row
from xlgpt.compile import Formula
from xlgpt.furniture import furnish
from xlgpt.home import HOME, PROMPT
from xlgpt.layout import PlacedWeight, Range, Sheet
from xlgpt.package import Package, replacing
from xlgpt.plan import Plan
from xlgpt.tables import Table
from xlgpt.upright import with_upright
from xlgpt.values import Values, on_sheet
from xlgpt.weightsheet import WORTH_IT, Job, Tensor, results, workers

Progress = Callable[[str, int, int], None]  # the phase, how much is done, of how much
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRINGS = "xl/sharedStrings.xml"
BLANK = re.compile(rb'<c r="([A-Z]+\d+)" s="(\d+)"/>')
ROW = re.compile(rb'<row r="(\d+)"[^>]*>.*?</row>', re.DOTALL)
STYLED = re.compile(rb'<c r="([A-Z]+)\d+" s="(\d+)"')
EMPTY_TEXT = re.compile(rb'(<c r="[A-Z]+\d+"(?: s="\d+")?)(><f>[^<]*</f><v></v>)')
DIMENSION = re.compile(rb'<dimension ref="[^"]*"/>')


@dataclass(frozen=True)
class Written:
    """What a build made: the file, its size in bytes, its cells and the formulas among them."""

    path: Path
    size: int
    cells: int
    formulas: int


def write_workbook(path: Path, plan: Plan, progress: Progress) -> Written:
    """Write the file beside its target and move it into place. Raises OutputError, WorkbookTooLarge, BadCheckpoint."""
    progress("Making the sheets", 0, 1)
    skeleton = zipfile.ZipFile(io.BytesIO(furnish(plan)))
    names = sheet_names(skeleton)
    weights = plan.layout.weight_sheets()
    jobs = [_job(part, skeleton.read(part), weights[name], plan) for part, name in names.items() if name in weights]
    with replacing(path) as file, Package(file) as package, _packing(jobs, path) as packed:
        written = _write_parts(package, skeleton, names, plan)
        done, total = 0, plan.model.parameters
        for job in packed(package):
            done += job.size
            progress("Writing weights", done, total)
    return replace(written, path=path, size=path.stat().st_size)


@contextmanager
def _packing(jobs: list[Job], path: Path) -> Iterator[Callable[[Package], Iterator[Job]]]:
    """Pack the weights here, or in other processes while this one writes the rest where that is worth it."""
    if sum(job.size for job in jobs) < WORTH_IT:
        yield lambda package: _pack_here(jobs, package)
        return
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder, workers(jobs, Path(folder)) as started:
        yield lambda package: _collect(started, package)


def _pack_here(jobs: list[Job], package: Package) -> Iterator[Job]:
    for job in jobs:
        package.add(job.part, job.xml())
        yield job


def _collect(started: list[Popen[bytes]], package: Package) -> Iterator[Job]:
    for worker in started:
        for packed in results(worker):
            package.append(packed.job.part, packed.file, packed.sums)
            packed.file.unlink()
            yield packed.job


def _write_parts(package: Package, skeleton: zipfile.ZipFile, names: dict[str, str], plan: Plan) -> Written:
    """All parts but the sheets of weights."""
    sheets = {sheet.name: sheet for sheet in plan.layout.sheets}
    weights = plan.layout.weight_sheets()
    filled = [formula for band in plan.formulas.values() for formula in band]
    cells = plan.model.parameters + sum(formula.cells.height * formula.cells.width for formula in filled)
    cells += sum(max(placed.cells.height for placed in s.upright) for s in plan.layout.sheets if s.upright)
    cells += sum(sum(map(len, table.columns)) for table in plan.tables.values())
    formulas = sum(1 if formula.is_array else formula.cells.height for formula in filled)
    strings = Strings(skeleton.read(STRINGS))
    for part in skeleton.namelist():
        xml, name = skeleton.read(part), names.get(part, "")
        cells += xml.count(b"<c r=") - len(BLANK.findall(xml))
        formulas += xml.count(b"<f>")
        if name in sheets or name in plan.tables:
            starts = _starts(sheets[name], plan) if name in sheets else {}
            xml = _filled(xml, starts, plan.tables.get(name), strings)
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


Starts = dict[bytes, tuple[Formula, int, Values | None]]  # where a row of a formula's cells begins: its values


def _starts(sheet: Sheet, plan: Plan) -> Starts:
    """Every place on a sheet where a row of a formula's cells begins."""
    starts: Starts = {}
    for placed in (placed for placed in sheet.bands if placed not in sheet.upright):
        values = on_sheet(plan.values[placed.band.name], placed) if placed.band.name in plan.values else ()
        for formula in plan.formulas[placed.band.name]:
            left = formula.cells.column - placed.cells.column
            for row in range(formula.cells.height):
                i = formula.cells.row - placed.cells.row + row
                line = values[i][left : left + formula.cells.width] if i < len(values) else None
                starts[formula.cells.rows(row, row + 1).first.encode()] = formula, row, line
    return starts


def _filled(xml: bytes, starts: Starts, table: Table | None, strings: Strings) -> bytes:
    """A sheet with the formulas' cells in place of the blank ones, and with all rows of its long table."""

    def fill(blank: re.Match[bytes]) -> bytes:
        if blank[1] not in starts:  # an input that nobody has filled in
            return blank[0]
        return formula_row(*starts[blank[1]], int(blank[2]))

    xml = _typed(xml)
    if table:
        first = next(row for row in ROW.finditer(xml) if int(row[1]) == table.row + 1)
        xml = xml[: first.start()] + b"".join(_table_rows(first[0], table, starts, strings)) + xml[first.end() :]
    return BLANK.sub(fill, xml)


def _table_rows(first: bytes, table: Table, starts: Starts, strings: Strings) -> Iterator[bytes]:
    """The rows of a long table, in the styles of the blank one that stands for them."""
    styles = [(letters, int(style)) for letters, style in STYLED.findall(first)]
    constants = dict(zip((letters for letters, _ in styles), table.columns, strict=False))
    for i in range(table.height):
        number = b"%d" % (table.row + 1 + i)
        cells = (
            constant(letters + number, constants[letters][i], style, strings)
            if letters in constants
            else formula_row(*starts[letters + number], style)
            for letters, style in styles
            if letters not in constants or i < len(constants[letters])
        )
        yield b'<row r="%b">%b</row>' % (number, b"".join(cells))


def _job(part: str, xml: bytes, weights: list[PlacedWeight], plan: Plan) -> Job:
    """A sheet of weights to be packed: the lines about each tensor, which the skeleton holds, and the tensors."""
    lines = {int(row[1]) - 1: BLANK.sub(b"", row[0]) for row in ROW.finditer(xml)}
    before, _, rest = xml.partition(b"<sheetData>")
    last = weights[-1].cells
    used = Range("", 0, 0, last.row + last.height, max(placed.cells.width for placed in weights))
    before = DIMENSION.sub(b'<dimension ref="%b"/>' % used.a1.encode(), before) + b"<sheetData>" + lines[0]
    tensors = tuple(
        Tensor(placed.weight.name, placed.cells.height, placed.cells.width, lines[placed.cells.row - 1])
        for placed in weights
    )
    return Job(part, before, b"</sheetData>" + rest.partition(b"</sheetData>")[2], tensors, plan.model.weights)
