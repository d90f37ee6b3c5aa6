"""What stands on every sheet: titles, labels, looks, names and links, by XlsxWriter; and the blocks of many cells."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import xlsxwriter

from xlgpt.compiler.band import Dimension
from xlgpt.compiler.layout import CHART_GAP, LABEL_COLUMNS, Placed, PlacedWeight, Sheet
from xlgpt.compiler.page import HOME
from xlgpt.compiler.template import Chart
from xlgpt.oracle.values import Values
from xlgpt.workbook.blocks import band_block, number_block, place_block, table_block
from xlgpt.workbook.columns import column_behind, column_widths, pixels, sentence_columns, sentence_height
from xlgpt.workbook.drawings import write_shapes
from xlgpt.workbook.home import write_home
from xlgpt.workbook.input_cells import write_input
from xlgpt.workbook.plan import Plan
from xlgpt.workbook.streamed_worksheet import StreamedWorksheet
from xlgpt.workbook.styles import (
    ACCENT,
    AXIS,
    LINE,
    MUTED,
    SERIES,
    SHADES,
    SHARE_COLOURS,
    WEIGHTS,
    Styles,
    colour_verdicts,
    number_of,
    shade,
)
from xlgpt.xlsx.archive import sheet_names
from xlgpt.xlsx.ranges import Range, quoted

FROZEN_ROWS = 4
EMPTY_ROW = 6  # points, of the last of them where nothing stands in it
HEADING = 1.35  # a letter of a band's title, to a digit
SCREEN = 1400, 40  # pixels of columns, and rows, that a window shows
LABELLED = 12  # columns that the line above a tensor takes
LINK = {"font_color": ACCENT["activation"], "underline": 1}
LAYERS = "n_layer+1"  # the residual stream before the first block and after each
TITLED = ("key", "token", "n_head", "n_layer", LAYERS, 5)  # what a column is for, said above it
UNITS = {"token": " tokens", "key": " tokens attended to", "n_head": " heads", "vocab_size": " tokens"}
UNITS |= {"n_features": " features", "n_slices": " slices", "n_best": " places"}
SINGULAR = {"n_head": "head", "n_slices": "slice", "n_layer": "block"}


@dataclass(frozen=True)
class Frame:
    """A workbook without its cells, as a file; and its worksheets by their parts, each with its cells as rows."""

    file: zipfile.ZipFile
    sheets: dict[str, StreamedWorksheet]


def framed(plan: Plan) -> Frame:
    """Make every sheet but the rows of weights."""
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    book.worksheet_class = StreamedWorksheet
    write_sheets(book, plan)
    book.calc_on_load = False  # the saved values are right
    book.close()
    skeleton = zipfile.ZipFile(file)
    return Frame(skeleton, {part: book.get_worksheet_by_name(name) for part, name in sheet_names(skeleton).items()})


def write_sheets(book: Any, plan: Plan) -> None:
    """Every sheet into a workbook of XlsxWriter's, or what stands in for one."""
    styles = Styles(book)
    book.set_size(2400, 1500)
    book.set_properties(
        {"title": f"{plan.model.name} in a spreadsheet", "author": "xlgpt", "comments": "Made by xlgpt"}
    )
    book.set_calc_mode("manual" if plan.manual else "auto")
    home = _add(book, HOME, ACCENT["answer"])
    write_home(home, book, styles, plan)
    order = [HOME, *(sheet.name for sheet in plan.layout.sheets), "Vocabulary", "Merges", "Unicode"]
    for before, sheet, after in zip(order, plan.layout.sheets, order[2:], strict=False):
        worksheet = _add(book, sheet.name, _tab(sheet))
        _write_top(worksheet, styles, sheet.stage.title, sheet.stage.about, before, after, sheet.labels)
        _write_stage(book, worksheet, styles, plan, sheet)
    weights = plan.layout.weight_sheets()
    _write_vocabulary(_add(book, "Vocabulary", ACCENT["weight"]), styles, plan, order[-4], "Merges")
    _write_merges(_add(book, "Merges", ACCENT["weight"]), styles, plan)
    _write_unicode(_add(book, "Unicode", ACCENT["weight"]), styles, plan, next(iter(weights)))
    for name, placed in weights.items():
        _write_weights(_add(book, name, ACCENT["weight"]), styles, plan, placed)
    for name, cells in plan.layout.names.items():
        book.define_name(name, f"={cells.absolute}")
    home.activate()


