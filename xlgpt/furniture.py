"""All of the workbook but its many cells: sheets, titles, labels, styles, names and links, by XlsxWriter.

Where a band's formulas will stand it leaves, in each of their rows, one blank cell of the right style; where weights
will stand it leaves nothing. `workbook.py` puts the cells in.
"""

import io
from typing import Any

import xlsxwriter

from xlgpt.cells import escaped
from xlgpt.drawings import write_shapes
from xlgpt.home import HOME, write_home
from xlgpt.inputs import write_input
from xlgpt.layout import LABEL_COLUMNS, Placed, PlacedWeight, Range, Sheet, quoted
from xlgpt.look import ACCENT, AXIS, HEAT, LINE, MUTED, SERIES, SHADES, WEIGHTS, Look, shade
from xlgpt.plan import Plan
from xlgpt.tables import Table

FROZEN_ROWS = 4
TITLED = ("key", "token", "n_head")  # what a column is for, said above it
UNITS = {"token": " tokens", "key": " tokens looked at", "n_head": " heads", "vocab_size": " tokens"}
UNITS |= {"n_features": " features", "n_slices": " slices", "n_best": " places"}
GROUPS = {"n_head": "head", "n_slices": "slice"}  # what stands above a part of the columns


def furnish(plan: Plan) -> bytes:
    """Make every sheet, its words and its looks; returns a workbook file in which the cells are missing."""
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    look = Look(book)
    book.set_size(2400, 1500)
    book.set_properties(
        {"title": f"{plan.model.name} in a spreadsheet", "author": "xlgpt", "comments": "Made by xlgpt"}
    )
    book.set_calc_mode("manual" if plan.manual else "auto")
    home = _add(book, HOME, ACCENT["answer"])
    write_home(home, book, look, plan)
    order = [HOME, *(sheet.name for sheet in plan.layout.sheets), "Vocabulary", "Merges", "Unicode"]
    for before, sheet, after in zip(order, plan.layout.sheets, order[2:], strict=False):
        worksheet = _add(book, sheet.name, _tab(sheet))
        _write_top(worksheet, look, sheet.stage.title, sheet.stage.about, before, after)
        _write_stage(book, worksheet, look, plan, sheet)
    weights = plan.layout.weight_sheets()
    _write_vocabulary(_add(book, "Vocabulary", ACCENT["weight"]), look, plan, order[-4], "Merges")
    _write_merges(_add(book, "Merges", ACCENT["weight"]), look, plan)
    _write_unicode(_add(book, "Unicode", ACCENT["weight"]), look, plan, next(iter(weights)))
    for name, placed in weights.items():
        _write_weights(_add(book, name, ACCENT["weight"]), look, placed)
    for name, cells in plan.layout.names.items():
        book.define_name(name, f"={cells.absolute}")
    home.activate()
    book.close()
    return file.getvalue()


def _add(book: Any, name: str, colour: str) -> Any:
    worksheet = book.add_worksheet(name)
    worksheet.set_tab_color(colour)
    worksheet.hide_gridlines(2)
    return worksheet


def _tab(sheet: Sheet) -> str:
    kinds = {placed.band.kind for placed in sheet.bands}
    return next(ACCENT[kind] for kind in ("input", "answer", "activation") if kind in kinds)


def _write_top(worksheet: Any, look: Look, title: str, about: str, before: str, after: str) -> None:
    """The way home and to the neighbours, the title and a sentence; they stay in sight."""
    for column, (text, target) in enumerate((("⌂ Home", HOME), (f"◂ {before}", before), (f"{after} ▸", after))):
        worksheet.write_url(0, column, f"internal:{quoted(target)}!A1", look.link, text, f"Go to {target}")
    worksheet.set_row(1, 26)
    worksheet.write_string(1, 0, title, look.title)
    worksheet.write_string(2, 0, about, look.note)
    worksheet.set_column(0, 0, 9)
    worksheet.set_column(1, 1, 15)
    worksheet.set_column(2, 2, 13)
    worksheet.freeze_panes(FROZEN_ROWS, LABEL_COLUMNS)
    worksheet.set_landscape()
    worksheet.fit_to_pages(1, 0)
    worksheet.repeat_rows(0, FROZEN_ROWS - 1)


