"""Where everything stands: which cells each band and each weight takes, on which sheet."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from xlgpt.config import GPT2Config
from xlgpt.errors import SheetTooSmall, TemplateError
from xlgpt.matmul import Product, dot_products
from xlgpt.template import Band, Room, Slice, Stage, Weight, numbers, size, stages, weights
from xlgpt.unicode import RANGES

MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384  # ECMA-376 leaves it open; Excel and LibreOffice agree on these
FIRST_ROW = 4  # above it stand the way home, the title, a sentence and the column numbers: they stay in sight
LABEL_COLUMNS = 3  # position, token, and what is one number a token: they stay in sight
TABLE_HEAD = (
    5  # above the columns of a table: its title, theirs, their names, their sentences, and what they start from
)


NUMBER = re.compile(r"\{(\w+)\}")  # the name of one, in a sentence


@cache
def column_letters(column: int) -> str:
    """0 is A, 26 is AA."""
    column, last = divmod(column, 26)
    return (column_letters(column - 1) if column else "") + chr(65 + last)


def column_number(letters: str) -> int:
    """A is 0, AA is 26."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - 64
    return number - 1


class Range(NamedTuple):  # made by the hundred thousand: a dataclass takes thrice as long
    """A block of cells. Rows and columns count from 0, as in Python."""

    sheet: str
    row: int
    column: int
    height: int = 1
    width: int = 1

    @property
    def first(self) -> str:
        """The top left cell, such as D8."""
        return f"{column_letters(self.column)}{self.row + 1}"

    @property
    def a1(self) -> str:
        """Such as D8:ACQ39, or D8 for one cell."""
        if self.height == self.width == 1:
            return self.first
        return f"{self.first}:{column_letters(self.column + self.width - 1)}{self.row + self.height}"

    @property
    def absolute(self) -> str:
        """Such as 'Block 0'!$D$8:$ACQ$39: what a defined name refers to."""
        corners = [f"${column_letters(self.column)}${self.row + 1}"]
        if (self.height, self.width) != (1, 1):
            corners.append(f"${column_letters(self.column + self.width - 1)}${self.row + self.height}")
        return f"{quoted(self.sheet)}!{':'.join(corners)}"

    def seen_from(self, sheet: str) -> str:
        """How a formula on a sheet writes it."""
        return self.a1 if sheet == self.sheet else f"{quoted(self.sheet)}!{self.a1}"

    def rows(self, start: int, stop: int) -> "Range":
        """Some of its rows."""
        return Range(self.sheet, self.row + start, self.column, stop - start, self.width)

    def cell(self, row: int, column: int) -> "Range":
        """One of its cells."""
        return Range(self.sheet, self.row + row, self.column + column)

    def columns(self, start: int, stop: int) -> "Range":
        """Some of its columns."""
        return Range(self.sheet, self.row, self.column + start, self.height, stop - start)


def quoted(sheet: str) -> str:
    """A sheet's name as formulas and links write it."""
    return sheet if sheet.isalpha() else f"'{sheet}'"


@dataclass(frozen=True)
class Placed:
    """A band and the cells it takes. `top` is the first row of its titles, above the cells."""

    band: Band
    cells: Range
    top: int
    dims: tuple[int, ...]  # the band's shape in numbers


@dataclass(frozen=True)
class Sheet:
    """A sheet of the forward pass: its bands, those that share their rows together."""

    stage: Stage
    groups: tuple[tuple[Placed, ...], ...]
    elsewhere: tuple[Placed, ...] = ()  # single cells that stand on another sheet

    @property
    def name(self) -> str:
        """What stands on its tab."""
        return self.stage.sheet

    @property
    def bands(self) -> list[Placed]:
        """All bands, from the top."""
        return [placed for group in self.groups for placed in group]

    @property
    def upright(self) -> tuple[Placed, ...]:
        """The bands with a column for each token: the last group, if there are any."""
        return self.groups[-1] if self.groups[-1][0].band.is_upright else ()


@dataclass(frozen=True)
class PlacedWeight:
    """A tensor and the cells it takes; the row above them says what it is."""

    weight: Weight
    cells: Range


@dataclass(frozen=True)
class Layout:
    """All sheets with numbers, and where each name stands."""

    config: GPT2Config
    room: Room
    sheets: tuple[Sheet, ...]
    weights: tuple[PlacedWeight, ...]
    bands: dict[str, Placed]
    names: dict[str, Range]  # of bands, weights, slices and the tokenizer's columns
    products: tuple[Product, ...] = ()  # matrix products that stand as dot products

    def columns_of(self, name: str) -> tuple[str, int, int]:
        """The tensor that a weight or a slice of one is of, and its columns from one up to another."""
        cells = self.names[name]
        of = next(p for p in self.weights if (p.cells.sheet, p.cells.row) == (cells.sheet, cells.row))
        return of.weight.name, cells.column, cells.column + cells.width

    def weight_sheets(self) -> dict[str, list[PlacedWeight]]:
        """The tensors of each weight sheet, from the top."""
        found: dict[str, list[PlacedWeight]] = {}
        for placed in self.weights:
            found.setdefault(placed.cells.sheet, []).append(placed)
        return found


