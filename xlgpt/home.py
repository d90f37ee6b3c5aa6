"""The home sheet: what a newcomer sees first."""

from dataclasses import dataclass
from typing import Any

from xlgpt.cells import escaped
from xlgpt.inputs import write_input
from xlgpt.layout import Range, quoted
from xlgpt.look import ACCENT, FILL, LINE, MUTED, PIECES, Look
from xlgpt.plan import Plan
from xlgpt.values import TOP

HOME = "Home"
FIRST, LAST = 1, 14  # the columns that the page uses, B to O
PROMPT = b"B7"  # the cell of that name
PROMPT_ROW, ANSWER_ROW, TOP_ROW = 6, 10, 17
FACTS_ROW = TOP_ROW + TOP + 4
PROMPTS_ROW = FACTS_ROW + 24
NAMED = ("context", "max_bytes", "new_tokens", "matmul", "precision")  # facts of the workbook that check reads too
PIECE_COLUMNS = (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14)  # F is too narrow

TRY = {
    "tiny": (
        "If today is Tuesday, tomorrow is",
        "If today is Friday, tomorrow is",
        "Mike is quick. He moves",
        "Michael Jordan plays the sport of",
        "The capital of France is",
        "Mike pulls out his",
        "Mike is a Jedi. He pulls out his",
        "Once upon a time",
    )
}
TRY_ANY = (
    "If today is Tuesday, tomorrow is",
    "Mike is quick. He moves",
    "Michael Jordan plays the sport of",
    "The capital of France is",
    "Mike pulls out his",
    "Once upon a time, there was a",
    "1, 2, 3, 4,",
    "def add(a, b): return",
)


def write_home(home: Any, book: Any, look: Look, plan: Plan) -> None:
    """Write the page; what it shows are ordinary cells, which keep their saved values in every program."""
    home.set_column(0, 0, 2.5)
    home.set_column(1, 1, 6)
    home.set_column(2, 2, 26)
    home.set_column(3, 4, 13)
    home.set_column(5, 5, 3)
    home.set_column(6, 14, 11)
    home.hide_gridlines(2)
    _write_head(home, look, plan)
    _write_prompt(home, book, look, plan)
    _write_answer(home, look, plan)
    _write_completion(home, look, plan)
    _write_top(home, book, look, plan)
    _write_facts(home, book, look, plan)
    _write_map(home, look, plan)
    _write_prompts(home, look, plan)
    home.set_landscape()
    home.fit_to_pages(1, 1)


def _write_head(home: Any, look: Look, plan: Plan) -> None:
    home.set_row(1, 36)
    home.write_string(
        1,
        FIRST,
        f"{plan.model.name}: a language model in a spreadsheet",
        look.format(bold=True, font_size=24),
    )
    n = f"{plan.model.parameters:,}"
    lines = (
        f"All {n} numbers that this model has learned stand in the cells of this workbook, "
        "and every step from a prompt to the next word is a formula.",
        "Nothing else is at work: no macro, no add-in, no network. Click on any number to see where it comes from.",
    )
    for i, line in enumerate(lines):
        home.write_string(2 + i, FIRST, line, look.format(font_size=12, font_color=MUTED))


def _write_prompt(home: Any, book: Any, look: Look, plan: Plan) -> None:
    home.write_string(PROMPT_ROW - 1, FIRST, "PROMPT", look.heading["input"])
    home.set_row(PROMPT_ROW, 42)
    style = look.format(
        font_size=18,
        bg_color=FILL["input"],
        border=1,
        border_color=ACCENT["input"],
        text_wrap=True,
        indent=1,
        num_format="@",
    )
    home.merge_range(PROMPT_ROW, FIRST, PROMPT_ROW, LAST, "", style)
    home.write_blank(PROMPT_ROW, FIRST, None, style)  # workbook.py puts the prompt in
    book.define_name("prompt", f"={HOME}!$B${PROMPT_ROW + 1}")
    home.write_url(
        PROMPT_ROW + 2,
        FIRST,
        "internal:Tokens!A1",
        look.link,
        "Type any text, or choose one from the list in the cell. The sheet Tokens shows how it is cut.",
    )
    _write_pieces(home, look, plan)