def _write_stage(book: Any, worksheet: Any, look: Look, plan: Plan, sheet: Sheet) -> None:
    last = max(placed.cells.column + placed.cells.width for placed in sheet.bands)
    worksheet.set_column(3, last, _letters(sheet))
    if numbered(sheet):
        worksheet.write_blank(FROZEN_ROWS - 1, LABEL_COLUMNS, None, look.column_title)
    for group in sheet.groups:
        if group[0].band.table:
            _write_tables(worksheet, look, plan, sheet, group)
            if group[0].band.rows == "token" and group[0].cells.column > 1:
                _write_labels(worksheet, look, plan, group[0])
            continue
        for placed in group:
            _write_titles(worksheet, look, placed)
            _write_column_titles(worksheet, look, plan, placed, sheet.stage.columns)
            _write_cells(worksheet, look, plan, placed)
        if all(placed.cells.column > 1 for placed in group):
            _write_labels(worksheet, look, plan, group[0])
    _write_charts(book, worksheet, plan, sheet)
    write_shapes(worksheet, plan, sheet)


def numbered(sheet: Sheet) -> int:
    """How many columns have a number on top. A blank cell stands for the first, and workbook.py writes them."""
    return 0 if _has_titles(sheet) else _width(sheet)


def _width(sheet: Sheet) -> int:
    """How many columns of bands there are, tables apart."""
    wide = [p.cells.width for group in sheet.groups for p in group if p.cells.width > 1 and not group[0].band.table]
    return max(wide, default=0)


def _has_titles(sheet: Sheet) -> bool:
    """Whether its columns have titles of their own, so that none need be numbered, tables apart."""
    bands = (placed for group in sheet.groups if not group[0].band.table for placed in group)
    wide = {placed.band.shape[1:] for placed in bands if placed.cells.width > 1}
    if sheet.stage.columns or sheet.stage.switch:
        return True
    return all(len(shape) == 1 and shape[0] in (*TITLED, 5) for shape in wide)


def _letters(sheet: Sheet) -> int:
    """How wide its columns are, behind those that stay in sight."""
    return sheet.stage.width or (12 if any(placed.band.table for placed in sheet.bands) else 10)


def _sentence_height(placed: Placed, sheet: Sheet) -> int:
    """Points that a column's sentence takes, broken into lines: about 1.5 letters of size 8 to a unit of width."""
    if placed.cells.width > 1:
        return 15
    return 4 + 11 * (1 + int(len(placed.band.about) / (1.5 * _letters(sheet))))


def _write_tables(worksheet: Any, look: Look, plan: Plan, sheet: Sheet, group: tuple[Placed, ...]) -> None:
    """Columns side by side: above each its title, its name, a sentence, and what it starts from."""
    top = group[0].top
    worksheet.set_row(top + 3, max(_sentence_height(placed, sheet) for placed in group))
    for placed in group:
        band, cells = placed.band, placed.cells
        if band.table:
            worksheet.write_string(top, cells.column, band.table, look.heading["activation"])
            if band.rows != "token" and cells.height > 1 and cells.column > 1:
                for i in range(1 if placed in sheet.upright else cells.height):
                    _write_number(worksheet, look, placed, i, cells.column - 1)
        worksheet.write_string(top + 1, cells.column, band.title, look.over)
        worksheet.write_string(top + 2, cells.column, band.name, look.small)
        worksheet.write_string(top + 3, cells.column, band.about, look.sentence if cells.width == 1 else look.note_top)
        if band.start is not None:
            worksheet.write_number(top + 4, cells.column, band.start, look.start)
        for i in range(cells.width if cells.width > 1 else 0):
            worksheet.write_number(top + 4, cells.column + i, i + 1, look.column_title)
        _write_cells(worksheet, look, plan, placed)


