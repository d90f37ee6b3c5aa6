"""The sheet Proof: it agrees where all is right, turns red by name where something is wrong, and not otherwise."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import openpyxl
import pytest

import xlgpt
from xlgpt.compiler.template import forward
from xlgpt.engines import FormulasLibrary
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.errors import UsageError
from xlgpt.model.checkpoint import in_memory, load
from xlgpt.oracle.run import Run
from xlgpt.oracle.views.proof import ENOUGH, proof
from xlgpt.workbook.book import Book
from xlgpt.workbook.options import Options
from xlgpt.workbook.plan import make_plan
from xlgpt.xlsx.ranges import Range

PROMPT = "If today is Tuesday, tomorrow is"
SMALL = "random:n_layer=1,n_embd=8,n_head=2,vocab_size=1280"
AGREEMENT = "This program calculates what NumPy does: 78 of 78 named ranges, largest difference below 0.000001."


@pytest.fixture(scope="module")
def thought() -> Run:
    """The bundled model at work on the prompt, with what the build stores."""
    plan = make_plan(load("tiny"), Options(prompt=PROMPT, context=12))
    return replace(plan._run, settings=plan.settings, model=in_memory(plan.model))


def with_values(thought: Run, name: str, values: np.ndarray) -> Run:
    return replace(thought, shows={**thought.shows, name: values})


@pytest.mark.slow
def test_one_wrong_number_shows(thought: Run) -> None:
    """300 single faults in any named range, each a hundred-thousandth of the range's length."""
    random, names = np.random.default_rng(0), [band.name for band in forward(thought.model.config)]
    for name in random.choice(names, 300):
        values = np.array(thought.shows[name], dtype=np.float64)
        rows = values[:7] if band_of_tokens(thought, name) else values
        finite = np.flatnonzero(np.isfinite(rows))
        rows.flat[random.choice(finite)] += 1e-5 * np.linalg.norm(rows.flat[finite]) * random.choice([-1, 1])
        found = proof(with_values(thought, name, values))
        assert found["proof.status"][0].endswith(f"1 of 78 named ranges differ, the first is {name}."), name


@pytest.mark.slow
def test_two_exchanged_numbers_show(thought: Run) -> None:
    """Two of the same range, which differ by at least a hundredth of its usual number."""
    random = np.random.default_rng(1)
    names = [band.name for band in forward(thought.model.config) if np.size(thought.shows[band.name]) > 1]
    seen = 0
    while seen < 300:
        name = random.choice(names)
        values = np.array(thought.shows[name], dtype=np.float64)
        finite = np.flatnonzero(np.isfinite(values[:7] if band_of_tokens(thought, name) else values))
        one, other = random.choice(finite, 2)
        usual = np.sqrt((values.flat[finite] ** 2).mean())
        if abs(values.flat[one] - values.flat[other]) < 0.01 * usual:
            continue
        values.flat[[one, other]] = values.flat[[other, one]]
        found = proof(with_values(thought, name, values))
        assert found["proof.status"][0].endswith(f"1 of 78 named ranges differ, the first is {name}."), name
        seen += 1


def band_of_tokens(thought: Run, name: str) -> bool:
    return thought.layout.bands[name].band.rows == "token"


def test_rounding_never_shows(thought: Run) -> None:
    """Numbers that are right to 1e-11, all off to the same side, as sloppy functions would have it."""
    for sign in (1, -1):
        shows = dict(thought.shows)
        for band in forward(thought.model.config):
            if band.name != "token_ids":
                shows[band.name] = np.asarray(shows[band.name], dtype=np.float64) * (1 + sign * 1e-11)
        found = proof(replace(thought, shows=shows))
        assert found["proof.status"][0] == AGREEMENT
        assert 0 < found["proof.difference"][0] < ENOUGH / 100


@pytest.mark.slow
def test_the_library_agrees(tiny_book: Path) -> None:
    book = Book(tiny_book)
    engine = FormulasLibrary(book)
    engine.calculate(book.prompt)
    assert engine.read(book.named("proof.status"))[0, 0] == AGREEMENT
    assert 0 < engine.read(book.named("proof.difference"))[0, 0] < 1e-11


