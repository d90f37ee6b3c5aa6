"""Calculates a workbook in Python: every formula by the parser and the functions of the `formulas` library.

A formula waits for those that it refers to, and each is evaluated once. The next time they are evaluated in the order
that was found, and only those whose references show something else, as spreadsheets do it.
With `feed`, what stands on other sheets is not calculated but given, so that a fault is seen where it arises.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from formulas.functions import Array as LibraryArray
from formulas.tokens.operand import Error, XlError

from xlgpt.compiler.settings import Settings
from xlgpt.engines.closures import NO_VALUE, Compiled, Evaluation, compiled
from xlgpt.engines.engine import Engine, Place, Traits, inputs
from xlgpt.engines.tree import EMPTY, Node, take_apart
from xlgpt.errors import FormulaError
from xlgpt.workbook.book import Book, Prompt
from xlgpt.xlsx.formula import Formula
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import CellError, Cells, Values, a1_range, overlap, part, within

Part = tuple[slice, slice]  # of a block: rows and columns
Piece = tuple[int, Part, Part]
Form = tuple[Compiled, tuple[Range | float, ...]]  # what a formula calculates, and from which references and numbers
SHEET = re.compile(r"(?:'((?:[^']|'')+)'|([^'!]+))!(.+)")
NOT_AVAILABLE = Error.errors["#N/A"]


@dataclass
class _Sheet:
    """A sheet's formulas and constants, and what the formulas showed when last evaluated."""

    cells: Cells
    constants: dict[tuple[int, int], Any]
    results: dict[int, Values] = field(default_factory=dict)
    given: dict[int, Values] = field(default_factory=dict)

    @property
    def formulas(self) -> list[Formula]:
        """All of them, in the order of the file."""
        return self.cells.formulas

    def over(self, cells: Range) -> Iterator[int]:
        """The formulas that fill some of these cells."""
        return self.cells.over(cells)