def _write_titles(worksheet: Any, look: Look, placed: Placed) -> None:
    band = placed.band
    worksheet.write_string(placed.top, 0, band.title[0].upper() + band.title[1:], look.heading[band.kind])
    shape = " × ".join(f"{n:,}{UNITS.get(str(d), '')}" for d, n in zip(band.shape, placed.dims, strict=True))
    worksheet.write_string(placed.top, LABEL_COLUMNS, f"{band.name}    {shape}", look.mono)
    worksheet.write_string(placed.top + 1, 0, band.about, look.note)


def _write_column_titles(worksheet: Any, look: Look, plan: Plan, placed: Placed, columns: tuple[str, ...] = ()) -> None:
    row, cells = placed.cells.row - 1, placed.cells
    if len(placed.dims) == 1:
        worksheet.write_string(row, cells.column, placed.band.title, look.column_title)
    if len(placed.dims) == 2 and columns:
        for i in range(cells.width):
            text = columns[min(i, len(columns) - 1)].replace("{i}", str(i - len(columns) + 1))
            worksheet.write_string(row, cells.column + i, text, look.column_title)
    if len(placed.dims) == 2 and placed.band.shape[1] in TITLED:
        for i in range(placed.dims[1]):
            _write_column_title(worksheet, look, plan, placed, i)
    if len(placed.dims) < 3:
        return
    _, heads, width = placed.dims
    for head in range(heads):
        first = cells.column + head * width
        title = f"{GROUPS[str(placed.band.shape[1])]} {head}"
        worksheet.write_string(row - 1, first, title, look.head_title)
        for i in range(width):
            if placed.band.shape[2] == "key":
                label = _label(plan, "tokens", i)
                worksheet.write_formula(row, first + i, f"=$B${cells.row + i + 1}", look.key_title, label)
            else:
                worksheet.write_number(row, first + i, i, look.column_title)


def _write_column_title(worksheet: Any, look: Look, plan: Plan, placed: Placed, i: int) -> None:
    """A token, or a head."""
    row, column = placed.cells.row - 1, placed.cells.column + i
    if placed.band.shape[1] == "n_head":
        worksheet.write_string(row, column, f"head {i}", look.column_title)
    else:
        cell = plan.layout.names["tokens"].rows(i, i + 1).seen_from(placed.cells.sheet)
        worksheet.write_formula(row, column, f"={cell}", look.key_title, _label(plan, "tokens", i))


def _write_labels(worksheet: Any, look: Look, plan: Plan, placed: Placed) -> None:
    """What each row of a group stands for, in the columns that stay in sight."""
    if placed.band.rows == "vocab_size":
        _write_first_row(worksheet, plan.tables[placed.cells.sheet], (look.place, look.label))
        return
    for i in range(placed.cells.height):
        row = placed.cells.row + i
        if placed.band.rows == "token":
            for column, (name, style) in enumerate((("position", look.place), ("tokens", look.label))):
                source = plan.layout.names[name].rows(i, i + 1).absolute  # so that no two are alike
                worksheet.write_formula(row, column, f"={source}", style, _label(plan, name, i))
        elif placed.cells.height > 1:
            _write_number(worksheet, look, placed, i, 0)


def _write_number(worksheet: Any, look: Look, placed: Placed, i: int, column: int) -> None:
    """What a row that belongs to no token is called: its number from 1, or its block."""
    if placed.band.rows == "n_layer":
        worksheet.write_string(placed.cells.row + i, column, f"block {i}", look.label)
    else:
        worksheet.write_number(placed.cells.row + i, column, i + 1, look.place)


def _label(plan: Plan, name: str, row: int) -> Any:
    """What a label shows for a token's row: nothing where the row is not in use."""
    known = plan.values.get(name, ())
    value = known[row] if row < len(known) else ""
    return escaped(value) if isinstance(value, str) else value


