"""Calculates a workbook in Python: every formula by the parser and the functions of the `formulas` library.

A formula waits for those that it refers to, and each is evaluated once. With `fed`, what stands on other sheets is not
calculated but given, so that a fault is seen on the sheet where it arises.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from formulas.functions import Array as LibraryArray
from formulas.ranges import Ranges
from formulas.tokens.operand import Error, XlError

from xlgpt.book import Book, Prompt
from xlgpt.compile import Formula
from xlgpt.engines import gaps
from xlgpt.engines.engine import inputs
from xlgpt.engines.formula import EMPTY, Argument, Call, Constant, Node, Tree, take_apart
from xlgpt.errors import FormulaError
from xlgpt.layout import Range
from xlgpt.settings import Settings
from xlgpt.worksheet import CellError, Cells, Values, a1_range, overlap, part

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


class FormulasLibrary:
    """An engine. `tick` is called after each formula."""

    def __init__(self, book: Book):
        self._book = book
        self.tick: Callable[[], None] = lambda: None
        self._sheets: dict[str, _Sheet] = {}
        self._trees: dict[str, Tree] = {}
        self._places: dict[tuple[str, str], Range] = {}  # what a formula's text refers to, by the sheet it stands on
        self._constant_ranges: dict[Range, Values] = {}
        self._over: dict[Range, tuple[int, ...]] = {}
        self._needed: dict[tuple[str, int], list[Range]] = {}  # what each formula refers to
        self._complete: set[Range] = set()  # ranges whose formulas all have results, while nothing changes
        self._seen: dict[Range, Values] = {}  # what they show
        self._inputs: dict[Range, Values] = {}
        self._fed = False
        self._here = ""  # the sheet that is being read; with `fed`, the others are given
        self._left_out: frozenset[tuple[str, int]] = frozenset()
        self.evaluated: dict[str, int] = {}  # how many formulas of each sheet

    def calculate(self, prompt: Prompt, settings: Settings | None = None) -> None:
        """Set the prompt and forget all results; formulas are evaluated when they are read."""
        self._inputs = inputs(self._book, prompt, settings)
        self._constant_ranges.clear()
        self._forget()
        self.evaluated = {}
        for sheet in self._sheets.values():
            sheet.results.clear()
            sheet.given.clear()

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
        if self._here != cells.sheet:
            self._forget()
        self._here = cells.sheet
        self._settle(cells)
        return shown(self._value(cells))

    def evaluate(self, formula: Formula) -> Values:
        """What one formula's cells show. Raises FormulaError."""
        return self.read(formula.cells)

    def is_left_out(self, formula: Formula) -> bool:
        """Whether a formula's result was given rather than calculated."""
        sheet = self._sheet(formula.cells.sheet)
        return any((formula.cells.sheet, i) in self._left_out for i in sheet.over(formula.cells))

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
                self._sheet(sheet).results[i] = self._evaluated(formula)
                self.evaluated[sheet] = self.evaluated.get(sheet, 0) + 1
                self.tick()
                del under_way[sheet, i]
                waiting.pop()
            else:
                under_way[sheet, i] = None
                needed = [(cells.sheet, j) for cells in self._references(sheet, i) for j in self._open(cells)]
                circle = next((place for place in needed if place in under_way), None)
                if circle:
                    raise FormulaError(f"{formula.cells.absolute} depends on itself, by way of {circle[0]}.")
                waiting += needed

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
            if one[0]:
                return self._node(node.arguments[1], tree, cells)
            return self._node(node.arguments[2], tree, cells) if len(node.arguments) > 2 else False
        branches = [self._node(argument, tree, cells) for argument in node.arguments[1:]]
        return node.function(*node.extra, condition, *branches)

    def _chosen(self, node: Call, tree: Tree, cells: Range) -> Node | None:
        """The value that CHOOSE takes; only that one is calculated, as a spreadsheet does."""
        number = gaps.whole(self._node(node.arguments[0], tree, cells))
        return node.arguments[number] if number is not None and 1 <= number < len(node.arguments) else None

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
        if cells.sheet in self._book.weights.sheets:
            return self._weights(cells)
        if cells in self._constant_ranges:
            return self._constant_ranges[cells]
        if cells in self._seen:
            return self._seen[cells]
        sheet = self._sheet(cells.sheet)
        filling = self._filling(cells)
        if len(filling) == 1:
            block, result = sheet.formulas[filling[0]].cells, self._result(cells.sheet, filling[0])
            if result is not None and (block == cells or overlap(block, cells) == cells):
                return result if block == cells else part(result, block, cells)
        found = [(sheet.formulas[i].cells, self._result(cells.sheet, i)) for i in filling]
        values = self._constants(sheet, cells)
        for block, result in [*self._set_cells(cells), *found]:
            common = overlap(block, cells)
            if common and result is not None:
                part(values, cells, common)[:] = part(result, block, common)
        values = _settled(values)
        kept = self._seen if found else self._constant_ranges
        kept[cells] = values
        return values

    def _set_cells(self, cells: Range) -> Iterator[tuple[Range, Values]]:
        """The cells that the prompt sets."""
        for block, values in self._inputs.items():
            if block.sheet == cells.sheet:
                empty = _filled(EMPTY, *values.shape)
                yield block, np.where(values == "", empty, values)

    @staticmethod
    def _constants(sheet: _Sheet, cells: Range) -> Values:
        values = _filled(EMPTY, cells.height, cells.width)
        for row in range(cells.height):
            for column in range(cells.width):
                place = (cells.row + row, cells.column + column)
                if place in sheet.constants:
                    values[row, column] = sheet.constants[place]
        return values

    def _weights(self, cells: Range) -> Values:
        """Some cells of a sheet of weights. What stands between the tensors counts as empty."""
        tensors = [
            (self._book.named(name), self._book.weights.cells(name)) for name in self._book.weights.sheets[cells.sheet]
        ]
        for block, tensor in tensors:
            if overlap(block, cells) == cells:
                return part(tensor, block, cells)
        values = _filled(EMPTY, cells.height, cells.width)
        for block, tensor in tensors:
            common = overlap(block, cells)
            if common:
                part(values, cells, common)[:] = part(tensor, block, common)
        return values


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
