"""A copy of a workbook with other numbers and texts in the cells that a person fills in; all else as it is."""

import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.errors import BrokenWorkbook, UsageError
from xlgpt.workbook.book import Book
from xlgpt.xlsb.fill import calculated_on_loading, filled
from xlgpt.xlsb.package_parts import BOOK
from xlgpt.xlsb.place import Place
from xlgpt.xlsx.cells import xstring
from xlgpt.xlsx.package import Package, check_target, replacing
from xlgpt.xlsx.ranges import Range

WORKBOOK = "xl/workbook.xml"
MANUAL = re.compile(rb'<calcPr[^>]*\bcalcMode="manual"')
CALCULATION = re.compile(rb"<calcPr\b")
ASKED = re.compile(rb' fullCalcOnLoad="[^"]*"')
STYLE = re.compile(rb' s="\d+"')


@dataclass(frozen=True)
class Filled:
    """The copy, how many cells were filled, and whether it calculates only when asked to."""

    path: Path
    cells: int
    manual: bool

    def __str__(self) -> str:
        all_of_it = "Ctrl+Alt+F9 in Excel, Ctrl+Shift+F9 in LibreOffice"
        if self.manual:
            return (
                f"{self.path}: {self.cells} cells filled. What formulas show is still old: calculate all, {all_of_it}."
            )
        return (
            f"{self.path}: {self.cells} cells filled. Excel calculates it when it is opened; "
            "in LibreOffice press Ctrl+Shift+F9."
        )


def check_fillable(book: Book, out: Path, name: str) -> None:
    """Fail before any work where a copy could not be written or lacks the cells. Raises UsageError, OutputError."""
    check_target(out)
    if out.exists() and out.samefile(book.path):
        raise UsageError(f"{out} is the workbook itself; give the copy another name.")
    if out.suffix.lower() != book.path.suffix.lower():
        raise UsageError(f"{out} would be a copy of {book.path}: let it end in {book.path.suffix}, too.")
    if not book.has(name):
        raise UsageError(f"{book.path} has no cells {name}: it was built without that sheet (see build --sheets).")


def fill(path: str | Path, out: str | Path, cells: Mapping[str, Any]) -> Filled:
    """Copy a workbook with other values in some input bands: by name, one for all their cells or one for each.

    Every part but the sheets with these cells is copied as it stands, so what formulas showed is kept and is stale:
    the copy asks to be calculated when it is opened, unless the workbook calculates only when asked to.
    Raises UsageError, OutputError, BrokenWorkbook, and what Book raises.
    """
    book, out = Book(path), Path(out)
    for name in cells:
        check_fillable(book, out, name)
    wanted = {place: value for name, values in cells.items() for place, value in _places(book.named(name), values)}
    book.check_sizes()
    changed, manual = _changed_records(book, wanted) if book.scope else _changed(book, wanted)
    try:
        _copy(book.path, out, changed)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as e:
        raise BrokenWorkbook(f"{path} is damaged ({e}); build the workbook again, or take an intact copy.") from e
    return Filled(out, len(wanted), manual)


def _changed(book: Book, wanted: dict[Range, Any]) -> tuple[dict[str, bytes], bool]:
    """The parts that differ in the copy, and whether it calculates only when asked to."""
    by_part: dict[str, dict[str, Any]] = {}
    for place, value in wanted.items():
        by_part.setdefault(book.part(place.sheet), {})[place.first] = value
    changed = {part: _filled(book.xml(part), values, book.path) for part, values in by_part.items()}
    whole = book.xml(WORKBOOK)
    manual = MANUAL.search(whole) is not None
    if not manual:
        changed[WORKBOOK] = CALCULATION.sub(b'<calcPr fullCalcOnLoad="1"', ASKED.sub(b"", whole))
    return changed, manual


def _changed_records(book: Book, wanted: dict[Range, Any]) -> tuple[dict[str, bytes], bool]:
    """The same in an .xlsb."""
    by_part: dict[str, dict[Place, Any]] = {}
    for place, value in wanted.items():
        by_part.setdefault(book.part(place.sheet), {})[Place(place.row, place.column)] = value
    changed = {}
    for part, values in by_part.items():
        changed[part], left = filled(book.xml(part), values)
        if left:
            raise _not_there(book.path, Range("", *left[0]).first)
    changed[BOOK], manual = calculated_on_loading(book.xml(BOOK))
    return changed, manual


def _not_there(path: Path, cell: str) -> BrokenWorkbook:
    return BrokenWorkbook(f"{path}: the cell {cell} is not there to be filled; build the workbook again.")


def _copy(path: Path, out: Path, changed: Mapping[str, bytes]) -> None:
    """An archive with other contents in some parts."""
    with zipfile.ZipFile(path) as archive, replacing(out) as file, Package(file) as package:
        for entry in archive.infolist():
            if entry.filename in changed:
                package.add(entry.filename, [changed[entry.filename]])
            else:
                package.copy(archive, entry)


def _places(cells: Range, values: Any) -> list[tuple[Range, Any]]:
    """Each cell of a band and its value; numbers side by side fill a column of as many rows too."""
    array: NDArray[Any] = np.asarray(values)
    shape = (cells.height, cells.width)
    spread = array.reshape(shape) if array.size == cells.height * cells.width else np.broadcast_to(array, shape)
    return [(cells.cell(row, column), value) for (row, column), value in np.ndenumerate(spread)]


def _filled(xml: bytes, values: dict[str, Any], path: Path) -> bytes:
    """A sheet's XML with other values in some cells, each in its style."""
    left = dict(values)

    def replaced(found: re.Match[bytes]) -> bytes:
        place = found[1].decode()
        if place not in left:
            return found[0]
        style = STYLE.search(found[2])
        return _cell(place, left.pop(place), style[0] if style else b"")

    done = re.sub(rb'<c r="([A-Z]+\d+)"([^>]*?)(?:/>|>.*?</c>)', replaced, xml, flags=re.DOTALL)
    if left:
        raise _not_there(path, next(iter(left)))
    return done


def _cell(place: str, value: Any, style: bytes) -> bytes:
    head = b'<c r="%b"%b' % (place.encode(), style)
    if isinstance(value, str):
        return b'%b t="inlineStr"><is><t xml:space="preserve">%b</t></is></c>' % (head, xstring(value).encode())
    return b"%b><v>%b</v></c>" % (head, repr(float(value)).encode())
