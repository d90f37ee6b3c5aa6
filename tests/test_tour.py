"""What docs/tour.md says stands in the cells of the bundled model's workbook, held against the workbook."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import xlgpt
from xlgpt.compiler.settings import Settings
from xlgpt.engines import FormulasLibrary
from xlgpt.model import reference
from xlgpt.model.checkpoint import load
from xlgpt.workbook.book import Book

TOUR = (Path(__file__).parents[1] / "docs" / "tour.md").read_text(encoding="utf-8")
LINE = re.compile(
    r"Prompt: `(?P<prompt>.+)`"
    r"|Set `(?P<set>[\w.]+)` to `(?P<to>.+)`\."
    r"|\| `(?P<name>[\w.]+)`(?P<where>.*?) \| (?P<shown>.+) \|"
)
NUMBER = re.compile(r"(-?\d+(?:\.(\d+))?)(%?)")


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Book:
    path = tmp_path_factory.mktemp("tour") / "tour.xlsx"
    xlgpt.build(path, model="tiny", context=12, max_bytes=48, sheets="lens,tracing,adapters,circuit,steering,features")
    return Book(path)


def claims() -> Iterator[tuple[str, tuple[tuple[str, str], ...], list[re.Match[str]]]]:
    """Each prompt, what is set, and what is said of it."""
    prompt, settings, said = "", {}, []
    for line in LINE.finditer(TOUR):
        if line["prompt"] or line["set"]:
            if said:
                yield prompt, tuple(settings.items()), said
            said = []
        if line["prompt"]:
            prompt, settings = line["prompt"], {}
        elif line["set"]:
            settings[line["set"]] = line["to"]
        else:
            said.append(line)
    yield prompt, tuple(settings.items()), said


def cell(book: Book, name: str, where: str) -> tuple[int, int]:
    """The row and column within a band that the tour's words mean."""
    said = {word: int(number) for word, number in re.findall(r", ([a-z ]+) (\d+)", where)}
    row = said.get("position", said.get("place", 1) - 1)
    column = said.get("number", said.get("in block", said.get("block", -1) + 1))
    if "head" in said:
        column = said["head"] * (book.named(name).width // book.config.n_head) + said["at position"]
    return row, column


def agrees(value: object, shown: str) -> bool:
    """Whether a value, rounded as the tour rounds, is what the tour says."""
    if shown == "nothing":
        return value == ""
    number = NUMBER.fullmatch(shown)
    if not number:
        return str(value).replace(" ", "␣") == shown
    by = 100 if number[3] else 1
    return bool(abs(float(str(value)) * by - float(number[1])) <= 0.5 * 10 ** -len(number[2] or "") + 1e-9)


@pytest.mark.quick(2)
@pytest.mark.parametrize(("prompt", "settings", "said"), list(claims()), ids=lambda value: str(value)[:40])
def test_the_cells_show_what_the_tour_says(
    tour: Book, prompt: str, settings: tuple[tuple[str, str], ...], said: list[re.Match[str]]
) -> None:
    engine = FormulasLibrary(tour)
    chosen: Settings = tour.settings.changed({name: float(to) if to.isdecimal() else to for name, to in settings})
    engine.calculate(tour.prompt_of(prompt), chosen)
    for claim in said:
        value = engine.read(tour.named(claim["name"]))[cell(tour, claim["name"], claim["where"])]
        assert agrees(value, claim["shown"]), (prompt, claim[0], value)


def test_every_table_is_read() -> None:
    rows = [line for line in TOUR.splitlines() if line.startswith("| `")]
    assert len(rows) == sum(len(said) for _, _, said in claims()) > 40


def test_a_neuron_for_tuesday() -> None:
    """Yes to Tuesday, no to the six other days; and what it writes speaks for Wednesday."""
    model = load("tiny")
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    fires = {}
    for day in days:
        ids = model.tokenizer.encode(f"If today is {day}, tomorrow is")
        fires[day] = reference.forward(ids, model.weights, model.config)["blocks.1.mlp.post"][-1, 205]
    assert fires.pop("Tuesday") > 2
    assert max(fires.values()) < 0.01
    written = model.weights.tensor("h.1.mlp.c_proj.weight")[205] * model.weights.tensor("ln_f.weight")
    first = np.argsort(-(model.weights.tensor("wte.weight") @ written))[:3]
    assert " Wednesday" in [model.tokenizer.text(int(i)) for i in first]


def test_what_the_prose_says() -> None:
    """Every day of the week but the answer is among the nine after it; 7 points are 1,300 times; one word, two rows."""
    from xlgpt.compiler.layout import lay_out
    from xlgpt.compiler.settings import defaults
    from xlgpt.compiler.template import Room
    from xlgpt.oracle.values import expected

    model = load("tiny")
    layout = lay_out(model.config, Room(12, 48, 4), len(model.tokenizer.merges))
    values = expected("If today is Tuesday, tomorrow is", model, layout, defaults(layout, is_large=False))
    days = {f"␣{day}day" for day in ("Mon", "Tues", "Thurs", "Fri", "Satur", "Sun")}
    assert days <= set(values["top.token"][1:9])
    assert 1250 < np.exp(values["top.logit"][0] - values["top.logit"][1]) < 1350
    assert (values["embed"][2] == values["embed"][6]).all()
    assert not np.isclose(values["blocks.0.resid_pre"][2], values["blocks.0.resid_pre"][6]).all()


@pytest.mark.quick(1)
@pytest.mark.parametrize(("day", "after"), [("Friday", "Saturday"), ("Tuesday", "Wednesday"), ("Sunday", "Monday")])
def test_three_components_are_enough(tour: Book, day: str, after: str) -> None:
    heads, mlps = np.zeros((4, 4)), np.zeros(tour.settings.cells["circuit.mlps"].shape)
    heads[0, 2] = heads[0, 3] = mlps.flat[0] = 1
    engine = FormulasLibrary(tour)
    settings = tour.settings.changed({"circuit.heads": heads, "circuit.mlps": mlps, "max_new_tokens": 0})
    engine.calculate(tour.prompt_of(f"If today is {day}, tomorrow is"), settings)
    assert engine.read(tour.named("next_token"))[0, 0] == f" {after}"


@pytest.mark.slow
def test_so_many_cells_have_formulas(tmp_path: Path) -> None:
    said = re.search(r"more than ([\d,]+) cells with formulas", TOUR)
    assert said
    xlgpt.build(tmp_path / "tour.xlsx", model="tiny")
    book = Book(tmp_path / "tour.xlsx")
    sheets = [book.cells(name) for name in book.sheets if name not in book.weights.sheets]
    found = sum(formula.cells.height * formula.cells.width for sheet in sheets for formula in sheet.formulas)
    assert 1 < found / int(said[1].replace(",", "")) < 1.1