def test_the_saved_values_agree(tiny_book: Path) -> None:
    cells = openpyxl.load_workbook(tiny_book, data_only=True, read_only=True)
    assert cells["Home"]["B15"].value == AGREEMENT
    assert cells["Home"]["M15"].value == 0


@pytest.mark.slow
def test_ironcalc_agrees(tiny_book: Path) -> None:
    import ironcalc

    book = Book(tiny_book)
    model = ironcalc.load_from_xlsx(str(tiny_book), "en", "UTC", "en")
    model.evaluate()

    def shown(name: str) -> str:
        cells = book.named(name)
        return str(model.get_formatted_cell_value(book.sheets.index(cells.sheet), cells.row + 1, cells.column + 1))

    assert shown("proof.status") == AGREEMENT
    assert 0 < float(shown("proof.difference")) < 1e-9


@pytest.mark.slow
@pytest.mark.gnumeric
def test_gnumeric_calculates_the_sums(tmp_path: Path) -> None:
    """And they are those of its own cells."""
    xlgpt.build(tmp_path / "one.xlsx", model=SMALL, context=12, max_bytes=48, sheets="proof")
    subprocess.run(["ssconvert", "--recalc", "one.xlsx", "out.xlsx"], cwd=tmp_path, capture_output=True, check=True)
    book, shown = Book(tmp_path / "one.xlsx"), openpyxl.load_workbook(tmp_path / "out.xlsx", data_only=True)

    def read(cells: Range) -> np.ndarray:
        rows = shown[cells.sheet].iter_rows(
            cells.row + 1, cells.row + cells.height, cells.column + 1, cells.column + cells.width, values_only=True
        )
        return np.array(list(rows), dtype=object)

    assert set(read(book.named("proof.weight.verdict")).flat) == {"agrees"}
    sums, placed_sums = (read(book.named(f"proof.range.{name}"))[:, 0] for name in ("sum", "placed_sum"))
    places, of_tokens = (read(book.named(f"proof.{name}")).astype(float) for name in ("places", "token_places"))
    for i, band in enumerate(forward(book.config)):
        values = read(book.layout.proven(i))
        numbers = np.array([[value if isinstance(value, float | int) else 0.0 for value in row] for row in values])
        own = of_tokens if band.rows == "vocab_size" else places[: len(numbers), : numbers.shape[1]]
        assert sums[i] == pytest.approx(numbers.sum(), rel=1e-9, abs=1e-12), band.name
        assert placed_sums[i] == pytest.approx((numbers * own).sum(), rel=1e-9, abs=1e-12), band.name
    assert read(book.named("proof.status"))[0, 0].startswith("This program calculates what NumPy does: 27 of 27")


@pytest.mark.slow
def test_no_prompt_no_proof(tmp_path: Path) -> None:
    xlgpt.build(tmp_path / "none.xlsx", model=SMALL, prompt="", context=8, max_bytes=48)
    assert not Book(tmp_path / "none.xlsx").has("proof.status")
    assert xlgpt.check(tmp_path / "none.xlsx", prompts=(PROMPT,)).passed
    with pytest.raises(UsageError, match="there is no prompt to prove; give one with --prompt"):
        xlgpt.build(tmp_path / "none.xlsx", model=SMALL, prompt="", sheets="proof")
    xlgpt.build(tmp_path / "left.xlsx", model=SMALL, context=8, sheets="lens")
    assert not Book(tmp_path / "left.xlsx").has("proof.status")


