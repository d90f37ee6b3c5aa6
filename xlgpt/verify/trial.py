"""Calculates a workbook for one case after the other and holds every cell of a formula against NumPy."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from xlgpt.compiler.layout import Placed
from xlgpt.engines import Engine, FormulasLibrary
from xlgpt.errors import BrokenWorkbook, FormulaError
from xlgpt.verify.again import plan_again
from xlgpt.verify.cases import Case
from xlgpt.verify.compare import compare, expected_cells, one_of, stale
from xlgpt.verify.outside import Place, outside
from xlgpt.verify.report import BandResult, PromptResult, SheetResult
from xlgpt.verify.sheets_to_check import CheckedSheet
from xlgpt.workbook.book import Book
from xlgpt.xlsx.formula import Formula
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import Cells, Scalar, Values, overlap

TEXTS = ("completion", "next_token")  # what the workbook goes on with


@dataclass(frozen=True)
class Truth:
    """What all cells of formulas must show for a case: what bands do by name, and single cells outside them.

    text: what NumPy goes on with.
    """

    case: Case
    values: dict[str, Values]
    outside: dict[Place, Scalar]
    text: str
    saved: bool  # whether the file has the values of this case

    def band(self, placed: Placed) -> Values | None:
        """Of a band's cells, made when asked for, since all of them are many; None where that is not known."""
        return expected_cells(self.values, placed)

    def others(self, cells: Range) -> Values | None:
        """Of cells outside bands; None where they are formulas that nobody knows."""
        places = [
            [(cells.sheet, cells.row + i, cells.column + j) for j in range(cells.width)] for i in range(cells.height)
        ]
        if not all(place in self.outside for line in places for place in line):
            return None
        return np.array([[self.outside[place] for place in line] for line in places], dtype=object)


@dataclass(frozen=True)
class Seen:
    """What an engine showed on a sheet: in each block of cells its values, or why there are none."""

    sheet: CheckedSheet
    values: dict[Range, Values | FormulaError | BrokenWorkbook]
    formulas: int  # that were calculated
    seconds: float


