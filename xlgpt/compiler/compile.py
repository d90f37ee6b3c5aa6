"""The compiler: a template's formula, with names in braces, becomes the formulas of a band's cells.

This is the heart of xlgpt. It resolves names to ranges and knows two rules, no arithmetic: a token's row refers to that
token's row of other bands, and a row without a token is skipped.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from xlgpt.compiler.band import Band, axes, wrong
from xlgpt.compiler.layout import LABEL_COLUMNS, Layout, Placed, Sheet
from xlgpt.compiler.matmul import product_of
from xlgpt.compiler.references import Coordinate, Entry, Part, Product, Reference, Slip, counted, parse
from xlgpt.compiler.template import forward, numbers, optional_sheets, size, weights
from xlgpt.xlsx.formula import Formula
from xlgpt.xlsx.ranges import Range, column_letters

CORNER = re.compile(r"([A-Z]+)(\d+)")
NAMED_CELLS = ("layer_norm_epsilon", "prompt")  # what stands on the home sheet under its own name


@dataclass(frozen=True)
class _Place:
    """Which formula of a band it is: its row, column, part of a column, and slice of the vocabulary, from 0.

    Of a token's column, row and column are the token's. each: a word that stands for every number in turn, and one.
    """

    row: int
    column: int = 0
    part: int = 0
    slice: int = 0
    each: tuple[str, int] = ("", 0)


def formulas(layout: Layout, sheet: Sheet, placed: Placed) -> Iterator[Formula]:
    """All formulas of a band, from the top, and from left to right. Raises TemplateError."""
    band, switch = placed.band, sheet.stage.switch
    if not band.formula:
        return
    compiler = _Compiler(layout, sheet, placed)
    for cells, place in _places(placed, numbers(layout.config)["slice_size"]):
        text = compiler.formula(place)
        if switch:
            off = f"N({switch})=0" if sheet.stage.acts else f"{switch}*n_tokens=0"
            text = f'IF({off},"",{text})'
        if band.rows == "token" and band.guard:
            text = f'IF($A{cells.row + 1}<0,"",{text})'
        yield Formula(cells, text, band.is_array)


def _places(placed: Placed, slice_size: int) -> Iterator[tuple[Range, _Place]]:
    """The cells of each formula of a band."""
    cells, per = placed.cells, placed.band.per
    if per == "band":
        yield cells, _Place(0)
    elif per == "slice":
        for i, row in enumerate(range(0, cells.height, slice_size)):
            yield cells.rows(row, min(row + slice_size, cells.height)), _Place(row, slice=i)
    elif placed.band.is_transposed:
        for token in range(cells.width):
            yield cells.columns(token, token + 1), _Place(token, token)
    else:
        for row in range(cells.height):
            yield from _places_in_row(placed, row)


def _places_in_row(placed: Placed, row: int) -> Iterator[tuple[Range, _Place]]:
    """The same of one row."""
    line = placed.cells.rows(row, row + 1)
    if placed.band.per == "row":
        yield line, _Place(row)
    elif placed.band.per == "head":
        for head in range(placed.dims[1]):
            yield _group(placed.band, placed.dims, line, head, row), _Place(row, head)
    else:
        for i in range(_used(placed, row)):
            column, part = divmod(i, placed.dims[2]) if len(placed.dims) > 2 else (i, 0)
            yield line.columns(i, i + 1), _Place(row, column, part)


def _used(placed: Placed, row: int) -> int:
    """How many cells of a row there are: a pattern has none for later tokens, and pieces grow fewer downwards."""
    if placed.band.shape[-1] == "key":
        return row + 1
    return placed.cells.width - row if placed.band.shrinks else placed.cells.width


def _group(band: Band | None, dims: tuple[int, ...], line: Range, column: int, row: int = -1) -> Range:
    """What belongs to a column of a row's: one cell, or a head's. A row has only keys of tokens up to its own."""
    width = math.prod(dims[2:])
    used = row + 1 if row >= 0 and band and band.shape[-1] == "key" else width
    return line.columns(column * width, column * width + used)


class _Compiler:
    """Resolves what a band's formulas name; what is the same in all cells of a row, or of a column, only once."""

    def __init__(self, layout: Layout, sheet: Sheet, placed: Placed) -> None:
        self.layout, self.stage, self.placed, self.band = layout, sheet.stage, placed, placed.band
        self.numbers = numbers(layout.config, layout.room)
        self.axes = axes(self.band)
        self.prefixes = (self.band.name.rpartition(".")[0] + ".", *self.stage.scope)
        self.known: dict[tuple[int, int, int], str] = {}
        self.names: dict[str, str] = {}
        self.parts: dict[str, list[tuple[Part, frozenset[int]]]] = {}
        self.row = -1
        self.is_apart = False
        self.reads_range = False

    def formula(self, place: _Place) -> str:
        """The text of one formula. Raises TemplateError."""
        key = "first" if place.row == 0 and isinstance(self.band.first, str) and self.band.first else "formula"
        if place.row != self.row:
            self.known, self.row = {}, place.row
        try:
            self.is_apart = self.first_apart if key == "first" else self.later_apart
            return self.expanded(str(getattr(self.band, key)), place)
        except Slip as slip:
            raise wrong(self.stage.file, self.band, key, slip) from slip

    @cached_property
    def later_apart(self) -> bool:
        """Whether the formulas have absolute rows, so that no two of a column are alike.

        LibreOffice 7.4 joins formulas that are alike to a group; where the cells of one depend on a row above, or read
        a range of cells that are calculated themselves, such groups can crash it when a prompt is changed thousands of
        times.
        """
        row, column, part, *_ = (length - 1 for length in (*self.placed.dims, 1, 1))
        return self._apart(self.band.formula, _Place(row, column, part))

    @cached_property
    def first_apart(self) -> bool:
        """The same of the first row's."""
        return self._apart(str(self.band.first), _Place(0))

    def _apart(self, text: str, place: _Place) -> bool:
        if self.band.is_array or self.placed.cells.height == 1:
            return False
        if self.band.rows == "token":
            return True
        self.reads_range = self.is_apart = False
        self.expanded(text, place)
        self.known = {}
        return self.reads_range

    def expanded(self, text: str, place: _Place) -> str:
        """A text with every brace resolved. Raises Slip."""
        if text not in self.parts:
            words = self.stage.tables.words_of
            self.parts[text] = [(p, frozenset(self.axes.get(w, 0) for w in words(p))) for p in parse(text)]
        return "".join(
            [part if isinstance(part, str) else self._known(part, reach, place) for part, reach in self.parts[text]]
        )

    def _known(self, part: Part, reach: frozenset[int], place: _Place) -> str:
        """What a part stands for, resolved once for all cells that share it."""
        if 2 in reach or place.each[0]:
            return self._resolved(part, place)
        here = id(part), place.row, place.column if 1 in reach else -1
        if here not in self.known:
            self.known[here] = self._resolved(part, place)
        return self.known[here]

    def _resolved(self, part: Part, place: _Place) -> str:
        match part:
            case Coordinate():
                return self._number(part, place)
            case Reference():
                return self._reference(part, place)
            case Product():
                return f"MMULT({self._reference(part.left, place)},{self._reference(part.right, place)})"
            case Entry():
                return self._entry(part, place)
        return part

    def _entry(self, entry: Entry, place: _Place) -> str:
        """A text of the file's tables: as it stands, the one for a value, or once for every number."""
        tables = self.stage.tables
        if entry.table == "choice":
            return self.expanded(self._chosen(entry, place), place)
        (text,) = tables.texts_of(entry)
        if entry.table == "text":
            return self.expanded(text, place)
        if entry.table == "say":
            return self._sentence(text, place)
        each = tables.each[entry.key]
        word, count = counted(each), size(each["of"], self.layout.config)
        return ",".join(self.expanded(text, replace(place, each=(word, i))) for i in range(count))

    def _sentence(self, text: str, place: _Place) -> str:
        """Words in quotes and what stands in braces, joined to one text; a known number belongs to the words."""
        parts = [(isinstance(part, str), self._resolved(part, place)) for part in parse(text)]
        joined: list[str] = []
        for is_words, group in groupby(parts, lambda part: part[0] or part[1].isdecimal()):
            texts = [text for _, text in group]
            joined += ['"' + "".join(texts).replace('"', '""') + '"'] if is_words else texts
        return "&".join(joined)

    def _chosen(self, entry: Entry, place: _Place) -> str:
        """The text that a [choice] table has for the value of a key."""
        choices = self.stage.tables.choices[entry.key]
        key = choices.get("of", entry.key)
        value = str(self._value(key, place))
        value = value.lower() if value in ("True", "False") else value
        if value not in choices and "otherwise" not in choices:
            raise Slip(f"names {{{entry.written}}}, which has no text for the {key} {value}")
        return choices.get(value, choices.get("otherwise", ""))

    def _value(self, key: str, place: _Place) -> object:
        """What a choice goes by: a place, a view that is there or not, what a range has rows for, or a number."""
        if key in optional_sheets():
            return key in self.layout.room.sheets
        if key == "range":
            return forward(self.layout.config)[place.row].rows
        if key in self.axes or key == "layer":
            return self._number(Coordinate(key), place)
        return self._constant(key)

    def _number(self, coordinate: Coordinate, place: _Place) -> str:
        """A place as a number: rows, columns and parts count from 1, what has a name from 0."""
        match coordinate.word:
            case "number":  # the cell that numbers this row of a table
                return f"${column_letters(LABEL_COLUMNS - 1)}{self.placed.cells.row + 1}"
            case "label":  # the cell beside the product's own row that says which token's it is: see matmul.py
                return f"$A${self.layout.bands[product_of(self.band.name)].cells.row + place.row + 1}"
            case "row" | "column" | "part":
                return str(self._at(coordinate, place) + 1)
        return str(self._at(coordinate, place))

    def _at(self, coordinate: Coordinate, place: _Place) -> int:
        """Where a coordinate is along its dimension, from 0."""
        word, number = coordinate.word, coordinate.number
        if word == place.each[0]:
            return place.each[1] + number
        if word == "slice" and self.band.per == "slice":
            return place.slice + number
        if word in self.axes:
            return (place.row, place.column, place.part)[self.axes[word]] + number
        if word == "layer" and self.stage.layer is not None:
            return self.stage.layer + number
        raise Slip(f"names {word}, of which its band has none: its shape is {', '.join(map(str, self.band.shape))}")

    def _constant(self, key: str) -> object:
        """A key of config.json, or another number that is known; None where it is neither."""
        return self.numbers.get(key, getattr(self.layout.config, key, None))

    def _reference(self, reference: Reference, place: _Place) -> str:
        """Cells, a name or a number, as a formula writes them."""
        written = reference.name[0] if len(reference.name) == 1 else ""
        if not isinstance(written, str) or not written:
            written = "".join(p if isinstance(p, str) else self._resolved(p, place) for p in reference.name)
        if not reference.index:
            if written in NAMED_CELLS:
                return written
            if written == "range":
                return self.layout.proven(place.row).absolute
            if written == "weight":
                return weights(self.layout.config)[place.row].name
            if written == "matrix":
                return self.layout.room.adapted[place.row][0]
            constant = self._constant(written)
            if constant is not None:
                return str(constant)
        name = self.names.get(written) or self._named(written, reference)
        target = self.layout.bands.get(name)
        if reference.index:
            return self._picked(name, target, reference, place)
        if target and target.dims[0] > 1 and _of_same(target.band, self.band):
            return self._seen(target, target.cells.rows(place.row, place.row + 1))
        self._note(target, self.layout.names[name])
        return name

    def _named(self, written: str, reference: Reference) -> str:
        """The full name of a band, a weight or a column of a table."""
        full = self.layout.config.unembedding if written == "unembed.weight" else written
        name = next((p + full for p in (*self.prefixes, "") if p + full in self.layout.names), None)
        if not name:
            raise Slip(f"names {{{reference.written}}}, which is no band, weight or key of config.json")
        self.names[written] = name
        return name

    def _picked(self, name: str, target: Placed | None, reference: Reference, place: _Place) -> str:
        """The cells that an index picks: rows, then columns, then parts of a column."""
        cells, band = self.layout.names[name], target.band if target else None
        rows, *others = reference.index
        if rows.word == "range":
            wanted = self.layout.proven(place.row)
            return cells.rows(0, wanted.height).columns(0, wanted.width).absolute
        if rows.is_all and not others:
            self._note(target, cells)
            return name
        dims = target.dims if target else (cells.height, cells.width)
        if len(reference.index) > len(dims):
            raise Slip(f"holds {{{reference.written}}}, and {name} has {len(dims)} dimensions")
        picked = self._rows(cells, rows, place)
        if others and not others[0].is_all:
            self._check_single(others, reference)
            row = -1 if rows.upto else self._at(rows, place)
            picked = _group(band, dims, picked, self._at(others[0], place), row)
        if len(others) > 1 and not others[1].is_all:
            part = self._at(others[1], place)
            picked = picked.columns(part, part + 1)
        if rows.word == "slice" or (rows.upto and rows.number and not rows.word):
            return picked.absolute
        return self._seen(target, picked)

    def _rows(self, cells: Range, rows: Coordinate, place: _Place) -> Range:
        if rows.is_all:
            return cells
        if rows.upto:
            return cells.rows(0, min(cells.height, self._at(rows, place) + 1 if rows.word else rows.number))
        at = self._at(rows, place)
        if rows.word == "slice":
            slice_size = self.numbers["slice_size"]
            return cells.rows(at * slice_size, min(cells.height, (at + 1) * slice_size))
        return cells.rows(at, at + 1)

    def _check_single(self, others: list[Coordinate], reference: Reference) -> None:
        """Whether columns and parts are picked one at a time. Raises Slip."""
        if any(one.upto and not one.is_all for one in others):
            raise Slip(f"holds {{{reference.written}}}; only rows can be picked up to one, columns singly or all")

    def _seen(self, target: Placed | None, cells: Range) -> str:
        """Cells as this sheet writes them."""
        self._note(target, cells)
        text = cells.seen_from(self.placed.cells.sheet)
        if not self.is_apart:
            return text
        sheet, bang, corners = text.rpartition("!")
        return sheet + bang + CORNER.sub(r"\1$\2", corners)

    def _note(self, target: Placed | None, cells: Range) -> None:
        """Remember whether several cells are read that are calculated."""
        if target and target.band.formula and cells.height * cells.width > 1:
            self.reads_range = True


def _of_same(target: Band, band: Band) -> bool:
    """Whether a row of one band belongs to what a formula of the other is for."""
    if band.is_transposed:
        return target.rows == band.shape[-1]
    return target.rows == band.rows and band.goes_by_row