class Office:
    """A workbook in LibreOffice, and what its proof says."""

    def __init__(self, path: Path):
        self.book = Book(path)
        self.engine = LibreOffice(self.book)
        self.engine.calculate(self.book.prompt)

    @property
    def status(self) -> str:
        home = self.engine.read(self.book.named("proof.status")._replace(sheet="Home", row=14, column=1))[0, 0]
        here = self.engine.read(self.book.named("proof.status"))[0, 0]
        assert home == here
        return str(here)

    def verdict(self, name: str) -> str:
        """What stands beside a named range or a weight."""
        for part in ("range", "weight"):
            names = self.engine.read(self.book.named(f"proof.{part}.name"))[:, 0].tolist()
            if name in names:
                return str(self.engine.read(self.book.named(f"proof.{part}.verdict"))[names.index(name), 0])
        raise AssertionError(name)

    def overwrite(self, name: str, row: int, values: np.ndarray) -> None:
        """Numbers in place of all formulas of a row, which may be one array."""
        cells = self.book.named(name).rows(row, row + 1)
        self.engine._ask("set", (cells.sheet, cells.row, cells.column, 1, cells.width), [values.tolist()])
        self.engine._ask("calculate", False)

    def row(self, name: str, row: int) -> np.ndarray:
        return self.engine.read(self.book.named(name).rows(row, row + 1))[0]


@pytest.fixture(scope="module")
def office(tiny_book: Path) -> Iterator[Office]:
    office = Office(tiny_book)
    yield office
    office.engine.close()


def changed(office: Office, cells: dict[str, float]) -> str:
    """The status with something else filled in, and then, as the sentence says, all back again."""
    office.engine.calculate(office.book.prompt, office.book.settings.changed(cells))
    status = office.status
    office.engine.calculate(office.book.prompt)
    assert office.status == AGREEMENT
    return status


@pytest.mark.slow
@pytest.mark.libreoffice
def test_libreoffice_agrees_before_and_after_it_calculates(tiny_book: Path) -> None:
    book = Book(tiny_book)
    engine = LibreOffice(book)
    try:
        assert engine.read(book.named("proof.status"))[0, 0] == AGREEMENT
        engine.calculate(book.prompt)
        assert engine.read(book.named("proof.status"))[0, 0] == AGREEMENT
        assert 0 < engine.read(book.named("proof.difference"))[0, 0] < 1e-11
    finally:
        engine.close()


@pytest.mark.slow
@pytest.mark.libreoffice
def test_another_prompt_and_back(office: Office) -> None:
    way = f"Type this prompt on Home: {PROMPT}"
    back = f"Nothing to compare: this is not what was calculated in NumPy. To come back: {way}"
    for text in ("Mike pulls out his", PROMPT.lower(), PROMPT + " ", ""):
        office.engine.calculate(office.book.prompt_of(text))
        assert office.status == back
        assert office.engine.read(office.book.named("proof.difference"))[0, 0] == ""
        assert set(office.engine.read(office.book.named("proof.range.verdict")).flat) == {""}
        assert set(office.engine.read(office.book.named("proof.weight.verdict")).flat) == {"agrees"}
    office.engine.calculate(office.book.prompt)
    assert office.status == AGREEMENT


@pytest.mark.quick(1)
@pytest.mark.libreoffice
@pytest.mark.parametrize(
    ("cells", "way"),
    [
        ({"steering.on": 1}, "On the sheet Steering set the switch to 0."),
        ({"facts.ablate": 7}, "On the sheet Facts empty the neuron to ablate, and set the strongest to 0."),
        ({"facts.strongest": 5}, "On the sheet Facts empty the neuron to ablate, and set the strongest to 0."),
        ({"circuit.mlps": 0.5}, "On the sheet Circuit set every head and MLP to 1."),
        ({"circuit.heads": 0}, "On the sheet Circuit set every head and MLP to 1."),
        ({"shown_position": 2}, "On the sheet LM head empty the position to show."),
    ],
)
def test_what_is_switched_is_said(office: Office, cells: dict[str, float], way: str) -> None:
    status = changed(office, cells)
    assert status == f"Nothing to compare: this is not what was calculated in NumPy. To come back: {way}"


