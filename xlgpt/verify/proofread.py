"""Reads every cell of a workbook and holds it against the same workbook, built again from the facts in the file.

What the file says of itself is believed: its prompt, its settings, its weights, vocabulary and merges, the model's
facts on the home sheet. All else follows from these and the templates: each formula, label, heading and table, and what
lists, conditional formats, charts and names refer to.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from xlgpt.verify.again import Again, plan_again
from xlgpt.verify.report import BandResult, Gap, SheetResult
from xlgpt.verify.rules import CHARTS, FORMATS, LISTS, WORKBOOK, Names, Rule, charts, names, rules, rules_of_records
from xlgpt.verify.tokens_of import tokens_of
from xlgpt.workbook.book import Book
from xlgpt.xlsb.book_part import Book as BookPart
from xlgpt.xlsx.formula import Formula, with_cells
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import Cells, Scalar

SAME = 1e-14  # relative: programs save a number with 15 digits
LOST = "the program that saved the file kept none of them"
LOOKS = "colours, links, drawings, and what stands on the sheets of weights besides the weights"


@dataclass(frozen=True)
class Difference:
    """A place that is not as the templates make it."""

    place: Range
    sentence: str


@dataclass(frozen=True)
class Proof:
    """What was read: a result for each sheet, and what could not be."""

    sheets: tuple[SheetResult, ...]
    gaps: tuple[Gap, ...]


def proofread(book: Book) -> Proof:
    """Read all sheets but those of weights. Raises BrokenWorkbook."""
    pair = _Pair(book, Again(plan_again(book)))
    return Proof(tuple(pair.results()), tuple(pair.gaps()))


class _Pair:
    """A workbook beside the same one made again."""

    def __init__(self, book: Book, again: Again):
        self._book, self._again = book, again
        self._cells_of = BookPart(again.parts[WORKBOOK]).cells if book.scope else {}  # what an .xlsb has for names
        for name, cells in book.layout.names.items():
            if cells.sheet not in book.sheets:
                book.named(name)  # says that its sheet is gone
        self._sheets = [sheet for sheet in again.sheets if sheet not in book.weights.sheets]
        self._rules = {sheet: self._rules_of(sheet) for sheet in self._sheets}
        self._parts = book.parts(WORKBOOK, "xl/charts/")
        self._charts = charts(self._parts, book.path), charts(again.parts, book.path)
        self._lost = [kind for kind in (LISTS, FORMATS) if self._has_lost(kind)]
        self._lost += [CHARTS] if self._charts[1] and not self._charts[0] else []

    def _rules_of(self, sheet: str) -> tuple[Counter[Rule], Counter[Rule]]:
        book, part = self._book, self._book.xml(self._book.part(sheet))
        wanted = rules(self._again.xml(sheet), sheet, book.path, self._cells_of)
        if book.scope:
            return rules_of_records(part, sheet, book.path, book.scope), wanted
        return rules(part, sheet, book.path), wanted

    def _has_lost(self, kind: str) -> bool:
        there, wanted = (any(rule.kind == kind for pair in self._rules.values() for rule in pair[i]) for i in (0, 1))
        return wanted and not there

    def gaps(self) -> Iterator[Gap]:
        """What could not be read."""
        yield from (Gap(kind, LOST) for kind in self._lost)
        unknown = [sheet for sheet in self._book.sheets if sheet not in self._again.sheets]
        unknown = [sheet for sheet in unknown if sheet not in self._book.weights.sheets]
        if unknown:
            yield Gap(f"what stands on {', '.join(map(repr, unknown))}", "xlgpt did not make it")
        yield Gap(LOOKS, "no number follows from them")

    def results(self) -> Iterator[SheetResult]:
        """Every sheet's cells and rules, and the names of what stands there."""
        wrong_names = list(self._names())
        for sheet in self._sheets:
            began = time.monotonic()
            there, wanted = self._book.cells(sheet), self._wanted(sheet)
            bands = {name: cells for name, cells in self._book.layout.names.items() if cells.sheet == sheet}
            found = _by_band([*_differences(sheet, there, wanted), *self._rule_differences(sheet)], bands)
            found += [result for place, result in wrong_names if place == sheet]
            yield SheetResult(sheet, tuple(found), len(wanted.formulas), time.monotonic() - began)
        missing = self._charts[1] - self._charts[0]
        if missing and CHARTS not in self._lost:
            problem = f"No chart draws {' '.join(next(iter(missing)))}, as one must."
            yield SheetResult(CHARTS, (BandResult("", problem=problem),), 0, 0.0)

    def _wanted(self, sheet: str) -> Cells:
        """What must stand on a sheet."""
        cells = self._again.cells(sheet)
        if not self._cells_of:
            return cells
        return replace(cells, formulas=[replace(f, text=with_cells(f.text, self._cells_of)) for f in cells.formulas])

    def _names(self) -> Iterator[tuple[str, BandResult]]:
        """Names that do not stand for what they must, and the sheets of that."""
        wanted = names(self._again.parts, self._book.path)
        there = Names(*self._book.defined) if self._book.defined else names(self._parts, self._book.path)
        for name, target in wanted.everywhere.items():
            stands = there.everywhere.get(name, "nothing")
            problem = ""
            if tokens_of(stands) != tokens_of(target):
                problem = f"The name {name} stands for {stands}; it must stand for {target}."
            elif name in there.local:
                problem = f"The name {name} stands for something else on one of the sheets."
            if problem:
                sheet = target.rpartition("!")[0].strip("'")
                yield sheet if sheet in self._sheets else self._sheets[0], BandResult(name, problem=problem)

    def _rule_differences(self, sheet: str) -> Iterator[Difference]:
        there, wanted = self._rules[sheet]
        for rule in wanted - there:
            if rule.kind in self._lost:
                continue
            others = [other.says for other in there - wanted if other[:2] == rule[:2]]
            said = f"{rule.place(sheet).absolute}: of the {rule.kind}, this one says {(others or ['nothing'])[0]}"
            yield Difference(rule.place(sheet), f"{said}; it must say {rule.says}.")
        known = {rule[:2] for rule in wanted}
        for rule in there - wanted:
            if rule[:2] not in known:
                place = rule.place(sheet)
                yield Difference(place, f"{place.absolute}: of the {rule.kind}, none must say {rule.says}.")


