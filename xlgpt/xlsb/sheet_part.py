"""What stands in a sheet's XML around its cells, as records."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lxml import etree

from xlgpt.xlsb import cells, sheet
from xlgpt.xlsb.elements import Attributes, attributes, block, blocks, children, color, flags, is_on, local, number
from xlgpt.xlsb.fields import Block, Color
from xlgpt.xlsb.place import Place
from xlgpt.xlsb.records import record
from xlgpt.xlsb.scope import Kind
from xlgpt.xlsb.tokens import Compiled, Compiler
from xlgpt.xlsx.cells import with_prefixes
from xlgpt.xlsx.worksheet import without_escapes

NO_CELL = 0xFFFFFFFF, 0xFFFFFFFF
VIEW, NO_LINES, SELECTED = 0x39C, ~4, 0x40  # flags of a view: the usual, without grid lines, of the sheet in front
PANES = {"bottomRight": 0, "topRight": 1, "bottomLeft": 2, "topLeft": 3}
FROZEN = 3
NO_STYLE = 0xFFFFFFFF
OPERATORS = (  # from 0 in validations, from 1 in conditional formats
    *("between", "notBetween", "equal", "notEqual"),
    *("greaterThan", "lessThan", "greaterThanOrEqual", "lessThanOrEqual"),
)
RULE_KINDS = {"cellIs": (1, 0), "expression": (2, 1), "colorScale": (3, 2)}  # the kind of a rule, and which of them
POINT_KINDS = {"num": 1, "min": 2, "max": 3, "percent": 4, "percentile": 5}
VALIDATED = ("none", "whole", "decimal", "list", "date", "time", "textLength", "custom")
LIST = VALIDATED.index("list")
ALERTS = ("stop", "warning", "information")
VALIDATION_BITS = {"allowBlank": 0x100, "showInputMessage": 0x40000, "showErrorMessage": 0x80000}
IN_TEXT = 0x80
PRINTED = 0x10  # print options as Excel has them where nothing else is asked for
RESOLUTION = 600, 600  # what [ECMA-376] 18.3.1.63 says where nothing does
NOTHING = Compiled(b"")
KNOWN = (
    *("sheetPr", "dimension", "sheetViews", "sheetFormatPr", "cols", "sheetData", "mergeCells"),
    *("conditionalFormatting", "dataValidations", "hyperlinks", "pageMargins", "pageSetup", "drawing"),
)


class Around(NamedTuple):
    """The records before a sheet's rows, and those behind them."""

    before: bytes
    behind: bytes


def around(xml: bytes, compiler: Compiler) -> Around:
    """What stands around the rows of a sheet's part. Raises NotImplementedError at what it does not know."""
    root = etree.fromstring(xml)
    parts = children(root, *KNOWN)
    before = [record(sheet.BEGIN_SHEET), *_of(parts, _BEFORE), record(cells.BEGIN)]
    rules = [
        r for element in root if local(element) == "conditionalFormatting" for r in _conditional(element, compiler)
    ]
    validations = _validations(parts["dataValidations"], compiler) if "dataValidations" in parts else ()
    merged = _of(parts, {"mergeCells": _merged})
    behind = [record(cells.END), *merged, *rules, *validations, *_of(parts, _BEHIND), record(sheet.END_SHEET)]
    return Around(b"".join(before), b"".join(behind))


Translate = Callable[[Any], Iterator[bytes]]


def _of(parts: dict[str, Any], translations: dict[str, Translate]) -> Iterator[bytes]:
    for name, translate in translations.items():
        if name in parts:
            yield from translate(parts[name])


# Before the rows


def _properties(element: Any) -> Iterator[bytes]:
    attributes(element)
    found = children(element, "tabColor", "pageSetUpPr")
    tab = color(found["tabColor"]) if "tabColor" in found else Color(0, 64, 0, 0, 0, 0, 0)
    fitted = is_on(attributes(found["pageSetUpPr"], "fitToPage"), "fitToPage") if "pageSetUpPr" in found else False
    yield sheet.SheetProperties(bytes((0xC9, 4 | fitted, 2)), tab, NO_CELL, "").record()