@pytest.mark.slow
@pytest.mark.libreoffice
def test_what_does_not_touch_the_prompts_rows_is_no_alarm(office: Office) -> None:
    for cells in ({"max_new_tokens": 0}, {"temperature": 1, "seed": 5}, {"lens.on": 0}, {"circuit.on": 0}):
        assert changed(office, cells) == AGREEMENT


@pytest.mark.slow
@pytest.mark.libreoffice
def test_a_weight_changed_anywhere(tmp_path: Path) -> None:
    """In every other tensor, at a random place, by 0.02: red by name, and green again."""
    xlgpt.build(tmp_path / "tiny.xlsx", model="tiny", context=8, generate=1, max_bytes=32, sheets="proof")
    office, random = Office(tmp_path / "tiny.xlsx"), np.random.default_rng(2)
    names = list(office.book.model.weights.shapes())
    try:
        for name in names[::2]:
            cells = office.book.named(name)
            cell = cells.cell(int(random.integers(cells.height)), int(random.integers(cells.width)))
            value = office.engine.read(cell)[0, 0]
            office.engine.write(cell, value + 0.02 * random.choice([-1, 1]))
            said = f"NOT the model that was built: 1 of {len(names)} weights differ, the first is {name}. "
            assert office.status.startswith(said), (name, office.status)
            assert office.verdict(name) == "NOT the same"
            office.engine.write(cell, value)
        assert office.status == AGREEMENT
        wpe = office.book.named("wpe.weight")  # a position that the prompt does not reach
        office.engine.write(wpe.cell(60, 5), 0.02 + office.engine.read(wpe.cell(60, 5))[0, 0])
        assert office.status.endswith(f"1 of {len(names)} weights differ, the first is wpe.weight. {AGREEMENT}")
    finally:
        office.engine.close()


@pytest.mark.slow
@pytest.mark.libreoffice
@pytest.mark.parametrize("matmul", ["mmult", "sumproduct"])
def test_a_formula_overwritten(matmul: str, tmp_path: Path) -> None:
    """In every kind of band, from the last backwards: one number that is off, or two that are exchanged."""
    xlgpt.build(
        tmp_path / "tiny.xlsx", model="tiny", context=8, generate=1, max_bytes=32, matmul=matmul, sheets="proof"
    )
    office = Office(tmp_path / "tiny.xlsx")
    try:
        assert office.status == AGREEMENT
        names = [band.name for band in forward(office.book.config)]
        kinds = [name for name in names if name.startswith("blocks.2.") or "blocks" not in name]
        for name in reversed(kinds):
            if office.book.named(name).height > 10:  # logits: one array
                continue
            row = min(4, office.book.named(name).height - 1)
            values = office.row(name, row)
            numbers = [i for i, value in enumerate(values) if value != ""]
            if len(numbers) > 2 and names.index(name) % 2:
                values[numbers[1]], values[numbers[2]] = values[numbers[2]], values[numbers[1]]
            else:
                values[numbers[0]] += 0.01 * (1 + abs(values[numbers[0]]))
            office.overwrite(name, row, values)
            assert office.status.endswith(f"named ranges differ, the first is {name}."), (name, office.status)
            assert office.verdict(name) == "NOT the same"
    finally:
        office.engine.close()


@pytest.mark.slow
@pytest.mark.libreoffice
@pytest.mark.parametrize("prompt", ["T", '=1+1 "“_x0041_” 漢'])
def test_short_and_strange_prompts(prompt: str, tmp_path: Path) -> None:
    xlgpt.build(tmp_path / "tiny.xlsx", model="tiny", prompt=prompt, context=24, max_bytes=48, sheets="proof,circuit")
    office = Office(tmp_path / "tiny.xlsx")
    try:
        assert office.status == AGREEMENT
        office.engine.calculate(office.book.prompt_of("The cow says"))
        assert office.status.endswith(f"Type this prompt on Home: {prompt}")
        office.engine.calculate(office.book.prompt)
        assert office.status == AGREEMENT
    finally:
        office.engine.close()
    assert xlgpt.check(tmp_path / "tiny.xlsx", prompts=(prompt, "The cow says")).passed
