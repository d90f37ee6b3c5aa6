"""The home sheet: what a newcomer sees first. What stands where is in templates/home.toml."""

from collections.abc import Callable, Sequence
from typing import Any

from xlgpt.compiler.page import HOME, Cell, Page, home_page, is_joined
from xlgpt.compiler.sentences import say
from xlgpt.errors import TemplateError
from xlgpt.workbook.input_cells import write_input
from xlgpt.workbook.plan import Plan
from xlgpt.workbook.styles import ACCENT, FILL, LINE, MUTED, PIECES, Styles, colour_verdicts
from xlgpt.xlsx.ranges import Range, quoted

NAMED = ("context", "max_bytes", "new_tokens", "matmul", "precision")  # facts of the workbook that check reads too
LINKS_IN_A_ROW = 7  # to sheets of weights


def write_home(home: Any, book: Any, styles: Styles, plan: Plan) -> None:
    """Write the page; what it shows are ordinary cells, which keep their saved values in every program.

    Raises TemplateError.
    """
    page = home_page()
    for columns, width in page.widths.items():
        first, _, last = columns.partition(":")
        home.set_column(f"{first}:{last or first}", width)
    home.hide_gridlines(2)
    for cell in page.cells:
        if not cell.views or set(cell.views) & set(plan.layout.room.sheets):
            _write_cell(home, book, styles, plan, page, cell)
    _write_inputs(home, styles, plan)
    _write_chart(home, book, page)
    _write_facts(home, book, styles, plan, page)
    _write_map(home, styles, plan, page)
    _write_prompts(home, book, styles, plan, page)
    home.set_landscape()
    home.fit_to_pages(1, 1)


def _write_cell(home: Any, book: Any, styles: Styles, plan: Plan, page: Page, cell: Cell) -> None:
    """A text, a link, numbers from 1 or formulas; a merged cell has a place of several."""
    areas = page.areas(cell)
    area = areas[0]
    style, row, column = _style(page, styles, cell), area.row, area.column
    if cell.height:
        home.set_row(row, cell.height)
    text = page.text(cell.text, _words(plan)) if cell.text else ""
    if is_joined(cell, areas):
        home.merge_range(row, column, row + area.height - 1, column + area.width - 1, text, style)
    if cell.name:
        book.define_name(cell.name, f"={area.cell(0, 0).absolute}")
    if cell.formula:
        _write_formulas(home, styles, plan, page, cell, style)
    elif cell.link:
        home.write_url(row, column, f"internal:{quoted(cell.link)}!A1", style, text)
    elif not cell.text:
        for i in range(cell.rows):
            home.write_number(row + i, column, i + 1, style)
    elif not is_joined(cell, areas):
        home.write_string(row, column, text, style)
    if cell.colour:
        colour_verdicts(home, styles, area)


def _write_formulas(home: Any, styles: Styles, plan: Plan, page: Page, cell: Cell, style: Any) -> None:
    areas = page.areas(cell)
    width = 1 if is_joined(cell, areas) else None
    places = [area.cell(i, j) for i in range(cell.rows) for area in areas for j in range(width or area.width)]
    shown = _shown(plan, page, cell, len(places))
    for place, formula, value in zip(places, page.formulas(cell, plan.layout), shown, strict=True):
        home.write_formula(place.row, place.column, f"={formula}", style, value)
    if cell.style == "piece":
        for i, place in enumerate(places):
            colours = styles.format(bg_color=PIECES[i % len(PIECES)], border=1, border_color=LINE)
            # No formula: in manual mode LibreOffice calculates none that a format depends on.
            home.conditional_format(place.first, {"type": "cell", "criteria": ">", "value": '""', "format": colours})


def _style(page: Page, styles: Styles, cell: Cell) -> Any:
    """A style of the page, one that all sheets have, or the heading of a kind."""
    name, _, kind = cell.style.partition(" ")
    if name not in page.style:
        return styles.heading[kind] if kind else getattr(styles, name)
    given = dict(page.style[name])
    colours = {"muted": MUTED, "line": LINE} | ACCENT
    given |= {key: colours[given[key]] for key in ("font_color", "border_color") if key in given}
    given |= {"bg_color": FILL[given["bg_color"]]} if "bg_color" in given else {}
    given |= {"border": 1} if "border_color" in given else {}
    return styles.format(**given)