def _add(book: Any, name: str, colour: str) -> Any:
    worksheet = book.add_worksheet(name)
    worksheet.set_tab_color(colour)
    worksheet.hide_gridlines(2)
    return worksheet


def _tab(sheet: Sheet) -> str:
    kinds = {placed.band.kind for placed in sheet.bands}
    return next(ACCENT[kind] for kind in ("input", "answer", "activation") if kind in kinds)


def _write_top(
    worksheet: Any, styles: Styles, title: str, about: str, before: str, after: str, labels: int = LABEL_COLUMNS
) -> None:
    """The way home and to the neighbours, the title and a sentence; they stay in sight."""
    for column, (text, target) in enumerate((("⌂ Home", HOME), (f"◂ {before}", before), (f"{after} ▸", after))):
        worksheet.write_url(0, column, f"internal:{quoted(target)}!A1", styles.link, text, f"Go to {target}")
    worksheet.set_row(1, 26)
    worksheet.write_string(1, 0, title, styles.title)
    worksheet.write_string(2, 0, about, styles.note)
    worksheet.freeze_panes(FROZEN_ROWS, labels)
    worksheet.set_landscape()
    worksheet.fit_to_pages(1, 1)
    worksheet.repeat_rows(0, FROZEN_ROWS - 1)


def _write_stage(book: Any, worksheet: Any, styles: Styles, plan: Plan, sheet: Sheet) -> None:
    widths = column_widths(sheet)
    for width, columns in groupby(widths, key=widths.__getitem__):
        wide = list(columns)
        worksheet.set_column(wide[0], wide[-1], width)
    width = 0 if _has_titles(sheet) else _width(sheet)
    if width:
        numbers = Range(sheet.name, FROZEN_ROWS - 1, sheet.labels, 1, width)
        worksheet.add_block(number_block(numbers, number_of(styles.column_title)))
    else:
        worksheet.set_row(FROZEN_ROWS - 1, EMPTY_ROW)
    for group in sheet.groups:
        if group[0].band.table:
            _write_tables(worksheet, styles, plan, sheet, group, widths)
            if group[0].band.rows == "token" and group[0].cells.column > 1:
                _write_labels(worksheet, styles, plan, group[0])
            continue
        for placed in group:
            _write_titles(worksheet, styles, placed, widths)
            _write_column_titles(worksheet, styles, plan, placed)
            _write_cells(worksheet, styles, plan, placed)
        if all(placed.cells.column > 0 for placed in group):
            _write_labels(worksheet, styles, plan, group[0])
    _write_charts(book, worksheet, plan, sheet, widths)
    write_shapes(worksheet, plan, sheet)
    _set_print_area(worksheet, sheet, widths)


def _set_print_area(worksheet: Any, sheet: Sheet, widths: dict[int, float]) -> None:
    """A page shows what a screen does: so no page break runs through a table."""
    right, columns = 0, 0
    while columns < len(widths) and right < SCREEN[0]:
        right, columns = right + pixels(widths[columns]), columns + 1
    rows = max(group[0].cells.row + group[0].cells.height for group in sheet.groups if group[0].top < SCREEN[1])
    worksheet.print_area(0, 0, rows, columns - 1)


def _width(sheet: Sheet) -> int:
    """How many columns of bands there are, tables apart."""
    wide = [p.cells.width for group in sheet.groups for p in group if p.cells.width > 1 and not group[0].band.table]
    return max(wide, default=0)


def _has_titles(sheet: Sheet) -> bool:
    """Whether its columns have titles of their own, so that none need be numbered, tables apart."""
    bands = (placed for group in sheet.groups if not group[0].band.table for placed in group)
    wide = {placed.band.shape[1:] for placed in bands if placed.cells.width > 1}
    if sheet.stage.switch:
        return True
    return all(len(shape) == 1 and shape[0] in TITLED for shape in wide)


