"""Records of xl/styles.bin, in the order of [MS-XLSB] 2.1.7.50, and of xl/sharedStrings.bin (2.1.7.45)."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from xlgpt.xlsb.fields import (
    BYTE,
    COLOR,
    DOUBLE,
    INT,
    REST,
    SHORT,
    TEXT,
    Color,
    Form,
    Record,
    counted,
    item,
    struct_form,
)

BEGIN_STYLES, END_STYLES = 278, 279
END_FORMATS, END_FONTS, END_FILLS, END_BORDERS = 616, 612, 604, 614
END_STYLE_FORMATS, END_CELL_FORMATS, END_NAMED_STYLES = 627, 618, 620
END_DIFFERENTIAL_FORMATS, END_TABLE_STYLES = 506, 509
END_STRINGS = 160


@dataclass(frozen=True)
class _Count(Record):
    count: int = item(INT)


class BeginFormats(_Count):
    """BrtBeginFmts: how many number formats follow."""

    identity: ClassVar[int] = 615


class BeginFonts(_Count):
    """BrtBeginFonts."""

    identity: ClassVar[int] = 611


class BeginFills(_Count):
    """BrtBeginFills."""

    identity: ClassVar[int] = 603


class BeginBorders(_Count):
    """BrtBeginBorders."""

    identity: ClassVar[int] = 613


class BeginStyleFormats(_Count):
    """BrtBeginCellStyleXFs: formats of named styles."""

    identity: ClassVar[int] = 626


class BeginCellFormats(_Count):
    """BrtBeginCellXFs: formats of cells."""

    identity: ClassVar[int] = 617


class BeginNamedStyles(_Count):
    """BrtBeginStyles."""

    identity: ClassVar[int] = 619


class BeginDifferentialFormats(_Count):
    """BrtBeginDXFs: what conditional formats change."""

    identity: ClassVar[int] = 505


@dataclass(frozen=True)
class NumberFormat(Record):
    """BrtFmt. Numbers below 164 are Excel's own."""

    identity: ClassVar[int] = 44
    number: int = item(SHORT)
    code: str = item(TEXT)


@dataclass(frozen=True)
class Font(Record):
    """BrtFont. height in twips. flags: 2 italic, 8 struck. weight: 400, bold 700. underline: 1 single, 2 double.

    family: 2 Swiss, 3 modern, … scheme: 0 none, 1 major, 2 minor.
    """

    identity: ClassVar[int] = 43
    height: int = item(SHORT)
    flags: int = item(SHORT)
    weight: int = item(SHORT)
    raised: int = item(SHORT)
    underline: int = item(BYTE)
    family: int = item(BYTE)
    charset: int = item(BYTE)
    unused: int = item(BYTE)
    color: Color = item(COLOR)
    scheme: int = item(BYTE)
    name: str = item(TEXT)


class Stop(NamedTuple):
    """A colour of a gradient."""

    color: Color
    position: float


def _stop(*numbers: float) -> Stop:
    return Stop(Color(*map(int, numbers[:7])), numbers[7])


_STOPS = counted("BBh4Bd", _stop)


@dataclass(frozen=True)
class Fill(Record):
    """BrtFill. pattern: 0 none, 1 solid in `front`, 17 an eighth of grey, 40 a gradient, which the rest describes."""

    identity: ClassVar[int] = 45
    pattern: int = item(INT)
    front: Color = item(COLOR)
    back: Color = item(COLOR)
    gradient: int = item(INT)
    degree: float = item(DOUBLE)
    box: tuple[float, float, float, float] = item(struct_form("4d"))
    stops: tuple[Stop, ...] = item(
        Form(
            _STOPS.read, lambda stops: counted("BBh4Bd", _stop).write([(*stop.color, stop.position) for stop in stops])
        )
    )


class Line(NamedTuple):
    """A line of a border. kind: 0 none, 1 thin, 2 medium, 7 a hair, …"""

    kind: int
    reserved: int
    color: Color


def _line(kind: int, reserved: int, *color: int) -> Line:
    return Line(kind, reserved, Color(*color))


