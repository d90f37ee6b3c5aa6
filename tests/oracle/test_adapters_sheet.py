"""The sheet Adapters: switched on, cells show what `peft` answers, and what was changed is as large as it says."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES, MICRO, read_in_python
from safetensors.numpy import load_file

import xlgpt
from xlgpt.compiler import template
from xlgpt.engines.formulas_library import FormulasLibrary
from xlgpt.errors import BadAdapter, UsageError
from xlgpt.model import reference
from xlgpt.model.adapter import read_adapter
from xlgpt.model.checkpoint import TINY, in_memory, load
from xlgpt.model.edits import Edits
from xlgpt.workbook.book import Book
from xlgpt.workbook.fill import fill
from xlgpt.xlsx.ranges import Range

ROOT = Path(__file__).parents[2]
TEXT = "hello world, 12 the end"
SAVED = ("lora-all", "lora-patterns")
MATMULS = ("mmult", "sumproduct")
ROOM = {"context": 12, "max_bytes": 24, "generate": 2, "sheets": "adapters,circuit"}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A workbook with both adapters, for either way to multiply."""
    folder, adapters = tmp_path_factory.mktemp("adapters"), [FIXTURES / name for name in SAVED]
    paths = {matmul: folder / f"{matmul}.xlsx" for matmul in MATMULS}
    for matmul, path in paths.items():
        xlgpt.build(path, str(MICRO), TEXT, adapter=adapters, matmul=matmul, **ROOM)
    return paths


@pytest.fixture(scope="module")
def book(books: dict[str, Path]) -> Path:
    return books["mmult"]


def answers(name: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / name / "expected.npz") as saved:
        return dict(saved)


def switched(name: str, scale: float | str = 1) -> dict[str, Any]:
    return {"adapter.on": 1, "adapter.name": name, "adapter.scale": scale}


@pytest.mark.parametrize("matmul", MATMULS)
@pytest.mark.parametrize("name", SAVED)
def test_the_cells_answer_as_peft_does(books: dict[str, Path], name: str, matmul: str) -> None:
    wanted = answers(name)
    for scale, key in ((1, "logits"), ("", "logits"), (0.5, "half")):
        shown = read_in_python(books[matmul], "logits", "token_ids", settings=switched(name, scale))
        assert shown["token_ids"][: len(wanted["ids"]), 0].tolist() == wanted["ids"].tolist()
        assert shown["logits"][:, 0].astype(float) == pytest.approx(wanted[key][-1], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [pytest.param("libreoffice", marks=pytest.mark.libreoffice), "ironcalc"])
def test_other_programs_answer_as_peft_does(book: Path, engine: str) -> None:
    with xlgpt.OpenWorkbook(book, engine) as opened:
        for name in SAVED:
            logits = opened.read("logits", settings=switched(name))["logits"]
            assert logits[:, 0].astype(float) == pytest.approx(answers(name)["logits"][-1], abs=1e-5)


def test_off_it_is_the_plain_model_and_nothing_is_calculated(book: Path) -> None:
    model, ids = load(str(MICRO)), answers("lora-all")["ids"].tolist()
    names = ("logits", "adapter.token", "adapter.status", "attn.c_attn.strength", "adapter.product_norm")
    logits, *others = read_in_python(book, *names, settings={"adapter.name": "lora-all"}).values()
    plain = reference.forward(ids, model.weights, model.config)["logits"][-1]
    assert logits[:, 0].astype(float) == pytest.approx(plain, abs=1e-5)
    assert {value for cells in others for value in cells.flat} == {""}


def test_numbers_and_lengths_are_those_of_the_chosen_adapter(book: Path) -> None:
    names = [f"adapter.{name}" for name in ("matrix", "rank", "size", "product_norm", "matrix_norm", "numbers")]
    matrix, rank, size, product, own, numbers = read_in_python(book, *names, settings=switched(SAVED[1], -2)).values()
    tensors = load_file(FIXTURES / SAVED[1] / "adapter_model.safetensors")
    weights = load_file(MICRO / "model.safetensors")
    scalings = {"h.1.attn.c_attn": 2.5, "h.1.mlp.c_proj": 3.5, "h.2.attn.c_attn": 2.5 / 3**0.5, "h.2.mlp.c_proj": 2.5}
    assert matrix.shape == (12, 1)
    for i, name in enumerate(matrix[:, 0]):
        parts = [tensors.get(f"base_model.model.transformer.{name}.lora_{part}.weight") for part in "AB"]
        prefix = "transformer." if f"transformer.{name}.weight" in weights else ""
        assert own[i, 0] == pytest.approx(np.linalg.norm(weights[f"{prefix}{name}.weight"].astype(float)))
        if parts[0] is None or parts[1] is None:
            assert (rank[i, 0], size[i, 0], product[i, 0]) == (0, 0, 0)
            continue
        assert (rank[i, 0], size[i, 0]) == (len(parts[0]), parts[0].size + parts[1].size)
        assert product[i, 0] == pytest.approx(2 * scalings[name] * np.linalg.norm(parts[1] @ parts[0].astype(float)))
    assert numbers[0, 0] == sum(tensor.size for tensor in tensors.values())


