"""Records of the workbook's own part, xl/workbook.bin, in the order of [MS-XLSB] 2.1.7.61."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from xlgpt.xlsb.fields import BYTE, DOUBLE, FORMULA, INT, SHORT, SIGNED, TEXT, TEXTS, Record, counted, item, struct_form
from xlgpt.xlsb.scope import Scope
from xlgpt.xlsb.tokens import Compiled

BEGIN_BOOK, END_BOOK = 131, 132
BEGIN_VIEWS, END_VIEWS = 135, 136
BEGIN_SHEETS, END_SHEETS = 143, 144
BEGIN_EXTERNALS, END_EXTERNALS, THIS_BOOK = 353, 354, 357  # BrtSupSelf: sheets of this workbook
NO_SHEET = 0xFFFFFFFF
_SOURCES = (355, 357, 358, 359, 667)  # BrtSupBookSrc, Self, Same, Addin, PlaceholderAddin: what references are into


@dataclass(frozen=True)
class FileVersion(Record):
    """BrtFileVersion: by which program, in which version, the file was edited last and at least."""

    identity: ClassVar[int] = 128
    guid: bytes = item(struct_form("16s"))
    program: str = item(TEXT)
    last_edited: str = item(TEXT)
    lowest_edited: str = item(TEXT)
    build: str = item(TEXT)


@dataclass(frozen=True)
class BookProperties(Record):
    """BrtWbProp. flags: 1 dates count from 1904, 8 objects are hidden, 0x20 a backup is made, ..."""

    identity: ClassVar[int] = 153
    flags: int = item(INT)
    theme_version: int = item(INT)
    code_name: str = item(TEXT)


@dataclass(frozen=True)
class BookView(Record):
    """BrtBookView: the window in twips. flags: 8 horizontal and 0x10 vertical scroll bars, 0x20 tabs, ..."""

    identity: ClassVar[int] = 158
    left: int = item(SIGNED)
    top: int = item(SIGNED)
    width: int = item(INT)
    height: int = item(INT)
    tab_ratio: int = item(INT)
    first_sheet: int = item(INT)
    active_sheet: int = item(INT)
    flags: int = item(BYTE)


@dataclass(frozen=True)
class Sheet(Record):
    """BrtBundleSh. state: 0 visible, 1 hidden, 2 very hidden. relation: its part's in xl/_rels/workbook.bin.rels."""

    identity: ClassVar[int] = 156
    state: int = item(INT)
    number: int = item(INT)
    relation: str | None = item(TEXT)
    name: str = item(TEXT)


class SheetReference(NamedTuple):
    """Of which source (BrtSupSelf, …) in their order, and the first and last of its sheets; -1 is gone, -2 none."""

    source: int
    first: int
    last: int


@dataclass(frozen=True)
class SheetReferences(Record):
    """BrtExternSheet: the references to sheets that formulas have by number (ixti)."""

    identity: ClassVar[int] = 362
    references: tuple[SheetReference, ...] = item(counted("Iii", SheetReference))


@dataclass(frozen=True)
class DefinedName(Record):
    """BrtName. flags: 1 hidden, 2 function, 8 macro, 0x20 built in (such as Print_Area), 0x20000 newer than the format.

    sheet: of which it is, by its place among the sheets; NO_SHEET where it is the workbook's. Excel writes names in the
    order of the alphabet, of which case is no part. texts: a comment, and of functions four more.
    """

    identity: ClassVar[int] = 39
    flags: int = item(INT)
    key: int = item(BYTE)
    sheet: int = item(INT)
    name: str = item(TEXT)
    formula: Compiled = item(FORMULA)
    texts: tuple[str | None, ...] = item(TEXTS)


@dataclass(frozen=True)
class Calculation(Record):
    """BrtCalcProp. engine: what calculated last; below 191029 Excel of today calculates on loading. mode: 0 by hand, 1.

    flags: 1 calculates on loading, 2 A1 references, 4 iterates, 8 full precision, 0x10 is not calculated,
    0x20 calculates on saving, 0x40 in threads, 0x80 with as many as the user says.
    """

    identity: ClassVar[int] = 157
    engine: int = item(INT)
    mode: int = item(INT)
    iterations: int = item(INT)
    largest_change: float = item(DOUBLE)
    threads: int = item(INT)
    flags: int = item(SHORT)


def future_function(name: str) -> DefinedName:
    """The name by which formulas call a function that is newer than the format, such as _xlfn.UNICHAR."""
    name_error = bytes((0x1C, 0x1D))
    return DefinedName(0x2000B, 0, NO_SHEET, name, Compiled(name_error), (None,) * 5)


def scope(records: Iterable[tuple[int, bytes]]) -> Scope:
    """What formulas refer to by number, from the records of xl/workbook.bin."""
    sheets: list[str] = []
    names: list[DefinedName] = []
    sources: list[int] = []
    references: tuple[SheetReference, ...] = ()
    for identity, payload in records:
        if identity == Sheet.identity:
            sheets.append(Sheet.read(payload).name)
        elif identity == DefinedName.identity:
            names.append(DefinedName.read(payload))
        elif identity == SheetReferences.identity:
            references = SheetReferences.read(payload).references
        elif identity in _SOURCES:
            sources.append(identity)

    def text(reference: SheetReference) -> str | None:
        if sources[reference.source] != THIS_BOOK or not 0 <= reference.first <= reference.last < len(sheets):
            return None
        first, last = sheets[reference.first], sheets[reference.last]
        return first if first == last else f"{first}:{last}"

    of = (None if each.sheet >= len(sheets) else sheets[each.sheet] for each in names)
    return Scope(tuple(map(text, references)), tuple(zip((each.name for each in names), of, strict=True)))