def _words(plan: Plan) -> dict[str, str]:
    """What a text of the page may name."""
    parameters, calculates = f"{plan.model.parameters:,}", "manual" if plan.manual else "auto"
    return {"model": plan.model.name, "parameters": parameters, "prompt": plan.prompt, "calculates": calculates}


def _shown(plan: Plan, page: Page, cell: Cell, count: int) -> Sequence[Any]:
    """What the cells of a formula show: what a function here says, or the band that the formula names."""
    if cell.shows and cell.shows not in SHOWN:
        raise TemplateError(f"{page.file}: the shows {cell.shows!r} of {cell.at} is none of {', '.join(SHOWN)}.")
    if cell.shows:
        return SHOWN[cell.shows](plan, count)
    band = cell.formula.strip("{}")
    return list(plan.values[band][:count]) if band in plan.values else [""] * count


def _pieces(plan: Plan, count: int) -> list[str]:
    """The prompt's tokens, one in each cell; the last cell counts those that there is no room for."""
    tokens = [str(token) for token in plan.values["tokens"][: plan.values["n_tokens"][0]]]
    if len(tokens) > count:
        tokens[count - 1] = say("home", "more", more=len(tokens) - count + 1)
    return [*tokens, *[""] * count][:count]


def _changed(plan: Plan, _: int) -> list[str]:
    """What was done to the model on the sheets Circuit, Adapters and Steering; at first, nothing was."""
    return [_done(plan)]


def _done(plan: Plan) -> str:
    """What that formula shows."""
    settings, said = plan.settings, ""
    if "circuit.heads" in settings.cells:
        off = sum(int((settings.cells[name] != 1).sum()) for name in ("circuit.heads", "circuit.mlps"))
        said += say("home", "ablated", off=off) if off else ""
    if "adapter.on" in settings.cells and settings.counted("adapter.on"):
        said += f"{plan.values['adapter.status'][0]} "
    if "steering.on" in settings.cells and settings.counted("steering.on"):
        said += str(plan.values["steering.status"][0])
    return said


def _written(plan: Plan, _: int) -> list[str]:
    """What the line below the completion says at first."""
    status, count = (plan.values[name][0] for name in ("generation_status", "n_written"))
    return [say("home", "written", n_written=count) if status == "ok" else str(status)]


def _usage(plan: Plan, _: int) -> list[str]:
    """What the line below the answer says at first."""
    status, tokens = str(plan.values["status"][0]), plan.values["n_tokens"][0]
    return [say("home", "usage", n_tokens=tokens, context=plan.layout.room.context) if status == "ok" else status]


SHOWN: dict[str, Callable[[Plan, int], list[str]]] = {
    "pieces": _pieces,
    "changed": _changed,
    "written": _written,
    "usage": _usage,
}


def _write_inputs(home: Any, styles: Styles, plan: Plan) -> None:
    """The bands of other sheets that stand here, each below its title."""
    for placed in plan.layout.bands.values():
        if placed.cells.sheet == HOME:
            row, column = placed.cells.row, placed.cells.column
            home.write_string(row - 1, column, placed.band.title, styles.column_title)
            write_input(home, styles, plan, placed)
            says = {"input_title": placed.band.title, "input_message": placed.band.about}
            home.data_validation(row, column, row, column, {"validate": "any"} | says)


def _write_chart(home: Any, book: Any, page: Page) -> None:
    drawn = page.chart
    chart = book.add_chart({"type": "bar"})
    chart.add_series(
        {
            "name": drawn.series,
            "categories": f"={page.area(drawn.categories).absolute}",
            "values": f"={page.area(drawn.values).absolute}",
            "fill": {"color": ACCENT["answer"]},
            "gap": 40,
            "data_labels": {"value": True, "num_format": "0%", "font": {"color": MUTED}},
        }
    )
    chart.set_legend({"none": True})
    chart.set_title(
        {
            "name": drawn.title,
            "name_font": {"size": 12, "bold": False, "color": MUTED},
            "overlay": False,
        }
    )
    chart.set_y_axis({"reverse": True, "line": {"none": True}, "num_font": {"size": 11}, "major_tick_mark": "none"})
    chart.set_x_axis({"visible": False, "major_gridlines": {"visible": False}, "min": 0, "max": 1})
    chart.set_chartarea({"border": {"none": True}})
    chart.set_size({"width": drawn.size[0], "height": drawn.size[1]})
    home.insert_chart(drawn.at, chart, {"description": drawn.about})


