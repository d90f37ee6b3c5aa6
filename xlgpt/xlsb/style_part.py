"""xl/styles.xml as the records of xl/styles.bin."""

import struct
from collections.abc import Callable
from typing import Any

from lxml import etree

from xlgpt.xlsb import styles
from xlgpt.xlsb.elements import (
    AUTOMATIC,
    BACK,
    FRONT,
    attributes,
    children,
    color,
    each,
    flags,
    is_on,
    local,
    number,
)
from xlgpt.xlsb.fields import COLOR
from xlgpt.xlsb.records import record
from xlgpt.xlsb.styles import Border, DifferentialFormat, Fill, Font, Format, Line, NamedStyle, NumberFormat, Property

NO_LINE = Line(0, 0, AUTOMATIC)
LINES = {"thin": 1, "medium": 2, "hair": 7}
PATTERNS = {"none": 0, "solid": 1, "gray125": 17}
SCHEMES = {"major": 1, "minor": 2}
ACROSS = {"general": 0, "left": 1, "center": 2, "right": 3}
DOWN = {"top": 0, "center": 1, "bottom": 2}
USED = {
    "applyNumberFormat": 1,
    "applyFont": 2,
    "applyAlignment": 4,
    "applyBorder": 8,
    "applyFill": 0x10,
    "applyProtection": 0x20,
}
LOCKED, WRAPPED, SHRUNK = 0x1000, 0x40, 0x100
FONT_BITS = {"b": 1, "i": 2, "u": 4, "strike": 8}  # as Excel writes them; the weight and the underline say it as well
CHANGED_BACK, CHANGED_TEXT, CHANGED_WEIGHT = 2, 5, 25  # XFProp ([MS-XLSB] 2.5.164)
CHANGED_LINES = {"top": 6, "bottom": 7, "left": 8, "right": 9}
CHANGES = 0x8000  # what Excel says of every differential format


def style_part(xml: bytes) -> bytes:
    """The whole part. Raises NotImplementedError at a look that it does not know."""
    parts = children(etree.fromstring(xml), *_GROUPS, "tableStyles")
    groups = (_group(parts[name], *form) for name, form in _GROUPS.items() if name in parts)
    tables = attributes(parts["tableStyles"], "count", "defaultTableStyle", "defaultPivotStyle")
    table_styles = styles.BeginTableStyles(0, tables.get("defaultTableStyle"), tables.get("defaultPivotStyle"))
    end = record(styles.END_TABLE_STYLES) + record(styles.END_STYLES)
    return record(styles.BEGIN_STYLES) + b"".join(groups) + table_styles.record() + end


def _group(element: Any, begin: Callable[[int], Any], name: str, make: Callable[[Any], bytes], end: int) -> bytes:
    records = [*each(element, name, make)]
    head: bytes = begin(len(records)).record()
    return head + b"".join(records) + record(end)


def _number_format(element: Any) -> bytes:
    given = attributes(element, "numFmtId", "formatCode")
    return NumberFormat(int(given["numFmtId"]), given["formatCode"]).record()


def _font(element: Any) -> bytes:
    found = children(element, "sz", "color", "name", "family", "scheme", *FONT_BITS)
    values = {name: attributes(child, "val") for name, child in found.items() if name != "color"}
    is_bold, is_underlined = "b" in found, "u" in found
    return Font(
        round(20 * float(values["sz"]["val"])),
        sum(bit for name, bit in FONT_BITS.items() if name in found),
        700 if is_bold else 400,
        0,
        int(is_underlined),
        number(values.get("family", {}), "val"),
        0,
        0,
        color(found["color"]) if "color" in found else AUTOMATIC,
        SCHEMES.get(values.get("scheme", {}).get("val", ""), 0),
        values["name"]["val"],
    ).record()


def _fill(element: Any) -> bytes:
    pattern = children(element, "patternFill")["patternFill"]
    given, colors = attributes(pattern, "patternType"), children(pattern, "fgColor", "bgColor")
    front = color(colors["fgColor"]) if "fgColor" in colors else FRONT
    back = color(colors["bgColor"]) if "bgColor" in colors else BACK
    return Fill(PATTERNS[given["patternType"]], front, back, 0, 0.0, (0.0, 0.0, 0.0, 0.0), ()).record()


