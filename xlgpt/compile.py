"""The compiler: a template's formula, with names in braces, becomes the formulas of a band's cells.

This is the heart of xlgpt. It resolves names to ranges and knows two rules, no arithmetic: a token's row refers to that
token's row of other bands, and a row without a token is skipped.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from xlgpt.errors import TemplateError
from xlgpt.layout import LABEL_COLUMNS, Layout, Placed, Range, Sheet, column_letters
from xlgpt.matmul import SLICE
from xlgpt.template import Band, Stage, numbers, optional_sheets, size

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")  # the innermost braces
REFERENCE = re.compile(r"(?P<name>[^\[\]]+?)(?:\[(?P<index>[^\[\]]+)\])?")
NEIGHBOUR = re.compile(r"([+-]\d+)(?:, *column(\+1)?)?")  # a row above or below, and perhaps a column of it
CORNER = re.compile(r"([A-Z]+)(\d+)")
SIDEWAYS = re.compile(r"\b(column|across|head|part|choice)\b")  # a word that another cell of the row reads differently
NAMED_CELLS = ("layer_norm_epsilon", "prompt")  # what stands on the home sheet under its own name

Known = dict[tuple[int, str], str]  # what an expression stands for in all cells of a row


@dataclass(frozen=True)
class Formula:
    """A formula without its `=`, and the cells it fills.

    An array formula fills them all at once; any other is that of the first cell, and the cells below it have the same,
    moved along.
    """

    cells: Range
    text: str
    is_array: bool


@dataclass(frozen=True)
class _Place:
    """What the words `row`, `column` and `head` mean in one formula. Of a token's column, the row is the token's."""

    placed: Placed
    stage: Stage
    row: int
    column: int = 0
    head: int = 0


def formulas(layout: Layout, sheet: Sheet, placed: Placed) -> Iterator[Formula]:
    """All formulas of a band, from the top, and from left to right. Raises TemplateError."""
    band = placed.band
    if not band.formula:
        return
    known: Known = {}
    for cells, place in _places(sheet, placed):
        text = _expand(band.first if band.first and place.row == 0 else band.formula, layout, place, known)
        if sheet.stage.switch:
            text = f'IF({sheet.stage.switch}*n_tokens=0,"",{text})'
        if band.rows == "token" and band.guard:
            text = f'IF($A{cells.row + 1}<0,"",{text})'
        yield Formula(cells, text, band.is_array)


def _places(sheet: Sheet, placed: Placed) -> Iterator[tuple[Range, _Place]]:
    """The cells of each formula of a band."""
    cells, stage = placed.cells, sheet.stage
    if placed.band.per == "band":
        yield cells, _Place(placed, stage, 0)
        return
    if placed.band.per == "column":
        yield from ((cells.columns(i, i + 1), _Place(placed, stage, 0, i)) for i in range(cells.width))
        return
    if placed.band.per == "slice":
        for row in range(0, cells.height, SLICE):
            yield cells.rows(row, min(row + SLICE, cells.height)), _Place(placed, stage, row)
        return
    if placed.band.is_upright:
        for token in range(cells.width):
            yield cells.columns(token, token + 1), _Place(placed, stage, token)
        return
    for row in range(cells.height):
        line = cells.rows(row, row + 1)
        if placed.band.per == "row":
            yield line, _Place(placed, stage, row)
        elif placed.band.per == "cell":
            for column in range(_used(placed, row)):
                yield line.columns(column, column + 1), _Place(placed, stage, row, column)
        else:
            for head in range(placed.dims[1]):
                yield head_columns(placed, row, head), _Place(placed, stage, row, head=head)


def _used(placed: Placed, row: int) -> int:
    """How many cells of a row there are: a pattern has none for later tokens, and some bands shrink downwards."""
    if placed.band.shape[-1] == "key":
        return row + 1
    return placed.cells.width - row if placed.band.shrinks else placed.cells.width


def head_columns(placed: Placed, row: int, head: int) -> Range:
    """One head's cells in a row. With a column per key there are only those of the tokens up to this one."""
    width = math.prod(placed.dims[2:])
    used = row + 1 if placed.band.shape[-1] == "key" else width
    return placed.cells.rows(row, row + 1).columns(head * width, head * width + used)


def _expand(text: str, layout: Layout, place: _Place, known: Known) -> str:
    """The text with every brace resolved; what is the same in all cells of a row is resolved once."""

    def resolve(found: re.Match[str]) -> str:
        here = place.row, found[1]
        if here in known:
            return known[here]
        resolved = _resolve(found[1], layout, place)
        if not SIDEWAYS.search(found[1]):
            known[here] = resolved
        return resolved

    while "{" in text:
        text = PLACEHOLDER.sub(resolve, text)
    return text


