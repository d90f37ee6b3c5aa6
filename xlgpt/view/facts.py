"""What the page has to know of a workbook besides IronCalc's file."""

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from xlgpt.errors import BrokenWorkbook
from xlgpt.workbook.book import Book
from xlgpt.xlsx.archive import MAIN
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import a1_range

END = b"</sheetData>"
STEP = re.compile(r"N\((\w+)\)>=(-?[\d.]+)")
TAG = f"{{{MAIN}}}"


def switches(book: Book) -> dict[str, str]:
    """The switch of each sheet that has one."""
    return {sheet.name: sheet.stage.switch for sheet in book.layout.sheets if sheet.stage.switch}


def facts_of(book: Book, model: Any, tails: dict[str, etree._Element]) -> dict[str, Any]:
    """What Converted says of them. model: IronCalc's. tails: of each sheet, what its part says besides its cells."""
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
        "switches": switches(book),
        "room": {"tokens": book.context, "bytes": book.max_bytes, "new": book.new_tokens},
        "heads": book.config.n_head,
        "sheets": {name: {"size": sizes[name], **_shown(name, tail, fills)} for name, tail in tails.items()},
    }


def tail(book: Book, sheet: str) -> etree._Element:
    """What a sheet's part says besides its cells. Raises BrokenWorkbook."""
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
    """The merged cells, links and conditional formats of a sheet."""
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
        "steps": [
            steps for format_ in tail.iter(f"{TAG}conditionalFormatting") for steps in _steps(sheet, format_, fills)
        ],
    }


def _stops(scale: etree._Element) -> list[tuple[float, str]]:
    """The numbers of a colour scale and their colours; none where they depend on other cells."""
    points = [(e.get("type"), e.get("val", "")) for e in scale.iter(f"{TAG}cfvo")]
    colours = [f"#{e.get('rgb', '')[-6:]}" for e in scale.iter(f"{TAG}color")]
    if any(kind != "num" for kind, _ in points) or len(points) != len(colours):
        return []
    return [(float(value), colour) for (_, value), colour in zip(points, colours, strict=True)]


def _steps(sheet: str, format_: etree._Element, fills: list[str]) -> Iterator[dict[str, Any]]:
    """Where the numbers in other cells colour some cells: at least so much, and the colour, from the highest step."""
    rules = [(STEP.fullmatch(r.findtext(f"{TAG}formula") or ""), r) for r in format_.iter(f"{TAG}cfRule")]
    steps = [(float(found[2]), fills[int(rule.get("dxfId", 0))]) for found, rule in rules if found]
    first = next((found[1] for found, _ in rules if found), "")
    other = a1_range(sheet, first)
    if other:
        yield {
            "at": _corners(sheet, format_.get("sqref", "")),
            "by": [other.row + 1, other.column + 1],
            "steps": sorted(steps, reverse=True),
        }


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
