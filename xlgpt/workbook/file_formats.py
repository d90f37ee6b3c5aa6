"""The two formats in which a workbook's parts can be written: XML (.xlsx) and records (.xlsb)."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol

from xlgpt.workbook.frame import Frame
from xlgpt.workbook.plan import Plan
from xlgpt.xlsb import package_parts
from xlgpt.xlsb import sheet_data as xlsb
from xlgpt.xlsb.book_part import Book
from xlgpt.xlsb.package_parts import package_part, part_name
from xlgpt.xlsb.sheet_part import Around, around
from xlgpt.xlsb.style_part import style_part
from xlgpt.xlsb.tokens import Compiler
from xlgpt.xlsx import cells as xlsx
from xlgpt.xlsx.archive import STRINGS
from xlgpt.xlsx.rows import Row

CELLS = b"<sheetData/>"  # where a sheet's rows belong
NumberRows = Callable[[Any, int], Iterator[bytes]]  # of a matrix whose first row is that one
RK_DIGITS = 5  # so many significant digits of a weight fit an RkNumber (xlgpt.model.notation.bits)


class SheetData(Protocol):
    """Makes the rows of a sheet, and counts."""

    cells: int
    formulas: int

    def row(self, row: Row) -> bytes:
        """A row with all its cells."""


class SheetPart(NamedTuple):
    """A sheet's part: its name in the file, what makes its rows, and what stands around them."""

    name: str
    data: SheetData
    around: Around


class FileFormat(Protocol):
    """Writes the parts of a frame."""

    def sheet(self, part: str) -> SheetPart:
        """A sheet, by the name of its part in the frame."""

    def the_rest(self) -> Iterator[tuple[str, bytes]]:
        """All parts that are no sheets, once these are written."""


class Xlsx:
    """The parts as XlsxWriter makes them."""

    def __init__(self, frame: Frame):
        self._frame, self._strings = frame, xlsx.Strings()

    @staticmethod
    def number_rows(plan: Plan) -> NumberRows:
        """What makes cells of a plan's weights."""
        return partial(xlsx.number_rows, is_bare=plan.is_bare)

    def sheet(self, part: str) -> SheetPart:
        """A sheet, by the name of its part."""
        before, _, behind = self._frame.file.read(part).partition(CELLS)
        return SheetPart(part, xlsx.SheetData(self._strings), Around(before + b"<sheetData>", b"</sheetData>" + behind))

    def the_rest(self) -> Iterator[tuple[str, bytes]]:
        """All parts that are no sheets."""
        yield from _others(self._frame)
        yield STRINGS, self._strings.part()


class Xlsb:
    """The parts as records, where the format has records for them.

    Formulas refer to cells where those of .xlsx have names: LibreOffice (7.4) reads no name from an .xlsb. The names
    stand in the file all the same.
    """

    def __init__(self, frame: Frame):
        self._frame, self._strings = frame, xlsb.Strings()
        self._book = Book(frame.file.read("xl/workbook.xml"))

    @staticmethod
    def number_rows(plan: Plan) -> NumberRows:
        """What makes cells of a plan's weights."""
        as_rk = 1 <= plan.model.precision <= RK_DIGITS
        return partial(xlsb.number_rows, as_rk=as_rk, is_short=plan.is_bare)

    def sheet(self, part: str) -> SheetPart:
        """A sheet, by the name of its part in the frame."""
        compiler = Compiler(self._book.scope, self._frame.sheets[part].name, self._book.cells)
        data = xlsb.SheetData(self._strings, compiler)
        return SheetPart(part_name(part), data, around(self._frame.file.read(part), compiler))

    def the_rest(self) -> Iterator[tuple[str, bytes]]:
        """All parts that are no sheets."""
        records = {"xl/workbook.xml": lambda _: self._book.part(), "xl/styles.xml": style_part}
        for part, xml in _others(self._frame):
            make = records.get(part, partial(package_part, part))
            yield part_name(part), make(xml)
        yield package_parts.STRINGS, self._strings.part()


def _others(frame: Frame) -> Iterator[tuple[str, bytes]]:
    for part in frame.file.namelist():
        if part not in frame.sheets and part != STRINGS:
            yield part, frame.file.read(part)