def _write_pieces(home: Any, look: Look, plan: Plan) -> None:
    """The prompt's tokens under it, one in each cell; the last cell counts those that there is no room for."""
    for i, column in enumerate(PIECE_COLUMNS):
        text = f'IF(n_tokens>{i},INDEX(tokens,{i + 1}),"")'
        if column == PIECE_COLUMNS[-1]:
            text = f'IF(n_tokens>{i + 1},"+ "&(n_tokens-{i})&" more",{text})'
        home.write_formula(PROMPT_ROW + 1, column, f"={text}", look.piece, escaped(piece(plan, i)))
        cell = Range(HOME, PROMPT_ROW + 1, column).first
        style = look.format(bg_color=PIECES[i % len(PIECES)], border=1, border_color=LINE)
        # No formula: in manual mode LibreOffice calculates none that a format depends on.
        home.conditional_format(cell, {"type": "cell", "criteria": ">", "value": '""', "format": style})


def piece(plan: Plan, i: int) -> str:
    """What the cell of the prompt's i-th token shows."""
    tokens = plan.values["tokens"][: plan.values["n_tokens"][0]]
    if len(tokens) > len(PIECE_COLUMNS) == i + 1:
        return f"+ {len(tokens) - i} more"
    return str(tokens[i]) if i < len(tokens) else ""


def _write_prompts(home: Any, look: Look, plan: Plan) -> None:
    """Prompts to try, and the list in the prompt's cell that offers them; any other text will do as well."""
    encode, room = plan.model.tokenizer.encode, plan.layout.room
    known = TRY.get(plan.model.name, TRY_ANY)
    fit = [text for text in known if len(text.encode()) <= room.max_bytes and len(encode(text)) <= room.context]
    if not fit:
        return
    home.write_string(PROMPTS_ROW, FIRST, "PROMPTS TO TRY", look.heading["input"])
    for i, text in enumerate(fit, PROMPTS_ROW + 1):
        home.write_string(i, FIRST, text, look.note)
    listed = Range(HOME, PROMPTS_ROW + 1, FIRST, len(fit)).absolute
    home.data_validation(
        PROMPT_ROW, FIRST, PROMPT_ROW, FIRST, {"validate": "list", "source": f"={listed}", "show_error": False}
    )


def _write_answer(home: Any, look: Look, plan: Plan) -> None:
    home.write_string(ANSWER_ROW - 1, FIRST, "NEXT TOKEN", look.heading["answer"])
    home.set_row(ANSWER_ROW, 54)
    style = look.format(
        font_size=32,
        bold=True,
        bg_color=FILL["answer"],
        border=1,
        border_color=ACCENT["answer"],
        font_color=ACCENT["answer"],
        indent=1,
    )
    home.merge_range(ANSWER_ROW, FIRST, ANSWER_ROW, 4, "", style)
    home.write_formula(ANSWER_ROW, FIRST, "=next_token", style, _saved(plan, "next_token"))
    home.write_formula(
        ANSWER_ROW + 1,
        FIRST,
        f'=IF(status="ok",n_tokens&" of {plan.layout.room.context} rows for tokens are in use.",status)',
        look.note,
        _usage(plan),
    )
    home.write_string(
        ANSWER_ROW + 3,
        FIRST,
        "Change something, then press F9: only what follows from it is calculated."
        if plan.manual
        else "This workbook calculates by itself: change something, and the answer follows.",
        look.note,
    )
    operated = _operated(plan)
    if operated:
        home.write_formula(ANSWER_ROW + 2, FIRST, f"={operated}", look.format(font_color=ACCENT["input"]), "")


def _operated(plan: Plan) -> str:
    """A formula that says what was done to the model on the sheets Circuit and Steering; at first, nothing was."""
    said = []
    if "circuit.heads" in plan.layout.names:
        off = "SUMPRODUCT((circuit.heads<>1)*1)+SUMPRODUCT((circuit.mlps<>1)*1)"
        said.append(f'IF({off}=0,"","Switched off or down: "&{off}&". ")')
    if "steering.status" in plan.layout.names:
        said.append('IF(N(steering.on)=0,"",steering.status)')
    return "&".join(said)


