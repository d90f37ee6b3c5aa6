"""The compiler: a template's formula, with names in braces, becomes the formulas of a band's cells.

This is the heart of xlgpt. It resolves names to ranges and knows two rules, no arithmetic: a token's row refers to that
token's row of other bands, and a row without a token is skipped.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from xlgpt.compiler.band import Band, axes, wrong
from xlgpt.compiler.layout import LABEL_COLUMNS, Layout, Placed, Sheet
from xlgpt.compiler.matmul import product_of
from xlgpt.compiler.references import PLACES, Coordinate, Entry, Part, Product, Reference, Slip, counted, parse
from xlgpt.compiler.template import forward, numbers, optional_sheets, size, weights
from xlgpt.xlsx.formula import Corner, Formula, Formulas, Number, Piece
from xlgpt.xlsx.ranges import Range, Whole, column_letters, quoted

NAMED_CELLS = ("layer_norm_epsilon", "prompt")  # what stands on the home sheet under its own name

Pieces = list[Piece]


class _Differ(Exception):
    """Formulas are not alike; axis: along which they are to be told apart (0 rows, 1 columns, 2 parts of a column)."""

    def __init__(self, axis: int) -> None:
        self.axis = axis


@dataclass(frozen=True)
class _Place:
    """Which formula of a band it is: its row, column, part of a column, and slice of the vocabulary, from 0.

    Of formulas alike it is all their places at once: rows are [rows, 1], columns and parts [columns]; what is worked
    out from them has a value for each. Of a token's column, row and column are the token's. each: a word that stands
    for every number in turn, and one.
    """

    row: Whole
    column: Whole = 0
    part: Whole = 0
    slice: int = 0
    each: tuple[str, int] = ("", 0)


class _Area(NamedTuple):
    """Some formulas of a band: rows, and which of each, counted from the left."""

    rows: range
    across: range

    def split(self, axis: int, parts: int) -> "tuple[_Area, _Area]":
        """What is behind the first along an axis, and the first. parts: of a column."""
        if axis == 0:
            return _Area(self.rows[1:], self.across), _Area(self.rows[:1], self.across)
        first = 1 if axis == 2 else parts - self.across.start % parts
        return _Area(self.rows, self.across[first:]), _Area(self.rows, self.across[:first])


def formulas(layout: Layout, sheet: Sheet, placed: Placed) -> Iterator[Formula]:
    """All formulas of a band, from the top, and from left to right. Raises TemplateError."""
    return (formula for line in lines(layout, sheet, placed) for formula in line.each())


def lines(layout: Layout, sheet: Sheet, placed: Placed) -> Iterator[Formulas]:
    """The same, those that are alike in a row together. Raises TemplateError."""
    band = placed.band
    if not band.formula:
        return
    compiler = _Compiler(layout, sheet, placed)
    if band.goes_by_row and not band.is_transposed:
        yield from sorted(_by_row(compiler, placed), key=lambda line: (line.cells.row, line.cells.column))
        return
    for cells, place in _places(placed, numbers(layout.config)["slice_size"]):
        yield Formulas(cells, cells.width, 1, (_joined(compiler.formula(place)),), band.is_array)


def _by_row(compiler: "_Compiler", placed: Placed) -> Iterator[Formulas]:
    """The formulas that fill cells of one row each, compiled at once as far as they are alike."""
    rows, across = range(placed.cells.height), range(_across(placed))
    first = bool(placed.band.first) and isinstance(placed.band.first, str)  # it has another formula
    waiting = [_Area(rows[1:], across), _Area(rows[:1], across)] if first else [_Area(rows, across)]
    while waiting:
        area = waiting.pop()
        if not (area.rows and area.across):
            continue
        try:
            pieces = compiler.formula(_place(placed, area))
        except _Differ as differ:
            waiting += area.split(differ.axis, _parts(placed))
        else:
            yield from _lines(placed, area, pieces)


def _lines(placed: Placed, area: _Area, pieces: Pieces) -> Iterator[Formulas]:
    """Formulas compiled at once, row by row."""
    pieces = list(_merged(pieces))
    for i, row in enumerate(area.rows):
        count = min(area.across.stop, _used(placed, row)) - area.across.start
        if count > 0:
            cells, step = _cells(placed, row, area.across.start)
            here = tuple(_merged(_in_row(piece, i, count) for piece in pieces))
            yield Formulas(cells, step, count, here, placed.band.is_array)


def _in_row(piece: Piece, i: int, count: int) -> Piece:
    """What a piece is in the i-th row."""
    if isinstance(piece, str):
        return piece
    if isinstance(piece, Number):
        values = _row_of(piece.values, i, count)
        return str(values) if isinstance(values, int) else Number(values)
    return _corner(piece._replace(row=_row_of(piece.row, i, count), column=_row_of(piece.column, i, count)))


def _row_of(values: Whole, i: int, count: int) -> Whole:
    """The values in the i-th row; one, where all are the same."""
    if isinstance(values, int):
        return values
    row = values[min(i, len(values) - 1)] if values.ndim == 2 else values
    return int(row[0]) if count == 1 or len(row) == 1 else row[:count]


def _corner(corner: Corner) -> Piece:
    """A cell as its text, where it is the same in all formulas."""
    same = isinstance(corner.row, int) and isinstance(corner.column, int)
    return corner.texts(1)[0] if same else corner


def _merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same with texts side by side as one."""
    for is_text, group in groupby(pieces, lambda piece: isinstance(piece, str)):
        if is_text:
            yield _joined(group)
        else:
            yield from group


