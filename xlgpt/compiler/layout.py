"""Where everything stands: which cells each band and each weight takes, on which sheet."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from xlgpt.compiler.band import Band, wrong
from xlgpt.compiler.matmul import DotProducts, dot_products
from xlgpt.compiler.template import Room, Slice, Stage, Weight, forward, numbers, size, stages, weights
from xlgpt.errors import SheetTooSmall, TemplateError
from xlgpt.model.config import GPT2Config
from xlgpt.model.unicode import RANGES
from xlgpt.xlsx.ranges import MAX_COLUMNS, MAX_ROWS, Range, column_number

FIRST_ROW = 4  # above it stand the way home, the title, a sentence and the column numbers: they stay in sight
LABEL_COLUMNS = 3  # at most: position, token, and what is one number a token; see `Sheet.labels`
TABLE_HEAD = 4  # above the columns of a table: its title, theirs, their names and their sentences

NUMBER = re.compile(r"\{(\w+)\}")  # the name of one, in a sentence
ROW_PIXELS = 20
CHART_GAP = 8  # pixels


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
    def labels(self) -> int:
        """How many columns at the left say what a row is; they stay in sight."""
        return labels(self.stage)

    @property
    def bands(self) -> list[Placed]:
        """All bands, from the top."""
        return [placed for group in self.groups for placed in group]

    def end(self, name: str) -> int:
        """The first column that is free beside a band and those on its rows."""
        group = next(group for group in self.groups if any(placed.band.name == name for placed in group))
        return max(placed.cells.column + placed.cells.width for placed in group)

    @property
    def transposed(self) -> tuple[Placed, ...]:
        """The bands with a column for each token: the last group, if there are any."""
        return self.groups[-1] if self.groups[-1][0].band.is_transposed else ()


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
    products: tuple[DotProducts, ...] = ()  # matrix products that stand as dot products

    def columns_of(self, name: str) -> tuple[str, int, int]:
        """The tensor that a weight or a slice of one is of, and its columns from one up to another."""
        cells = self.names[name]
        of = next(p for p in self.weights if (p.cells.sheet, p.cells.row) == (cells.sheet, cells.row))
        return of.weight.name, cells.column, cells.column + cells.width

    def proven(self, i: int) -> Range:
        """The cells that the sheet Proof knows of the i-th band of the forward pass: of tokens, those of the prompt."""
        placed = self.bands[forward(self.config)[i].name]
        return placed.cells.rows(0, self.room.proven) if placed.band.rows == "token" else placed.cells

    def weight_sheets(self) -> dict[str, list[PlacedWeight]]:
        """The tensors of each weight sheet, from the top."""
        found: dict[str, list[PlacedWeight]] = {}
        for placed in self.weights:
            found.setdefault(placed.cells.sheet, []).append(placed)
        return found


def lay_out(config: GPT2Config, room: Room, n_merges: int) -> Layout:
    """Place every band, weight and table of the tokenizer. Raises SheetTooSmall, TemplateError."""
    stages_, products = stages(config, room.sheets, room.adapted), tuple[DotProducts, ...]()
    if room.matmul == "sumproduct":
        stages_, products = dot_products(stages_, config, writes_on=room.new_tokens > 1)
    sheets = tuple(_lay_out_sheet(stage, config, room) for stage in stages_)
    weights_ = tuple(_lay_out_weights(config))
    bands = {placed.band.name: placed for sheet in sheets for placed in (*sheet.bands, *sheet.elsewhere)}
    names = {name: placed.cells for name, placed in bands.items()}
    names |= {placed.weight.name: placed.cells for placed in weights_}
    for sheet in sheets:
        for part in sheet.stage.slices:
            names |= _slices(part, sheet.stage, names, config, room)
    vocabulary = Range("Vocabulary", FIRST_ROW, 0, config.vocab_size)
    columns = {"vocabulary.ids": 0, "vocabulary": 1, "vocabulary.shown": 2, "vocabulary.bytes": 3}
    names |= {name: vocabulary._replace(column=column) for name, column in columns.items()}
    merges = Range("Merges", FIRST_ROW, 0, max(1, n_merges))
    columns = {"merges.key": 0, "merges.id": 1, "merges.rank": 2, "merges.by_rank": 6}
    names |= {name: merges._replace(column=column) for name, column in columns.items()}
    unicode = Range("Unicode", FIRST_ROW, 0, len(RANGES))
    names |= {"unicode.first": unicode, "unicode.kind": unicode._replace(column=1)}
    names["unicode.byte_ids"] = unicode._replace(column=3, height=256)
    _check_names(sheets, names, config, room)
    for name, cells in names.items():
        if cells.row + cells.height > MAX_ROWS or cells.column + cells.width > MAX_COLUMNS:
            raise SheetTooSmall(
                f"{name} would end at row {cells.row + cells.height:,}, column {cells.column + cells.width:,} "
                f"of the sheet {cells.sheet!r}; a sheet has {MAX_ROWS:,} rows and {MAX_COLUMNS:,} columns. "
                "Choose a smaller context or a smaller model."
            )
    return Layout(config, room, sheets, weights_, bands, names, products)


def labels(stage: Stage) -> int:
    """How many columns a sheet has for labels: for positions, tokens and one number more, as far as it needs them."""
    if any(band.is_transposed or (band.column and column_number(band.column) < LABEL_COLUMNS) for band in stage.bands):
        return LABEL_COLUMNS
    return 2 if any(band.rows in ("token", "vocab_size") for band in stage.bands if not band.cell) else 1


def _lay_out_sheet(stage: Stage, config: GPT2Config, room: Room) -> Sheet:
    groups: list[tuple[Placed, ...]] = []
    row = FIRST_ROW + _drawn_rows(stage)
    elsewhere = tuple(_lay_out_cell(_worded(band, config, room)) for band in stage.bands if band.cell)
    for bands in _groups(band for band in stage.bands if not band.cell):
        head = _head_rows(bands)
        group: list[Placed] = []
        for i, band in enumerate(bands):
            dims = _dims(band, stage, config, room)
            column = _column(band, group, labels(stage))
            cells = Range(stage.sheet, row + head, column, dims[0], math.prod(dims[1:]))
            group.append(Placed(_worded(band, config, room), cells, row if bands[0].table else row + 2 * i, dims))
        groups.append(tuple(group))
        row += max(head + max(placed.cells.height for placed in group), _chart_rows(stage, bands)) + 1
    _check_charts(stage, groups)
    return Sheet(stage, tuple(groups), elsewhere)


def _head_rows(bands: list[Band]) -> int:
    """The rows above the cells of bands that share their rows: titles, sentences, and what the columns are."""
    if bands[0].table:
        return TABLE_HEAD + any(band.start is not None or len(band.shape) > 1 for band in bands)
    return 2 * len(bands) + max(1, *(len(band.shape) - 1 for band in bands))


def _dims(band: Band, stage: Stage, config: GPT2Config, room: Room) -> tuple[int, ...]:
    try:
        return tuple(size(dimension, config, room) for dimension in band.shape)
    except TemplateError as e:
        raise TemplateError(f"{stage.file}: the shape of {band.name} is none. {e}") from e


def _drawn_rows(stage: Stage) -> int:
    """How many rows a drawing above the first band takes."""
    ends = [top + height for _, top, _, height in (shape.box for shape in stage.shapes)]
    return math.ceil(max(ends) / ROW_PIXELS) + 1 if ends else 0


def _chart_rows(stage: Stage, bands: list[Band]) -> int:
    """How many rows the charts beside these bands take: below one another, or side by side."""
    names, lines = {band.name for band in bands}, list[int]()
    for chart in (chart for chart in stage.charts if chart.at in names):
        height = chart.size[1] + CHART_GAP
        if chart.beside and lines:
            lines[-1] = max(lines[-1], height)
        else:
            lines.append(height)
    return math.ceil(sum(lines) / ROW_PIXELS)


def _check_charts(stage: Stage, groups: list[tuple[Placed, ...]]) -> None:
    """Whether each chart stands beside a band of its sheet. Raises TemplateError."""
    there = {placed.band.name for group in groups for placed in group}
    for chart in stage.charts:
        if chart.at not in there:
            raise TemplateError(f"{stage.file}: chart {chart.title}: the at {chart.at!r} names no band of its sheet.")


def _worded(band: Band, config: GPT2Config, room: Room) -> Band:
    """The band with numbers in place of their names in its sentence."""
    known = numbers(config, room)
    return replace(
        band, about=NUMBER.sub(lambda found: str(known.get(found[1], getattr(config, found[1], found[0]))), band.about)
    )


def _lay_out_cell(band: Band) -> Placed:
    """A band of one cell that stands on another sheet, where the template says."""
    sheet, _, cell = band.cell.rpartition("!")
    letters = cell.rstrip("0123456789")
    row = int(cell.removeprefix(letters)) - 1
    return Placed(band, Range(sheet, row, column_number(letters)), row, (1,))


def _column(band: Band, before: list[Placed], first: int) -> int:
    """Where a band's first column stands: where it says, or behind the one before, with a gap before a table."""
    if band.column:
        return column_number(band.column)
    if not before:
        return first
    last = before[-1].cells
    return last.column + last.width + bool(band.table)