def _write_tables(
    worksheet: Any,
    styles: Styles,
    plan: Plan,
    sheet: Sheet,
    group: tuple[Placed, ...],
    widths: dict[int, float],
) -> None:
    """Columns side by side: above each its title, its name, a sentence, and what it starts from."""
    top = group[0].top
    worksheet.set_row(top + 3, max(sentence_height(placed, widths) for placed in group))
    for placed in group:
        band, cells = placed.band, placed.cells
        if band.table:
            worksheet.write_string(top, cells.column, band.table, styles.heading["activation"])
            if band.rows != "token" and cells.height > 1 and cells.column > 0:
                rows = max(other.cells.height for other in group) if placed in sheet.transposed else cells.height
                _write_numbers(worksheet, styles, placed, cells.column - 1, rows)
        worksheet.write_string(top + 1, cells.column, band.title, styles.over)
        worksheet.write_string(top + 2, cells.column, band.name, styles.small)
        _write_sentence(worksheet, styles, placed)
        if band.start is not None:
            worksheet.write_number(top + 4, cells.column, band.start, styles.start)
        if len(placed.dims) > 1:
            _write_column_titles(worksheet, styles, plan, placed)
        _write_cells(worksheet, styles, plan, placed)


def _write_sentence(worksheet: Any, styles: Styles, placed: Placed) -> None:
    """What a table's column shows, above it; above several, in as many cells as it needs."""
    row, first, columns = placed.top + 3, placed.cells.column, sentence_columns(placed)
    if columns == 1:
        worksheet.write_string(row, first, placed.band.about, styles.sentence)
    else:
        worksheet.merge_range(row, first, row, first + columns - 1, placed.band.about, styles.sentence)


def _write_titles(worksheet: Any, styles: Styles, placed: Placed, widths: dict[int, float]) -> None:
    band = placed.band
    title = band.title[0].upper() + band.title[1:]
    worksheet.write_string(placed.top, 0, title, styles.heading[band.kind])
    shape = " × ".join(f"{n:,}{UNITS.get(str(d), '')}" for d, n in zip(band.shape, placed.dims, strict=True))
    column = column_behind(HEADING * len(title), widths)
    worksheet.write_string(placed.top, column, f"{band.name}    {shape}", styles.mono)
    worksheet.write_string(placed.top + 1, 0, band.about, styles.note)


def _write_column_titles(worksheet: Any, styles: Styles, plan: Plan, placed: Placed) -> None:
    row, cells = placed.cells.row - 1, placed.cells
    if len(placed.dims) == 1:
        worksheet.write_string(row, cells.column, placed.band.title, styles.column_title)
    elif len(placed.dims) == 2:
        for i in range(placed.dims[1] if placed.band.shape[1] in TITLED else 0):
            _write_column_title(worksheet, styles, plan, placed, i)
    else:
        _write_head_titles(worksheet, styles, plan, placed)


def _write_head_titles(worksheet: Any, styles: Styles, plan: Plan, placed: Placed) -> None:
    """Two rows: the head, slice or place that some columns belong to, and what each of them is."""
    row, cells = placed.cells.row - 1, placed.cells
    _, heads, width = placed.dims
    for head in range(heads):
        first = cells.column + head * width
        worksheet.write_string(row - 1, first, _place_title(placed.band.shape[1], head), styles.head_title)
        for i in range(width):
            if placed.band.shape[2] == "key":
                label = _label(plan.values.get("tokens", ()), i)
                worksheet.write_formula(row, first + i, f"=$B${cells.row + i + 1}", styles.key_title, label)
            else:
                worksheet.write_number(row, first + i, i, styles.column_title)


def _place_title(dimension: Dimension, i: int) -> str:
    """What one of a dimension's rows, columns or groups of columns is called."""
    if dimension == LAYERS:
        return f"block {i - 1}" if i else "embeddings"
    return f"place {i + 1}" if isinstance(dimension, int) else f"{SINGULAR[dimension]} {i}"


