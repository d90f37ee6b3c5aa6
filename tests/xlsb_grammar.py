"""The grammar of .xlsb ([MS-XLSB] 2.1.7): which record may follow which, and numbers that must point at something.

Of each part that a workbook of ours has, the rules of the specification in its order; of what ours never has, only
where it may stand. `findings` says what is wrong with a workbook; in Excel's own it finds nothing.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

from xlsb_samples import FORMULA_CELLS, Workbook, tokens

from xlgpt.xlsb import cells, sheet, styles
from xlgpt.xlsb.fields import Record
from xlgpt.xlsb.tokens import Compiled

Records = list[tuple[int, bytes]]

# Blocks that any reader may leave out (ACBegin to ACEnd, FRTBegin to FRTEnd), and what later versions added outside.
SKIPPED = {37: 38, 35: 36}
OF_LATER_VERSIONS = range(1024, 1 << 14)

# Regular expressions over ids: numbers, and [a-b,c] for one of several. Spaces are for the eye.
GRAMMAR = {
    "worksheet": """
        129 147? 148? (133 (137 151? 152{0,4} [388-389]* 138)+ 134)? 485? (390 60+ 391)*
        145 (0 ([49-50]* ([1-7,62] | [8-11] [426-427]?) 428? [12-18]*)*)* 146
        663? 677? 535? [536,678]* [495-509]* (161 [163-175,530-533]* 162)? [530-533]* [459-460]* (422 [150-480]* 425)?
        (177 176+ 178)? 537?
        (461 (463 (469 471{2,3} 564{2,3} 470 | [465-468,471,564]*) 464)+ 462)* (573 64* 574)? 494*
        477? 476? 478? (479 480)? (392 396* 393)? (394 396* 395)? [594-595,589-593,605-607]* [562,648-650]*
        550? 551? 552? [562,589-595,605-607,638-650]* (660 661+ 662)? 130
    """,
    "workbook": """
        131 128? [548,675]? 153? [534,676]? (135 158+ 136)? (143 156+ 144) [664-666]*
        (353 ([355,357-359,667])+ 362? 354)? 39* 157? 549? 397* (384 (386 387)* 385)? 154? [596-598]* [553-557]*
        [16,155]* [553-557]* (1117)* 132
    """,
    "styles": """
        278 (615 44+ 616)? (611 43+ 612)? (603 45+ 604)? (613 46+ 614)? 626 47+ 627 617 47+ 618 619 48+ 620
        505 507* 506 508 (510 512* 511)* 509 (473 [475,565-572]* 474)? [565-572]* 279
    """,
    "strings": "159 19* 160",
}
KINDS = {"worksheets": "worksheet", "workbook.bin": "workbook", "styles.bin": "styles", "sharedStrings.bin": "strings"}


@cache
def grammar(kind: str) -> re.Pattern[str]:
    """Over a text with one character for each record, its id's."""
    ids = re.sub(r"\[[\d,-]+\]", lambda found: DIGITS.sub(character, found[0]).replace(",", ""), GRAMMAR[kind])
    counts = re.sub(r"\{[\d,]+\}", lambda found: found[0].translate(HIDDEN), ids)
    return re.compile(re.sub(r"\s+", "", DIGITS.sub(character, counts)).translate(SHOWN))


DIGITS = re.compile(r"[0-9]+")
HIDDEN = {ord(digit): 0xF000 + i for i, digit in enumerate("0123456789")}
SHOWN = {hidden: digit for digit, hidden in HIDDEN.items()}


def character(number: re.Match[str]) -> str:
    return chr(0x4E00 + int(number[0]))


def findings(book: Workbook) -> list[str]:
    """What is wrong with a workbook."""
    return [f"{part}: {what}" for part, records in book.parts.items() for what in _findings(book, part, records)]


def _findings(book: Workbook, part: str, records: Records) -> Iterator[str]:
    kind = next((kind for key, kind in KINDS.items() if key in part), None)
    if kind is None:
        return
    kept = list(_kept(records))
    text = "".join(chr(0x4E00 + identity) for identity, _ in kept)
    if not grammar(kind).fullmatch(text):
        yield f"records are not in the order of {kind}: {[*dict.fromkeys(identity for identity, _ in kept)]}"
    yield from counts(kept)
    if kind == "worksheet":
        yield from cell_findings(kept, limits(book))
    yield from formula_findings(book, kept)


