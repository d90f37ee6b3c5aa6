"""Calculates a workbook in Python: every formula by the parser and the functions of the `formulas` library.

A formula waits for those that it refers to, and each is evaluated once. The next time they are evaluated in the order
that was found, and only those whose references show something else, as spreadsheets do it.
With `feed`, what stands on other sheets is not calculated but given, so that a fault is seen where it arises.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from formulas.functions import Array as LibraryArray
from formulas.ranges import Ranges
from formulas.tokens.operand import Error, XlError

from xlgpt.compiler.settings import Settings
from xlgpt.engines import gaps
from xlgpt.engines.engine import Engine, Place, Traits, inputs
from xlgpt.engines.tree import EMPTY, Argument, Call, Constant, Node, Tree, first_bits, take_apart
from xlgpt.errors import FormulaError
from xlgpt.workbook.book import Book, Prompt
from xlgpt.xlsx.formula import Formula
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import CellError, Cells, Values, a1_range, overlap, part, within

Part = tuple[slice, slice]  # of a block: rows and columns
Piece = tuple[int, Part, Part]
SHEET = re.compile(r"(?:'((?:[^']|'')+)'|([^'!]+))!(.+)")
NOT_AVAILABLE = Error.errors["#N/A"]
NO_VALUE = Error.errors["#VALUE!"]
NO_REFERENCE = Error.errors["#REF!"]
REFERRING = ("ROW", "COLUMN", "ROWS", "COLUMNS")  # they ask where a range is, not what it holds


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
        self._trees: dict[str, Tree] = {}
        self._places: dict[tuple[str, str], Range] = {}  # what a formula's text refers to, by the sheet it stands on
        self._constant_ranges: dict[Range, Values] = {}
        self._over: dict[Range, tuple[int, ...]] = {}
        self._blank: dict[Range, Values] = {}  # ranges without what formulas show and what is set
        self._pieces: dict[Range, list[Piece]] = {}
        self._needed: dict[Place, list[Range]] = {}  # what each formula refers to
        self._order: dict[Place, None] = {}  # of evaluation, as far as it is known
        self._users: dict[Place, list[Range]] = {}  # the references that each formula's cells are part of
        self._is_fresh = True
        self._read: dict[Range, None] = {}  # what was asked for
        self._shown: dict[Range, tuple[Values, Values]] = {}  # and what it shows, in the library's values and in plain
        self._complete: set[Range] = set()  # ranges whose formulas all have results, while nothing changes
        self._seen: dict[Range, Values] = {}  # what they show
        self._inputs: dict[Range, Values] = {}
        self._tensors: dict[str, dict[str, Range]] = {}  # by sheet
        self._fed = False
        self._here = ""  # the sheet that is being read; with `fed`, the others are given
        self._left_out: frozenset[Place] = frozenset()
        self._first_bits: dict[int, dict[int, int]] = {}  # by tree
        self._bits: dict[int, int] = {}  # of the formula that is being evaluated: its branches, and those taken
        self._taken = 0
        self.taken: dict[Place, int] = {}  # by formula: the branches that were taken so far, a bit each
        self.evaluated: dict[str, int] = {}  # how many formulas of each sheet

    def calculate(self, prompt: Prompt, settings: Settings | None = None) -> None:
        """Set the prompt and the settings, and evaluate what was asked for before; all else when it is read."""
        before, self._inputs = self._inputs, inputs(self._book, prompt, settings)
        new = [c for c, values in self._inputs.items() if c not in before or (values != before[c]).any()]
        self._drop({cells for cells in self._constant_ranges if any(overlap(cells, each) for each in new)})
        self.evaluated = {}
        try:
            if self._fed or self._is_fresh:
                self._forget_results()
                self._evaluate_all()
            else:
                self._evaluate_changed(new)
        except FormulaError:  # it is raised again when what needs it is read
            self._forget_results()
        self._fed = self._is_fresh = False

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
        users = self._graph()
        sheets = {cells.sheet for cells in new}
        known = self._constant_ranges.keys() | self._seen.keys() | self._references_on(sheets)
        changed = {cells for cells in known if any(overlap(cells, each) for each in new)}
        self._drop(changed)
        self._complete.clear()
        for place in self._order:
            results = self._sheets[place[0]].results
            if place[1] in results and changed.isdisjoint(self._needed[place]):
                continue
            old = results.get(place[1])
            results[place[1]] = self._evaluate(place)
            if old is None or not _equal(old, results[place[1]]):
                found = users.get(place, ())
                self._drop(found)
                changed.update(found)

    def _drop(self, ranges: Iterable[Range]) -> None:
        for cells in ranges:
            self._seen.pop(cells, None)
            self._constant_ranges.pop(cells, None)

    def _references_on(self, sheets: set[str]) -> set[Range]:
        return {cells for needed in self._needed.values() for cells in needed if cells.sheet in sheets}

    def _graph(self) -> dict[Place, list[Range]]:
        """The references that each formula's cells are part of."""
        if not self._users:
            for cells in {cells for needed in (*self._needed.values(), self._read) for cells in needed}:
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
        known = self._shown.get(cells)
        if known is None or known[0] is not value:
            known = self._shown[cells] = (value, shown(value))
        return known[1]

    def alone(self, formula: Formula) -> Values:
        """What a formula would show in its cells, where all that was fed is given. Raises FormulaError."""
        self._here = ""
        for argument in self._tree(formula).arguments:
            if isinstance(argument, str):
                self._settle(self._place(argument, formula.cells))
        self._bits = self._branches(formula)
        return shown(self._evaluated(formula))

    def calculated(self, sheet: str) -> int | None:
        """How many formulas of a sheet were calculated the last time."""
        return self.evaluated.get(sheet, 0)

    def taken_branches(self) -> dict[Place, tuple[int, int]]:
        """Of each formula that was evaluated: how many branches it has, and those taken so far, a bit each."""
        ways = ((place, self._branches(self._sheets[place[0]].formulas[place[1]])[-1]) for place in self._order)
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
            sheet, i = waiting[-1]
            formula = self._sheet(sheet).formulas[i]
            if self._result(sheet, i) is not None:
                waiting.pop()
            elif (sheet, i) in under_way:
                self._sheet(sheet).results[i] = self._evaluate((sheet, i))
                if not self._fed:
                    self._order[sheet, i] = None
                    self._users.clear()
                del under_way[sheet, i]
                waiting.pop()
            else:
                under_way[sheet, i] = None
                needed = [(cells.sheet, j) for cells in self._references(sheet, i) for j in self._open(cells)]
                circle = next((place for place in needed if place in under_way), None)
                if circle:
                    raise FormulaError(f"{formula.cells.absolute} depends on itself, by way of {circle[0]}.")
                waiting += needed

    def _evaluate(self, place: Place) -> Values:
        """What a formula's cells show; which branches it takes is kept. What it refers to has been evaluated."""
        sheet, i = place
        formula = self._sheets[sheet].formulas[i]
        self._bits, self._taken = self._branches(formula), 0
        value = self._evaluated(formula)
        if self._taken:
            self.taken[place] = self.taken.get(place, 0) | self._taken
        self.evaluated[sheet] = self.evaluated.get(sheet, 0) + 1
        return value

    def _branches(self, formula: Formula) -> dict[int, int]:
        root = self._tree(formula).root
        if id(root) not in self._first_bits:  # formulas of one shape share it, and it is kept
            self._first_bits[id(root)] = first_bits(root)
        return self._first_bits[id(root)]

    def _open(self, cells: Range) -> list[int]:
        """The formulas over some cells that have no result yet."""
        if cells in self._complete or cells.sheet in self._book.weights.sheets:
            return []
        found = [i for i in self._filling(cells) if self._result(cells.sheet, i) is None]
        if not found:
            self._complete.add(cells)
        return found

    def _filling(self, cells: Range) -> tuple[int, ...]:
        """The formulas over some cells."""
        if cells not in self._over:
            self._over[cells] = tuple(self._sheet(cells.sheet).over(cells))
        return self._over[cells]

    def _result(self, name: str, i: int) -> Values | None:
        sheet = self._sheets[name]
        if self._fed and i in sheet.given and (name != self._here or (name, i) in self._left_out):
            return sheet.given[i]
        return sheet.results.get(i)

    def _tree(self, formula: Formula) -> Tree:
        if formula.text not in self._trees:
            try:
                self._trees[formula.text] = take_apart(formula.text)
            except FormulaError as e:
                raise FormulaError(f"{formula.cells.absolute} cannot be evaluated: {e}.") from e
        return self._trees[formula.text]

    def _references(self, sheet: str, i: int) -> list[Range]:
        if (sheet, i) not in self._needed:
            formula = self._sheets[sheet].formulas[i]
            texts = [argument for argument in self._tree(formula).arguments if isinstance(argument, str)]
            self._needed[sheet, i] = [self._place(text, formula.cells) for text in texts]
        return self._needed[sheet, i]

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

    def _evaluated(self, formula: Formula) -> Values:
        tree = self._tree(formula)
        cells = formula.cells
        value = self._node(tree.root, tree, cells)
        if type(value) in (float, int, str) and cells.height == cells.width == 1:  # most of them, without a detour
            return np.array([[value]], dtype=object if type(value) is str else np.float64)
        values = np.asarray(value, dtype=None if isinstance(value, np.ndarray) else object)
        values = np.atleast_2d(values)
        if values.size > 1 and not formula.is_array:
            values = np.array([[NO_VALUE]], dtype=object)
        if values.dtype == object:
            values = np.array([0.0 if v is EMPTY else v for v in values.flat], dtype=object).reshape(values.shape)
        return _fitted(_settled(values), cells.height, cells.width)

    def _node(self, node: Node, tree: Tree, cells: Range) -> Any:
        """The value of a part of a formula, as the library's functions take and give it."""
        if isinstance(node, Constant):
            return node.value
        if isinstance(node, Argument):
            argument = tree.arguments[node.number]
            return self._value(self._place(argument, cells)) if isinstance(argument, str) else argument
        if node.name == "IF":
            return self._if(node, tree, cells)
        if node.name == "CHOOSE":
            chosen = self._chosen(node, tree, cells)
            return NO_VALUE if chosen is None else self._node(chosen, tree, cells)
        if node.name == ":":
            block = self._block(node, tree, cells)
            return self._value(block) if block else NO_REFERENCE
        if node.name in REFERRING:
            where = self._block(node.arguments[0], tree, cells) if node.arguments else cells
            return node.function(*node.extra, Ranges().push(where.a1)) if where else NO_REFERENCE
        values = [self._node(argument, tree, cells) for argument in node.arguments]
        if node.name == "IFERROR":
            for failed in {isinstance(value, XlError) for value in np.ravel(np.asarray(values[0], dtype=object))}:
                self._take(node, int(failed))
        try:
            return gaps.WORKAROUNDS.get(node.name, gaps.plain)(node, values)
        except Exception as e:
            raise FormulaError(
                f"{cells.absolute} cannot be evaluated: the formulas library fails in {node.name}: {e}."
            ) from e

    def _if(self, node: Call, tree: Tree, cells: Range) -> Any:
        """IF calculates only the branch that it takes, unless its condition is an array."""
        condition = self._node(node.arguments[0], tree, cells)
        one = np.ravel(condition)
        if len(one) == 1 and isinstance(one[0], bool | np.bool_ | int | float):
            self._take(node, 0 if one[0] else 1)
            if one[0]:
                return self._node(node.arguments[1], tree, cells)
            return self._node(node.arguments[2], tree, cells) if len(node.arguments) > 2 else False
        known = one if one.dtype.kind in "bif" else [v for v in one if isinstance(v, bool | np.bool_ | int | float)]
        for kind in {bool(value) for value in np.unique(np.asarray(known))}:
            self._take(node, 0 if kind else 1)
        branches = [self._node(argument, tree, cells) for argument in node.arguments[1:]]
        found = gaps.each_by(condition, branches)
        return node.function(*node.extra, condition, *branches) if found is None else found

    def _chosen(self, node: Call, tree: Tree, cells: Range) -> Node | None:
        """The value that CHOOSE takes; only that one is calculated, as a spreadsheet does."""
        number = gaps.whole(self._node(node.arguments[0], tree, cells))
        if number is None or not 1 <= number < len(node.arguments):
            return None
        self._take(node, number - 1)
        return node.arguments[number]

    def _take(self, node: Call, branch: int) -> None:
        self._taken |= 1 << (self._bits[id(node)] + branch)

    def _block(self, node: Node, tree: Tree, cells: Range) -> Range | None:
        """The cells that a reference, an INDEX or a range between two of them stands for."""
        if isinstance(node, Argument) and isinstance(tree.arguments[node.number], str):
            return self._place(str(tree.arguments[node.number]), cells)
        if isinstance(node, Call) and node.name == "INDEX":
            of = self._block(node.arguments[0], tree, cells)
            numbers = [self._node(argument, tree, cells) for argument in node.arguments[1:]]
            row, column = ([*numbers, None])[:2]
            found = gaps.first_and_last(row, column, of.height, of.width) if of else None
            if of and found:
                return of.rows(found[0], found[0] + found[2]).columns(found[1], found[1] + found[3])
        if isinstance(node, Call) and node.name == "CHOOSE":
            chosen = self._chosen(node, tree, cells)
            return self._block(chosen, tree, cells) if chosen else None
        if isinstance(node, Call) and node.name == ":":
            first, last = (self._block(argument, tree, cells) for argument in node.arguments)
            if first and last and first.sheet == last.sheet:
                return _around(first, last)
        return None

    def _value(self, cells: Range) -> Values:
        """What some cells show, as the library takes it; formulas among them have been evaluated."""
        known = self._constant_ranges.get(cells)
        if known is None:
            known = self._seen.get(cells)
        if known is not None:
            return known
        if cells.sheet in self._book.weights.sheets:
            self._constant_ranges[cells] = self._weights(cells)
            return self._constant_ranges[cells]
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
        if cells not in self._blank:
            values = self._blank[cells] = _filled(EMPTY, cells.height, cells.width)
            for row in range(cells.height):
                for column in range(cells.width):
                    place = (cells.row + row, cells.column + column)
                    if place in sheet.constants:
                        values[row, column] = sheet.constants[place]
        return self._blank[cells].copy()

    def _weights(self, cells: Range) -> Values:
        """Some cells of a sheet of weights. What stands between the tensors counts as empty."""
        if cells.sheet not in self._tensors:
            names = self._book.weights.sheets[cells.sheet]
            self._tensors[cells.sheet] = {name: self._book.named(name) for name in names}
        tensors = [(name, block, overlap(block, cells)) for name, block in self._tensors[cells.sheet].items()]
        for name, block, common in tensors:
            if common == cells:
                return part(self._book.weights.cells(name), block, cells)
        values = _filled(EMPTY, cells.height, cells.width)
        for name, block, common in tensors:
            if common:
                part(values, cells, common)[:] = part(self._book.weights.cells(name), block, common)
        return values


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


def _around(first: Range, last: Range) -> Range:
    row, column = min(first.row, last.row), min(first.column, last.column)
    height = max(first.row + first.height, last.row + last.height) - row
    width = max(first.column + first.width, last.column + last.width) - column
    return Range(first.sheet, row, column, height, width)


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
