"""How the parts of a workbook are called in .xlsb, what they are, and what they are related to."""

import re

# Parts that are records in .xlsb, with what they are; all others are XML in both.
RECORDS = re.compile(r"xl/(workbook|styles|sharedStrings|worksheets/sheet\d+)\.xml")
TARGETS = re.compile(rb'(Target="(?:xl/)?(?:workbook|styles|sharedStrings|worksheets/sheet\d+))\.xml"')
BOOK, STYLES, STRINGS = "xl/workbook.bin", "xl/styles.bin", "xl/sharedStrings.bin"
RELATIONS = re.compile(r"(xl/(?:worksheets/)?_rels/(?:workbook|sheet\d+))\.xml\.rels")
TYPES = "[Content_Types].xml"
BINARY = b"application/vnd.ms-excel."
BOOK_TYPE = b"application/vnd.ms-excel.sheet.binary.macroEnabled.main"
OVERRIDE = re.compile(rb'<Override PartName="/(xl/(?:workbook|styles|sharedStrings|worksheets/sheet\d+))\.xml"[^>]*/>')


def part_name(name: str) -> str:
    """What a part of an .xlsx is called in an .xlsb."""
    if RECORDS.fullmatch(name):
        return name.removesuffix("xml") + "bin"
    return RELATIONS.sub(r"\1.bin.rels", name)


def package_part(name: str, xml: bytes) -> bytes:
    """A part that is XML in both, naming others as they are called in an .xlsb; name: what it is called in .xlsx."""
    if name == TYPES:
        return OVERRIDE.sub(_override, xml)
    return TARGETS.sub(rb'\1.bin"', xml) if name.endswith(".rels") else xml


def _override(found: re.Match[bytes]) -> bytes:
    part = found[1]
    kind = b"worksheet" if b"/worksheets/" in part else part.removeprefix(b"xl/")
    of = BOOK_TYPE if kind == b"workbook" else BINARY + kind
    return b'<Override PartName="/%b.bin" ContentType="%b"/>' % (part, of)