def _joined(pieces: Iterable[Piece]) -> str:
    """The text of one formula."""
    return "".join(map(str, pieces))


def _place(placed: Placed, area: _Area) -> _Place:
    """The places of formulas, each a number where all have the same."""
    column, part = np.divmod(np.array(area.across), _parts(placed))
    return _Place(
        np.array(area.rows)[:, None] if len(area.rows) > 1 else area.rows[0],
        column if column[0] != column[-1] else int(column[0]),
        part if len(part) > 1 and _parts(placed) > 1 else int(part[0]),
    )


def _across(placed: Placed) -> int:
    """How many formulas a row has at most."""
    return {"row": 1, "head": placed.dims[1] if len(placed.dims) > 1 else 1}.get(placed.band.per, placed.cells.width)


def _parts(placed: Placed) -> int:
    """How many formulas a column has in a row."""
    return placed.dims[2] if placed.band.per == "cell" and len(placed.dims) > 2 else 1


def _used(placed: Placed, row: int) -> int:
    """How many formulas a row has: of a pattern none for later tokens; pieces grow fewer downwards."""
    if placed.band.per != "cell":
        return _across(placed)
    if placed.band.shape[-1] == "key":
        return row + 1
    return placed.cells.width - row if placed.band.shrinks else placed.cells.width


def _cells(placed: Placed, row: int, i: int) -> tuple[Range, int]:
    """The cells of a row's i-th formula, and how many columns behind it the next stands."""
    line = placed.cells.rows(row, row + 1)
    if placed.band.per == "row":
        return line, line.width
    if placed.band.per == "head":
        return _group(placed.band, placed.dims, line, i, row), math.prod(placed.dims[2:])
    return line.columns(i, i + 1), 1


def _places(placed: Placed, slice_size: int) -> Iterator[tuple[Range, _Place]]:
    """The cells of each formula of a band that fills several rows."""
    cells, per = placed.cells, placed.band.per
    if per == "band":
        yield cells, _Place(0)
    elif per == "slice":
        for i, row in enumerate(range(0, cells.height, slice_size)):
            yield cells.rows(row, min(row + slice_size, cells.height)), _Place(row, slice=i)
    else:
        for token in range(cells.width):
            yield cells.columns(token, token + 1), _Place(token, token)