class FormulasLibrary(Engine):
    """An engine."""

    traits = Traits(is_open=True)

    def __init__(self, book: Book):
        self._book = book
        self._sheets: dict[str, _Sheet] = {}
        self._forms: dict[Place, Form] = {}
        self._places: dict[tuple[str, str], Range] = {}  # what a formula's text refers to, by the sheet it stands on
        self._constant_ranges: dict[Range, Values] = {}
        self._over: dict[Range, Sequence[int]] = {}
        self._inside: dict[Range, tuple[tuple[int, int, Any], ...]] = {}  # the constants in a range: row, column, value
        self._pieces: dict[Range, list[Piece]] = {}
        self._order: dict[Place, None] = {}  # of evaluation, as far as it is known
        self._users: dict[Place, list[Range]] = {}  # the references that each formula's cells are part of
        self._read_by: dict[Range, list[int]] = {}  # which formulas refer to them, by their place in the order
        self._is_fresh = True
        self._read: dict[Range, None] = {}  # what was asked for
        self._shown: dict[Range, tuple[Values, Values]] = {}  # and what it shows, in the library's values and in plain
        self._complete: set[Range] = set()  # ranges whose formulas all have results, while nothing changes
        self._seen: dict[Range, Values] = {}  # what they show
        self._inputs: dict[Range, Values] = {}
        self._tensors: dict[Range, list[tuple[str, Range]]] = {}  # those of which some cells of a weight sheet are
        self._fed = False
        self._here = ""  # the sheet that is being read; with `fed`, the others are given
        self._left_out: frozenset[Place] = frozenset()
        self._shapes: dict[int, Compiled] = {}  # by tree
        self.taken: dict[Place, int] = {}  # by formula: the branches that were taken so far, a bit each
        self.evaluated: dict[str, int] = {}  # how many formulas of each sheet

    def calculate(self, prompt: Prompt, settings: Settings | None = None) -> None:
        """Set the prompt and the settings, and evaluate what was asked for before; all else when it is read."""
        before, self._inputs = self._inputs, inputs(self._book, prompt, settings)
        new = [c for c, values in self._inputs.items() if c not in before or (values != before[c]).any()]
        self._drop(_overlapping(new, self._constant_ranges))
        self.evaluated = {}
        try:
            if self._fed or self._is_fresh:
                self._forget_results()
                self._evaluate_all()
            else:
                self._evaluate_changed(new)
            self._is_fresh = False
        except FormulaError:  # it is raised again when what needs it is read
            self._forget_results()
            self._is_fresh = True
        self._fed = False

    def forget(self) -> None:
        """Evaluate everything the next time, not only what depends on what has changed."""
        self._is_fresh = True

    def _forget_results(self) -> None:
        self._forget()
        for sheet in self._sheets.values():
            sheet.results.clear()
            sheet.given.clear()

    def _evaluate_all(self) -> None:
        """Evaluate all formulas in the order that is known by now."""
        for place in self._order:
            self._sheets[place[0]].results[place[1]] = self._evaluate(place)

    def _evaluate_changed(self, new: list[Range]) -> None:
        """Evaluate the formulas whose references show something else, now that these inputs do."""
        users, readers = self._graph(), self._readers()
        changed = _overlapping(new, self._seen, readers)
        self._drop(changed)
        self._drop(self._seen.keys() - readers.keys() - self._read.keys())  # between two cells that a formula chose
        self._complete.clear()
        is_due = bytearray(len(self._order))
        for cells in changed:
            for number in readers.get(cells, ()):
                is_due[number] = True
        for number, place in enumerate(self._order):
            if not is_due[number]:
                continue
            results = self._sheets[place[0]].results
            old, results[place[1]] = results[place[1]], self._evaluate(place)
            if not _equal(old, results[place[1]]):
                found = users.get(place, ())
                self._drop(found)
                for cells in found:
                    for reader in readers.get(cells, ()):
                        is_due[reader] = True

    def _readers(self) -> dict[Range, list[int]]:
        """The formulas that refer to each range, by their place in the order of evaluation."""
        if not self._read_by:
            for number, place in enumerate(self._order):
                for cells in self._references(place):
                    self._read_by.setdefault(cells, []).append(number)
        return self._read_by

    def _drop(self, ranges: Iterable[Range]) -> None:
        for cells in ranges:
            self._seen.pop(cells, None)
            self._constant_ranges.pop(cells, None)

    def _graph(self) -> dict[Place, list[Range]]:
        """The references that each formula's cells are part of."""
        if not self._users:
            for cells in {cells for place in self._forms for cells in self._references(place)} | self._read.keys():
                if cells.sheet not in self._book.weights.sheets:
                    for i in self._filling(cells):
                        self._users.setdefault((cells.sheet, i), []).append(cells)
        return self._users

    def feed(self, bands: Mapping[Range, Values], left_out: Callable[[Formula], bool] = lambda formula: False) -> None:
        """Give what bands show: to sheets other than theirs, and, for formulas left out, to their own."""
        self._fed = True
        self._forget()
        skipped = set()
        for cells, values in bands.items():
            sheet = self._sheet(cells.sheet)
            for i in sheet.over(cells):
                formula = sheet.formulas[i]
                if overlap(formula.cells, cells) == formula.cells:
                    sheet.given[i] = _settled(part(values, cells, formula.cells))
                    if left_out(formula):
                        skipped.add((cells.sheet, i))
        self._left_out = frozenset(skipped)

    def read(self, cells: Range) -> Values:
        """What the cells show, after evaluating what they need. Raises FormulaError."""
        if self._fed and self._here != cells.sheet:
            self._forget()
        self._here = cells.sheet
        if cells not in self._read:
            self._read[cells] = None
            self._users.clear()
        self._settle(cells)
        value = self._value(cells)
        if self._book.weights.are_large:  # and so what is read is much: it is put together again the next time
            self._seen.pop(cells, None)
            return shown(value)
        known = self._shown.get(cells)
        if known is None or known[0] is not value:
            known = self._shown[cells] = (value, shown(value))
        return known[1]

    def alone(self, formula: Formula) -> Values:
        """What a formula would show in its cells, where all that was fed is given. Raises FormulaError."""
        self._here = ""
        shape, arguments = self._form(formula)
        for cells in _references_in(arguments):
            self._settle(cells)
        return shown(self._in_cells(shape.run(Evaluation(self._value, arguments, formula.cells)), formula))

    def calculated(self, sheet: str) -> int | None:
        """How many formulas of a sheet were calculated the last time."""
        return self.evaluated.get(sheet, 0)

    def taken_branches(self) -> dict[Place, tuple[int, int]]:
        """Of each formula that was evaluated: how many branches it has, and those taken so far, a bit each."""
        ways = ((place, self._form_of(place)[0].branches) for place in self._order)
        return {place: (count, self.taken.get(place, 0)) for place, count in ways if count}

    def close(self) -> None:
        """Nothing was started."""

    def _forget(self) -> None:
        self._complete.clear()
        self._seen.clear()

    def _sheet(self, name: str) -> _Sheet:
        if name not in self._sheets:
            cells = self._book.cells(name)
            constants = {place: _in_library(value) for place, value in cells.constants.items()}
            self._sheets[name] = _Sheet(cells, constants)
        return self._sheets[name]

    def _settle(self, cells: Range) -> None:
        """Evaluate the formulas of some cells, those that they need first. Raises FormulaError for a circle."""
        waiting = [(cells.sheet, i) for i in self._open(cells)]
        under_way: dict[tuple[str, int], None] = {}
        while waiting:
            place = waiting[-1]
            sheet, i = place
            formula = self._sheet(sheet).formulas[i]
            if self._result(sheet, i) is not None:
                waiting.pop()
            elif place in under_way:
                self._sheet(sheet).results[i] = self._evaluate(place)
                if not self._fed:
                    self._order[place] = None
                    self._users.clear()
                    self._read_by.clear()
                del under_way[place]
                waiting.pop()
            else:
                under_way[place] = None
                needed = [(cells.sheet, j) for cells in self._references(place) for j in self._open(cells)]
                circle = next((each for each in needed if each in under_way), None)
                if circle:
                    raise FormulaError(f"{formula.cells.absolute} depends on itself, by way of {circle[0]}.")
                waiting += needed

    def _evaluate(self, place: Place) -> Values:
        """What a formula's cells show; which branches it takes is kept. What it refers to has been evaluated."""
        sheet, i = place
        formula = self._sheets[sheet].formulas[i]
        shape, arguments = self._form_of(place)
        at = Evaluation(self._value, arguments, formula.cells)
        value = self._in_cells(shape.run(at), formula)
        if at.taken:
            self.taken[place] = self.taken.get(place, 0) | at.taken
        self.evaluated[sheet] = self.evaluated.get(sheet, 0) + 1
        return value

    def _open(self, cells: Range) -> list[int]:
        """The formulas over some cells that have no result yet."""
        if cells in self._complete or cells.sheet in self._book.weights.sheets:
            return []
        found = [i for i in self._filling(cells) if self._result(cells.sheet, i) is None]
        if not found:
            self._complete.add(cells)
        return found

    def _filling(self, cells: Range) -> Sequence[int]:
        """The formulas over some cells: mostly one after the other in the file, which takes less memory as a range."""
        if cells not in self._over:
            found = tuple(self._sheet(cells.sheet).over(cells))
            stretch = range(found[0], found[0] + len(found)) if found else range(0)
            self._over[cells] = stretch if found == tuple(stretch) else found
        return self._over[cells]

    def _result(self, name: str, i: int) -> Values | None:
        sheet = self._sheets[name]
        if self._fed and i in sheet.given and (name != self._here or (name, i) in self._left_out):
            return sheet.given[i]
        return sheet.results.get(i)

    def _references(self, place: Place) -> list[Range]:
        return _references_in(self._form_of(place)[1])

    def _form_of(self, place: Place) -> Form:
        if place not in self._forms:
            self._forms[place] = self._form(self._sheets[place[0]].formulas[place[1]])
        return self._forms[place]

    def _form(self, formula: Formula) -> Form:
        """What a formula calculates, and from which cells and numbers. Raises FormulaError."""
        try:
            tree = take_apart(formula.text)
        except FormulaError as e:
            raise FormulaError(f"{formula.cells.absolute} cannot be evaluated: {e}.") from e
        arguments = (a if isinstance(a, float) else self._place(a, formula.cells) for a in tree.arguments)
        return self._shape(tree.root), tuple(arguments)

    def _place(self, text: str, seen_from: Range) -> Range:
        """The cells that a reference or a name in a formula means. Raises FormulaError."""
        key = (seen_from.sheet, text)
        if key not in self._places:
            found = SHEET.fullmatch(text)
            sheet = (found[1].replace("''", "'") if found[1] else found[2]) if found else seen_from.sheet
            cells = a1_range(sheet, found[3] if found else text)
            if cells and sheet not in self._book.sheets:
                raise FormulaError(f"{seen_from.absolute} refers to the sheet {sheet!r}, which is not there.")
            if not cells and not self._book.has(text):
                raise FormulaError(f"{seen_from.absolute} refers to {text}, which no cell has as its name.")
            self._places[key] = cells or self._book.named(text)
        return self._places[key]

    def _shape(self, root: Node) -> Compiled:
        if id(root) not in self._shapes:  # formulas of one shape share it, and it is kept
            self._shapes[id(root)] = compiled(root)
        return self._shapes[id(root)]

    def _in_cells(self, value: Any, formula: Formula) -> Values:
        """A formula's value as its cells show it."""
        cells = formula.cells
        if type(value) in (float, int, str) and cells.height == cells.width == 1:  # most of them, without a detour
            return np.array([[value]], dtype=object if type(value) is str else np.float64)
        values = np.asarray(value, dtype=None if isinstance(value, np.ndarray) else object)
        values = np.atleast_2d(values)
        if values.size > 1 and not formula.is_array:
            values = np.array([[NO_VALUE]], dtype=object)
        if values.dtype == object:
            values = np.array([0.0 if v is EMPTY else v for v in values.flat], dtype=object).reshape(values.shape)
        return _fitted(_settled(values), cells.height, cells.width)

    def _value(self, cells: Range) -> Values:
        """What some cells show, as the library takes it; formulas among them have been evaluated."""
        known = self._constant_ranges.get(cells)
        if known is None:
            known = self._seen.get(cells)
        if known is not None:
            return known
        if cells.sheet in self._book.weights.sheets:
            return self._weights(cells)
        sheet = self._sheet(cells.sheet)
        filling = self._filling(cells)
        if len(filling) == 1:
            block, result = sheet.formulas[filling[0]].cells, self._result(cells.sheet, filling[0])
            if result is not None and (block == cells or overlap(block, cells) == cells):
                return result if block == cells else part(result, block, cells)
        values = self._constants(sheet, cells)
        for block, known in self._set_cells(cells):
            common = overlap(block, cells)
            if common:
                part(values, cells, common)[:] = part(known, block, common)
        for i, there, here in self._pieces_of(cells):
            result = self._result(cells.sheet, i)
            if result is not None:
                values[there] = result[here]
        values = _settled(values)
        kept = self._seen if filling else self._constant_ranges
        kept[cells] = values
        return values

    def _pieces_of(self, cells: Range) -> list[Piece]:
        """The formulas over some cells: their numbers, what they fill of these, and with which of their own."""
        if cells not in self._pieces:
            formulas, found = self._sheet(cells.sheet).formulas, list[Piece]()
            for i in self._filling(cells):
                common = overlap(formulas[i].cells, cells)
                if common:
                    found.append((i, within(cells, common), within(formulas[i].cells, common)))
            self._pieces[cells] = found
        return self._pieces[cells]

    def _set_cells(self, cells: Range) -> Iterator[tuple[Range, Values]]:
        """The cells that the prompt sets."""
        for block, values in self._inputs.items():
            if block.sheet == cells.sheet:
                empty = _filled(EMPTY, *values.shape)
                yield block, np.where(values == "", empty, values)

    def _constants(self, sheet: _Sheet, cells: Range) -> Values:
        if cells not in self._inside:
            places = ((row, column) for row in range(cells.height) for column in range(cells.width))
            there = (
                (row, column, sheet.constants.get((cells.row + row, cells.column + column))) for row, column in places
            )
            self._inside[cells] = tuple(each for each in there if each[2] is not None)
        values = _filled(EMPTY, cells.height, cells.width)
        for row, column, value in self._inside[cells]:
            values[row, column] = value
        return values

    def _weights(self, cells: Range) -> Values:
        """Some cells of a sheet of weights, which are not kept. What stands between the tensors counts as empty."""
        if cells not in self._tensors:
            names = self._book.weights.sheets[cells.sheet]
            blocks = [(name, self._book.named(name)) for name in names]
            self._tensors[cells] = [(name, block) for name, block in blocks if overlap(block, cells)]
        tensors = [(name, block, overlap(block, cells)) for name, block in self._tensors[cells]]
        for name, block, common in tensors:
            if common == cells:
                return part(self._book.weights.cells(name), block, cells)
        values = _filled(EMPTY, cells.height, cells.width)
        for name, block, common in tensors:
            if common:
                part(values, cells, common)[:] = part(self._book.weights.cells(name), block, common)
        return values


