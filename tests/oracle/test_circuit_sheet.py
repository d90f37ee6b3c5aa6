"""The sheet Circuit: what is off against models without those weights, what each part adds against plain arithmetic."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import run_xlgpt

import xlgpt
from xlgpt.engines import Engine, start
from xlgpt.errors import UsageError
from xlgpt.interp.mean_activations import PROMPTS, usual_means
from xlgpt.model import reference
from xlgpt.model.checkpoint import Model, load
from xlgpt.model.edits import Edits
from xlgpt.oracle.values import edits, expected
from xlgpt.verify.compare import compare, expected_cells
from xlgpt.workbook import plan
from xlgpt.workbook.book import Book
from xlgpt.workbook.fill import fill

PROMPT = "If today is Tuesday, tomorrow is"
WEEKDAYS = Path(__file__).parents[2] / "examples" / "weekdays.txt"
Off = dict[int, list[int]]  # heads by block


@pytest.fixture(scope="module")
def tiny() -> Model:
    return load("tiny")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("circuit") / "tiny.xlsx"
    xlgpt.build(path, model="tiny", prompt=PROMPT, context=8, max_bytes=40, generate=1, sheets="circuit")
    return path


@pytest.fixture(scope="module")
def office(path: Path) -> Iterator[Engine]:
    engine = start("libreoffice", Book(path), 60)
    yield engine
    engine.close()


class Without:
    """A model's weights without some heads: the rows that read them set to 0."""

    def __init__(self, model: Model, off: Off):
        self._model, self._off = model, off

    def tensor(self, name: str) -> np.ndarray:
        tensor: np.ndarray = self._model.weights.tensor(name)
        for layer, heads in self._off.items():
            if name == f"h.{layer}.attn.c_proj.weight":
                tensor = tensor.copy()
                tensor.reshape(4, 24, 96)[heads] = 0
        return tensor


def shown(office: Engine, path: Path, **cells: object) -> dict[str, np.ndarray]:
    """What the sheet and the LM head show with these cells filled in."""
    book = Book(path)
    office.calculate(book.prompt, book.settings.changed({f"circuit.{name}": v for name, v in cells.items()}))
    bands = ("answer", "status", "logit", "total", "difference", "head_adds", "mlp_adds", "sure")
    found = {name: office.read(book.named(f"circuit.{name}")) for name in bands}
    return found | {"logits": office.read(book.named("logits"))}


# In LibreOffice


@pytest.mark.libreoffice
def test_what_each_part_adds_is_its_way_to_the_logit(office: Engine, path: Path, tiny: Model) -> None:
    found = shown(office, path)
    assert (found["answer"][0, 0], found["status"][0, 0]) == ("␣Wednesday", "All 20 components are on.")
    assert abs(found["total"][0, 0] - found["logit"][0, 0]) < 1e-9
    assert found["difference"][0, 0] < 1e-9
    ids, target = tiny.tokenizer.encode(PROMPT), tiny.tokenizer.encode(" Wednesday")[0]
    seen = reference.forward(ids, tiny.weights, tiny.config)
    assert found["logit"][0, 0] == pytest.approx(seen["logits"][-1, target], abs=1e-5)
    w = {name: tiny.weights.tensor(name).astype(float) for name in tiny.weights.shapes()}

    def adds(part: np.ndarray) -> float:
        """The last layer norm with the spread of the whole stream, then the target's embedding."""
        normalized = (part - part.mean()) / seen["ln_final.scale"][-1] * w["ln_f.weight"]
        return float(normalized @ w["wte.weight"][target])

    for layer in range(4):
        assert found["mlp_adds"][layer, 0] == pytest.approx(adds(seen[f"blocks.{layer}.mlp_out"][-1]), abs=1e-5)
        rows = w[f"h.{layer}.attn.c_proj.weight"].reshape(4, 24, 96)
        for head in range(4):
            wanted = adds(seen[f"blocks.{layer}.attn.z"][-1, head] @ rows[head])
            assert found["head_adds"][layer, head] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.libreoffice
def test_without_two_heads_tomorrow_is_another_day(office: Engine, path: Path, tiny: Model) -> None:
    heads = np.ones((4, 4))
    heads[0, [2, 3]] = 0
    found = shown(office, path, heads=heads, ablate="zero")
    assert found["status"][0, 0] == "2 of 20 components are ablated."
    seen = reference.forward(tiny.tokenizer.encode(PROMPT), Without(tiny, {0: [2, 3]}), tiny.config)
    answer = tiny.tokenizer.shown(int(seen["logits"][-1].argmax()))
    assert found["answer"][0, 0] == answer != "␣Wednesday"
    assert np.abs(found["logits"][:, 0].astype(float) - seen["logits"][-1]).max() < 1e-4
    assert found["difference"][0, 0] < 1e-9
    unimportant = np.ones((4, 4))
    unimportant[1, :2] = 0
    assert shown(office, path, heads=unimportant, ablate="zero")["answer"][0, 0] == "␣Wednesday"


@pytest.mark.libreoffice
@pytest.mark.parametrize("ablate", ["mean", "zero"])
def test_every_band_with_some_off_and_some_down(office: Engine, path: Path, tiny: Model, ablate: str) -> None:
    book = Book(path)
    heads = np.random.default_rng(5).choice([0, 0.5, 1], (4, 4))
    mlps = np.array([[1], ["off"], [0.25], [""]], dtype=object)  # a text and an empty cell count as 0
    settings = book.settings.changed({"circuit.heads": heads, "circuit.mlps": mlps, "circuit.ablate": ablate})
    office.calculate(book.prompt, settings)
    values = expected(PROMPT, tiny, book.layout, settings)
    for name, placed in book.layout.bands.items():
        wanted = expected_cells(values, placed)
        if wanted is not None and not placed.band.varies:
            found = compare(name, placed.cells, office.read(book.named(name)), wanted)
            assert not found.problem, (name, found.problem)