def _group(band: Band | None, dims: tuple[int, ...], line: Range, column: Whole, row: Whole | None = None) -> Range:
    """What belongs to a column of a row's: one cell, or a head's. A row has only keys of tokens up to its own."""
    width = math.prod(dims[2:])
    used = row + 1 if row is not None and band and band.shape[-1] == "key" else width
    return line.columns(column * width, column * width + used)  # type: ignore[arg-type]  # several at once


class _Compiler:
    """Resolves what a band's formulas name, of one or of all that are alike at once."""

    def __init__(self, layout: Layout, sheet: Sheet, placed: Placed) -> None:
        self.layout, self.stage, self.placed, self.band = layout, sheet.stage, placed, placed.band
        self.numbers = numbers(layout.config, layout.room)
        self.axes = axes(self.band)
        self.prefixes = (self.band.name.rpartition(".")[0] + ".", *self.stage.scope)
        self.names: dict[str, str] = {}
        self.is_apart = False
        self.reads_range = False

    def formula(self, place: _Place) -> Pieces:
        """The text of one formula, or of some. Raises TemplateError, _Differ."""
        is_first = isinstance(place.row, int) and place.row == 0
        key = "first" if is_first and isinstance(self.band.first, str) and self.band.first else "formula"
        try:
            self.is_apart = self.first_apart if key == "first" else self.later_apart
            return self._switched(self.expanded(str(getattr(self.band, key)), place), place)
        except Slip as slip:
            raise wrong(self.stage.file, self.band, key, slip) from slip

    def _switched(self, pieces: Pieces, place: _Place) -> Pieces:
        """A formula that shows nothing where its sheet is switched off, or where its row has no token."""
        switch = self.stage.switch
        if switch:
            off = f"N({switch})=0" if self.stage.acts else f"{switch}*n_tokens=0"
            pieces = [f'IF({off},"",', *pieces, ")"]
        if self.band.rows == "token" and self.band.guard:
            label = Corner(self.placed.cells.row + place.row, 0, column_stays=True)
            pieces = ["IF(", _corner(label), '<0,"",', *pieces, ")"]
        return pieces

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
        return self.reads_range

    def expanded(self, text: str, place: _Place) -> Pieces:
        """A text with every brace resolved. Raises Slip, _Differ."""
        return [piece for part in parse(text) for piece in self._resolved(part, place)]

    def _resolved(self, part: Part, place: _Place) -> Pieces:
        match part:
            case Coordinate():
                return [self._number(part, place)]
            case Reference():
                return self._reference(part, place)
            case Product():
                left, right = self._reference(part.left, place), self._reference(part.right, place)
                return ["MMULT(", *left, ",", *right, ")"]
            case Entry():
                return self._entry(part, place)
        return [part]

    def _entry(self, entry: Entry, place: _Place) -> Pieces:
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
        several = [self.expanded(text, replace(place, each=(word, i))) for i in range(count)]
        return [piece for i, pieces in enumerate(several) for piece in (*([","] if i else []), *pieces)]

    def _sentence(self, text: str, place: _Place) -> Pieces:
        """Words in quotes and what stands in braces, joined to one text; a known number belongs to the words."""
        parts = [(isinstance(part, str), self._resolved(part, place)) for part in parse(text)]
        joined: Pieces = []
        for is_words, group in groupby(parts, lambda part: part[0] or _is_number(part[1])):
            joined += ["&"] if joined else []
            pieces = [part[1] for part in group]
            if is_words:
                words = (p.replace('"', '""') if isinstance(p, str) else p for piece in pieces for p in piece)
                joined += ['"', *words, '"']
            else:
                joined += [p for i, piece in enumerate(pieces) for p in (*(["&"] if i else []), *piece)]
        return joined

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
            return forward(self.layout.config)[_one(place.row, 0)].rows
        if key in self.axes or key == "layer":
            return self._text([self._number(Coordinate(key), place)], (key,))
        return self._constant(key)

    def _number(self, coordinate: Coordinate, place: _Place) -> Piece:
        """A place as a number: rows, columns and parts count from 1, what has a name from 0."""
        match coordinate.word:
            case "number":  # the cell that numbers this row of a table
                return f"${column_letters(LABEL_COLUMNS - 1)}{self.placed.cells.row + 1}"
            case "label":  # the cell beside the product's own row that says which token's it is: see matmul.py
                top = self.layout.bands[product_of(self.band.name)].cells.row
                return _corner(Corner(top + place.row, 0, row_stays=True, column_stays=True))
        number = self._at(coordinate, place) + (coordinate.word in PLACES)
        return str(number) if isinstance(number, int) else Number(number)

    def _at(self, coordinate: Coordinate, place: _Place) -> Whole:
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

    def _text(self, pieces: Pieces, words: Iterable[str]) -> str:
        """What a choice or a name goes by; words: those for a place that it depends on. Raises _Differ."""
        if all(isinstance(piece, str) for piece in pieces):
            return _joined(pieces)
        raise _Differ(min(self.axes[word] for word in words if word in self.axes))

    def _constant(self, key: str) -> object:
        """A key of config.json, or another number that is known; None where it is neither."""
        return self.numbers.get(key, getattr(self.layout.config, key, None))

    def _reference(self, reference: Reference, place: _Place) -> Pieces:
        """Cells, a name or a number, as a formula writes them."""
        written = reference.name[0] if len(reference.name) == 1 else ""
        if not isinstance(written, str) or not written:
            named = [piece for part in reference.name for piece in self._resolved(part, place)]
            written = self._text(named, self._words(reference.name, place))
        if not reference.index:
            if written in NAMED_CELLS:
                return [written]
            if written == "range":
                return self._cells(self.layout.proven(_one(place.row, 0)), is_absolute=True)
            if written == "weight":
                return [weights(self.layout.config)[_one(place.row, 0)].name]
            if written == "matrix":
                return [self.layout.room.adapted[_one(place.row, 0)][0]]
            constant = self._constant(written)
            if constant is not None:
                return [str(constant)]
        name = self.names.get(written) or self._named(written, reference)
        target = self.layout.bands.get(name)
        if reference.index:
            return self._picked(name, target, reference, place)
        if target and target.dims[0] > 1 and _of_same(target.band, self.band):
            return self._seen(target, target.cells.rows(place.row, place.row + 1))  # type: ignore[arg-type]  # several at once
        self._note(target, self.layout.names[name])
        return [name]

    def _words(self, parts: tuple[Part, ...], place: _Place) -> list[str]:
        """The words for a place whose numbers differ among the formulas."""
        words = (word for part in parts for word in self.stage.tables.words_of(part))
        at = place.row, place.column, place.part
        return [word for word in words if word in self.axes and not isinstance(at[self.axes[word]], int)]

    def _named(self, written: str, reference: Reference) -> str:
        """The full name of a band, a weight or a column of a table."""
        full = self.layout.config.unembedding if written == "unembed.weight" else written
        name = next((p + full for p in (*self.prefixes, "") if p + full in self.layout.names), None)
        if not name:
            raise Slip(f"names {{{reference.written}}}, which is no band, weight or key of config.json")
        self.names[written] = name
        return name

    def _picked(self, name: str, target: Placed | None, reference: Reference, place: _Place) -> Pieces:
        """The cells that an index picks: rows, then columns, then parts of a column."""
        cells, band = self.layout.names[name], target.band if target else None
        rows, *others = reference.index
        if rows.word == "range":
            wanted = self.layout.proven(_one(place.row, 0))
            return self._cells(cells.rows(0, wanted.height).columns(0, wanted.width), is_absolute=True)
        if rows.is_all and not others:
            self._note(target, cells)
            return [name]
        dims = target.dims if target else (cells.height, cells.width)
        if len(reference.index) > len(dims):
            raise Slip(f"holds {{{reference.written}}}, and {name} has {len(dims)} dimensions")
        picked = self._rows(cells, rows, place)
        if others and not others[0].is_all:
            self._check_single(others, reference)
            row = None if rows.upto else self._at(rows, place)
            picked = _group(band, dims, picked, self._at(others[0], place), row)
        if len(others) > 1 and not others[1].is_all:
            part = self._at(others[1], place)
            picked = picked.columns(part, part + 1)  # type: ignore[arg-type]  # several at once
        if rows.word == "slice" or (rows.upto and rows.number and not rows.word):
            return self._cells(picked, is_absolute=True)
        return self._seen(target, picked)

    def _rows(self, cells: Range, rows: Coordinate, place: _Place) -> Range:
        if rows.is_all:
            return cells
        if rows.upto:
            return _rows(cells, 0, self._at(rows, place) + 1 if rows.word else rows.number)
        at = self._at(rows, place)
        if rows.word == "slice":
            slice_size = self.numbers["slice_size"]
            return _rows(cells, at * slice_size, slice_size)
        return cells.rows(at, at + 1)  # type: ignore[arg-type]  # several at once

    def _check_single(self, others: list[Coordinate], reference: Reference) -> None:
        """Whether columns and parts are picked one at a time. Raises Slip."""
        if any(one.upto and not one.is_all for one in others):
            raise Slip(f"holds {{{reference.written}}}; only rows can be picked up to one, columns singly or all")

    def _seen(self, target: Placed | None, cells: Range) -> Pieces:
        """Cells as this sheet writes them."""
        self._note(target, cells)
        return self._cells(cells)

    def _cells(self, cells: Range, is_absolute: bool = False) -> Pieces:
        """Cells, their sheet where it is another, and what of them is absolute."""
        sheet = f"{quoted(cells.sheet)}!" if is_absolute or cells.sheet != self.placed.cells.sheet else ""
        stays = is_absolute or self.is_apart, is_absolute
        first = _corner(Corner(cells.row, cells.column, *stays))
        if self._is_one(cells):
            return [sheet, first]
        last = Corner(cells.row + cells.height - 1, cells.column + cells.width - 1, *stays)
        return [sheet, first, ":", _corner(last)]

    def _is_one(self, cells: Range) -> bool:
        """Whether it is one cell, in all formulas. Raises _Differ where only in some."""
        one = np.asarray(cells.height == 1) & np.asarray(cells.width == 1)
        if one.all() or not one.any():
            return bool(one.all())
        raise _Differ(0 if one.ndim == 2 and len(one) > 1 else 2)

    def _note(self, target: Placed | None, cells: Range) -> None:
        """Remember whether several cells are read that are calculated."""
        if target and target.band.formula and np.any(cells.height * cells.width > 1):
            self.reads_range = True


def _rows(cells: Range, start: Whole, count: Whole) -> Range:
    """So many rows of cells, or as many as there are, in each formula."""
    several = not (isinstance(start, int) and isinstance(count, int))
    least: Any = np.minimum if several else min
    return cells.rows(start, least(cells.height, start + count))  # type: ignore[arg-type]


def _one(number: Whole, axis: int) -> int:
    """A number that all formulas have. Raises _Differ."""
    if isinstance(number, int):
        return number
    raise _Differ(axis)


def _is_number(pieces: Pieces) -> bool:
    """Whether it is a whole number and nothing else."""
    match pieces:
        case [str(text)]:
            return text.isdecimal()
        case [Number()]:
            return True
    return False


def _of_same(target: Band, band: Band) -> bool:
    """Whether a row of one band belongs to what a formula of the other is for."""
    if band.is_transposed:
        return target.rows == band.shape[-1]
    return target.rows == band.rows and band.goes_by_row
