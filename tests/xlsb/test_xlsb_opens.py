"""The least workbook of these records is one that other programs open and calculate."""

import subprocess
import zipfile
from pathlib import Path

import openpyxl
import pytest
from conftest import SOFFICE
from python_calamine import CalamineWorkbook
from xlsb_grammar import findings
from xlsb_samples import opened

from xlgpt.xlsb import cells, sheet, styles, workbook
from xlgpt.xlsb.cells import NumberFormula
from xlgpt.xlsb.fields import Block, Color
from xlgpt.xlsb.place import Place
from xlgpt.xlsb.records import record
from xlgpt.xlsb.scope import Kind, Scope
from xlgpt.xlsb.tokens import Compiler, member

SCOPE = Scope(("Home", "h.0"), (("_xlfn.UNICHAR", None), ("total", None)))  # names in the order of the alphabet
HOME = Compiler(SCOPE, "Home")
AUTOMATIC = Color(1, 0, 0, 0, 0, 0, 0)
LINE = styles.Line(0, 0, AUTOMATIC)
ARRAY = Place(3, 0)

TYPE = "application/vnd.ms-excel."
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
KINDS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"


def row(number: int, *records: bytes) -> bytes:
    return cells.RowHeader(number, 0, 300, bytes(3), ()).record() + b"".join(records)


def formula(column: int, text: str) -> bytes:
    return NumberFormula(column, 0, 0.0, 0, HOME.compiled(text)).record()


def inner(column: int) -> bytes:
    return NumberFormula(column, 0, 0.0, 0, member(ARRAY)).record()


def sheet_part(dimension: Block, *rows: bytes) -> bytes:
    view = sheet.View(0x3DC, 0, 0, 0, 64, bytes(3), (100, 0, 0, 0), 0)
    head = [record(sheet.BEGIN_SHEET), sheet.Dimension(dimension).record(), record(sheet.BEGIN_VIEWS), view.record()]
    head += [record(sheet.END_VIEW), record(sheet.END_VIEWS)]
    head += [sheet.SheetFormat(0xFFFFFFFF, 8, 300, 0, 0, 0).record(), record(cells.BEGIN)]
    return b"".join([*head, *rows, record(cells.END), record(sheet.END_SHEET)])


def home() -> bytes:
    product = HOME.compiled("MMULT(A1:B2,TRANSPOSE(A1:B2))", Kind.ARRAY)
    array = cells.ArrayFormula(Block(3, 4, 0, 1), 0, product).record()
    text = cells.TextFormula(3, 0, "", 0, HOME.compiled('_xlfn.UNICHAR(65)&"x"')).record()
    return sheet_part(
        Block(0, 4, 0, 3),
        row(0, cells.Real(0, 0, 1.5).record(), cells.Real(1, 0, 2.5).record(), formula(2, "SUM(A1:B1)")),
        row(1, cells.Real(0, 0, 3.0).record(), cells.Real(1, 0, 4.0).record(), formula(2, "IFERROR(1/0,7)")),
        row(2, formula(0, "SUM('h.0'!A1:C2)"), formula(1, "IF(A1>1,10,20)"), formula(2, "CHOOSE(2,1,2,3)"), text),
        row(3, inner(0) + array, inner(1)),
        row(4, inner(0), inner(1)),
    )


def weights() -> bytes:
    """With short cells, as these are the most of a workbook."""
    numbers = [[1.0, 2.0, 3.0], [0.5, 0.25, 0.125]]
    rows = (
        row(i, cells.Real(0, 0, first).record(), *(cells.ShortReal(0, each).record() for each in others))
        for i, (first, *others) in enumerate(numbers)
    )
    return sheet_part(Block(0, 1, 0, 2), *rows)