def _dimension(element: Any) -> Iterator[bytes]:
    yield sheet.Dimension(block(attributes(element, "ref")["ref"])).record()


def _views(element: Any) -> Iterator[bytes]:
    yield record(sheet.BEGIN_VIEWS)
    for view in element:
        given = attributes(view, "showGridLines", "tabSelected", "workbookViewId")
        shown = VIEW if is_on(given, "showGridLines", True) else VIEW & NO_LINES
        bits = shown | (SELECTED if is_on(given, "tabSelected") else 0)
        yield sheet.View(bits, 0, 0, 0, 64, bytes(3), (100, 0, 0, 0), number(given, "workbookViewId")).record()
        children(view, "pane", "selection")
        yield from (_pane(e) if local(e) == "pane" else _selection(e) for e in view)
        yield record(sheet.END_VIEW)
    yield record(sheet.END_VIEWS)


def _pane(element: Any) -> bytes:
    given = attributes(element, "xSplit", "ySplit", "topLeftCell", "activePane", "state")
    if given["state"] != "frozen":
        raise NotImplementedError("a pane that is not frozen as a record")
    corner = block(given["topLeftCell"])
    columns, rows = (float(given.get(name, 0)) for name in ("xSplit", "ySplit"))
    pane = PANES[given["activePane"]]
    return sheet.Pane(columns, rows, corner.first_row, corner.first_column, pane, FROZEN).record()


def _selection(element: Any) -> bytes:
    given = attributes(element, "pane", "activeCell", "sqref")
    active = block(given.get("activeCell", "A1"))
    chosen = blocks(given.get("sqref", "A1"))
    pane = PANES[given.get("pane", "topLeft")]
    return sheet.Selection(pane, active.first_row, active.first_column, 0, chosen).record()


def _format(element: Any) -> Iterator[bytes]:
    height = float(attributes(element, "defaultRowHeight")["defaultRowHeight"])
    yield sheet.SheetFormat(0xFFFFFFFF, 8, round(20 * height), 0, 0, 0).record()


def _columns(element: Any) -> Iterator[bytes]:
    yield record(sheet.BEGIN_COLUMNS)
    for column in element:
        given = attributes(column, "min", "max", "width", "style", "hidden", "customWidth")
        bits = flags(given, {"hidden": 1, "customWidth": 2})
        first, last = int(given["min"]) - 1, int(given["max"]) - 1
        width = round(256 * float(given["width"]))
        yield sheet.Columns(first, last, width, number(given, "style"), bits).record()
    yield record(sheet.END_COLUMNS)


_BEFORE: dict[str, Translate] = {
    "sheetPr": _properties,
    "dimension": _dimension,
    "sheetViews": _views,
    "sheetFormatPr": _format,
    "cols": _columns,
}

# Behind the rows


def _merged(element: Any) -> Iterator[bytes]:
    yield sheet.BeginMerged(len(element)).record()
    yield from (sheet.Merged(block(attributes(merged, "ref")["ref"])).record() for merged in element)
    yield record(sheet.END_MERGED)


def _conditional(element: Any, compiler: Compiler) -> Iterator[bytes]:
    areas = blocks(attributes(element, "sqref")["sqref"])
    children(element, "cfRule")
    yield sheet.BeginConditional(len(element), 0, areas).record()
    for rule in element:
        yield _rule(rule, lambda text: compiler.compiled(with_prefixes(text), Kind.CONDITION, _first(areas)))
        if attributes(rule, *_RULE)["type"] == "colorScale":
            yield from _scale(children(rule, "colorScale")["colorScale"])
        yield record(sheet.END_RULE)
    yield record(sheet.END_CONDITIONAL)


_RULE = "type", "dxfId", "priority", "operator", "stopIfTrue"


