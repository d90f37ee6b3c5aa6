"""Calculates a workbook for one case after the other and holds every cell of a formula against NumPy."""

import time
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


@dataclass(frozen=True)
class Truth:
    """What all cells of formulas must show for a case: bands by name, and single cells outside them.

    next_token, completion: the texts that NumPy goes on with.
    """

    case: Case
    bands: dict[str, Values | None]
    outside: dict[Place, Scalar]
    text: str
    saved: bool  # whether the file has the values of this case

    def others(self, cells: Range) -> Values | None:
        """Of cells outside bands; None where they are formulas that nobody knows."""
        places = [
            [(cells.sheet, cells.row + i, cells.column + j) for j in range(cells.width)] for i in range(cells.height)
        ]
        if not all(place in self.outside for line in places for place in line):
            return None
        return np.array([[self.outside[place] for place in line] for line in places], dtype=object)


@dataclass
class Trial:
    """Tries cases with one engine. last_rows: how many of the last tokens' rows are calculated; None for all."""

    book: Book
    engine: Engine
    sheets: list[CheckedSheet]
    last_rows: int | None = None
    _finder: FormulasLibrary | None = field(default=None, init=False)

    def result(self, case: Case) -> PromptResult:
        """Every sheet for one case, from end to end.

        Where something differs, the sheets are calculated once more, each from NumPy's numbers, to find the place.
        """
        truth = self._truth(case)
        rows = self._rows(case)
        if rows is None:
            self.engine.calculate(case.prompt, case.settings)
            sheets = self._held(self.engine, truth)
            if any(sheet.problems for sheet in sheets):
                sheets = self._located(truth, sheets)
        else:
            sheets = self._held(self._fed(truth, rows), truth, rows)
        shown = self._shown("completion" if self._text_of(truth, "completion") else "next_token")
        return PromptResult(
            case.prompt.text, len(case.prompt.ids), tuple(sheets), shown, truth.text, case.about, rows is None
        )

    def _truth(self, case: Case) -> Truth:
        plan = replace(plan_again(self.book), prompt=case.prompt.text, given=case.settings)
        values = plan.values
        bands = {placed.band.name: expected_cells(values, placed) for sheet in self.sheets for placed, _ in sheet.bands}
        texts = [str(values[name][0]) for name in ("completion", "next_token") if name in values]
        saved = case.prompt.ids == self.book.prompt.ids and case.settings is self.book.settings
        return Truth(case, bands, outside(plan), next(filter(None, texts), ""), saved)

    def _text_of(self, truth: Truth, name: str) -> str:
        known = truth.bands.get(name)
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

        given = {cells: known for placed, cells in bands if (known := truth.bands[placed.band.name]) is not None}
        self._finder.feed(given, left_out)
        return self._finder

    def _located(self, truth: Truth, sheets: list[SheetResult]) -> list[SheetResult]:
        """The sheets on which a fault arises, where those that only follow from it can be told apart."""
        found = self._held(self._fed(truth), truth)
        if not any(sheet.problems for sheet in found):
            return sheets
        return [replace(new, formulas=old.formulas) for new, old in zip(found, sheets, strict=True)]

    def _held(self, engine: Engine, truth: Truth, rows: range | None = None) -> list[SheetResult]:
        """The sheets with bands first, then those that only show what they say."""
        order = sorted(self.sheets, key=lambda sheet: not sheet.bands)
        return [self._sheet(engine, sheet, truth, rows) for sheet in order]

    def _sheet(self, engine: Engine, sheet: CheckedSheet, truth: Truth, rows: range | None) -> SheetResult:
        began = time.monotonic()
        saved = self.book.cells(sheet.name) if truth.saved else None
        engine.read_ahead(sheet.name)
        results = [self._band(engine, placed, cells, truth, saved, rows) for placed, cells in sheet.bands]
        others = [self._cells(engine, "", cells, truth.others(cells), saved) for cells in sheet.others]
        missing = {band.name for band in sheet.missing}
        bands = [*sheet.missing, *(band for band in results if band.name not in missing), *_as_one(others)]
        calculated = engine.calculated(sheet.name)
        count = sheet.formulas if calculated is None else calculated
        return SheetResult(sheet.name, tuple(bands), count, time.monotonic() - began)

    def _band(
        self, engine: Engine, placed: Placed, cells: Range, truth: Truth, saved: Cells | None, rows: range | None
    ) -> BandResult:
        wanted, gap = truth.bands[placed.band.name], ""
        if rows is not None and placed.band.rows == "token":
            cells, gap = cells.rows(rows.start, rows.stop), "--rows leaves rows out"
            wanted = None if wanted is None else wanted[rows.start : rows.stop]
        if placed.band.varies:
            return self._cells(engine, placed.band.name, cells, None, None, placed.band.varies)
        return replace(self._cells(engine, placed.band.name, cells, wanted, saved), gap=gap)

    def _cells(
        self,
        engine: Engine,
        name: str,
        cells: Range,
        wanted: Values | None,
        saved: Cells | None,
        possible: tuple[float, ...] = (),
    ) -> BandResult:
        try:
            shown = engine.read(cells)
        except (FormulaError, BrokenWorkbook) as e:
            return BandResult(name, cells.height * cells.width, problem=f"It was not evaluated: {e}")
        if possible:
            return one_of(name, cells, shown, possible)
        if wanted is None:
            return BandResult(name, cells.height * cells.width, gap="nobody knows what it must show")
        found = compare(name, cells, shown, wanted)
        return found if found.problem or saved is None else stale(found, cells, shown, saved) or found

    def _shown(self, name: str) -> str:
        """The text in the one cell of a band."""
        try:
            return str(self.engine.read(self.book.named(name))[0, 0]) if self.last_rows is None else ""
        except FormulaError:
            return ""


def _as_one(others: list[BandResult]) -> list[BandResult]:
    """All formulas that belong to no band, as one result."""
    if not others:
        return []
    worst = max(others, key=lambda band: (bool(band.problem), bool(band.gap), band.absolute))
    first = next((band for band in others if band.problem), worst)
    return [replace(first, cells=sum(band.cells for band in others))]
