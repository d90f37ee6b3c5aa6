"""Turns a workbook into what the page loads: IronCalc's own file, and what that file does not hold.

IronCalc calculates all conditional formats at each edit, and on loading: on the weights' sheets that takes longer than
the model itself. So they are left out of its file, and the page colours the cells that it shows.
"""

import re
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lxml import etree

from xlgpt.errors import BrokenWorkbook, EngineFailed, EngineNotFound, TooManyCells
from xlgpt.workbook.book import Book
from xlgpt.xlsx.archive import MAIN
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import a1_range

MOST_CELLS = 3_000_000  # of the model; each takes some 300 bytes in the browser, which grants 4 GB to a page
ENGINE = "0.8."  # whose files @ironcalc/wasm 0.8.4 reads; it reads neither older nor newer ones
NO_IRONCALC = "IronCalc was not found. Install it with `pip install 'xlgpt[view]'`."
WRONG_IRONCALC = (
    "The page reads what ironcalc 0.8.3 saves, and {} is installed: run `pip install 'xlgpt[view]'` in an environment "
    "of its own."
)
TARGETS = ("lens.target", "circuit.target")  # tokens that are looked up by their exact letters
END = b"</sheetData>"
FORMATS = re.compile(rb"<conditionalFormatting.*</conditionalFormatting>", re.DOTALL)
ROW = re.compile(rb'(<row r="(\d+)"[^>]*>.*?)</row>', re.DOTALL)
FORMULA = re.compile(rb"<f\b[^>]*>[^<]*?(?:ROW|COLUMN)\([^<]*</f>")
NUMBERS = re.compile(rb"\b(ROW|COLUMN)\(([^()]+)\)")
LOOKED_UP = re.compile(rb"EXACT\(SUBSTITUTE\([\w.]+,[^,]+,[^)]+\),vocabulary\.shown\)\*1")
TAG = f"{{{MAIN}}}"

Place = Callable[[str], tuple[int, int, int]]  # of a name's first cell: its sheet from 0, row and column from 1


@dataclass(frozen=True)
class Converted:
    """A workbook for the page.

    model: IronCalc's file. facts: what else the page has to know: the model's name, prompts to try, the switch of each
    sheet, and of each sheet its size, merged cells, links, lists and colours; rows and columns count from 1.
    """

    model: bytes
    facts: dict[str, Any]


def convert(path: str | Path) -> Converted:
    """Load a workbook in IronCalc and save it for the page, with all that looks inside switched off.

    Raises NotAWorkbook, ForeignWorkbook, BrokenWorkbook, TooManyCells, EngineNotFound, EngineFailed.
    """
    book = Book(path)
    book.check_sizes()
    _check(book)
    ironcalc = _ironcalc()
    tails = {sheet: _tail(book, sheet) for sheet in book.sheets}
    with tempfile.TemporaryDirectory() as folder:
        plain, saved = Path(folder) / "book.xlsx", Path(folder) / "book.ic"
        _without_formats(book, plain)
        try:
            model = ironcalc.load_from_xlsx(str(plain), "en", "UTC", "en")
            _prepare(model, book)
            model.save_to_icalc(str(saved))
        except ironcalc.WorkbookError as e:
            raise EngineFailed(f"IronCalc cannot load {path}: {str(e).rstrip('.')}.") from e
        return Converted(saved.read_bytes(), _facts(book, model, tails))


def _ironcalc() -> ModuleType:
    try:
        import ironcalc
    except ImportError as e:
        raise EngineNotFound(NO_IRONCALC) from e
    version: str = ironcalc.__version__
    if not version.startswith(ENGINE):
        raise EngineNotFound(WRONG_IRONCALC.format(version))
    return ironcalc


def _check(book: Book) -> None:
    """Refuse what the page could not hold or would calculate wrongly."""
    if book.scope:
        raise EngineFailed(f"IronCalc reads no .xlsb, as {book.path} is one: build the workbook as .xlsx.")
    bands, weights = book.layout.bands.values(), book.layout.weights
    cells = sum(at.height * at.width for at in (*(p.cells for p in bands), *(p.cells for p in weights)))
    if cells > MOST_CELLS:
        raise TooManyCells(
            f"{book.path} has {cells:,} cells; a page in the browser holds {MOST_CELLS:,} at most. "
            "Open it in Excel or LibreOffice, or build it of a smaller model."
        )
    if book.config.activation_function == "gelu":
        raise EngineFailed("IronCalc takes NORMSDIST of one number only; the gelu of this model is of a whole row.")
    if book.matmul == "sumproduct":
        raise EngineFailed(f"IronCalc cannot calculate {book.path}: build it with --matmul mmult.")
    if book.new_tokens == 1:
        raise EngineFailed(f"IronCalc cannot calculate {book.path}: build it with --generate 2 or more.")