@dataclass
class Trial:
    """Tries cases with one engine. last_rows: how many of the last tokens' rows are calculated; None for all."""

    book: Book
    engine: Engine
    sheets: list[CheckedSheet]
    last_rows: int | None = None
    _finder: FormulasLibrary | None = field(default=None, init=False)

    def results(self, cases: Iterable[Case], aside: ThreadPoolExecutor) -> Iterator[PromptResult]:
        """Every sheet for each case, from end to end.

        aside: what compares what a case shows with what NumPy has, while the next one is calculated.
        """
        if self.last_rows is not None or self.book.weights.are_large:
            yield from map(self._of_last_rows if self.last_rows is not None else self.result, cases)
            return
        comparing = [aside.submit(self._compared, case, *self._calculated(case)) for case in cases]
        yield from (compared.result() for compared in comparing)

    def result(self, case: Case) -> PromptResult:
        """Every sheet for one case, from end to end: compared as soon as it is read, so that little is held at once."""
        self.engine.calculate(case.prompt, case.settings)
        texts = self._texts()
        return self._compared(case, self._seen(self.engine), texts)

    def _of_last_rows(self, case: Case) -> PromptResult:
        """Every sheet, with its other rows given by NumPy."""
        truth, rows = self._truth(case), self._rows(case)
        held = self._held(self._seen(self._fed(truth, rows), rows), truth, rows)
        return PromptResult(case.prompt.text, len(case.prompt.ids), tuple(held), "", truth.text, case.about, False)

    def _calculated(self, case: Case) -> tuple[list[Seen], dict[str, str]]:
        """What all sheets show, and the texts that the workbook goes on with."""
        self.engine.calculate(case.prompt, case.settings)
        return list(self._seen(self.engine)), self._texts()

    def _texts(self) -> dict[str, str]:
        return {name: self._shown(name) for name in TEXTS if self.book.has(name)}

    def _compared(self, case: Case, seen: Iterable[Seen], texts: dict[str, str]) -> PromptResult:
        """What the sheets show beside what they must.

        Where something differs, they are calculated once more, each from NumPy's numbers, to find the place.
        """
        truth = self._truth(case)
        sheets = self._held(seen, truth)
        if any(sheet.problems for sheet in sheets):
            sheets = self._located(truth, sheets)
        shown = texts.get("completion" if self._text_of(truth, "completion") else "next_token", "")
        ids = case.prompt.ids
        return PromptResult(case.prompt.text, len(ids), tuple(sheets), shown, truth.text, case.about, True)

    def _truth(self, case: Case) -> Truth:
        plan = replace(plan_again(self.book), prompt=case.prompt.text, given=case.settings)
        values = plan.values
        texts = [str(values[name][0]) for name in TEXTS if name in values]
        saved = case.prompt.ids == self.book.prompt.ids and not case.settings.beyond(self.book.settings).cells
        return Truth(case, values, outside(plan), next(filter(None, texts), ""), saved)

    def _text_of(self, truth: Truth, name: str) -> str:
        known = truth.band(self.book.layout.bands[name]) if name in self.book.layout.bands else None
        return "" if known is None else str(known[0, 0])

    def _rows(self, case: Case) -> range | None:
        if self.last_rows is None:
            return None
        last = max(1, min(len(case.prompt.ids), self.book.named("position").height))  # of no token, or of too many
        return range(max(0, last - self.last_rows), last)

    def _fed(self, truth: Truth, rows: range | None = None) -> FormulasLibrary:
        """An engine to which NumPy gives what bands show on other sheets, and in rows that are left out."""
        if self._finder is None:
            self._finder = FormulasLibrary(self.book)
        self._finder.calculate(truth.case.prompt, truth.case.settings)
        bands = [(placed, cells) for sheet in self.sheets for placed, cells in sheet.bands]
        of_tokens = [cells for placed, cells in bands if placed.band.rows == "token"]

        def left_out(formula: Formula) -> bool:
            if rows is None:
                return False
            band = next((cells for cells in of_tokens if overlap(formula.cells, cells)), None)
            return band is not None and formula.cells.row - band.row not in rows

        given = {cells: known for placed, cells in bands if (known := truth.band(placed)) is not None}
        self._finder.feed(given, left_out)
        return self._finder

    def _located(self, truth: Truth, sheets: list[SheetResult]) -> list[SheetResult]:
        """The sheets on which a fault arises, where those that only follow from it can be told apart."""
        found = self._held(self._seen(self._fed(truth)), truth)
        if not any(sheet.problems for sheet in found):
            return sheets
        return [replace(new, formulas=old.formulas) for new, old in zip(found, sheets, strict=True)]

    def _seen(self, engine: Engine, rows: range | None = None) -> Iterator[Seen]:
        """What an engine shows: on the sheets with bands first, then on those that only show what they say."""
        return (self._read(engine, sheet, rows) for sheet in sorted(self.sheets, key=lambda sheet: not sheet.bands))

    def _read(self, engine: Engine, sheet: CheckedSheet, rows: range | None) -> Seen:
        began = time.monotonic()
        engine.read_ahead(sheet.name)
        places = [*(_of_rows(placed, cells, rows) for placed, cells in sheet.bands), *sheet.others]
        values = {cells: _values(engine, cells) for cells in places}
        calculated = engine.calculated(sheet.name)
        count = sheet.formulas if calculated is None else calculated
        return Seen(sheet, values, count, time.monotonic() - began)

    def _held(self, seen: Iterable[Seen], truth: Truth, rows: range | None = None) -> list[SheetResult]:
        return [self._sheet(each, truth, rows) for each in seen]

    def _sheet(self, seen: Seen, truth: Truth, rows: range | None) -> SheetResult:
        began, sheet = time.monotonic(), seen.sheet
        saved = self.book.cells(sheet.name) if truth.saved else None
        results = [self._band(seen, placed, cells, truth, saved, rows) for placed, cells in sheet.bands]
        others = [_cells("", cells, seen.values[cells], truth.others(cells), saved) for cells in sheet.others]
        missing = {band.name for band in sheet.missing}
        bands = [*sheet.missing, *(band for band in results if band.name not in missing), *_as_one(others)]
        return SheetResult(sheet.name, tuple(bands), seen.formulas, seen.seconds + time.monotonic() - began)

    def _band(
        self, seen: Seen, placed: Placed, cells: Range, truth: Truth, saved: Cells | None, rows: range | None
    ) -> BandResult:
        wanted, name, read = truth.band(placed), placed.band.name, _of_rows(placed, cells, rows)
        if placed.band.varies:
            return _cells(name, read, seen.values[read], None, None, placed.band.varies)
        if rows is None or placed.band.rows != "token":
            return _cells(name, read, seen.values[read], wanted, saved)
        wanted = None if wanted is None else wanted[rows.start : rows.stop]
        return replace(_cells(name, read, seen.values[read], wanted, saved), gap="--rows leaves rows out")

    def _shown(self, name: str) -> str:
        """The text in the one cell of a band."""
        try:
            return str(self.engine.read(self.book.named(name))[0, 0])
        except FormulaError:
            return ""


def _of_rows(placed: Placed, cells: Range, rows: range | None) -> Range:
    """Of a band with a row for each token, those that are asked for."""
    return cells if rows is None or placed.band.rows != "token" else cells.rows(rows.start, rows.stop)


def _values(engine: Engine, cells: Range) -> Values | FormulaError | BrokenWorkbook:
    try:
        return engine.read(cells)
    except (FormulaError, BrokenWorkbook) as e:
        return e


def _cells(
    name: str,
    cells: Range,
    shown: Values | FormulaError | BrokenWorkbook,
    wanted: Values | None,
    saved: Cells | None,
    possible: tuple[float, ...] = (),
) -> BandResult:
    if isinstance(shown, Exception):
        return BandResult(name, cells.height * cells.width, problem=f"It was not evaluated: {shown}")
    if possible:
        return one_of(name, cells, shown, possible)
    if wanted is None:
        return BandResult(name, cells.height * cells.width, gap="nobody knows what it must show")
    found = compare(name, cells, shown, wanted)
    return found if found.problem or saved is None else stale(found, cells, shown, saved) or found


def _as_one(others: list[BandResult]) -> list[BandResult]:
    """All formulas that belong to no band, as one result."""
    if not others:
        return []
    worst = max(others, key=lambda band: (bool(band.problem), bool(band.gap), band.absolute))
    first = next((band for band in others if band.problem), worst)
    return [replace(first, cells=sum(band.cells for band in others))]