def _references_in(arguments: tuple[Range | float, ...]) -> list[Range]:
    return [argument for argument in arguments if isinstance(argument, Range)]


def _overlapping(blocks: list[Range], *known: Iterable[Range]) -> set[Range]:
    """Those that share a cell with one of the blocks."""
    sheets = {block.sheet for block in blocks}
    near = (cells for ranges in known for cells in ranges if cells.sheet in sheets)
    return {cells for cells in near if any(overlap(cells, block) for block in blocks)}


def _equal(a: Values, b: Values) -> bool:
    """Whether two blocks show the same, to the last bit."""
    if a.size == 1:
        one, other = a.item(), b.item()
        return type(one) is type(other) and bool(one == other)
    return a.dtype == b.dtype and np.array_equal(a, b)


def _filled(token: Any, height: int, width: int) -> Values:
    """A block that holds one of the library's tokens, which NumPy's own `full` would turn into plain text."""
    values = np.empty((height, width), dtype=object)
    values.fill(token)
    return values


def _fitted(values: Values, height: int, width: int) -> Values:
    """An array formula's result in its cells: a single row or column is repeated, what is missing is #N/A."""
    if values.shape == (height, width):
        return values
    rows = height if values.shape[0] == 1 else min(height, values.shape[0])
    columns = width if values.shape[1] == 1 else min(width, values.shape[1])
    fitted = _filled(NOT_AVAILABLE, height, width)
    fitted[:rows, :columns] = np.broadcast_to(
        values[: 1 if values.shape[0] == 1 else rows, : 1 if values.shape[1] == 1 else columns], (rows, columns)
    )
    return _settled(fitted)


