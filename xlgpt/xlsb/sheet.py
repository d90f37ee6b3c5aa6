"""Records of a sheet's part around its cells, in the order of [MS-XLSB] 2.1.7.62."""

from dataclasses import dataclass
from typing import ClassVar

from xlgpt.xlsb import ptg
from xlgpt.xlsb.fields import (
    BLOCK,
    BLOCKS,
    BYTE,
    COLOR,
    DOUBLE,
    FORMULA,
    INT,
    SHORT,
    SIGNED,
    TEXT,
    THREE_BYTES,
    Block,
    Color,
    Form,
    Record,
    item,
    struct_form,
)
from xlgpt.xlsb.tokens import Compiled

BEGIN_SHEET, END_SHEET = 129, 130
BEGIN_VIEWS, END_VIEWS, END_VIEW = 133, 134, 138
BEGIN_COLUMNS, END_COLUMNS = 390, 391
END_MERGED, END_VALIDATIONS = 178, 574
END_CONDITIONAL, END_RULE = 462, 464
BEGIN_COLOR_SCALE, END_COLOR_SCALE = 469, 470
END_HEADER_FOOTER = 480


@dataclass(frozen=True)
class SheetProperties(Record):
    """BrtWsProp. flags: bits of three bytes, of which the second has 1 where the sheet is fitted to pages.

    synchronized: a row and a column, 0xFFFFFFFF where there is none.
    """

    identity: ClassVar[int] = 147
    flags: bytes = item(THREE_BYTES)
    tab: Color = item(COLOR)
    synchronized: tuple[int, int] = item(struct_form("2I"))
    code_name: str = item(TEXT)


@dataclass(frozen=True)
class Dimension(Record):
    """BrtWsDim: the cells that are used."""

    identity: ClassVar[int] = 148
    cells: Block = item(BLOCK)


@dataclass(frozen=True)
class View(Record):
    """BrtBeginWsView. flags: 4 grid lines, 8 headings, 0x10 zeros, 0x40 selected, 0x80 ruler, 0x100 outline, ...

    zooms: in per cent; now, and in the normal, the page break and the page layout view, where 0 is none of its own.
    """

    identity: ClassVar[int] = 137
    flags: int = item(SHORT)
    kind: int = item(INT)
    top: int = item(INT)
    left: int = item(INT)
    grid_color: int = item(BYTE)
    reserved: bytes = item(THREE_BYTES)
    zooms: tuple[int, int, int, int] = item(struct_form("4H"))
    window: int = item(INT)


@dataclass(frozen=True)
class Pane(Record):
    """BrtPane. columns, rows that stand still. active: 0 bottom right, 1 top right, 2 bottom left. flags: 1 frozen,
    2 with no split before."""

    identity: ClassVar[int] = 151
    columns: float = item(DOUBLE)
    rows: float = item(DOUBLE)
    top: int = item(INT)
    left: int = item(INT)
    active: int = item(INT)
    flags: int = item(BYTE)


@dataclass(frozen=True)
class Selection(Record):
    """BrtSel. pane: 0 bottom right, 1 top right, 2 bottom left, 3 top left."""

    identity: ClassVar[int] = 152
    pane: int = item(INT)
    row: int = item(INT)
    column: int = item(INT)
    active: int = item(INT)
    cells: tuple[Block, ...] = item(BLOCKS)


@dataclass(frozen=True)
class SheetFormat(Record):
    """BrtWsFmtInfo. width: of columns in 256ths of a character, 0xFFFFFFFF where `characters` has it; heights in twips.

    flags: 1 a height of its own, 2 rows are hidden, ...; then the depths of the outlines.
    """

    identity: ClassVar[int] = 485
    width: int = item(INT)
    characters: int = item(SHORT)
    height: int = item(SHORT)
    flags: int = item(SHORT)
    row_outline: int = item(BYTE)
    column_outline: int = item(BYTE)


@dataclass(frozen=True)
class Columns(Record):
    """BrtColInfo. width: in 256ths of a character. flags: 1 hidden, 2 own width, 4 best fit, 0x1000 collapsed."""

    identity: ClassVar[int] = 60
    first: int = item(INT)
    last: int = item(INT)
    width: int = item(INT)
    style: int = item(INT)
    flags: int = item(SHORT)


@dataclass(frozen=True)
class BeginMerged(Record):
    """BrtBeginMergeCells."""

    identity: ClassVar[int] = 177
    count: int = item(INT)


@dataclass(frozen=True)
class Merged(Record):
    """BrtMergeCell."""

    identity: ClassVar[int] = 176
    cells: Block = item(BLOCK)


@dataclass(frozen=True)
class BeginConditional(Record):
    """BrtBeginConditionalFormatting: how many rules follow for these cells."""

    identity: ClassVar[int] = 461
    rules: int = item(INT)
    pivot: int = item(INT)
    cells: tuple[Block, ...] = item(BLOCKS)


def _read_formulas(payload: bytes, at: int) -> tuple[tuple[Compiled, ...], int]:
    formulas = []
    while at < len(payload):
        formula, at = FORMULA.read(payload, at)
        formulas.append(formula)
    return tuple(formulas), at


_FORMULAS = Form(_read_formulas, lambda formulas: b"".join(map(FORMULA.write, formulas)))