def _border(element: Any) -> bytes:
    attributes(element)
    sides = children(element, "top", "bottom", "left", "right", "diagonal")
    lines = (_line(sides.get(side)) for side in ("top", "bottom", "left", "right", "diagonal"))
    return Border(0, *lines).record()


def _line(side: Any) -> Line:
    if side is None or not len(side):
        return NO_LINE
    return Line(LINES[attributes(side, "style")["style"]], 0, color(children(side, "color")["color"]))


def _format(element: Any) -> bytes:
    given = attributes(element, "numFmtId", "fontId", "fillId", "borderId", "xfId", *USED)
    found = children(element, "alignment")
    known = "horizontal", "vertical", "wrapText", "shrinkToFit", "indent"
    align = attributes(found["alignment"], *known) if found else {}
    alignment = ACROSS[align.get("horizontal", "general")] | DOWN[align.get("vertical", "bottom")] << 3 | LOCKED
    return Format(
        number(given, "xfId", 0xFFFF),
        number(given, "numFmtId"),
        number(given, "fontId"),
        number(given, "fillId"),
        number(given, "borderId"),
        0,
        number(align, "indent"),
        alignment | flags(align, {"wrapText": WRAPPED, "shrinkToFit": SHRUNK}),
        flags(given, USED),
    ).record()


def _named_style(element: Any) -> bytes:
    given = attributes(element, "name", "xfId", "builtinId")
    if given.get("builtinId") != "0":
        raise NotImplementedError(f"the style {given['name']} as a record")
    return NamedStyle(number(given, "xfId"), 1, 0, 255, given["name"]).record()


def _differential(element: Any) -> bytes:
    found = children(element, "font", "fill", "border")
    properties = [each for name in ("fill", "font", "border") if name in found for each in _CHANGES[name](found[name])]
    return DifferentialFormat(CHANGES, 0, tuple(properties)).record()


def _changed_fill(fill: Any) -> list[Property]:
    pattern = children(fill, "patternFill")["patternFill"]
    attributes(pattern)
    return [Property(CHANGED_BACK, COLOR.write(color(children(pattern, "bgColor")["bgColor"])))]


def _changed_font(font: Any) -> list[Property]:
    found, properties = children(font, "color", "b"), []
    if "color" in found:
        properties.append(Property(CHANGED_TEXT, COLOR.write(color(found["color"]))))
    if "b" in found:
        is_bold = is_on(attributes(found["b"], "val"), "val", True)
        properties.append(Property(CHANGED_WEIGHT, struct.pack("<H", 700 if is_bold else 400)))
    return properties


def _changed_border(border: Any) -> list[Property]:
    sides = children(border, *CHANGED_LINES, "vertical", "horizontal", "diagonal")
    lines = {local(side): _line(side) for side in sides.values()}
    return [
        Property(kind, COLOR.write(lines[side].color) + struct.pack("<H", lines[side].kind))
        for side, kind in CHANGED_LINES.items()
        if side in lines and lines[side].kind
    ]


_CHANGES: dict[str, Callable[[Any], list[Property]]] = {
    "fill": _changed_fill,
    "font": _changed_font,
    "border": _changed_border,
}
_GROUPS: dict[str, tuple[Callable[[int], Any], str, Callable[[Any], bytes], int]] = {
    "numFmts": (styles.BeginFormats, "numFmt", _number_format, styles.END_FORMATS),
    "fonts": (styles.BeginFonts, "font", _font, styles.END_FONTS),
    "fills": (styles.BeginFills, "fill", _fill, styles.END_FILLS),
    "borders": (styles.BeginBorders, "border", _border, styles.END_BORDERS),
    "cellStyleXfs": (styles.BeginStyleFormats, "xf", _format, styles.END_STYLE_FORMATS),
    "cellXfs": (styles.BeginCellFormats, "xf", _format, styles.END_CELL_FORMATS),
    "cellStyles": (styles.BeginNamedStyles, "cellStyle", _named_style, styles.END_NAMED_STYLES),
    "dxfs": (styles.BeginDifferentialFormats, "dxf", _differential, styles.END_DIFFERENTIAL_FORMATS),
}