@pytest.mark.slow
@pytest.mark.libreoffice
def test_three_components_know_all_seven_days(path: Path, tiny: Model, tmp_path: Path) -> None:
    out = tmp_path / "weekdays.xlsx"
    done = run_xlgpt("circuit", path, "--prompts", WEEKDAYS, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"{out}: 789 cells filled. Excel calculates it" in done.stdout
    book = Book(out)
    office = start("libreoffice", book, 60)
    try:
        for prompt, answer in (line.split("\t") for line in WEEKDAYS.read_text().splitlines()):
            office.calculate(book.prompt_of(prompt), book.settings)
            assert office.read(book.named("next_token"))[0, 0] == answer
        status = office.read(book.named("circuit.status"))[0, 0]
        assert status == "17 of 20 components are ablated."
    finally:
        office.close()


# What a new workbook holds


def test_all_on_changes_not_even_the_last_bit(path: Path, tiny: Model) -> None:
    ids = tiny.tokenizer.encode(PROMPT)
    book = Book(path)
    changed = edits(book.settings, book.layout, len(ids))
    assert changed.heads is not None
    assert changed.heads.min() == changed.heads.max() == 1
    plain, on = (reference.forward(ids, tiny.weights, tiny.config, each) for each in (Edits(), changed))
    assert all(np.array_equal(plain[name], on[name]) for name in plain)


def test_the_means_are_those_of_the_weekdays(path: Path, tiny: Model) -> None:
    settings = Book(path).settings
    runs = [reference.forward(tiny.tokenizer.encode(prompt), tiny.weights, tiny.config) for prompt in PROMPTS]
    for layer in range(4):
        z = np.concatenate([run[f"blocks.{layer}.attn.z"].reshape(-1, 96) for run in runs]).mean(axis=0)
        np.testing.assert_allclose(settings.numbers("circuit.head_means")[layer], z, atol=1e-6)
        mlp = np.concatenate([run[f"blocks.{layer}.mlp_out"] for run in runs]).mean(axis=0)
        np.testing.assert_allclose(settings.numbers("circuit.mlp_means")[layer], mlp, atol=1e-6)
    assert usual_means(tiny).heads.shape == (4, 4, 24)


def test_without_the_sheet_the_blocks_know_no_switch(tmp_path: Path) -> None:
    path = tmp_path / "plain.xlsx"
    xlgpt.build(path, model="random:n_layer=1,n_embd=8,n_head=2", context=2, max_bytes=4, prompt="a", sheets="none")
    with zipfile.ZipFile(path) as archive:
        assert not any(b"circuit" in archive.read(part) for part in archive.namelist())
    with pytest.raises(UsageError, match=r"has no cells circuit.heads: it was built without that sheet"):
        fill(path, tmp_path / "new.xlsx", {"circuit.heads": 0})


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("", "Type the token whose logit is to be taken apart into the cell of the target."),
        (
            " moo moo",
            "“ moo moo” is not one token of this model: capital letters matter, and so does a space in front.",
        ),
    ],
)
def test_a_target_that_is_no_token(path: Path, target: str, sentence: str) -> None:
    names = ("circuit.status", "circuit.logit", "circuit.total", "circuit.direction")
    status, *others = xlgpt.read(path, *names, settings={"circuit.target": target}, engine="formulas").values()
    assert status[0, 0] == sentence
    assert {value for cells in others for value in cells.flat} == {""}


# A copy with other cells


def test_a_copy_differs_in_the_cells_alone(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.xlsx"
    heads = np.arange(16).reshape(4, 4) / 15
    filled = fill(path, out, {"circuit.heads": heads, "circuit.mlps": 0, "circuit.target": "␣<&>", "prompt": "a"})
    assert (filled.cells, filled.manual) == (22, False)
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(out) as after:
        assert after.testzip() is None
        assert before.namelist() == after.namelist()
        differing = [name for name in before.namelist() if before.read(name) != after.read(name)]
        assert b'fullCalcOnLoad="1"' in after.read("xl/workbook.xml")
    book = Book(out)
    assert set(differing) == {"xl/workbook.xml", book.part("Home"), book.part("Circuit")}
    assert book.prompt.text == "a"
    settings = book.settings
    np.testing.assert_array_equal(settings.numbers("circuit.heads"), heads)
    assert settings.text("circuit.target") == "␣<&>"
    others = set(settings.cells) - {"circuit.heads", "circuit.mlps", "circuit.target"}
    assert all(np.array_equal(settings.cells[name], Book(path).settings.cells[name]) for name in others)


def test_a_workbook_that_waits_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MANUAL_FROM", 0)
    path, out = tmp_path / "manual.xlsx", tmp_path / "new.xlsx"
    model = "random:n_layer=1,n_embd=8,n_head=2"
    xlgpt.build(path, model=model, context=2, max_bytes=4, generate=1, prompt="a", sheets="circuit")
    filled = fill(path, out, {"circuit.mlps": 0})
    assert "still old: calculate all" in str(filled)
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(out) as after:
        assert before.read("xl/workbook.xml") == after.read("xl/workbook.xml")


def test_what_cannot_be_copied(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is the workbook itself"):
        fill(path, path, {"circuit.mlps": 0})
    done = run_xlgpt("circuit", path, "--prompts", WEEKDAYS, "--out", tmp_path / "new.ods")
    assert done.returncode != 0
    assert "neither .xlsx nor .xlsb" in done.stderr
    assert list(tmp_path.iterdir()) == []