def _kept(records: Records) -> Iterator[tuple[int, bytes]]:
    ends: list[int] = []
    for identity, payload in records:
        if ends and identity == ends[-1]:
            ends.pop()
        elif identity in SKIPPED:
            ends.append(SKIPPED[identity])
        elif not ends and identity not in OF_LATER_VERSIONS:
            yield identity, payload
    if ends:
        yield ends[-1], b""


COUNTED: dict[int, tuple[type[Record], str, int]] = {  # how many records say they are of a kind
    177: (sheet.BeginMerged, "count", 176),
    573: (sheet.BeginValidations, "count", 64),
    159: (styles.BeginStrings, "count", 19),
    615: (styles.BeginFormats, "count", 44),
    611: (styles.BeginFonts, "count", 43),
    603: (styles.BeginFills, "count", 45),
    613: (styles.BeginBorders, "count", 46),
    619: (styles.BeginNamedStyles, "count", 48),
    505: (styles.BeginDifferentialFormats, "count", 507),
    617: (styles.BeginCellFormats, "count", 47),
    626: (styles.BeginStyleFormats, "count", 47),
    461: (sheet.BeginConditional, "rules", 463),
}


def counts(records: Records) -> Iterator[str]:
    """Records behind one that says how many they are, up to the next that does."""
    for i, (identity, payload) in enumerate(records):
        if identity in COUNTED:
            form, name, each = COUNTED[identity]
            said, found = getattr(form.read(payload), name), 0
            for other, _ in records[i + 1 :]:
                if other in COUNTED:
                    break
                found += other == each
            if said != found:
                yield f"{form.__name__} says {said}, and there are {found}"


def limits(book: Workbook) -> dict[str, int]:
    """How many formats and shared strings there are."""
    style, strings = (book.parts.get(f"xl/{name}.bin", []) for name in ("styles", "sharedStrings"))
    formats = [styles.BeginCellFormats.read(payload).count for identity, payload in style if identity == 617]
    return {"formats": sum(formats), "strings": sum(identity == 19 for identity, _ in strings)}


def cell_findings(records: Records, limit: dict[str, int]) -> Iterator[str]:
    """Rows and columns ascend, lie within the spans of their row, and formats and strings are there."""
    rows: list[cells.RowHeader] = []
    places: list[int] = []
    in_table = False
    for identity, payload in records:
        in_table = identity == cells.BEGIN or (in_table and identity != cells.END)
        if not in_table:
            continue
        if identity == 0:
            rows.append(cells.RowHeader.read(payload))
            places = []
        elif identity in (*range(1, 12), 62):
            column, style = (int.from_bytes(payload[i : i + 4], "little") for i in (0, 4))
            spans = rows[-1].spans
            if style & 0xFFFFFF >= limit["formats"]:
                yield f"row {rows[-1].row + 1} has a cell of format {style & 0xFFFFFF} of {limit['formats']}"
            if places and column <= places[-1]:
                yield f"row {rows[-1].row + 1} has column {column} behind {places[-1]}"
            if spans and not any(span.first <= column <= span.last for span in spans):
                yield f"row {rows[-1].row + 1} has column {column} outside of its spans"
            if identity == 7 and cells.SharedText.read(payload).value >= limit["strings"]:
                yield f"row {rows[-1].row + 1} has string {cells.SharedText.read(payload).value} of {limit['strings']}"
            places.append(column)
    if any(a.row >= b.row for a, b in pairwise(rows)):
        yield "rows do not ascend"


def formula_findings(book: Workbook, records: Records) -> Iterator[str]:
    """Numbers of names and of references to sheets in formulas of cells are there."""
    for identity, payload in records:
        if identity in FORMULA_CELLS:
            formula: Compiled = FORMULA_CELLS[identity].read(payload).formula
            for token, code in tokens(formula):
                if token == 0x23 and not 0 < int.from_bytes(code[1:5], "little") <= len(book.scope.names):
                    yield "a formula has the number of a name that is not there"
                if 0x39 <= token <= 0x3D and int.from_bytes(code[1:3], "little") >= len(book.scope.sheets):
                    yield "a formula has the number of a reference to sheets that is not there"