def _resolve(expression: str, layout: Layout, place: _Place) -> str:
    if expression.startswith("choice."):
        return _choose(expression.removeprefix("choice."), layout, place)
    if expression.startswith("text."):
        return place.stage.texts[expression.removeprefix("text.")]
    if expression.startswith("each."):
        return _list(place.stage.each[expression.removeprefix("each.")], layout)
    if expression in NAMED_CELLS:
        return expression
    written, index = _parsed(expression)
    number = None if index else _number(expression, layout, place)
    if number is not None:
        return str(number)
    table = place.placed.band.name.rpartition(".")[0] + "."
    name = next((p + written for p in (table, *place.stage.scope) if p + written in layout.names), None)
    if not name:
        raise TemplateError(
            f"The formula of {place.placed.band.name} names {{{expression}}}, "
            "which is no band, weight or key of config.json."
        )
    if index == "part":
        return _part(layout.names[name], layout, place).absolute
    if name not in layout.bands:
        return _weight(name, index, layout, place)
    target = layout.bands[name]
    if index:
        cells = _index(index, target, place)
    elif _of_same(target.band, place.placed.band) and target.dims[0] > 1:
        cells = target.cells.rows(place.row, place.row + 1)
    else:
        return name
    text = cells.seen_from(place.placed.cells.sheet)
    if not place.placed.band.apart:
        return text
    sheet, bang, corners = text.rpartition("!")
    return sheet + bang + CORNER.sub(r"\1$\2", corners)


def _weight(name: str, index: str, layout: Layout, place: _Place) -> str:
    """A weight's name; with `[:128]` so many rows, or all there are; in a band of slices, the slice's rows."""
    band, cells = place.placed, layout.names[name]
    if index:
        if not index.removeprefix(":").isdecimal():
            raise TemplateError(f"The formula of {band.band.name} picks [{index}] of a weight; [:128] is possible.")
        return cells.rows(0, min(int(index[1:]), cells.height)).absolute
    if band.band.per != "slice" or cells.height != band.cells.height:
        return name
    return cells.rows(place.row, min(place.row + SLICE, cells.height)).seen_from(band.cells.sheet)


def _of_same(target: Band, band: Band) -> bool:
    """Whether a row of one band belongs to what a formula of the other is for."""
    if band.is_upright:
        return target.rows == band.shape[-1]
    return target.rows == band.rows and band.goes_by_row


@cache
def _parsed(expression: str) -> tuple[str, str]:
    """A reference's name, and what stands between its brackets."""
    found = REFERENCE.fullmatch(expression)
    return (found["name"], found["index"] or "") if found else (expression, "")


def _number(key: str, layout: Layout, place: _Place) -> object:
    """What a key of config.json, or a word for a place, stands for; None where it is neither."""
    match key:
        case "layer":
            return place.stage.layer
        case "previous":
            return place.stage.layer - 1
        case "row":
            return place.row + 1
        case "column":
            return place.column + 1
        case "down":
            return place.row
        case "across":
            return place.column
        case "across-1":
            return place.column - 1
        case "number":  # the cell that numbers this row of a table
            return f"${column_letters(LABEL_COLUMNS - 1)}{place.placed.cells.row + 1}"
    return numbers(layout.config, layout.room).get(key, getattr(layout.config, key, None))


def _choose(key: str, layout: Layout, place: _Place) -> str:
    """The text that a [choice] table has for the value of a key."""
    choices = place.stage.choices.get(key, {})
    key = choices.get("of", key)
    value = str(key in layout.room.sheets if key in optional_sheets() else _number(key, layout, place))
    value = value.lower() if value in ("True", "False") else value
    if value not in choices and "otherwise" not in choices:
        raise TemplateError(f"The sheet {place.stage.sheet} has no [choice.{key}] for the value {value!r}.")
    return choices.get(value, choices.get("otherwise", ""))


def _part(cells: Range, layout: Layout, place: _Place) -> Range:
    """The rows of the vocabulary's slice of this number, in a weight that has a row for each token."""
    slice_size = numbers(layout.config, layout.room)["slice_size"]
    first = max(place.head, place.column) * slice_size
    return cells.rows(first, min(cells.height, first + slice_size))


def _list(each: dict[str, str], layout: Layout) -> str:
    """The texts of an [each] table, one for every number from 0 to a key of config.json, with commas between."""
    return ",".join(each["text"].replace("{i}", str(i)) for i in range(size(each["of"], layout.config)))


def _index(index: str, target: Placed, place: _Place) -> Range:
    """The cells that `[head]`, `[:token, head]`, `[:, column]`, `[-1]` or `[-1, column]` pick from a band."""
    cells = target.cells
    this_row = cells.rows(place.row, place.row + 1)
    neighbour = NEIGHBOUR.fullmatch(index)
    if neighbour:
        line = cells.rows(place.row + int(neighbour[1]), place.row + int(neighbour[1]) + 1)
        column = place.column + bool(neighbour[2])
        return line.columns(column, column + 1) if "column" in index else line
    match [part.strip() for part in index.split(",")]:
        case ["layer"]:
            return cells.rows(place.stage.layer, place.stage.layer + 1)
        case ["layer", "head"]:
            return head_columns(target, place.stage.layer, place.head)
        case ["across"]:
            return head_columns(target, place.row, place.column)
        case ["head"]:
            return head_columns(target, place.row, place.head)
        case [":token"]:
            return cells.rows(0, place.row + 1)
        case [":token", "head"]:
            width = target.dims[2]
            return cells.rows(0, place.row + 1).columns(place.head * width, (place.head + 1) * width)
        case [":", "across"]:
            width = target.dims[-1]
            return cells.columns(place.column * width, (place.column + 1) * width)
        case [":", "token"]:
            return cells.columns(place.row, place.row + 1)
        case [":", "column"]:
            return cells.columns(place.column, place.column + 1)
        case ["column"]:
            return this_row.columns(place.column, place.column + 1)
    raise TemplateError(f"The formula of {place.placed.band.name} picks [{index}], which no index is.")