def _write_column_title(worksheet: Any, styles: Styles, plan: Plan, placed: Placed, i: int) -> None:
    """A token, or the name of a head, block or place."""
    row, column = placed.cells.row - 1, placed.cells.column + i
    if placed.band.shape[1] in ("token", "key"):
        cell = plan.layout.names["tokens"].rows(i, i + 1).seen_from(placed.cells.sheet)
        label = _label(plan.values.get("tokens", ()), i)
        worksheet.write_formula(row, column, f"={cell}", styles.key_title, label)
    else:
        worksheet.write_string(row, column, _place_title(placed.band.shape[1], i), styles.column_title)


def _write_labels(worksheet: Any, styles: Styles, plan: Plan, placed: Placed) -> None:
    """What each row of a group stands for, in the columns that stay in sight."""
    if placed.band.rows == "vocab_size":
        sheet = placed.cells.sheet
        columns = number_of(styles.place), number_of(styles.label)
        worksheet.add_block(table_block(sheet, plan.tables[sheet], columns))
    elif placed.band.rows == "token":
        _write_tokens(worksheet, styles, plan, placed)
    elif placed.cells.height > 1:
        _write_numbers(worksheet, styles, placed, 0, placed.cells.height)


def _write_tokens(worksheet: Any, styles: Styles, plan: Plan, placed: Placed) -> None:
    """The position and the token of each row."""
    for column, (name, style) in enumerate((("position", styles.place), ("tokens", styles.label))):
        sources, known = _row_by_row(plan.layout.names[name]), plan.values.get(name, ())
        shown = [_label(known, i) for i in range(placed.cells.height)]
        worksheet.add_formulas(placed.cells.row, column, sources[: len(shown)], number_of(style), shown)


@lru_cache(maxsize=4)  # every group of rows has these labels
def _row_by_row(cells: Range) -> list[str]:
    """A formula for each row of a column, absolute, so that no two are alike."""
    return [cells.rows(i, i + 1).absolute for i in range(cells.height)]


def _write_numbers(worksheet: Any, styles: Styles, placed: Placed, column: int, rows: int) -> None:
    """What rows that belong to no token are called: their numbers from 1, or their blocks."""
    cells = placed.cells
    if placed.band.rows not in ("n_layer", LAYERS):
        places = Range(cells.sheet, cells.row, column, rows)
        worksheet.add_block(place_block(places, number_of(styles.place)))
        return
    for i in range(rows):
        worksheet.write_string(cells.row + i, column, _place_title(placed.band.rows, i), styles.label)


def _label(known: Sequence[Any] | Values, row: int) -> Any:
    """What a label shows for a token's row, of what is known of those in use: nothing for any other."""
    return known[row] if row < len(known) else ""


def _write_cells(worksheet: Any, styles: Styles, plan: Plan, placed: Placed) -> None:
    """A band's cells, to be calculated or to be filled in, and how they are coloured."""
    band, cells = placed.band, placed.cells
    style = number_of(styles.cells[band.format][band.kind])
    if band.is_input:
        write_input(worksheet, styles, plan, placed)
    if band.formula:
        worksheet.add_block(band_block(plan, placed, style))
    if band.scale:
        low, high = SHARE_COLOURS
        scale = {"type": "2_color_scale", "min_type": "num", "min_value": 0, "max_type": "num", "max_value": 1}
        bottom, right = cells.row + cells.height - 1, cells.column + cells.width - 1
        worksheet.conditional_format(
            cells.row, cells.column, bottom, right, scale | {"min_color": low, "max_color": high}
        )
    if band.tint:
        corners = (cells.row, cells.column, cells.row + cells.height - 1, cells.column + cells.width - 1)
        worksheet.conditional_format(*corners, _tint(band.tint))
    if band.alarm:
        colour_verdicts(worksheet, styles, cells)
    if band.shade:
        _write_shades(worksheet, styles, cells, plan.layout.names[band.shade])


def _write_shades(worksheet: Any, styles: Styles, cells: Range, shares: Range) -> None:
    """Colour each cell by what the cell at its place in another band shows, from 0 to 1."""
    corners = (cells.row, cells.column, cells.row + cells.height - 1, cells.column + cells.width - 1)
    for step in range(SHADES, 0, -1):
        least = (step - 0.5) / SHADES
        rule = {"type": "formula", "criteria": f"=N({shares.first})>={least}", "stop_if_true": True}
        worksheet.conditional_format(*corners, rule | {"format": styles.format(bg_color=shade(step / SHADES))})