def _without_formats(book: Book, out: Path) -> None:
    """A copy of the workbook without conditional formats, and with a column to look each target up in."""
    sheets = {book.part(sheet) for sheet in book.sheets}
    columns = _target_columns(book)
    with zipfile.ZipFile(book.path) as old, zipfile.ZipFile(out, "w") as new:
        for part in old.namelist():
            xml = old.read(part)
            if part in sheets:
                end = xml.rfind(END)
                xml = _with_numbers(book, xml[:end]) + FORMATS.sub(b"", xml[end:])
            for target, cells in columns.items():
                if part == book.part(book.named(f"{target}_id").sheet):
                    xml = LOOKED_UP.sub(cells.absolute.encode(), xml)
                if part == book.part(cells.sheet):
                    xml = _with_column(xml, cells, target, book.named("vocabulary.shown"))
            new.writestr(part, xml)


def _with_numbers(book: Book, xml: bytes) -> bytes:
    """Formulas with {9,10,11} for COLUMN(I21:K21), and alike for ROW: IronCalc 0.8 has them of one cell only."""

    def spelt_out(call: re.Match[bytes]) -> bytes:
        said = call[2].decode()
        cells = book.named(said) if book.has(said) else a1_range("", said.rpartition("!")[2])
        if cells is None:
            return call[0]
        first, count = (cells.row, cells.height) if call[1] == b"ROW" else (cells.column, cells.width)
        numbers = (";" if call[1] == b"ROW" else ",").join(str(first + i + 1) for i in range(count))
        return b"{%b}" % numbers.encode() if count > 1 else call[0]

    return FORMULA.sub(lambda formula: NUMBERS.sub(spelt_out, formula[0]), xml)


def _target_columns(book: Book) -> dict[str, Range]:
    """Cells behind the vocabulary for each target, one beside each token.

    IronCalc 0.8 has EXACT for single cells only.
    """
    tokens = book.named("vocabulary.shown")
    behind = 2 + max(column for _, column in book.cells(tokens.sheet).constants)
    there = [target for target in TARGETS if book.has(f"{target}_id")]
    return {target: Range(tokens.sheet, tokens.row, behind + i, tokens.height) for i, target in enumerate(there)}


def _with_column(xml: bytes, cells: Range, target: str, tokens: Range) -> bytes:
    """A sheet with a column of formulas: 1 beside the token that a target is, by its exact letters."""
    switch = f"{target.partition('.')[0]}.on"

    def longer(row: re.Match[bytes]) -> bytes:
        i = int(row[2]) - 1 - cells.row
        if not 0 <= i < cells.height:
            return row[0]
        token, cell = tokens.cell(i, 0).first, cells.cell(i, 0).first
        formula = f'IF({switch}=0,0,EXACT(SUBSTITUTE({target}," ","␣"),{token})*1)'
        return row[1] + f'<c r="{cell}"><f>{formula}</f><v>0</v></c></row>'.encode()

    return ROW.sub(longer, xml)


def _prepare(model: Any, book: Book) -> None:
    """Switch off what looks inside, and writing: the first answer is there sooner, and the page can switch them on."""
    sheets = [sheet["name"] for sheet in model.get_worksheets_properties()]

    def place(name: str) -> tuple[int, int, int]:
        cells = book.named(name)
        return sheets.index(cells.sheet), cells.row + 1, cells.column + 1

    for name in {*_switches(book).values(), "max_new_tokens"}:
        model.update_cell_with_number(*place(name), 0.0)
    if _compares_many(model, book, place, "steering.at_vector"):
        model.update_cell_with_formula(*place("steering.at_vector"), chosen_vector(book))
    model.evaluate()


def _compares_many(model: Any, book: Book, place: Place, name: str) -> bool:
    """Whether a cell compares a text by EXACT with many cells, which IronCalc 0.8 does one cell at a time only."""
    return book.has(name) and "EXACT(" in (model.get_cell_formula(*place(name)) or "")


def chosen_vector(book: Book) -> str:
    """The row of the steering vector whose name was chosen, with an EXACT for each name."""
    names = book.named("steering.names")
    rows = (f"EXACT(steering.vector,{names.cell(i, 0).first})*{i + 1}" for i in range(names.height))
    return f'=IF(steering.on*n_tokens=0,"",MAX({",".join(rows)}))'