def _groups(bands: Iterable[Band]) -> Iterator[list[Band]]:
    """Those that share their rows: a table's columns stand side by side unless told otherwise."""
    group: list[Band] = []
    for band in bands:
        beside = band.side == "beside" or (not band.side and not band.table and bool(group) and bool(group[0].table))
        if group and not beside:
            yield group
            group = []
        group.append(band)
    yield group


def _lay_out_weights(config: GPT2Config) -> Iterator[PlacedWeight]:
    row: dict[str, int] = {}
    for weight in weights(config):
        height, width = (1, *weight.shape)[-2:]
        top = row.get(weight.sheet, 1) + 1  # below the way home, and the sentence about the tensor
        yield PlacedWeight(weight, Range(weight.sheet, top, 0, height, width))
        row[weight.sheet] = top + height


def _check_names(sheets: tuple[Sheet, ...], names: dict[str, Range], config: GPT2Config, room: Room) -> None:
    """Whether every name in a key of a band or a chart is that of some cells. Raises TemplateError."""
    seen: set[str] = set()
    for sheet in sheets:
        for band in (placed.band for placed in (*sheet.bands, *sheet.elsewhere)):
            if band.name in seen:
                raise TemplateError(f"{sheet.stage.file}: band {band.name}: another one has the same name.")
            seen.add(band.name)
            if band.shade and band.shade not in names:
                raise wrong(sheet.stage.file, band, "colour", f"is {band.colour!r}, which is no band")
            if isinstance(band.list, str) and band.list != "token" and not _is_offered(band.list, names, config):
                raise wrong(sheet.stage.file, band, "list", f"is {band.list!r}, which is neither cells nor a number")
            for key in ("default", "large"):
                value = getattr(band, key)
                number = NUMBER.fullmatch(value) if isinstance(value, str) else None
                if number and number[1] not in numbers(config, room):
                    raise wrong(sheet.stage.file, band, key, f"is {value!r}, which is no number")
        for chart in sheet.stage.charts:
            for name in (*chart.values, chart.categories or chart.values[0]):
                if name not in names:
                    raise TemplateError(f"{sheet.stage.file}: chart {chart.title} draws {name}, which is no band.")


def _is_offered(listed: str, names: dict[str, Range], config: GPT2Config) -> bool:
    return not listed or listed in names or isinstance(getattr(config, listed, None), int)


def _slices(part: Slice, stage: Stage, names: dict[str, Range], config: GPT2Config, room: Room) -> dict[str, Range]:
    """The cells of a slice by its name, or by the name in each block that has some."""
    if not part.rows:
        return {part.name: _slice(part, stage, names, config)}
    found, row, kind = {}, 0, part.of.rpartition(".")[0]
    for layer in range(config.n_layer):
        height = dict(room.adapted).get(f"h.{layer}.{kind}", 0)
        if height:
            cells = _slice(part, stage, names, config).rows(row, row + height)
            found[part.name.replace("{layer}", str(layer))] = cells
        row += height
    return found


def _slice(part: Slice, stage: Stage, names: dict[str, Range], config: GPT2Config) -> Range:
    if part.of not in names:
        raise TemplateError(f"{stage.file}: slice {part.name}: the of {part.of!r} is no weight.")
    edges = (size(edge, config) for edge in part.columns)
    return names[part.of].columns(*edges) if part.columns else names[part.of]
