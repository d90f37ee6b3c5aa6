"""The sheet Steering: a vector that is added changes all that follows, and is as large as it says."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import read_in_python
from safetensors.numpy import load_file

import xlgpt
from xlgpt import OpenWorkbook
from xlgpt.compiler import template
from xlgpt.engines.formulas_library import FormulasLibrary
from xlgpt.errors import UsageError
from xlgpt.model import reference
from xlgpt.model.checkpoint import TINY, load
from xlgpt.workbook.book import Book
from xlgpt.xlsx.ranges import Range

PROMPT = "Mike pulls out his"
SHOWN = ("next_token", "steering.status")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steering") / "tiny.xlsx"
    xlgpt.build(path, model="tiny", prompt=PROMPT, context=8, sheets="steering")
    return path


def biased(vector: np.ndarray, block: int) -> np.ndarray:
    """The logits [V] of the prompt where the block before writes the vector too: steering by other means."""
    model = load("tiny")

    class Biased:
        def tensor(self, name: str) -> np.ndarray:
            tensor = model.weights.tensor(name)
            return tensor + vector if name == f"h.{block - 1}.mlp.c_proj.bias" else tensor

    seen = reference.forward(model.tokenizer.encode(PROMPT), Biased(), model.config)
    return np.asarray(seen["logits"][-1])


@pytest.mark.slow
@pytest.mark.libreoffice
def test_mike_pulls_out_his_lightsaber_in_libreoffice(in_libreoffice: OpenWorkbook) -> None:
    names = ("next_token", "steering.token", "steering.probability", "steering.share", "logits", "blocks.1.resid_post")
    plain = in_libreoffice.read(*names)
    assert plain["next_token"][0, 0] == " phone"
    assert set(plain["steering.token"].flat) == {""}
    steered = in_libreoffice.read(*names, settings={"steering.on": 1})
    jedi = load_file(TINY / "steering.safetensors")["Jedi"].astype(float)
    assert steered["next_token"][0, 0] == " lightsaber"
    assert steered["steering.token"][0, 0] == "␣lightsaber"
    assert steered["steering.probability"][0, 0] > 0.9
    assert np.abs(steered["logits"][:, 0].astype(float) - biased(3 * jedi, block=2)).max() < 1e-5
    assert np.array_equal(steered["blocks.1.resid_post"][:4], plain["blocks.1.resid_post"][:4]), (
        "it is added behind block 1"
    )
    stream = np.linalg.norm(plain["blocks.1.resid_post"][:4].astype(float), axis=1)
    assert steered["steering.share"][:4, 0].astype(float) == pytest.approx(3 * np.linalg.norm(jedi) / stream)


@pytest.mark.slow
def test_positions_coefficient_and_block_are_the_ones_in_the_cells(book: Path) -> None:
    names = ("blocks.0.resid_pre", "blocks.2.resid_pre", "steering.at")
    plain = read_in_python(book, *names)
    cells = {"on": 1, "vector": "pirate", "coefficient": -0.5, "block": 0, "from": 1, "to": 2}
    cells = {f"steering.{name}": value for name, value in cells.items()}
    steered = read_in_python(book, *names, settings=cells)
    added = (steered["blocks.0.resid_pre"][:4] - plain["blocks.0.resid_pre"][:4]).astype(float)
    pirate = load_file(TINY / "steering.safetensors")["pirate"].astype(float)
    assert added == pytest.approx(np.outer([0, -0.5, -0.5, 0], pirate), abs=1e-12)
    assert steered["steering.at"][:4, 0].tolist() == [0, -0.5, -0.5, 0]
    assert steered["blocks.2.resid_pre"][0].tolist() == plain["blocks.2.resid_pre"][0].tolist()
    assert steered["blocks.2.resid_pre"][3].tolist() != plain["blocks.2.resid_pre"][3].tolist()


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ({"vector": "jedi"}, "There is no vector “jedi”: choose one from the list. Nothing is added."),
        ({"block": 4}, "There is no block 4: this model has 0 to 3. Nothing is added."),
        ({"block": 0.5}, "There is no block 0.5: this model has 0 to 3. Nothing is added."),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_added(book: Path, cells: dict[str, object], sentence: str) -> None:
    named = {"steering.on": 1} | {f"steering.{name}": value for name, value in cells.items()}
    token, status = read_in_python(book, *SHOWN, settings=named).values()
    assert (status[0, 0], token[0, 0]) == (sentence, " phone")


@pytest.mark.slow
def test_vectors_of_a_file_stand_beside_the_bundled_ones(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", Jedi=np.ones(96), up=np.arange(96.0))
    xlgpt.build(tmp_path / "a.xlsx", "tiny", PROMPT, context=8, sheets="steering", steering=tmp_path / "mine.npz")
    names = [f"steering.{name}" for name in ("names", "blocks", "coefficients", "vectors", "lengths")]
    on = {"steering.on": 1}
    shown = [c[-2:] for c in xlgpt.read(tmp_path / "a.xlsx", *names, settings=on, engine="formulas").values()]
    assert [cells[:, 0].tolist() for cells in shown[:3]] == [["Jedi (2)", "up"], [2, 2], [1, 1]]
    assert shown[3].tolist() == [[1] * 96, list(range(96))]
    assert shown[4][0, 0] == pytest.approx(96**0.5)


def test_a_model_without_vectors_has_no_such_sheet(tmp_path: Path) -> None:
    random = "random:n_layer=1,n_embd=8,n_head=1"
    xlgpt.build(tmp_path / "all.xlsx", random, "a", context=2)
    with pytest.raises(UsageError, match=r"has no cells of the name 'steering\.on'"):
        xlgpt.read(tmp_path / "all.xlsx", "steering.on", engine="formulas")
    with pytest.raises(
        UsageError, match=r"The sheet 'steering' would be empty: .* name a file of them with --steering"
    ):
        xlgpt.build(tmp_path / "asked.xlsx", random, "a", context=2, sheets="lens,steering")
    assert not (tmp_path / "asked.xlsx").exists()


@pytest.mark.slow
def test_a_wrong_block_in_the_template_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake that check is there for: the vector is added before the block after."""
    shutil.copytree(template.folder(), tmp_path / "templates")
    block = tmp_path / "templates" / "views" / "steering.toml"
    block.write_text(block.read_text().replace("steering.at_block={layer}", "steering.at_block+1={layer}"))
    with monkeypatch.context() as patch:
        patch.setattr(template, "folder", lambda: tmp_path / "templates")
        xlgpt.build(tmp_path / "wrong.xlsx", "tiny", PROMPT, context=6, sheets="steering", generate=1)
    report = xlgpt.check(tmp_path / "wrong.xlsx", rows="last")
    assert not report.passed
    assert "blocks.2.resid_pre" in str(report)


@pytest.mark.slow
def test_home_says_what_was_done_to_the_model(tmp_path: Path) -> None:
    xlgpt.build(tmp_path / "a.xlsx", "tiny", PROMPT, context=5, sheets="circuit,steering", generate=1)
    book = Book(tmp_path / "a.xlsx")
    engine = FormulasLibrary(book)
    heads = np.ones((4, 4))
    heads[2, 1:3] = 0, 0.5

    def said(cells: dict[str, object]) -> str:
        engine.calculate(book.prompt, book.settings.changed(cells))
        return "".join(str(text) for text in engine.read(Range("Home", 12, 1, 1, 1)).flat)

    assert said({}) == ""
    assert said({"circuit.heads": heads, "circuit.mlps": 0}) == "Ablated: 6. "
    assert said({"steering.on": 1}) == "Jedi is added before block 2."