def _write_completion(home: Any, look: Look, plan: Plan) -> None:
    """What the model writes behind the prompt, and the cells that say how."""
    home.write_string(ANSWER_ROW - 1, 6, "AND SO IT GOES ON", look.heading["answer"])
    fill, line = FILL["answer"], ACCENT["answer"]
    style = look.format(font_size=14, bg_color=fill, border=1, border_color=line, text_wrap=True, indent=1)
    home.merge_range(ANSWER_ROW, 6, ANSWER_ROW, LAST, "", style)
    home.write_formula(ANSWER_ROW, 6, "=completion", style, _saved(plan, "completion"))
    for placed in plan.layout.bands.values():
        if placed.cells.sheet == HOME:
            row, column = placed.cells.row, placed.cells.column
            home.write_string(row - 1, column, placed.band.title, look.column_title)
            write_input(home, look, plan, placed)
            says = {"input_title": placed.band.title, "input_message": placed.band.about}
            home.data_validation(row, column, row, column, {"validate": "any"} | says)
    text = '=IF(generation_status="ok",n_written&" tokens written.",generation_status)'
    home.write_formula(ANSWER_ROW + 3, 6, text, look.note, _writing(plan))


def _writing(plan: Plan) -> str:
    """What the line below the completion says at first."""
    status, count = (plan.values[name][0] for name in ("generation_status", "n_written"))
    return f"{count} tokens written." if status == "ok" else str(status)


def _usage(plan: Plan) -> str:
    """What the line below the answer says at first."""
    status = str(plan.values["status"][0])
    return (
        f"{plan.values['n_tokens'][0]} of {plan.layout.room.context} rows for tokens are in use."
        if status == "ok"
        else status
    )


