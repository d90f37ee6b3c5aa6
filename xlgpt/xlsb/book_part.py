"""xl/workbook.xml as the records of xl/workbook.bin, and what its formulas refer to by number."""

from functools import cached_property
from typing import Any, NamedTuple

from lxml import etree

from xlgpt.xlsb import workbook
from xlgpt.xlsb.elements import attributes, children, number
from xlgpt.xlsb.functions import FUTURE
from xlgpt.xlsb.records import record
from xlgpt.xlsb.scope import Kind, Scope
from xlgpt.xlsb.tokens import Compiler

BUILT_IN = "_xlnm."  # what stands before the name of print titles and the like in XML
IS_BUILT_IN = 0x20
USUAL_PROPERTIES, USUAL_VIEW = 0x10020, 0x78  # as all of Excel's own workbooks have them
TAB_RATIO = 600
AUTOMATIC, ON_SAVING = 0x4A, 0x20  # calculation: A1 references, full precision, in threads


class _Name(NamedTuple):
    """A defined name: its text, the number of its sheet, or None, and what it refers to; a function has no text."""

    name: str
    sheet: int | None
    text: str


class Book:
    """The part of a workbook's XML that names its sheets. Raises NotImplementedError at what it does not know."""

    def __init__(self, xml: bytes):
        known = "fileVersion", "workbookPr", "bookViews", "sheets", "definedNames", "calcPr"
        self._parts = children(etree.fromstring(xml), *known)
        self._sheets = [attributes(sheet, "name", "sheetId", "id") for sheet in self._parts["sheets"]]
        defined = [_name(element) for element in self._parts.get("definedNames", ())]
        functions = [_Name(function.name, None, "") for function in FUTURE.values() if function.name in USED_FUNCTIONS]
        self._names = sorted([*defined, *functions], key=lambda name: (name.name.lower(), name.sheet or 0))

    @cached_property
    def scope(self) -> Scope:
        """Every sheet, and every defined name in the order of the alphabet."""
        sheets = tuple(sheet["name"] for sheet in self._sheets)
        return Scope(sheets, tuple((n.name, None if n.sheet is None else sheets[n.sheet]) for n in self._names))

    @cached_property
    def cells(self) -> dict[str, str]:
        """What each name that is of no one sheet stands for, by the name in small letters."""
        return {name.name.casefold(): name.text for name in self._names if name.text and name.sheet is None}

    def part(self) -> bytes:
        """The whole part."""
        sheets = [
            workbook.Sheet(0, int(sheet["sheetId"]), sheet["id"], sheet["name"]).record() for sheet in self._sheets
        ]
        references = tuple(workbook.SheetReference(0, i, i) for i in range(len(sheets)))
        compiler = Compiler(self.scope)
        return b"".join(
            [
                record(workbook.BEGIN_BOOK),
                self._version(),
                self._properties(),
                record(workbook.BEGIN_VIEWS) + self._view() + record(workbook.END_VIEWS),
                record(workbook.BEGIN_SHEETS) + b"".join(sheets) + record(workbook.END_SHEETS),
                record(workbook.BEGIN_EXTERNALS) + record(workbook.THIS_BOOK),
                workbook.SheetReferences(references).record() + record(workbook.END_EXTERNALS),
                *(_defined(name, compiler) for name in self._names),
                self._calculation(),
                record(workbook.END_BOOK),
            ]
        )

    def _version(self) -> bytes:
        given = attributes(self._parts["fileVersion"], "appName", "lastEdited", "lowestEdited", "rupBuild")
        texts = (given[name] for name in ("appName", "lastEdited", "lowestEdited", "rupBuild"))
        return workbook.FileVersion(bytes(16), *texts).record()

    def _properties(self) -> bytes:
        given = attributes(self._parts["workbookPr"], "defaultThemeVersion")
        return workbook.BookProperties(USUAL_PROPERTIES, number(given, "defaultThemeVersion"), "").record()

    def _view(self) -> bytes:
        (view,) = self._parts["bookViews"]
        places = "xWindow", "yWindow", "windowWidth", "windowHeight"
        given = attributes(view, *places, "activeTab", "firstSheet")
        left, top, width, height = (number(given, place) for place in places)
        first, active = number(given, "firstSheet"), number(given, "activeTab")
        return workbook.BookView(left, top, width, height, TAB_RATIO, first, active, USUAL_VIEW).record()

    def _calculation(self) -> bytes:
        given = attributes(self._parts["calcPr"], "calcId", "calcMode", "calcOnSave", "fullCalcOnLoad")
        on_loading = number(given, "fullCalcOnLoad")
        flags = AUTOMATIC | on_loading | (ON_SAVING if number(given, "calcOnSave", 1) else 0)
        mode = 0 if given.get("calcMode") == "manual" else 1
        return workbook.Calculation(number(given, "calcId"), mode, 100, 0.001, 1, flags).record()


USED_FUNCTIONS = {"_xlfn.UNICHAR", "_xlfn.UNICODE"}  # of those that are newer than the format


def _name(element: Any) -> _Name:
    given = attributes(element, "name", "localSheetId")
    sheet = int(given["localSheetId"]) if "localSheetId" in given else None
    return _Name(given["name"].removeprefix(BUILT_IN), sheet, element.text)


def _defined(name: _Name, compiler: Compiler) -> bytes:
    if not name.text:
        return workbook.future_function(name.name).record()
    sheet = workbook.NO_SHEET if name.sheet is None else name.sheet
    flags = IS_BUILT_IN if name.name == "Print_Titles" else 0
    formula = compiler.compiled(name.text, Kind.NAME)
    return workbook.DefinedName(flags, 0, sheet, name.name, formula, (None,)).record()
