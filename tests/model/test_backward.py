"""The way back in NumPy, held against finite differences, and against torch where it is installed."""

from pathlib import Path

import numpy as np
import pytest
from conftest import FIXTURES

from xlgpt.model.backward import SLOPES, gradient
from xlgpt.model.checkpoint import load
from xlgpt.model.edits import Edits
from xlgpt.model.reference import ACTIVATIONS, forward

IDS = [5, 250, 17, 17, 99, 0, 88, 41]
MICROS = ("gpt2-micro", "gpt2-micro-gelu", "gpt2-micro-relu", "gpt2-micro-untied")
RANDOM = np.random.default_rng(3)


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_are_those_of_the_activation_functions(name: str) -> None:
    x = np.array([-4.0, -1.3, -0.2, 0.4, 1.7, 5.0])
    rise = (ACTIVATIONS[name](x + 1e-6) - ACTIVATIONS[name](x - 1e-6)) / 2e-6
    np.testing.assert_allclose(SLOPES[name](x), rise, atol=1e-8)
    assert set(SLOPES) == set(ACTIVATIONS)


def test_gelu_has_a_slope_at_zero() -> None:
    assert SLOPES["gelu"](np.zeros(1))[0] == 0.5


@pytest.mark.parametrize("name", MICROS)
def test_it_is_what_a_small_step_changes(name: str) -> None:
    """At every block's entrance, and at what enters the last layer norm."""
    model = load(str(FIXTURES / name))
    way = RANDOM.normal(size=(len(IDS), model.config.vocab_size))
    for block in range(model.config.n_layer):
        step = RANDOM.normal(size=model.config.n_embd)
        at = RANDOM.normal(size=len(IDS))

        def total(size: float, block: int = block, step: np.ndarray = step, at: np.ndarray = at) -> float:
            edits = Edits(block=block, vector=size * step, at=at)
            return float((forward(IDS, model.weights, model.config, edits)["logits"] * way).sum())

        cache = forward(IDS, model.weights, model.config)
        found = (gradient(cache, way, model.weights, model.config, block) * at[:, None] * step).sum()
        assert found == pytest.approx((total(1e-5) - total(-1e-5)) / 2e-5, rel=1e-5)


def test_several_prompts_of_one_length_go_back_together() -> None:
    model = load(str(FIXTURES / MICROS[0]))
    ids = np.array([IDS, IDS[::-1]])
    way = RANDOM.normal(size=(2, len(IDS), model.config.vocab_size))
    together = gradient(forward(ids, model.weights, model.config), way, model.weights, model.config, 1)
    for i, one in enumerate(ids):
        alone = gradient(forward(one, model.weights, model.config), way[i], model.weights, model.config, 1)
        np.testing.assert_allclose(together[i], alone, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.parametrize("name", MICROS)
def test_torch_goes_the_same_way_back(name: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder: Path = FIXTURES / name
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder, torch_dtype=torch.float64).eval()
    model = load(str(folder))
    way = RANDOM.normal(size=(len(IDS), model.config.vocab_size))
    states = theirs(torch.tensor([IDS]), output_hidden_states=True)
    for state in states.hidden_states:
        state.retain_grad()
    (states.logits[0] * torch.tensor(way)).sum().backward()
    cache = forward(IDS, model.weights, model.config)
    for block in range(model.config.n_layer):
        ours = gradient(cache, way, model.weights, model.config, block)
        np.testing.assert_allclose(ours, states.hidden_states[block].grad[0].numpy(), rtol=1e-6, atol=1e-8)