def _write_charts(book: Any, worksheet: Any, plan: Plan, sheet: Sheet, widths: dict[int, float]) -> None:
    """Each at the right of its band, below those that stand there or beside the last of them."""
    ends: dict[str, tuple[int, int, int]] = {}  # by band: where the last chart's right edge, top and bottom are
    for item in sheet.stage.charts:
        right, top, bottom = ends.get(item.at, (0, 0, 0))
        left, top = (right + CHART_GAP, top) if item.beside else (0, bottom + CHART_GAP if bottom else 0)
        ends[item.at] = left + item.size[0], top, max(bottom * item.beside, top + item.size[1])
        group = plan.layout.bands[item.at].top
        place = {"description": item.title, "x_offset": left + CHART_GAP, "y_offset": top}
        worksheet.insert_chart(group, sheet.end(item.at), _chart(book, plan, item), place)


def _chart(book: Any, plan: Plan, item: Chart) -> Any:
    """A chart of a template's."""
    names = plan.layout.names
    chart = book.add_chart({"type": item.type} | ({"subtype": "stacked"} if item.stacked else {}))
    values = [plan.layout.bands[name] for name in item.values]
    titles = values[0].cells.rows(-1, 0)
    for placed, colour in zip(values, SERIES, strict=False):
        chart.add_series(
            {
                "name": placed.band.title,
                "categories": f"={names.get(item.categories, titles).absolute}",
                "values": f"={placed.cells.absolute}",
                "fill": {"color": colour},
                "line": {"color": colour},
                "marker": {"type": "circle" if item.type == "line" else "automatic"},
                **({"data_labels": {"value": True}} if len(item.values) == 1 else {}),
            }
        )
    chart.set_title({"name": item.title, "name_font": {"size": 12, "bold": False, "color": MUTED}})
    chart.set_legend({"none": len(item.values) == 1, "position": "bottom"})
    chart.set_chartarea({"border": {"none": True}})
    grid: dict[str, Any] = {"major_gridlines": {"visible": True, "line": {"color": LINE}}, "line": {"none": True}}
    axis = grid | AXIS.get(values[0].band.format, {}) | ({"log_base": 10, "min": 1} if item.log else {})
    if item.type == "bar" and len(item.values) == 1:  # each bar says its number
        axis |= {"label_position": "none"}
    if item.type == "bar":  # from the top, as the cells are
        chart.set_y_axis({"reverse": True, "crossing": "max", "major_gridlines": {"visible": False}})
        chart.set_x_axis(axis)
    else:
        chart.set_x_axis({"label_position": "low"})  # not in the way of bars below zero
        chart.set_y_axis(axis)
    chart.set_size({"width": item.size[0], "height": item.size[1]})
    return chart


def _write_vocabulary(worksheet: Any, styles: Styles, plan: Plan, before: str, after: str) -> None:
    """Every token: its id, its exact text, the text with spaces made visible, and its bytes."""
    about = (
        "What each id stands for. A token is a piece of text of one or more bytes; "
        "␣ is a space, \\xe2 a byte that is only part of a character."
    )
    _write_top(worksheet, styles, "Vocabulary: all the tokens there are", about, before, after)
    worksheet.set_column(1, 2, 22)
    worksheet.set_column(3, 3, 40)
    for column, title in enumerate(("id", "token", "as shown", "bytes")):
        worksheet.write_string(FROZEN_ROWS - 1, column, title, styles.column_title)
    columns = (styles.place, styles.text["weight"], styles.text["weight"], styles.mono)
    _write_table(worksheet, plan, "Vocabulary", columns)


def _write_table(worksheet: Any, plan: Plan, name: str, columns: tuple[Any, ...]) -> None:
    worksheet.add_block(table_block(name, plan.tables[name], [number_of(style) for style in columns]))