def _rule(element: Any, compiled: Callable[[str], Compiled]) -> bytes:
    given = attributes(element, *_RULE)
    children(element, "formula", "colorScale")
    formulas = tuple(compiled(child.text) for child in element if local(child) == "formula")
    sizes = [sheet.formula_size(formula) for formula in formulas]
    first, second, third = (*sizes, 0, 0, 0)[:3]
    operator = OPERATORS.index(given["operator"]) + 1 if "operator" in given else 0
    kind, template = RULE_KINDS[given["type"]]
    style, stops = number(given, "dxfId", NO_STYLE), flags(given, {"stopIfTrue": 2})
    rule = sheet.BeginRule(
        kind, template, style, int(given["priority"]), operator, (0, 0), stops, (first, second, third), None, formulas
    )
    return rule.record()


def _scale(element: Any) -> Iterator[bytes]:
    children(element, "cfvo", "color")
    yield record(sheet.BEGIN_COLOR_SCALE)
    for child in element:
        if local(child) == "color":
            yield sheet.ScaleColor(color(child)).record()
            continue
        given = attributes(child, "type", "val")
        yield sheet.ScalePoint(POINT_KINDS[given["type"]], float(given.get("val", 0)), (0, 0), 0, ()).record()
    yield record(sheet.END_COLOR_SCALE)


def _validations(element: Any, compiler: Compiler) -> Iterator[bytes]:
    attributes(element, "count")
    children(element, "dataValidation")
    yield sheet.BeginValidations(0, 0, 0, 0, len(element)).record()
    yield from (_validation(validation, compiler) for validation in element)
    yield record(sheet.END_VALIDATIONS)


def _validation(element: Any, compiler: Compiler) -> bytes:
    texts = "errorTitle", "error", "promptTitle", "prompt"
    given = attributes(element, "type", "errorStyle", "operator", "sqref", *texts, *VALIDATION_BITS)
    error_title, error, prompt_title, prompt = (_text(given, name) for name in texts)
    found, areas = children(element, "formula1", "formula2"), blocks(given["sqref"])
    kind = VALIDATED.index(given.get("type", "none"))
    first, second = (found[name].text if name in found else "" for name in ("formula1", "formula2"))
    bits = kind | ALERTS.index(given.get("errorStyle", "stop")) << 4 | flags(given, VALIDATION_BITS)
    bits |= OPERATORS.index(given.get("operator", "between")) << 20
    bits |= IN_TEXT if kind == LIST and first.startswith('"') else 0
    place, of = _first(areas), Kind.LIST if kind == LIST else Kind.VALIDATION
    tokens = compiler.compiled(with_prefixes(first), of, place) if first else NOTHING
    others = compiler.compiled(with_prefixes(second), Kind.VALIDATION, place) if second else NOTHING
    return sheet.Validation(bits, areas, error_title, error, prompt_title, prompt, tokens, others).record()


def _text(given: Attributes, name: str) -> str | None:
    return without_escapes(given[name]) if name in given else None


def _first(areas: tuple[Block, ...]) -> Place:
    return Place(areas[0].first_row, areas[0].first_column)


def _links(element: Any) -> Iterator[bytes]:
    for link in element:
        given = attributes(link, "ref", "location", "tooltip", "display", "id")
        texts = (given.get(name, "") for name in ("id", "location", "tooltip", "display"))
        yield sheet.Link(block(given["ref"]), *texts).record()


def _margins(element: Any) -> Iterator[bytes]:
    sides = "left", "right", "top", "bottom", "header", "footer"
    given = attributes(element, *sides)
    yield sheet.PrintOptions(PRINTED).record()
    yield sheet.Margins(*(float(given[side]) for side in sides)).record()


def _page(element: Any) -> Iterator[bytes]:
    given = attributes(element, "fitToWidth", "fitToHeight", "orientation")
    wide, high = number(given, "fitToWidth", 1), number(given, "fitToHeight", 1)
    bits = 2 if given.get("orientation") == "landscape" else 0
    yield sheet.PageSetup(1, 100, RESOLUTION, 1, 1, wide, high, bits, None).record()


def _drawing(element: Any) -> Iterator[bytes]:
    yield sheet.Drawing(attributes(element, "id")["id"]).record()


_BEHIND: dict[str, Translate] = {
    "hyperlinks": _links,
    "pageMargins": _margins,
    "pageSetup": _page,
    "drawing": _drawing,
}