def _settled(values: Values) -> Values:
    """As float64 where all are numbers, as plain objects otherwise."""
    values = values.view(np.ndarray) if isinstance(values, LibraryArray) else values
    if values.dtype == object and all(type(value) in (float, int, np.float64, np.int64) for value in values.flat):
        return values.astype(np.float64)
    return values if values.dtype == object else values.astype(np.float64 if values.dtype.kind in "iuf" else object)


def _in_library(value: Any) -> Any:
    return Error.errors.get(str(value), NO_VALUE) if isinstance(value, CellError) else value


def shown(values: Values) -> Values:
    """The library's values as a spreadsheet shows them: an empty cell is empty text, an error value a CellError."""
    if values.dtype != object:
        if np.isfinite(values).all():
            return values
        values = values.astype(object)
    if set(map(type, values.flat)) <= {str, float} and all(type(v) is str or isfinite(v) for v in values.flat):
        return values
    out = np.empty(values.shape, dtype=object)
    for place, value in np.ndenumerate(values):
        out[place] = _shown(value)
    return _settled(out)


def _shown(value: Any) -> Any:
    if value is EMPTY:
        return ""
    if isinstance(value, XlError):
        return CellError(str(value))
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float | np.number):
        return float(value) if np.isfinite(value) else CellError("#NUM!")
    return CellError("#VALUE!")