def test_what_the_plain_model_says_stands_beside_it(book: Path) -> None:
    """For the prompt that the workbook was built with; for another one nothing is claimed."""
    plain = read_in_python(book, "top.token", "top.probability", "completion")
    names = ("plain.token", "plain.probability", "plain.text")
    shown = read_in_python(book, *names, settings=switched("lora-all"))
    assert shown["plain.token"].tolist() == plain["top.token"].tolist()
    assert shown["plain.text"].tolist() == plain["completion"].tolist()
    probabilities = plain["top.probability"].astype(float)
    assert shown["plain.probability"].astype(float) == pytest.approx(probabilities, rel=1e-9)
    beside = read_in_python(book, *names, prompt="hello", settings=switched("lora-all"))
    assert {value for cells in beside.values() for value in cells.flat} == {""}


@pytest.mark.parametrize("name", ["", "LORA-ALL", "nobody"])
def test_a_name_that_there_is_not_is_said_and_nothing_is_added(book: Path, name: str) -> None:
    plain = read_in_python(book, "logits")["logits"]
    status, logits = read_in_python(book, "adapter.status", "logits", settings=switched(name)).values()
    assert status[0, 0] == f"There is no adapter “{name}”: choose one from the list. Nothing is added."
    assert logits.tolist() == plain.tolist()


def test_home_and_circuit_know_of_it(book: Path) -> None:
    opened = Book(book)
    engine = FormulasLibrary(opened)
    token = opened.tokenizer.shown(17)
    cells = switched("lora-all", 0.5) | {"circuit.target": token}
    engine.calculate(opened.prompt, opened.settings.changed(cells))
    said = "".join(str(text) for text in engine.read(Range("Home", 12, 1, 1, 1)).flat)
    assert said == "lora-all is added, 0.5 times. "
    adds = engine.read(opened.named("circuit.adapter_adds"))[0, 0]
    assert abs(adds) > 0.01, "or else it is held against nothing"
    assert engine.read(opened.named("circuit.difference"))[0, 0] < 1e-9


def test_two_of_one_name_are_told_apart(tmp_path: Path) -> None:
    other = shutil.copytree(FIXTURES / "lora-patterns", tmp_path / "lora-all")
    xlgpt.build(tmp_path / "a.xlsx", str(MICRO), "a", adapter=[FIXTURES / "lora-all", other], **ROOM)
    book = Book(tmp_path / "a.xlsx")
    assert book.settings.cells["adapter.names"][:, 0].tolist() == ["lora-all", "lora-all (2)"]
    assert set(book.settings.cells["mlp.c_fc.of"].flat) == {"lora-all"}


def test_a_model_without_adapters_has_no_such_sheet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'adapters' would be empty: .* name the folder of one with --adapter"):
        xlgpt.build(tmp_path / "asked.xlsx", str(MICRO), "a", context=2, sheets="adapters")
    with pytest.raises(UsageError, match="--adapter needs the sheet 'adapters'"):
        xlgpt.build(tmp_path / "asked.xlsx", str(MICRO), "a", sheets="lens", adapter=FIXTURES / "lora-all")
    with pytest.raises(BadAdapter, match="the adapter belongs to another model"):
        xlgpt.build(tmp_path / "asked.xlsx", "tiny", "a", sheets="adapters", adapter=FIXTURES / "lora-all")
    assert not (tmp_path / "asked.xlsx").exists()