def _differences(sheet: str, there: Cells, wanted: Cells) -> Iterator[Difference]:
    """The formulas, then the constants, that are not alike on both sides; from the top."""
    ours, theirs = ({(f.cells.row, f.cells.column): f for f in cells.formulas} for cells in (there, wanted))
    for place in sorted(ours.keys() | theirs.keys()):
        stands, should = ours.get(place), theirs.get(place)
        if not (stands and should and _alike(stands, should)):
            yield _difference(sheet, place, _said(stands, there, place), _said(should, wanted, place))
    for place in sorted((there.constants.keys() | wanted.constants.keys()) - ours.keys() - theirs.keys()):
        constants = there.constants.get(place, ""), wanted.constants.get(place, "")
        if not _same(*constants):
            yield _difference(sheet, place, *map(_shown, constants))


def _difference(sheet: str, place: tuple[int, int], stands: str, should: str) -> Difference:
    cell = Range(sheet, *place).absolute
    return Difference(Range(sheet, *place), f"{cell} holds {stands}; it must hold {should}.")


def _alike(a: Formula, b: Formula) -> bool:
    if (a.cells, a.is_array) != (b.cells, b.is_array):
        return False
    return a.text == b.text or tokens_of(a.text, a.cells.sheet) == tokens_of(b.text, b.cells.sheet)


def _said(formula: Formula | None, cells: Cells, place: tuple[int, int]) -> str:
    if not formula:
        return f"no formula but {_shown(cells.constants.get(place, ''))}"
    return f"{{={formula.text}}} in {formula.cells.a1}" if formula.is_array else f"={formula.text}"


def _shown(value: Scalar) -> str:
    if isinstance(value, float):
        return f"{value:.15g}"
    return repr(value) if value != "" else "nothing"


def _same(a: Scalar, b: Scalar) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return abs(a - b) <= SAME * abs(b)


def _by_band(differences: Iterable[Difference], bands: dict[str, Range]) -> list[BandResult]:
    """One result for each band in which something differs, and one for all places outside bands."""
    found: dict[str, BandResult] = {}
    for difference in differences:
        row, column = difference.place.row, difference.place.column
        inside = (n for n, c in bands.items() if 0 <= row - c.row < c.height and 0 <= column - c.column < c.width)
        name = next(inside, "")
        known = found.get(name, BandResult(name, problem=difference.sentence))
        found[name] = replace(known, cells=known.cells + 1)
    return [_counted(result) for result in found.values()]


def _counted(result: BandResult) -> BandResult:
    others = result.cells - 1
    return replace(result, problem=f"{result.problem} {others:,} more places differ there.") if others else result