def _write_merges(worksheet: Any, styles: Styles, plan: Plan) -> None:
    """Which two tokens become one, sorted by a number that stands for the pair, so that it is found quickly."""
    about = (
        "Which two neighbours become one token. The lower the rank, the earlier. "
        "A pair is found by its number: 65,536 × the left id + the right id."
    )
    _write_top(worksheet, styles, "Merges: how pieces grow into tokens", about, "Vocabulary", "Unicode")
    worksheet.set_column(0, 2, 14)
    worksheet.set_column(3, 5, 18)
    worksheet.set_column(6, 6, 24)
    for column, title in enumerate(("pair", "token id", "rank", "left", "right", "becomes", "by rank: 0, 1, 2, …")):
        worksheet.write_string(FROZEN_ROWS - 1, column, title, styles.column_title)
    columns = (styles.whole["weight"],) * 3 + (styles.label,) * 3 + (styles.whole["weight"],)
    _write_table(worksheet, plan, "Merges", columns)


def _write_unicode(worksheet: Any, styles: Styles, plan: Plan, after: str) -> None:
    """What kind of character each code point is, and the token of each byte."""
    about = (
        "L letter, N number, S white space, O anything else, from a code point to the next in the list, as tiktoken "
        "sees them. Beside it: the token that stands for each single byte."
    )
    _write_top(worksheet, styles, "Unicode: what is a letter, and the tokens of bytes", about, "Merges", after)
    for column, title in enumerate(("from", "kind", "byte", "token id")):
        worksheet.write_string(FROZEN_ROWS - 1, column, title, styles.column_title)
    worksheet.set_column(0, 3, 14)
    whole = styles.whole["weight"]
    _write_table(worksheet, plan, "Unicode", (whole, styles.text["weight"], styles.place, whole))


def _write_weights(worksheet: Any, styles: Styles, plan: Plan, weights: list[PlacedWeight]) -> None:
    """The way home and a line above each tensor."""
    worksheet.set_column(0, max(LABELLED, *(placed.cells.width for placed in weights)) - 1, 12)
    worksheet.freeze_panes(1, 0)
    total = sum(placed.cells.height * placed.cells.width for placed in weights)
    worksheet.set_row(0, 22)
    worksheet.write_url(0, 0, f"internal:{quoted(HOME)}!A1", tip="Go to Home")
    home = styles.format(num_format='"⌂ Home      "#,##0" weights"', align="left", **LINK)
    worksheet.merge_range(0, 0, 0, LABELLED - 1, total, home)
    style = styles.format(num_format='#,##0" weights"', align="left", bold=True, font_color=ACCENT["weight"])
    for placed in weights:
        worksheet.reach(placed.cells)
        _write_label(worksheet, plan, placed, style)
        corners = (placed.cells.row, 0, placed.cells.row + placed.cells.height - 1, placed.cells.width - 1)
        worksheet.conditional_format(*corners, _tint(0.5))


def _write_label(worksheet: Any, plan: Plan, placed: PlacedWeight, style: Any) -> None:
    """The line above a tensor. Sheets that hold nothing but numbers have its words in a text box."""
    cells, row = placed.cells, placed.cells.row - 1
    count = cells.height * cells.width
    about = f"{placed.weight.name}   {cells.height:,} × {cells.width:,}"
    worksheet.set_row(row, 22)
    if not plan.is_bare:
        words = f"{about} = {count:,} weights: {placed.weight.about}"
        worksheet.merge_range(row, 0, row, LABELLED - 1, words, style)
        return
    worksheet.merge_range(row, 0, row, 1, count, style)
    font = {"name": "Calibri", "size": 11, "bold": True, "color": ACCENT["weight"]}
    size = {"width": 900, "height": 29, "object_position": 1}
    plain = {"fill": {"none": True}, "line": {"none": True}, "align": {"vertical": "middle"}}
    worksheet.insert_textbox(row, 2, f"{about}: {placed.weight.about}", {"font": font, **size, **plain})


def _tint(full: float) -> dict[str, Any]:
    """What is below zero in one colour, above it in the other, each at its strongest that far from zero."""
    low, middle, high = WEIGHTS
    edges: dict[str, Any] = {"min_value": -full, "mid_value": 0, "max_value": full}
    kinds = {f"{edge}_type": "num" for edge in ("min", "mid", "max")}
    colours = {"min_color": low, "mid_color": middle, "max_color": high}
    return {"type": "3_color_scale"} | kinds | edges | colours
