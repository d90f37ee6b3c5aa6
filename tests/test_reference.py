"""The NumPy reference against `transformers`: on a checkpoint that it saved with its answers, and live."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, SHARED, Edit, Tensors

from xlgpt import reference
from xlgpt.checkpoint import Model, load
from xlgpt.sampling import Sampling, write

FIXTURE = SHARED / "hf-fixtures" / "gpt2-micro"
IDS = [5, 250, 17, 17, 299, 0, 88, 41]
needs_fixture = pytest.mark.skipif(not FIXTURE.is_dir(), reason=f"{FIXTURE} is not there")


def assert_agrees(model: Model, ids: list[int], wanted: dict[str, Any], atol: float) -> None:
    """Hold the reference against logits [T, V], attentions [layer, H, T, T] and hidden_states [layer + 1, T, D]."""
    seen = reference.forward(ids, model.weights, model.config)
    layers = range(model.config.n_layer)
    patterns = [seen[f"blocks.{i}.attn.pattern"] for i in layers]
    hidden = [seen[f"blocks.{i}.resid_pre"] for i in layers] + [seen["ln_final.normalized"]]
    np.testing.assert_allclose(seen["logits"], wanted["logits"], atol=atol, rtol=0)
    np.testing.assert_allclose(patterns, wanted["attentions"], atol=atol, rtol=0)
    np.testing.assert_allclose(hidden, wanted["hidden_states"], atol=atol, rtol=0)


@needs_fixture
def test_saved_answers_of_transformers() -> None:
    model = load(str(FIXTURE))
    with np.load(FIXTURE / "expected.npz") as saved:
        wanted = dict(saved)
    ids, generated = wanted["ids"].tolist(), wanted["generated"].tolist()
    assert_agrees(model, ids, wanted, atol=1e-4)
    follows = reference.what_follows(model.weights, model.config)
    assert ids + write(ids, len(generated) - len(ids), follows, Sampling(), stop=-1) == generated


def with_a_head(tensors: Tensors) -> None:
    tensors["lm_head.weight"] = np.random.default_rng(1).normal(size=tensors["wte.weight"].shape).astype(np.float32)


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"activation_function": "gelu"},
        {"activation_function": "relu"},
        {"layer_norm_epsilon": 0.3},
        {"n_inner": 5},
        {"n_head": 4},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
        {"tie_word_embeddings": False},
    ],
    ids=str,
)
def test_live_transformers(make_checkpoint: Callable[..., Path], switches: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    edit: Edit | None = with_a_head if switches.get("tie_word_embeddings") is False else None
    folder = make_checkpoint(edit, **switches)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        output = theirs(torch.tensor([IDS]), output_attentions=True, output_hidden_states=True)
    wanted = {
        "logits": output.logits[0].numpy(),
        "attentions": [layer[0].numpy() for layer in output.attentions],
        "hidden_states": [layer[0].numpy() for layer in output.hidden_states],
    }
    assert_agrees(load(str(folder)), IDS, wanted, atol=1e-5)


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