def _switches(book: Book) -> dict[str, str]:
    """The switch of each sheet that has one."""
    return {sheet.name: sheet.stage.switch for sheet in book.layout.sheets if sheet.stage.switch}


def _facts(book: Book, model: Any, tails: dict[str, etree._Element]) -> dict[str, Any]:
    sheets = [sheet["name"] for sheet in model.get_worksheets_properties()]
    sizes = {name: list(model.get_sheet_dimensions(i)[1::2]) for i, name in enumerate(sheets)}
    fills = _fills(book)
    return {
        "model": str(book.constant("about.model") or ""),
        "file": book.path.name,
        "parameters": int(float(book.constant("about.parameters") or 0)),
        "formulas": sum(
            placed.cells.height * placed.cells.width
            for placed in book.layout.bands.values()
            if placed.band.kind in ("activation", "answer")
        ),
        "prompts": _prompts(book, tails[book.named("prompt").sheet]),
        "switches": _switches(book),
        "room": {"tokens": book.context, "bytes": book.max_bytes, "new": book.new_tokens},
        "heads": book.config.n_head,
        "sheets": {name: {"size": sizes[name], **_shown(name, tail, fills)} for name, tail in tails.items()},
    }


def _tail(book: Book, sheet: str) -> etree._Element:
    """What a sheet's part says besides its cells."""
    xml = book.xml(book.part(sheet))
    start, end = xml.find(b"<sheetData"), xml.rfind(END)
    try:
        return etree.fromstring(xml[:start] + xml[end + len(END) :] if end > 0 else xml)
    except etree.XMLSyntaxError as e:
        raise BrokenWorkbook(f"{book.path}: the sheet {sheet!r} is damaged; build the workbook again.") from e


def _fills(book: Book) -> list[str]:
    """The background of each format that a rule can give."""
    styles = etree.fromstring(book.xml("xl/styles.xml"))
    colours = (e.find(f"{TAG}fill/{TAG}patternFill/{TAG}bgColor") for e in styles.iterfind(f"{TAG}dxfs/{TAG}dxf"))
    return ["" if colour is None else f"#{colour.get('rgb', '')[-6:]}" for colour in colours]


def _shown(sheet: str, tail: etree._Element, fills: list[str]) -> dict[str, Any]:
    """The merged cells, links and colours of a sheet."""
    return {
        "fills": {
            format_.get("sqref", ""): fills[int(rule.get("dxfId", 0))]
            for format_ in tail.iter(f"{TAG}conditionalFormatting")
            for rule in format_.iter(f"{TAG}cfRule")
            if rule.get("operator") == "greaterThan" and rule.findtext(f"{TAG}formula") == '""'
        },
        "merges": [_corners(sheet, e.get("ref", "")) for e in tail.iter(f"{TAG}mergeCell")],
        "links": {e.get("ref", ""): e.get("location") for e in tail.iter(f"{TAG}hyperlink") if e.get("location")},
        "scales": [
            {"at": _corners(sheet, place), "stops": stops}
            for format_ in tail.iter(f"{TAG}conditionalFormatting")
            for place in format_.get("sqref", "").split()
            for stops in map(_stops, format_.iter(f"{TAG}colorScale"))
            if stops
        ],
    }


def _stops(scale: etree._Element) -> list[tuple[float, str]]:
    """The numbers of a colour scale and their colours; none where they depend on other cells."""
    points = [(e.get("type"), e.get("val", "")) for e in scale.iter(f"{TAG}cfvo")]
    colours = [f"#{e.get('rgb', '')[-6:]}" for e in scale.iter(f"{TAG}color")]
    if any(kind != "num" for kind, _ in points) or len(points) != len(colours):
        return []
    return [(float(value), colour) for (_, value), colour in zip(points, colours, strict=True)]


def _corners(sheet: str, place: str) -> list[int]:
    """Row, column, height and width of a place such as B7:O7; rows and columns count from 1."""
    cells = a1_range(sheet, place) or Range(sheet, 0, 0)
    return [cells.row + 1, cells.column + 1, cells.height, cells.width]


def _prompts(book: Book, tail: etree._Element) -> list[str]:
    """The texts that the list in the prompt's cell offers."""
    prompt = book.named("prompt")
    for rule in tail.iter(f"{TAG}dataValidation"):
        listed = rule.findtext(f"{TAG}formula1") or ""
        if rule.get("sqref") == prompt.first and "!" in listed:
            cells = a1_range(prompt.sheet, listed.partition("!")[2])
            return [str(text) for text in book.column(cells) if text] if cells else []
    return []