def _write_cells(worksheet: Any, look: Look, plan: Plan, placed: Placed) -> None:
    """A blank cell where each row of the band begins (of a long table, the first); or cells to be filled in."""
    band, cells = placed.band, placed.cells
    style = look.cells[band.format][band.kind]
    if band.is_input:
        write_input(worksheet, look, plan, placed)
    if band.formula:
        for row in range(1 if band.rows == "vocab_size" or band.is_upright else cells.height):
            worksheet.write_blank(cells.row + row, cells.column, None, style)
    if band.scale:
        low, high = HEAT
        heat = {"type": "2_color_scale", "min_type": "num", "min_value": 0, "max_type": "num", "max_value": 1}
        bottom, right = cells.row + cells.height - 1, cells.column + cells.width - 1
        worksheet.conditional_format(
            cells.row, cells.column, bottom, right, heat | {"min_color": low, "max_color": high}
        )
    if band.tint:
        corners = (cells.row, cells.column, cells.row + cells.height - 1, cells.column + cells.width - 1)
        worksheet.conditional_format(*corners, _tint(band.tint))
    if band.shade:
        _write_shades(worksheet, look, cells, plan.layout.names[band.shade])


def _write_shades(worksheet: Any, look: Look, cells: Range, shares: Range) -> None:
    """Colour each cell by what the cell at its place in another band shows, from 0 to 1."""
    corners = (cells.row, cells.column, cells.row + cells.height - 1, cells.column + cells.width - 1)
    for step in range(SHADES, 0, -1):
        least = (step - 0.5) / SHADES
        rule = {"type": "formula", "criteria": f"=N({shares.first})>={least}", "stop_if_true": True}
        worksheet.conditional_format(*corners, rule | {"format": look.format(bg_color=shade(step / SHADES))})


def _write_charts(book: Any, worksheet: Any, plan: Plan, sheet: Sheet) -> None:
    names = plan.layout.names
    heights: dict[str, int] = {}  # of the charts that stand beside a band already
    for item in sheet.stage.charts:
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
                }
            )
        chart.set_title({"name": item.title, "name_font": {"size": 12, "bold": False, "color": MUTED}})
        chart.set_legend({"none": len(item.values) == 1, "position": "bottom"})
        chart.set_chartarea({"border": {"none": True}})
        grid: dict[str, Any] = {"major_gridlines": {"visible": True, "line": {"color": LINE}}, "line": {"none": True}}
        axis = grid | AXIS.get(values[0].band.format, {}) | ({"log_base": 10, "min": 1} if item.log else {})
        if item.type == "bar":  # from the top, as the cells are
            chart.set_y_axis({"reverse": True, "crossing": "max", "major_gridlines": {"visible": False}})
            chart.set_x_axis(axis)
        else:
            chart.set_y_axis(axis)
        chart.set_size({"width": item.size[0], "height": item.size[1]})
        above = heights.get(item.at, 0)
        heights[item.at] = above + item.size[1] + 8
        beside = plan.layout.bands.get(item.at)
        at = Range(sheet.name, beside.top, 1 + _end(sheet, beside)).first if beside else item.at
        worksheet.insert_chart(at, chart, {"description": item.title, "y_offset": above})


def _end(sheet: Sheet, placed: Placed) -> int:
    """The first column that is free beside a band and those on its rows."""
    group = next(group for group in sheet.groups if placed in group)
    return max(other.cells.column + other.cells.width for other in group)


def _write_vocabulary(worksheet: Any, look: Look, plan: Plan, before: str, after: str) -> None:
    """Every token: its id, its exact text, the text with spaces made visible, and its bytes."""
    about = (
        "What each id stands for. A token is a piece of text of one or more bytes; "
        "␣ is a space, \\xe2 a byte that is only part of a character."
    )
    _write_top(worksheet, look, "Vocabulary: all the tokens there are", about, before, after)
    worksheet.set_column(1, 2, 22)
    worksheet.set_column(3, 3, 40)
    for column, title in enumerate(("id", "token", "as shown", "bytes")):
        worksheet.write_string(FROZEN_ROWS - 1, column, title, look.column_title)
    styles = (look.place, look.text["weight"], look.text["weight"], look.mono)
    _write_first_row(worksheet, plan.tables["Vocabulary"], styles)