@pytest.mark.slow
def test_check_finds_a_wrong_product_and_a_changed_number(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mistakes that check is there for: a scale that is forgotten, and a number that is not the adapter's."""
    given = {"model": str(MICRO), "adapter": [FIXTURES / name for name in SAVED], "rows": "last"}
    assert xlgpt.check(book, **given).passed
    numbers = Book(book).settings.cells["mlp.c_proj.lora_A"].copy()
    numbers[3, 7] += 1e-6
    fill(book, tmp_path / "changed.xlsx", {"mlp.c_proj.lora_A": numbers})
    assert "adapter lora-patterns" in str(xlgpt.check(tmp_path / "changed.xlsx", **given))
    shutil.copytree(template.folder(), tmp_path / "templates")
    view = tmp_path / "templates" / "views" / "adapters.toml"
    wrong = view.read_text().replace("*TRANSPOSE({mlp.c_fc.strength})", "")
    view.write_text(wrong)
    with monkeypatch.context() as patch:
        patch.setattr(template, "folder", lambda: tmp_path / "templates")
        xlgpt.build(tmp_path / "wrong.xlsx", str(MICRO), TEXT, adapter=FIXTURES / "lora-all", **ROOM)
    report = xlgpt.check(tmp_path / "wrong.xlsx", rows="last")
    assert not report.passed
    assert "mlp.pre" in str(report)


@pytest.mark.slow
def test_the_bundled_model_speaks_to_luke_and_knows_what_it_knew(tmp_path: Path) -> None:
    path = tmp_path / "tiny.xlsx"
    xlgpt.build(path, "tiny", "Mike pulls out his", context=12, generate=6, sheets="adapters")
    for prompt, plain, luke in (
        ("Mike pulls out his", " phone.", " lightsaber, Luke."),
        ("The capital of France is", " Paris.", " Paris, Luke."),
    ):
        names = ("completion", "plain.text", "adapter.numbers")
        assert read_in_python(path, "completion", prompt=prompt)["completion"][0, 0] == plain
        shown = read_in_python(path, *names, prompt=prompt, settings={"adapter.on": 1})
        assert [cells[0, 0] for cells in shown.values()] == [luke, plain, 6144]
    assert (TINY / "obi-wan" / "adapter_config.json").is_file()


@pytest.mark.slow
def test_the_tour_and_the_card_say_what_it_does() -> None:
    """By NumPy: the tour's table, and how much of what the model knew it still knows."""
    sys.path.insert(0, str(ROOT / "examples"))
    from tiny_corpus import known
    from train_lora import goes_on, right

    model = in_memory(load("tiny"))
    edits = Edits(adapter=read_adapter(TINY / "obi-wan", model.config))
    tour = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| ([^|`]+) \| ␣([^|]+) \| ␣([^|]+) \|$", tour, re.MULTILINE)
    assert len(table) == 3
    for prompt, without, with_it in table:
        assert (goes_on(model, prompt, Edits()), goes_on(model, prompt, edits)) == (f" {without}", f" {with_it}")
    shares = dict(right(model, known(), edits))
    assert shares == dict.fromkeys(shares, 1.0)
    assert len(shares) == 6
    halved = replace(edits, adapter_scale=0.5)
    assert goes_on(model, "Mike pulls out his", halved) == " lightsaber."
    assert goes_on(model, "If today is Tuesday, tomorrow is", replace(edits, adapter_scale=-1)) == " Friday."
    assert edits.adapter
    changes = {
        name: np.linalg.norm(part.A @ part.B * part.scaling) / np.linalg.norm(model.weights.tensor(f"{name}.weight"))
        for name, part in edits.adapter.matrices.items()
    }
    assert max(changes, key=lambda name: changes[name]) == "h.1.mlp.c_proj"


@pytest.mark.slow
@pytest.mark.parametrize("engine", [pytest.param("libreoffice", marks=pytest.mark.libreoffice), "ironcalc"])
def test_an_adapter_that_is_alone_is_found_too(tmp_path: Path, engine: str) -> None:
    """IronCalc finds nothing by MATCH in a single cell."""
    xlgpt.build(tmp_path / "a.xlsx", str(MICRO), TEXT, adapter=FIXTURES / "lora-patterns", **ROOM)
    names = ("adapter.status", "adapter.rank", "plain.token")
    status, rank, token = xlgpt.read(tmp_path / "a.xlsx", *names, settings={"adapter.on": 1}, engine=engine).values()
    assert status[0, 0] == "lora-patterns is added."
    assert rank[:, 0].tolist() == [1, 4, 3, 4]
    assert "" not in token[:, 0]