def _write_facts(home: Any, book: Any, styles: Styles, plan: Plan, page: Page) -> None:
    """The model's facts; each number is named by its key of config.json, and check reads them from here."""
    config, model, room, top = plan.model.config, plan.model, plan.layout.room, page.area(page.facts.at)
    home.write_string(top.row, top.column, page.facts.title, styles.heading["weight"])
    known = {"model": model.name, "source": model.source, "licence": model.licence, "parameters": model.parameters}
    known |= {"precision": model.precision} | vars(room) | vars(config)
    for name in page.facts.names:
        if name not in known:
            raise TemplateError(f"{page.file}: the fact {name!r} is none of the model's.")
    left = {"align": "left", "bottom": 1, "bottom_color": LINE}
    whole, text = styles.format(num_format="#,##0", **left), styles.format(num_format="@", shrink=True, **left)
    truth = styles.format(num_format='"yes";"yes";"no"', **left)
    digits = styles.format(num_format='0;;"exact float32"', **left)
    small, label = (
        styles.format(num_format="0.0E+00", **left),
        styles.format(font_color=MUTED, bottom=1, bottom_color=LINE),
    )
    for i, (name, title) in enumerate(page.facts.names.items(), top.row + 1):
        value, column = known[name], top.column + 2
        home.merge_range(i, top.column, i, top.column + 1, title, label)
        style = digits if name == "precision" else {str: text, float: small, bool: truth, int: whole}[type(value)]
        home.merge_range(i, column, i, column + 1, "", style)
        # A number, not TRUE: LibreOffice loads a boolean as a formula, and does not calculate it in manual mode.
        home.write(i, column, int(value) if isinstance(value, bool) else value, style)
        book.define_name(
            name if name in vars(config) or name in NAMED else f"about.{name}", f"={Range(HOME, i, column).absolute}"
        )


def _write_map(home: Any, styles: Styles, plan: Plan, page: Page) -> None:
    top, weights = page.area(page.map.at), plan.layout.weight_sheets()
    row, column = top.row + 1, top.column
    home.write_string(top.row, column, page.map.title, styles.heading["activation"])
    stops = {sheet.name: sheet.stage.title.partition(": ")[2] or sheet.stage.title for sheet in plan.layout.sheets}
    for name, title in (stops | page.map.tables).items():
        home.write_url(row, column, f"internal:{quoted(name)}!A1", styles.link, name, f"Go to {name}")
        home.write_string(row, column + 2, title, styles.note)
        row += 1
    home.write_string(row, column, page.map.weights, styles.note)
    for i, name in enumerate(weights):
        down, across = divmod(i, LINKS_IN_A_ROW)
        link = f"internal:{quoted(name)}!A1"
        home.write_url(row + down, column + 2 + across, link, styles.link, name, f"Go to {name}")
    row += (len(weights) - 1) // LINKS_IN_A_ROW + 2
    home.write_string(row, column, page.map.colours, styles.note)
    for i, (kind, words) in enumerate(page.map.kinds.items()):
        style = styles.format(bg_color=FILL[kind], border=1, border_color=LINE)
        home.write_string(row + i, column + 2, "", style)
        home.write_string(row + i, column + 3, words, styles.note)


def _write_prompts(home: Any, book: Any, styles: Styles, plan: Plan, page: Page) -> None:
    """Prompts to try, and the list in the prompt's cell that offers them; any other text will do as well."""
    encode, room = plan.model.tokenizer.encode, plan.layout.room
    known = plan.model.companions.prompts or page.prompts.texts
    fit = [text for text in known if len(text.encode()) <= room.max_bytes and len(encode(text)) <= room.context]
    if not fit:
        return
    top = page.area(page.prompts.at)
    home.write_string(top.row, top.column, page.prompts.title, styles.heading["input"])
    for i, text in enumerate(fit, 1):
        home.write_string(top.row + i, top.column, text, styles.note)
    listed = Range(HOME, top.row + 1, top.column, len(fit)).absolute
    book.define_name("prompts", f"={listed}")  # check reads from here what there is to try
    prompt = page.area(next(cell.at for cell in page.cells if cell.name == "prompt"))
    rule = {"validate": "list", "source": f"={listed}", "show_error": False}
    home.data_validation(prompt.row, prompt.column, prompt.row, prompt.column, rule)