def formula_size(formula: Compiled) -> int:
    """What a rule says of a formula's size: that of its tokens, and 2 more for each row and column of cells.

    So it stands in all of Excel's files that we know, which have cells there, but no blocks of them.
    """
    codes = (token[0] for token in ptg.split(formula.tokens) if token[0] >= 0x20)
    more = {ptg.CELL: 2, ptg.CELL_RELATIVE: 2, ptg.AREA: 4, ptg.AREA_RELATIVE: 4}
    return len(formula.tokens) + sum(more.get(code & 0x1F, 0) for code in codes)


@dataclass(frozen=True)
class BeginRule(Record):
    """BrtBeginCFRule. kind: 1 cell, 2 formula, 3 colour scale, 4 data bar, 5 top, 6 icons; template says which of them.

    style: the number of its differential format, 0xFFFFFFFF for none. parameter: by the template, such as an operator.
    flags: 2 stops if true, 4 above average, 8 bottom, 0x10 per cent. sizes: of each formula, see `formula_size`.
    """

    identity: ClassVar[int] = 463
    kind: int = item(INT)
    template: int = item(INT)
    style: int = item(INT)
    priority: int = item(INT)
    parameter: int = item(INT)
    reserved: tuple[int, int] = item(struct_form("2I"))
    flags: int = item(SHORT)
    sizes: tuple[int, int, int] = item(struct_form("3I"))
    text: str | None = item(TEXT)
    formulas: tuple[Compiled, ...] = item(_FORMULAS)


@dataclass(frozen=True)
class ScalePoint(Record):
    """BrtCFVO: a point of a colour scale. kind: 1 number, 2 least, 3 most, 4 per cent, 5 percentile, 7 formula.

    at_least: whether a value that is equal counts; the second is what a file is to keep of it. size: of its formula.
    """

    identity: ClassVar[int] = 471
    kind: int = item(INT)
    value: float = item(DOUBLE)
    at_least: tuple[int, int] = item(struct_form("2I"))
    size: int = item(INT)
    formulas: tuple[Compiled, ...] = item(_FORMULAS)


@dataclass(frozen=True)
class ScaleColor(Record):
    """BrtColor: of a point of a colour scale."""

    identity: ClassVar[int] = 564
    color: Color = item(COLOR)


@dataclass(frozen=True)
class BeginValidations(Record):
    """BrtBeginDVals. flags: 1 closed prompts. The prompts' window, and how many validations follow."""

    identity: ClassVar[int] = 573
    flags: int = item(SHORT)
    left: int = item(INT)
    top: int = item(INT)
    unused: int = item(INT)
    count: int = item(INT)


@dataclass(frozen=True)
class Validation(Record):
    """BrtDVal. flags: kind (bits 0-3: 1 whole, 2 decimal, 3 list, 4 date, 5 time, 6 length, 7 formula), alert (4-6: 0
    stop, 1 warning, 2 note), 0x80 a list that stands in the text, 0x100 empty is allowed, 0x200 no arrow of a list,
    0x40000 shows its prompt, 0x80000 shows its alert, operator (20-23)."""

    identity: ClassVar[int] = 64
    flags: int = item(INT)
    cells: tuple[Block, ...] = item(BLOCKS)
    error_title: str | None = item(TEXT)
    error: str | None = item(TEXT)
    prompt_title: str | None = item(TEXT)
    prompt: str | None = item(TEXT)
    first: Compiled = item(FORMULA)
    second: Compiled = item(FORMULA)


@dataclass(frozen=True)
class Link(Record):
    """BrtHLink. relation: of an address outside; location: in this workbook."""

    identity: ClassVar[int] = 494
    cells: Block = item(BLOCK)
    relation: str | None = item(TEXT)
    location: str = item(TEXT)
    tip: str = item(TEXT)
    shown: str = item(TEXT)


@dataclass(frozen=True)
class PrintOptions(Record):
    """BrtPrintOptions. flags: 1 and 2 centred across and down, 4 headings, 8 grid, 0x10 as Excel has it."""

    identity: ClassVar[int] = 477
    flags: int = item(SHORT)


@dataclass(frozen=True)
class Margins(Record):
    """BrtMargins, in inches."""

    identity: ClassVar[int] = 476
    left: float = item(DOUBLE)
    right: float = item(DOUBLE)
    top: float = item(DOUBLE)
    bottom: float = item(DOUBLE)
    header: float = item(DOUBLE)
    footer: float = item(DOUBLE)


@dataclass(frozen=True)
class PageSetup(Record):
    """BrtPageSetup. flags: 1 first right, then down, 2 landscape, 8 without colour, 0x10 draft, 0x80 a first page, ...

    relation: of the printer's settings.
    """

    identity: ClassVar[int] = 478
    paper: int = item(INT)
    scale: int = item(INT)
    resolution: tuple[int, int] = item(struct_form("2I"))
    copies: int = item(INT)
    first_page: int = item(SIGNED)
    pages_wide: int = item(INT)
    pages_high: int = item(INT)
    flags: int = item(SHORT)
    relation: str | None = item(TEXT)


@dataclass(frozen=True)
class BeginHeaderFooter(Record):
    """BrtBeginHeaderFooter. texts: header and footer of odd, of even pages and of the first."""

    identity: ClassVar[int] = 479
    flags: int = item(SHORT)
    odd_header: str | None = item(TEXT)
    odd_footer: str | None = item(TEXT)
    even_header: str | None = item(TEXT)
    even_footer: str | None = item(TEXT)
    first_header: str | None = item(TEXT)
    first_footer: str | None = item(TEXT)


@dataclass(frozen=True)
class Drawing(Record):
    """BrtDrawing: the relation of the sheet's drawing, whose part is XML."""

    identity: ClassVar[int] = 550
    relation: str = item(TEXT)