_PLAIN_LINE = struct_form("BBBBh4B", _line)
LINE = Form(_PLAIN_LINE.read, lambda line: _PLAIN_LINE.write((line.kind, line.reserved, *line.color)))


@dataclass(frozen=True)
class Border(Record):
    """BrtBorder. diagonals: 1 down, 2 up."""

    identity: ClassVar[int] = 46
    diagonals: int = item(BYTE)
    top: Line = item(LINE)
    bottom: Line = item(LINE)
    left: Line = item(LINE)
    right: Line = item(LINE)
    diagonal: Line = item(LINE)


@dataclass(frozen=True)
class Format(Record):
    """BrtXF: of a cell or a named style. parent: the named style's format, 0xFFFF in one itself.

    alignment: across (bits 0-2: 0 by content, 1 left, 2 centre, 3 right, …), down (3-5: 0 top, 1 centre, 2 bottom),
    0x40 wrapped, 0x100 shrunk, 0x1000 locked, 0x2000 hidden, 0x8000 a leading apostrophe. used: which attributes are
    not those of the named style: 1 number, 2 font, 4 alignment, 8 border, 0x10 fill, 0x20 protection.
    """

    identity: ClassVar[int] = 47
    parent: int = item(SHORT)
    number: int = item(SHORT)
    font: int = item(SHORT)
    fill: int = item(SHORT)
    border: int = item(SHORT)
    rotation: int = item(BYTE)
    indent: int = item(BYTE)
    alignment: int = item(SHORT)
    used: int = item(SHORT)


@dataclass(frozen=True)
class NamedStyle(Record):
    """BrtStyle. flags: 1 built in, 2 hidden, 4 changed. built_in: its number, 0 is Normal; level of an outline's."""

    identity: ClassVar[int] = 48
    format: int = item(INT)
    flags: int = item(SHORT)
    built_in: int = item(BYTE)
    level: int = item(BYTE)
    name: str = item(TEXT)


class Property(NamedTuple):
    """XFProp ([MS-XLSB] 2.5.164): a kind and its bytes.

    For instance 0 pattern, 1 front and 2 back colour, 5 font colour, 24 font, 25 weight, 28 italic, 38 number format.
    """

    kind: int
    data: bytes


def _read_properties(payload: bytes, at: int) -> tuple[tuple[Property, ...], int]:
    count, at = int.from_bytes(payload[at : at + 2], "little"), at + 2
    properties = []
    for _ in range(count):
        kind, size = (int.from_bytes(payload[at + i : at + i + 2], "little") for i in (0, 2))
        properties.append(Property(kind, payload[at + 4 : at + size]))
        at += max(size, 4)
    return tuple(properties), at


def _write_properties(properties: tuple[Property, ...]) -> bytes:
    parts = [len(properties).to_bytes(2, "little")]
    for kind, data in properties:
        parts += [kind.to_bytes(2, "little"), (len(data) + 4).to_bytes(2, "little"), data]
    return b"".join(parts)


@dataclass(frozen=True)
class DifferentialFormat(Record):
    """BrtDXF: what a conditional format changes."""

    identity: ClassVar[int] = 507
    flags: int = item(SHORT)
    reserved: int = item(SHORT)
    properties: tuple[Property, ...] = item(Form(_read_properties, _write_properties))


@dataclass(frozen=True)
class BeginTableStyles(Record):
    """BrtBeginTableStyles: how many follow, and the styles of new tables and pivot tables."""

    identity: ClassVar[int] = 508
    count: int = item(INT)
    table: str | None = item(TEXT)
    pivot: str | None = item(TEXT)


@dataclass(frozen=True)
class BeginStrings(Record):
    """BrtBeginSst: how many cells have a shared string, and how many strings there are."""

    identity: ClassVar[int] = 159
    uses: int = item(INT)
    count: int = item(INT)


@dataclass(frozen=True)
class SharedString(Record):
    """BrtSSTItem. flags: 1 has runs of formats, 2 has furigana; `runs` are these as they stand."""

    identity: ClassVar[int] = 19
    flags: int = item(BYTE)
    text: str = item(TEXT)
    runs: bytes = item(REST)
