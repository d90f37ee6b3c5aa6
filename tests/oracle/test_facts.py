"""The sheet Facts: what is ablated against a model without those rows, what is shown against plain arithmetic."""

from pathlib import Path

import numpy as np
import pytest
from conftest import read_in_python

import xlgpt
from xlgpt import OpenWorkbook
from xlgpt.model import reference
from xlgpt.model.checkpoint import load
from xlgpt.model.edits import AblatedNeurons, Edits

PROMPT = "Michael Jordan plays the sport of"
Rows = dict[int, np.ndarray]  # [T, F] of a block: 1 where a neuron writes, 0 where it is ablated


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("facts") / "tiny.xlsx"
    xlgpt.build(path, model="tiny", prompt=PROMPT, context=10, sheets="facts")
    return path


class Without:
    """The bundled model's weights, with some neurons' rows of c_proj.weight set to 0."""

    def __init__(self, block: int, neurons: list[int]):
        self._name, self._neurons = f"h.{block}.mlp.c_proj.weight", neurons

    def tensor(self, name: str) -> np.ndarray:
        tensor = load("tiny").weights.tensor(name)
        if name == self._name:
            tensor = tensor.copy()
            tensor[self._neurons] = 0
        return tensor


def ids() -> list[int]:
    return load("tiny").tokenizer.encode(PROMPT)


def probabilities(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def test_an_ablated_neuron_is_one_whose_row_is_zero() -> None:
    model = load("tiny")
    silent = reference.forward(ids(), model.weights, model.config, Edits(neurons=AblatedNeurons(1, neuron=46)))
    without = reference.forward(ids(), Without(1, [46]), model.config)
    for name in ("blocks.1.mlp_out", "blocks.2.attn.pattern", "logits"):
        assert np.abs(silent[name] - without[name]).max() < 1e-12
    assert np.array_equal(silent["blocks.1.mlp.post"], without["blocks.1.mlp.post"])
    assert np.abs(silent["logits"] - reference.forward(ids(), model.weights, model.config)["logits"]).max() > 0.01


def test_the_strongest_are_each_tokens_own() -> None:
    post = np.array([[3.0, 1.0, 2.0, -1.0], [0.0, 5.0, 4.0, 9.0]])
    assert AblatedNeurons(0, strongest=2).left(post, 0).tolist() == [[0, 1, 0, -1], [0, 0, 4, 0]]
    assert AblatedNeurons(0, strongest=2).left(post, 1) is post
    assert not AblatedNeurons(0, strongest=99).left(post, 0).any()


@pytest.mark.slow
@pytest.mark.libreoffice
def test_basketball_is_spread_over_many_neurons_in_libreoffice(in_libreoffice: OpenWorkbook) -> None:
    model = load("tiny")
    names = ("facts.answer", "facts.sure", "logits", "blocks.0.mlp_out")

    def calculated(**cells: float) -> list[np.ndarray]:
        return list(
            in_libreoffice.read(*names, settings={f"facts.{name}": value for name, value in cells.items()}).values()
        )

    answer, sure, *_ = calculated()
    assert (answer[0, 0], sure[0, 0] > 0.99) == ("␣basketball", True)
    answer, sure, logits, written = calculated(ablate=126)
    without = reference.forward(ids(), Without(0, [126]), model.config)
    assert (answer[0, 0], sure[0, 0] > 0.99) == ("␣basketball", True)
    assert np.abs(logits[:, 0].astype(float) - without["logits"][-1]).max() < 1e-4
    assert np.abs(written[:7].astype(float) - without["blocks.0.mlp_out"]).max() < 1e-4
    answer, sure, *_ = calculated(strongest=384)
    silent = reference.forward(ids(), Without(0, list(range(384))), model.config)
    assert answer[0, 0] == "␣hockey"
    assert sure[0, 0] == pytest.approx(probabilities(silent["logits"][-1]).max(), abs=1e-4)
    assert calculated(strongest=20)[1][0, 0] == pytest.approx(0.471, abs=0.01)
    assert calculated(strongest=384, block=2)[0][0, 0] == "␣basketball"


@pytest.mark.slow
@pytest.mark.libreoffice
def test_the_neurons_of_jordan_in_libreoffice(in_libreoffice: OpenWorkbook) -> None:
    model = load("tiny")
    seen = reference.forward(ids(), model.weights, model.config)
    names = [f"facts.{name}" for name in ("neuron", "activation", "promotes", "responds", "at_token")]
    neuron, activation, promotes, responds, token = in_libreoffice.read(*names, settings={"facts.token": 2}).values()
    assert token[0, 0] == "␣Jordan"
    top = sorted(range(384), key=lambda i: -seen["blocks.0.mlp.post"][2][i])[:10]
    assert neuron[:, 0].tolist() == top
    embeddings, rows = (model.weights.tensor(name) for name in ("wte.weight", "h.0.mlp.c_proj.weight"))
    for i, number in enumerate(top):
        assert activation[i, 0] == pytest.approx(seen["blocks.0.mlp.post"][2, number], abs=1e-5)
        best = sorted(range(1280), key=lambda token: -float(embeddings[token] @ rows[number]))[:5]
        assert promotes[i].tolist() == [model.tokenizer.shown(token) for token in best]
        assert responds[i, :7].astype(float) == pytest.approx(seen["blocks.0.mlp.pre"][:, number], abs=1e-5)
        assert set(responds[i, 9:]) == {""}  # behind what it wrote: a word and a full stop
    assert {"␣Messi", "␣Gretzky", "␣Jordan"} <= set(promotes[3])  # one that gathers athletes


@pytest.mark.slow
def test_directions_of_random_weights_are_as_by_chance(tmp_path: Path) -> None:
    path = tmp_path / "random.xlsx"
    xlgpt.build(path, model="random:n_layer=1,n_embd=32,n_head=2", context=4, prompt="a", sheets="facts")
    names = [f"facts.{name}" for name in ("pairs", "by_chance", "spread", "random")]
    pairs, by_chance, spread, random = (cells[:, 0] for cells in xlgpt.read(path, *names, engine="formulas").values())
    assert pairs.sum() == pytest.approx(by_chance.sum()) == 128 * 127 / 2
    assert random[0] == pytest.approx(32**-0.5)
    assert spread[0] == pytest.approx(random[0], rel=0.05)
    assert np.abs(pairs - by_chance).max() < 5 * np.sqrt(by_chance.max())


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ({"facts.block": 4}, "There is no block 4: this model has 0 to 3, and 3 is shown."),
        ({"facts.token": 7}, "There is no token at position 7; 6 is shown."),
        ({"facts.ablate": 384}, "There is no neuron 384: a block has 0 to 383."),
        ({"facts.ablate": 3, "facts.strongest": 5}, "Neuron 3 of block 0 is ablated."),
        (
            {"facts.strongest": 1000, "facts.block": 2},
            "The 384 strongest neurons of every token in block 2 are ablated.",
        ),
        ({"facts.strongest": ""}, "Nothing is ablated."),
    ],
)
def test_what_is_ablated_or_wrong_is_said(book: Path, cells: dict[str, object], sentence: str) -> None:
    shown = read_in_python(book, "facts.status", settings=cells)
    assert shown["facts.status"][0, 0] == sentence


def test_off_it_shows_nothing_but_ablates_still(book: Path) -> None:
    names = ("facts.neuron", "facts.pairs", "next_token")
    cells = {"facts.on": 0, "facts.strongest": 384}
    neuron, pairs, token = read_in_python(book, *names, settings=cells).values()
    assert set(neuron.flat) == set(pairs.flat) == {""}
    assert token[0, 0] == " hockey"