def _write_first_row(worksheet: Any, table: Table, styles: tuple[Any, ...]) -> None:
    """Blank cells in the styles of a long table's columns; workbook.py writes all its rows in them."""
    for column, style in enumerate(styles):
        worksheet.write_blank(table.row, column, None, style)


def _write_merges(worksheet: Any, look: Look, plan: Plan) -> None:
    """Which two tokens become one, sorted by a number that stands for the pair, so that it is found quickly."""
    about = (
        "Which two neighbours become one token. The lower the rank, the earlier. "
        "A pair is found by its number: 65,536 × the left id + the right id."
    )
    _write_top(worksheet, look, "Merges: how pieces grow into tokens", about, "Vocabulary", "Unicode")
    worksheet.set_column(3, 5, 18)
    worksheet.set_column(6, 6, 24)
    for column, title in enumerate(("pair", "token id", "rank", "left", "right", "becomes", "by rank: 0, 1, 2, …")):
        worksheet.write_string(FROZEN_ROWS - 1, column, title, look.column_title)
    styles = (look.whole["weight"],) * 3 + (look.label,) * 3 + (look.whole["weight"],)
    _write_first_row(worksheet, plan.tables["Merges"], styles)


def _write_unicode(worksheet: Any, look: Look, plan: Plan, after: str) -> None:
    """What kind of character each code point is, and the token of each byte."""
    about = (
        "L letter, N number, S white space, O anything else, from a code point to the next in the list, as tiktoken "
        "sees them. Beside it: the token that stands for each single byte."
    )
    _write_top(worksheet, look, "Unicode: what is a letter, and the tokens of bytes", about, "Merges", after)
    for column, title in enumerate(("from", "kind", "byte", "token id")):
        worksheet.write_string(FROZEN_ROWS - 1, column, title, look.column_title)
    whole = look.whole["weight"]
    _write_first_row(worksheet, plan.tables["Unicode"], (whole, look.text["weight"], look.place, whole))


def _write_weights(worksheet: Any, look: Look, weights: list[PlacedWeight]) -> None:
    """The way home and a line above each tensor.

    These cells are numbers that their format puts into words, so that a sheet of weights holds nothing but numbers.
    """
    worksheet.set_column(0, max(12, *(placed.cells.width for placed in weights)) - 1, 12)
    worksheet.freeze_panes(1, 0)
    worksheet.write_url(0, 0, f"internal:{quoted(HOME)}!A1", tip="Go to Home")
    sizes = [placed.cells.height * placed.cells.width for placed in weights]
    _write_worded(
        worksheet,
        0,
        sum(sizes),
        '"⌂ Home      "#,##0" weights"',
        look,
        color=ACCENT["activation"],
        underline=1,
    )
    for placed, count in zip(weights, sizes, strict=True):
        cells, weight = placed.cells, placed.weight
        words = f'"{weight.name}   {cells.height} × {cells.width} = "#,##0" weights: {weight.about}"'
        _write_worded(worksheet, cells.row - 1, count, words, look, color=ACCENT["weight"], bold=True)
        worksheet.conditional_format(
            cells.row,
            cells.column,
            cells.row + cells.height - 1,
            cells.column + cells.width - 1,
            _tint(0.5),
        )


def _write_worded(worksheet: Any, row: int, value: int, words: str, look: Look, color: str, **font: Any) -> None:
    worksheet.set_row(row, 22)
    style = look.format(num_format=words, align="left", font_color=color, **font)
    worksheet.merge_range(row, 0, row, 11, value, style)


def _tint(full: float) -> dict[str, Any]:
    """What is below zero in one colour, above it in the other, each at its strongest that far from zero."""
    low, middle, high = WEIGHTS
    edges: dict[str, Any] = {"min_value": -full, "mid_value": 0, "max_value": full}
    kinds = {f"{edge}_type": "num" for edge in ("min", "mid", "max")}
    colours = {"min_color": low, "mid_color": middle, "max_color": high}
    return {"type": "3_color_scale"} | kinds | edges | colours
