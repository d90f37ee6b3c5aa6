"""The NumPy reference against `transformers`: on checkpoints that it saved, with its answers."""

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, FIXTURES, MICRO, SHARED

from xlgpt.model import reference
from xlgpt.model.checkpoint import Model, load
from xlgpt.model.config import GPT2Config, read_config
from xlgpt.model.sampling import Sampling, write

SIZES = ("n_embd", "n_positions", "vocab_size")
SAVED = ("gpt2-micro", "gpt2-micro-gelu", "gpt2-micro-relu", "gpt2-micro-untied")
THEIRS = pytest.param(SHARED / "hf-fixtures" / "gpt2-micro", 1e-4, marks=pytest.mark.shared, id="shared")
IDS = [5, 250, 17, 17, 299, 0, 88, 41]


def assert_agrees(model: Model, ids: list[int], wanted: dict[str, Any], atol: float) -> None:
    """Hold the reference against logits [T, V], attentions [layer, H, T, T] and hidden_states [layer + 1, T, D]."""
    seen = reference.forward(ids, model.weights, model.config)
    layers = range(model.config.n_layer)
    patterns = [seen[f"blocks.{i}.attn.pattern"] for i in layers]
    hidden = [seen[f"blocks.{i}.resid_pre"] for i in layers] + [seen["ln_final.normalized"]]
    np.testing.assert_allclose(seen["logits"], wanted["logits"], atol=atol, rtol=0)
    np.testing.assert_allclose(patterns, wanted["attentions"], atol=atol, rtol=0)
    np.testing.assert_allclose(hidden, wanted["hidden_states"], atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("folder", "atol"), [*(pytest.param(FIXTURES / name, 1e-5, id=name) for name in SAVED), THEIRS]
)
def test_saved_answers_of_transformers(folder: Path, atol: float) -> None:
    """All that it shows of each prompt: one token, some, a whole context; and how the text goes on."""
    model = load(str(folder))
    files = sorted(folder.glob("expected*.npz"))
    assert len(files) == (3 if folder == MICRO else 1)
    for file in files:
        with np.load(file) as saved:
            wanted = dict(saved)
        ids, generated = wanted["ids"].tolist(), wanted["generated"].tolist()
        assert_agrees(model, ids, wanted, atol)
        follows = reference.what_follows(model.weights, model.config)
        assert ids + write(ids, len(generated) - len(ids), follows, Sampling(), stop=-1) == generated


def test_the_saved_checkpoints_have_every_switch() -> None:
    """And no dimension of theirs could stand for another."""
    configs = [read_config(FIXTURES / name / "config.json") for name in SAVED]
    for switch in fields(GPT2Config):
        assert len({getattr(config, switch.name) for config in configs}) > 1 or switch.name in SIZES, switch.name
    for config in configs:
        assert len({config.n_layer, config.n_head, config.n_embd, config.n_positions, config.vocab_size}) == 5


def test_a_token_sees_only_what_is_before_it(make_checkpoint: Callable[..., Path]) -> None:
    model = load(str(make_checkpoint()))
    whole = reference.forward(IDS, model.weights, model.config)["logits"]
    part = reference.forward(IDS[:3], model.weights, model.config)["logits"]
    np.testing.assert_allclose(whole[:3], part, atol=1e-12)


def test_names_and_shapes_are_those_of_transformer_lens(make_checkpoint: Callable[..., Path]) -> None:
    model = load(str(make_checkpoint(n_inner=5)))
    seen = reference.forward(IDS, model.weights, model.config)
    t, d, h, v = len(IDS), CONFIG["n_embd"], CONFIG["n_head"], CONFIG["vocab_size"]
    block = dict.fromkeys(("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"), (t, d))
    block |= dict.fromkeys(("ln1.normalized", "ln2.normalized"), (t, d)) | dict.fromkeys(
        ("ln1.scale", "ln2.scale"), (t, 1)
    )
    block |= dict.fromkeys(("attn.q", "attn.k", "attn.v", "attn.z"), (t, h, d // h))
    block |= dict.fromkeys(("attn.attn_scores", "attn.pattern"), (h, t, t)) | dict.fromkeys(
        ("mlp.pre", "mlp.post"), (t, 5)
    )
    wanted = {f"blocks.{i}.{name}": shape for i in range(CONFIG["n_layer"]) for name, shape in block.items()}
    wanted |= {
        "embed": (t, d),
        "pos_embed": (t, d),
        "ln_final.scale": (t, 1),
        "ln_final.normalized": (t, d),
        "logits": (t, v),
    }
    assert {name: value.shape for name, value in seen.items()} == wanted


def test_vocabulary_larger_than_a_slice_keeps_its_order(make_checkpoint: Callable[..., Path]) -> None:
    model = load(str(make_checkpoint(vocab_size=9000)))
    seen = reference.forward(IDS, model.weights, model.config)
    wte = model.weights.tensor("wte.weight").astype(np.float64)
    wanted = [math.fsum(a * b for a, b in zip(row, seen["ln_final.normalized"][-1], strict=True)) for row in wte]
    np.testing.assert_allclose(seen["logits"][-1], wanted, atol=1e-9)


@pytest.mark.parametrize("name", ["tiny", "random:n_layer=12,n_embd=64", "random:n_layer=1,vocab_size=20000"])
def test_prompts_that_run_together_take_as_much_room_as_there_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither more nor half of it: the activations of the largest batch."""
    monkeypatch.setattr(reference, "ROOM", 10_000_000)
    model, prompts = load(name), [[1, 2, 3, 4, 5]] * 100 + [[7, 8]] * 3
    batches = list(reference.batches(prompts, model.config))
    assert sorted(i for batch in batches for i in batch) == list(range(len(prompts)))
    assert all(len({len(prompts[i]) for i in batch}) == 1 for batch in batches)
    cache = reference.forward(np.array([prompts[i] for i in batches[0]]), model.weights, model.config)
    held = {id(value.base if value.base is not None else value): value for value in cache.values()}
    assert 5_000_000 < sum(value.nbytes for value in held.values()) + cache["logits"].nbytes < 11_000_000


def test_one_prompt_always_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "ROOM", 1)
    assert list(reference.batches([[1, 2], [3, 4]], load("tiny").config)) == [[0], [1]]
