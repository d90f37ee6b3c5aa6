"""How wide the columns of a sheet are: as what stands in them needs, in the digits of the font that Excel counts in."""

import textwrap

from xlgpt.compiler.layout import Placed, Sheet

POSITION, TOKEN, SPREAD = 8, 14, 9  # of the columns that stay in sight
NUMBER, TEXT = 9.5, 13.5
SENTENCE = 11.5  # at least, where sentences stand above columns
NAME = 0.855  # a letter of a name above a column, to a digit
TITLE = 1.0
LETTERS = 1.7  # of a sentence to a digit
MERGED = 5  # columns that a sentence above several takes at most
DIGIT, PADDING = 7, 5  # pixels
LINE, POINTS = 10.5, 3  # of a sentence: a line's height, and what is free around it


def column_widths(sheet: Sheet) -> dict[int, float]:
    """The width of each column, by its number."""
    usual = SENTENCE if any(group[0].band.table for group in sheet.groups) else NUMBER
    last = max(placed.cells.column + placed.cells.width for placed in sheet.bands)
    widths: dict[int, float] = dict(zip(range(sheet.labels), (POSITION, TOKEN, SPREAD), strict=False))
    widths |= dict.fromkeys(range(sheet.labels, last + 1), usual)
    for group in sheet.groups:
        for placed in group:
            for column, width in _needed(placed, in_table=bool(group[0].band.table)):
                widths[column] = max(widths[column], width)
    return widths


def _needed(placed: Placed, in_table: bool) -> list[tuple[int, float]]:
    band, cells = placed.band, placed.cells
    width = TEXT if band.format == "text" else NUMBER
    if in_table and cells.width == 1:
        width = max(width, 1 + NAME * len(band.name), 1 + TITLE * len(band.title))
    if not in_table and cells.width == 1 and cells.column < 3:
        return []  # its title stands above it, and may reach to the left
    return [(column, width) for column in range(cells.column, cells.column + cells.width)]


def pixels(width: float) -> int:
    """What a column of that width takes on the screen."""
    return int(width * DIGIT) + PADDING


def sentence_columns(placed: Placed) -> int:
    """How many columns the sentence above a table's column, or above several, takes."""
    return min(placed.cells.width, MERGED)


def sentence_height(placed: Placed, widths: dict[int, float]) -> float:
    """Points that the sentence above a table's columns takes, broken into lines."""
    first = placed.cells.column
    width = sum(widths[column] for column in range(first, first + sentence_columns(placed)))
    return POINTS + LINE * len(textwrap.wrap(placed.band.about, max(1, int(LETTERS * width))))


def column_behind(letters: float, widths: dict[int, float]) -> int:
    """The first column that begins behind so many digits from the left edge."""
    left = 0.0
    for column, width in widths.items():
        if left >= letters:
            return column
        left += width
    return len(widths)
