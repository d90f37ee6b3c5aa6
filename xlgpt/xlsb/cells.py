"""Records of the table of cells in a sheet's part ([MS-XLSB] 2.1.7.62, CELLTABLE)."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from xlgpt.xlsb.fields import (
    BLOCK,
    BYTE,
    DOUBLE,
    FORMULA,
    INT,
    SHORT,
    TEXT,
    THREE_BYTES,
    Block,
    Record,
    counted,
    item,
)
from xlgpt.xlsb.tokens import Compiled

BEGIN, END = 145, 146


class Span(NamedTuple):
    """Columns, first and last, between which a row has cells: one span for each 1,024 columns that have any."""

    first: int
    last: int


@dataclass(frozen=True)
class RowHeader(Record):
    """BrtRowHdr. height in twips. flags: three bytes; the second has 0x10 hidden, 0x20 a height of its own."""

    identity: ClassVar[int] = 0
    row: int = item(INT)
    style: int = item(INT)
    height: int = item(SHORT)
    flags: bytes = item(THREE_BYTES)
    spans: tuple[Span, ...] = item(counted("2I", Span))


@dataclass(frozen=True)
class Cell(Record):
    """What all cells have. style: the number of its format (24 bits), and 0x1000000 where its furigana shows."""

    column: int = item(INT)
    style: int = item(INT)


@dataclass(frozen=True)
class Blank(Cell):
    """BrtCellBlank."""

    identity: ClassVar[int] = 1


@dataclass(frozen=True)
class Rk(Cell):
    """BrtCellRk. value: 30 bits of a number; 1 is set where it is a hundredth of it, 2 where it is a whole number."""

    identity: ClassVar[int] = 2
    value: int = item(INT)


@dataclass(frozen=True)
class ErrorValue(Cell):
    """BrtCellError. value: as in tokens."""

    identity: ClassVar[int] = 3
    value: int = item(BYTE)


@dataclass(frozen=True)
class Boolean(Cell):
    """BrtCellBool."""

    identity: ClassVar[int] = 4
    value: int = item(BYTE)


@dataclass(frozen=True)
class Real(Cell):
    """BrtCellReal."""

    identity: ClassVar[int] = 5
    value: float = item(DOUBLE)


@dataclass(frozen=True)
class Text(Cell):
    """BrtCellSt."""

    identity: ClassVar[int] = 6
    value: str = item(TEXT)


@dataclass(frozen=True)
class SharedText(Cell):
    """BrtCellIsst. value: the number of the shared string."""

    identity: ClassVar[int] = 7
    value: int = item(INT)


@dataclass(frozen=True)
class TextFormula(Cell):
    """BrtFmlaString. flags of all formula cells: 2 is calculated always."""

    identity: ClassVar[int] = 8
    value: str = item(TEXT)
    flags: int = item(SHORT)
    formula: Compiled = item(FORMULA)


@dataclass(frozen=True)
class NumberFormula(Cell):
    """BrtFmlaNum."""

    identity: ClassVar[int] = 9
    value: float = item(DOUBLE)
    flags: int = item(SHORT)
    formula: Compiled = item(FORMULA)


@dataclass(frozen=True)
class BooleanFormula(Cell):
    """BrtFmlaBool."""

    identity: ClassVar[int] = 10
    value: int = item(BYTE)
    flags: int = item(SHORT)
    formula: Compiled = item(FORMULA)


@dataclass(frozen=True)
class ErrorFormula(Cell):
    """BrtFmlaError."""

    identity: ClassVar[int] = 11
    value: int = item(BYTE)
    flags: int = item(SHORT)
    formula: Compiled = item(FORMULA)


@dataclass(frozen=True)
class ArrayFormula(Record):
    """BrtArrFmla, behind the first of its cells. flags: 1 is calculated always."""

    identity: ClassVar[int] = 426
    cells: Block = item(BLOCK)
    flags: int = item(BYTE)
    formula: Compiled = item(FORMULA)


@dataclass(frozen=True)
class SharedFormula(Record):
    """BrtShrFmla, behind the first of its cells."""

    identity: ClassVar[int] = 427
    cells: Block = item(BLOCK)
    formula: Compiled = item(FORMULA)


@dataclass(frozen=True)
class ShortCell(Record):
    """A cell in the column after that of the cell before it in the row, whose column it leaves out.

    In no version of [MS-XLSB], and in none of the workbooks of Excel's that we have: Excel writes full cells. What is
    known of it comes from programs whose files Excel opens: SheetJS, which has written it since 0.17.1 (2021) for every
    cell that follows another and described it in bug 65510 of Apache POI, and Aspose.Cells before it (SheetJS issue
    2172). LibreOffice and SheetJS read it; calamine and pyxlsb pass it over in silence.
    """

    style: int = item(INT)


@dataclass(frozen=True)
class ShortBlank(ShortCell):
    """BrtShortBlank."""

    identity: ClassVar[int] = 12


@dataclass(frozen=True)
class ShortRk(ShortCell):
    """BrtShortRk. value: as in Rk."""

    identity: ClassVar[int] = 13
    value: int = item(INT)


@dataclass(frozen=True)
class ShortReal(ShortCell):
    """BrtShortReal."""

    identity: ClassVar[int] = 16
    value: float = item(DOUBLE)


@dataclass(frozen=True)
class ShortSharedText(ShortCell):
    """BrtShortIsst. value: the number of the shared string."""

    identity: ClassVar[int] = 18
    value: int = item(INT)