def lay_out(config: GPT2Config, room: Room, n_merges: int) -> Layout:
    """Place every band, weight and table of the tokenizer. Raises SheetTooSmall, TemplateError."""
    stages_, products = stages(config, room.sheets), tuple[Product, ...]()
    if room.matmul == "sumproduct":
        stages_, products = dot_products(stages_, config, writes_on=room.new_tokens > 1)
    sheets = tuple(_lay_out_sheet(stage, config, room) for stage in stages_)
    weights_ = tuple(_lay_out_weights(config))
    bands = {placed.band.name: placed for sheet in sheets for placed in (*sheet.bands, *sheet.elsewhere)}
    names = {name: placed.cells for name, placed in bands.items()}
    names |= {placed.weight.name: placed.cells for placed in weights_}
    for sheet in sheets:
        names |= {part.name: _slice(part, names, config) for part in sheet.stage.slices}
    vocabulary = Range("Vocabulary", FIRST_ROW, 0, config.vocab_size)
    columns = {"vocabulary.ids": 0, "vocabulary": 1, "vocabulary.shown": 2, "vocabulary.bytes": 3}
    names |= {name: vocabulary._replace(column=column) for name, column in columns.items()}
    merges = Range("Merges", FIRST_ROW, 0, max(1, n_merges))
    columns = {"merges.key": 0, "merges.id": 1, "merges.rank": 2, "merges.by_rank": 6}
    names |= {name: merges._replace(column=column) for name, column in columns.items()}
    unicode = Range("Unicode", FIRST_ROW, 0, len(RANGES))
    names |= {"unicode.first": unicode, "unicode.kind": unicode._replace(column=1)}
    names["unicode.byte_ids"] = unicode._replace(column=3, height=256)
    for name, cells in names.items():
        if cells.row + cells.height > MAX_ROWS or cells.column + cells.width > MAX_COLUMNS:
            raise SheetTooSmall(
                f"{name} would end at row {cells.row + cells.height:,}, column {cells.column + cells.width:,} "
                f"of the sheet {cells.sheet!r}; a sheet has {MAX_ROWS:,} rows and {MAX_COLUMNS:,} columns. "
                "Choose a smaller context or a smaller model."
            )
    return Layout(config, room, sheets, weights_, bands, names, products)


def _lay_out_sheet(stage: Stage, config: GPT2Config, room: Room) -> Sheet:
    groups = []
    row = FIRST_ROW
    elsewhere = tuple(_lay_out_cell(_worded(band, config, room)) for band in stage.bands if band.at)
    for bands in _groups(band for band in stage.bands if not band.at):
        row += bands[0].above
        # Each band has a title and a sentence; below them stand the heads, if any, and the columns' titles.
        head = TABLE_HEAD if bands[0].table else 2 * len(bands) + max(1, *(len(band.shape) - 1 for band in bands))
        group: list[Placed] = []
        for i, band in enumerate(bands):
            dims = tuple(size(dimension, config, room) for dimension in band.shape)
            cells = Range(stage.sheet, row + head, _column(band, group), dims[0], math.prod(dims[1:]))
            group.append(Placed(_worded(band, config, room), cells, row if bands[0].table else row + 2 * i, dims))
        groups.append(tuple(group))
        row += head + max(placed.cells.height for placed in group) + 1
    return Sheet(stage, tuple(groups), elsewhere)


def _worded(band: Band, config: GPT2Config, room: Room) -> Band:
    """The band with numbers in place of their names in its sentence."""
    known = numbers(config, room)
    return replace(band, about=NUMBER.sub(lambda found: str(known.get(found[1], found[0])), band.about))


def _lay_out_cell(band: Band) -> Placed:
    """A band of one cell that stands on another sheet, where the template says."""
    sheet, _, cell = band.at.rpartition("!")
    letters = cell.rstrip("0123456789")
    row = int(cell.removeprefix(letters)) - 1
    return Placed(band, Range(sheet, row, column_number(letters)), row, (1,))


def _column(band: Band, before: list[Placed]) -> int:
    """Where a band's first column stands: where it says, or behind the one before, with a gap before a table."""
    if band.column:
        return column_number(band.column)
    if not before:
        return LABEL_COLUMNS
    last = before[-1].cells
    return last.column + last.width + bool(band.table)


def _groups(bands: Iterable[Band]) -> Iterator[list[Band]]:
    group: list[Band] = []
    for band in bands:
        if group and not band.beside:
            yield group
            group = []
        group.append(band)
    yield group


def _lay_out_weights(config: GPT2Config) -> Iterator[PlacedWeight]:
    row: dict[str, int] = {}
    for weight in weights(config):
        height, width = ([1, *(size(d, config) for d in weight.shape)])[-2:]
        top = row.get(weight.sheet, 1) + 1  # below the way home, and the sentence about the tensor
        yield PlacedWeight(weight, Range(weight.sheet, top, 0, height, width))
        row[weight.sheet] = top + height


def _slice(part: Slice, names: dict[str, Range], config: GPT2Config) -> Range:
    if part.of not in names:
        raise TemplateError(f"The slice {part.name} is taken from {part.of}, which is no weight.")
    return names[part.of].columns(*(size(edge, config) for edge in part.columns))