def style_part() -> bytes:
    fills = [styles.Fill(k, AUTOMATIC, AUTOMATIC, 0, 0.0, (0.0, 0.0, 0.0, 0.0), ()).record() for k in (0, 17)]
    font = styles.Font(220, 0, 400, 0, 0, 2, 0, 0, AUTOMATIC, 2, "Calibri").record()
    formats = [styles.Format(parent, 0, 0, 0, 0, 0, 0, 0x1010, 0).record() for parent in (0xFFFF, 0)]
    groups = [
        (styles.BeginFonts, [font], styles.END_FONTS),
        (styles.BeginFills, fills, styles.END_FILLS),
        (styles.BeginBorders, [styles.Border(0, *[LINE] * 5).record()], styles.END_BORDERS),
        (styles.BeginStyleFormats, formats[:1], styles.END_STYLE_FORMATS),
        (styles.BeginCellFormats, formats[1:], styles.END_CELL_FORMATS),
        (styles.BeginNamedStyles, [styles.NamedStyle(0, 1, 0, 0, "Normal").record()], styles.END_NAMED_STYLES),
        (styles.BeginDifferentialFormats, [], styles.END_DIFFERENTIAL_FORMATS),
    ]
    parts = (begin(len(each)).record() + b"".join(each) + record(end) for begin, each, end in groups)
    tables = styles.BeginTableStyles(0, "TableStyleMedium9", "PivotStyleLight16").record()
    end = record(styles.END_TABLE_STYLES) + record(styles.END_STYLES)
    return record(styles.BEGIN_STYLES) + b"".join(parts) + tables + end


def book_part() -> bytes:
    references = tuple(workbook.SheetReference(0, i, i) for i in range(2))
    name = Compiler(SCOPE).compiled("Home!$C$1", Kind.NAME)
    return b"".join(
        [
            record(workbook.BEGIN_BOOK),
            record(workbook.BEGIN_SHEETS),
            *(workbook.Sheet(0, i, f"rId{i}", sheet).record() for i, sheet in enumerate(SCOPE.sheets, 1)),
            record(workbook.END_SHEETS),
            record(workbook.BEGIN_EXTERNALS),
            record(workbook.THIS_BOOK),
            workbook.SheetReferences(references).record(),
            record(workbook.END_EXTERNALS),
            workbook.future_function("_xlfn.UNICHAR").record(),
            workbook.DefinedName(0, 0, workbook.NO_SHEET, "total", name, (None,)).record(),
            workbook.Calculation(124519, 1, 100, 0.001, 1, 0x4B).record(),
            record(workbook.END_BOOK),
        ]
    )


def relations(*targets: str) -> str:
    links = (
        f'<Relationship Id="rId{i}" Type="{KINDS}{kind}" Target="{target}"/>'
        for i, (kind, target) in enumerate((each.split(" ") for each in targets), 1)
    )
    return f'<Relationships xmlns="{RELATIONS}">{"".join(links)}</Relationships>'


def content_types() -> str:
    kinds = {"worksheets/sheet1": "worksheet", "worksheets/sheet2": "worksheet", "styles": "styles"}
    parts = (f'<Override PartName="/xl/{part}.bin" ContentType="{TYPE}{kind}"/>' for part, kind in kinds.items())
    return (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        f'<Default Extension="bin" ContentType="{TYPE}sheet.binary.macroEnabled.main"/>'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f"{''.join(parts)}</Types>"
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("least") / "least.xlsb"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", content_types())
        archive.writestr("_rels/.rels", relations("officeDocument xl/workbook.bin"))
        parts = "worksheet worksheets/sheet1.bin", "worksheet worksheets/sheet2.bin", "styles styles.bin"
        archive.writestr("xl/_rels/workbook.bin.rels", relations(*parts))
        archive.writestr("xl/workbook.bin", book_part())
        archive.writestr("xl/worksheets/sheet1.bin", home())
        archive.writestr("xl/worksheets/sheet2.bin", weights())
        archive.writestr("xl/styles.bin", style_part())
    return path


def test_its_grammar(path: Path) -> None:
    assert findings(opened(path)) == []


def test_calamine_opens_it(path: Path) -> None:
    """All but short cells, which it passes over."""
    book = CalamineWorkbook.from_path(path)
    assert book.get_sheet_by_name("Home").to_python()[:2] == [[1.5, 2.5, 0.0, ""], [3.0, 4.0, 0.0, ""]]
    assert book.get_sheet_by_name("h.0").to_python() == [[1.0], [0.5]]


@pytest.mark.libreoffice
def test_libreoffice_calculates_it(path: Path, tmp_path: Path) -> None:
    """Array formulas, jumps, another sheet's short cells and a function that is a name."""
    profile = f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}"
    command = [str(SOFFICE), profile, "--headless", "--convert-to", "xlsx", "--outdir", str(tmp_path), str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    found = openpyxl.load_workbook(tmp_path / "least.xlsx", data_only=True)["Home"]
    values = [[cell.value for cell in cells] for cells in found.iter_rows()]
    assert values[:3] == [[1.5, 2.5, 4, None], [3, 4, 7, None], [6.875, 10, 2, "Ax"]]
    assert [line[:2] for line in values[3:]] == [[8.5, 14.5], [14.5, 25]]