def _saved(plan: Plan, name: str, row: int = 0) -> Any:
    """What a cell of a band shows; nothing where there is no token."""
    value = plan.values[name][row] if name in plan.values else ""
    return escaped(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class _Column:
    column: int
    title: str
    band: str
    style: Any


def _write_top(home: Any, book: Any, look: Look, plan: Plan) -> None:
    home.write_string(TOP_ROW - 2, FIRST, "THE TEN MOST LIKELY", look.heading["answer"])
    columns = (
        _Column(2, "token", "top.token", look.format(bg_color=FILL["answer"], num_format="@", font_size=12)),
        _Column(
            3,
            "probability",
            "top.probability",
            look.format(bg_color=FILL["answer"], num_format="0.0%", font_size=12),
        ),
        _Column(4, "logit", "top.logit", look.format(bg_color=FILL["answer"], num_format="0.00", font_size=12)),
    )
    for item in columns:
        home.write_string(TOP_ROW - 1, item.column, item.title, look.column_title)
        source = plan.layout.names[item.band]
        for i in range(TOP):
            cell = source.rows(i, i + 1).seen_from(HOME)
            home.write_formula(TOP_ROW + i, item.column, f"={cell}", item.style, _saved(plan, item.band, i))
    for i in range(TOP):
        home.write_number(TOP_ROW + i, FIRST, i + 1, look.place)
    chart = book.add_chart({"type": "bar"})
    rows = (TOP_ROW, TOP_ROW + TOP - 1)
    chart.add_series(
        {
            "name": "probability",
            "categories": [HOME, rows[0], 2, rows[1], 2],
            "values": [HOME, rows[0], 3, rows[1], 3],
            "fill": {"color": ACCENT["answer"]},
            "gap": 40,
            "data_labels": {"value": True, "num_format": "0%", "font": {"color": MUTED}},
        }
    )
    chart.set_legend({"none": True})
    chart.set_title(
        {
            "name": "How likely each token is to come next",
            "name_font": {"size": 12, "bold": False, "color": MUTED},
            "overlay": False,
        }
    )
    chart.set_y_axis({"reverse": True, "line": {"none": True}, "num_font": {"size": 11}, "major_tick_mark": "none"})
    chart.set_x_axis({"visible": False, "major_gridlines": {"visible": False}, "min": 0, "max": 1})
    chart.set_chartarea({"border": {"none": True}})
    chart.set_size({"width": 720, "height": 262})
    home.insert_chart(TOP_ROW - 2, 6, chart, {"description": "Bar chart of the ten most likely next tokens"})


def _write_facts(home: Any, book: Any, look: Look, plan: Plan) -> None:
    """The model's facts; each number is named by its key of config.json, and check reads them from here."""
    home.write_string(FACTS_ROW, FIRST, "THE MODEL", look.heading["weight"])
    config, model = plan.model.config, plan.model
    facts: list[tuple[str, str, Any]] = [
        ("model", "model", model.name),
        ("source", "source", model.source),
        ("licence", "licence", model.licence),
        ("parameters", "parameters", model.parameters),
        ("blocks", "n_layer", config.n_layer),
        ("heads in each block", "n_head", config.n_head),
        ("width of a token's vector", "n_embd", config.n_embd),
        ("neurons in each MLP", "n_inner", config.n_inner),
        ("tokens in the vocabulary", "vocab_size", config.vocab_size),
        ("positions it was trained for", "n_positions", config.n_positions),
        ("rows for tokens in this workbook", "context", plan.layout.room.context),
        ("bytes that a prompt may have", "max_bytes", plan.layout.room.max_bytes),
        ("tokens that it can write", "new_tokens", plan.layout.room.new_tokens),
        ("how matrices are multiplied", "matmul", plan.layout.room.matmul),
        ("digits of a weight", "precision", model.precision),
        ("layer norm's small number", "layer_norm_epsilon", config.layer_norm_epsilon),
        ("activation function", "activation_function", config.activation_function),
        ("scores are divided by √(head width)", "scale_attn_weights", config.scale_attn_weights),
        (
            "scores are divided by the block's number",
            "scale_attn_by_inverse_layer_idx",
            config.scale_attn_by_inverse_layer_idx,
        ),
        ("LM head is the token embedding", "tie_word_embeddings", config.tie_word_embeddings),
    ]
    left = {"align": "left", "bottom": 1, "bottom_color": LINE}
    whole, text = look.format(num_format="#,##0", **left), look.format(num_format="@", shrink=True, **left)
    truth = look.format(num_format='"yes";"yes";"no"', **left)
    digits = look.format(num_format='0;;"exact float32"', **left)
    small, label = (
        look.format(num_format="0.0E+00", **left),
        look.format(font_color=MUTED, bottom=1, bottom_color=LINE),
    )
    for i, (title, name, value) in enumerate(facts, FACTS_ROW + 1):
        home.merge_range(i, FIRST, i, 2, title, label)
        style = digits if name == "precision" else {str: text, float: small, bool: truth, int: whole}[type(value)]
        home.merge_range(i, 3, i, 4, "", style)
        # A number, not TRUE: LibreOffice loads a boolean as a formula, and does not calculate it in manual mode.
        home.write(i, 3, int(value) if isinstance(value, bool) else value, style)
        book.define_name(name if name in vars(config) or name in NAMED else f"about.{name}", f"={HOME}!$D${i + 1}")


def _write_map(home: Any, look: Look, plan: Plan) -> None:
    home.write_string(FACTS_ROW, 6, "THE WAY THROUGH THE WORKBOOK", look.heading["activation"])
    row = FACTS_ROW + 1
    stops = [(sheet.name, sheet.stage.title.partition(": ")[2] or sheet.stage.title) for sheet in plan.layout.sheets]
    stops.append(("Vocabulary", "all the tokens there are, with their ids"))
    stops.append(("Merges", "how pieces of text grow into tokens"))
    stops.append(("Unicode", "which characters are letters, numbers and white space"))
    for name, title in stops:
        home.write_url(row, 6, f"internal:{quoted(name)}!A1", look.link, name, f"Go to {name}")
        home.write_string(row, 8, title, look.note)
        row += 1
    home.write_string(row, 6, "Weights", look.note)
    for i, name in enumerate(plan.layout.weight_sheets()):
        home.write_url(row + i // 7, 8 + i % 7, f"internal:{quoted(name)}!A1", look.link, name, f"Go to {name}")
    row += (len(plan.layout.weight_sheets()) - 1) // 7 + 2
    legend = (
        ("input", "you may change it"),
        ("activation", "calculated"),
        ("answer", "the answer"),
        ("weight", "learned: a weight"),
    )
    home.write_string(row, 6, "Colours", look.note)
    for i, (kind, words) in enumerate(legend):
        home.write_string(row + i, 8, "", look.format(bg_color=FILL[kind], border=1, border_color=LINE))
        home.write_string(row + i, 9, words, look.note)
