"""Steering and switches in the reference, against `transformers` with hooks and against what they must come to."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONFIG, MICRO

from xlgpt.model.checkpoint import Kept, Model, load
from xlgpt.model.edits import Edits
from xlgpt.model.reference import forward

IDS = [5, 250, 17, 17, 299, 0, 88, 41]
L, H, D = CONFIG["n_layer"], CONFIG["n_head"], CONFIG["n_embd"]
K = D // H
RANDOM = np.random.default_rng(7)
STEERING = Edits(block=1, vector=RANDOM.normal(size=D), at=RANDOM.normal(size=len(IDS)))
SWITCHES = {"heads": np.array([[0.0, 1.0], [0.25, 0.0]]), "mlps": np.array([0.0, 0.75])}
MEANS = {"head_means": RANDOM.normal(size=(L, H, K)), "mlp_means": RANDOM.normal(size=(L, D))}


@pytest.fixture
def model(make_checkpoint: Callable[..., Path]) -> Model:
    return load(str(make_checkpoint()))


def run(model: Model, edits: Edits = Edits()) -> dict[str, Any]:  # noqa: B008 - frozen
    return forward(IDS, model.weights, model.config, edits)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "nothing",
    [
        Edits(vector=np.ones(D), at=0.0),
        Edits(vector=np.zeros(D), at=np.full(40, 3.0)),
        Edits(block=L, vector=np.ones(D)),
        Edits(heads=np.ones((L, H)), mlps=np.ones(L)),
        Edits(heads=np.ones((L, H)), mlps=np.ones(L), **MEANS),
        Edits(**MEANS),
    ],
)
def test_what_is_switched_off_changes_no_bit(model: Model, nothing: Edits) -> None:
    assert same(run(model), run(model, nothing))


@pytest.mark.parametrize("kind", ["steering", "zero", "mean", "all"])
def test_transformers_with_hooks(kind: str) -> None:
    model = load(str(MICRO))
    with np.load(MICRO / f"edited-{kind}.npz") as saved:
        told = dict(saved)
    ids, wanted = told.pop("ids").tolist(), told.pop("logits")
    edits = Edits(int(told.pop("block", 0)), **told)
    logits = forward(ids, model.weights, model.config, edits)["logits"]
    np.testing.assert_allclose(logits, wanted, atol=1e-5, rtol=0)
    assert np.abs(logits - forward(ids, model.weights, model.config)["logits"]).max() > 0.1


def test_steering_before_the_first_block_is_another_embedding(make_checkpoint: Callable[..., Path]) -> None:
    vector = np.arange(D) / 8
    model = load(str(make_checkpoint()))
    moved = Kept(model.weights)
    moved.tensor("wpe.weight")[:] += 3 * vector
    edited = run(model, Edits(block=0, vector=vector, at=3.0))
    np.testing.assert_allclose(edited["logits"], forward(IDS, moved, model.config)["logits"], atol=1e-12)
    np.testing.assert_array_equal(edited["blocks.0.resid_pre"], run(model)["blocks.0.resid_pre"] + 3 * vector)


def test_steering_one_position_leaves_those_before_it(model: Model) -> None:
    at = np.zeros(len(IDS))
    at[4] = 2.0
    edited, plain = run(model, Edits(block=1, vector=np.ones(D) * np.arange(D), at=at)), run(model)
    assert np.array_equal(edited["logits"][:4], plain["logits"][:4])
    assert np.abs(edited["logits"][4:] - plain["logits"][4:]).max(axis=-1).min() > 1e-3


def test_with_all_off_only_embeddings_and_biases_are_left(model: Model) -> None:
    """The whole model by hand: no block reads anything any more."""
    w = {name: model.weights.tensor(name).astype(np.float64) for name in model.weights.shapes()}
    x = w["wte.weight"][IDS] + w["wpe.weight"][: len(IDS)]
    for layer in range(L):
        x = x + w[f"h.{layer}.attn.c_proj.bias"]  # the MLP's bias belongs to what is ablated
    rows = []
    for row in x:
        mean = math.fsum(row) / D
        spread = math.sqrt(math.fsum((v - mean) ** 2 for v in row) / D + model.config.layer_norm_epsilon)
        rows.append((row - mean) / spread * w["ln_f.weight"] + w["ln_f.bias"])
    off = run(model, Edits(heads=np.zeros((L, H)), mlps=np.zeros(L)))
    np.testing.assert_allclose(off["logits"], np.array(rows) @ w["wte.weight"].T, atol=1e-12)
    assert not off["blocks.1.attn.z"].any(), "z is what is left of it, as with a hook in TransformerLens"
    assert np.abs(off["blocks.1.mlp.post"]).max() > 0


def test_what_is_off_gives_its_mean(model: Model) -> None:
    off = run(model, Edits(heads=np.zeros((L, H)), mlps=np.zeros(L), **MEANS))
    for layer in range(L):
        w, b = (model.weights.tensor(f"h.{layer}.attn.c_proj.{part}").astype(np.float64) for part in ("weight", "bias"))
        out = MEANS["head_means"][layer].reshape(-1) @ w + b
        np.testing.assert_allclose(off[f"blocks.{layer}.attn_out"], np.tile(out, (len(IDS), 1)), atol=1e-12)
        np.testing.assert_allclose(
            off[f"blocks.{layer}.mlp_out"], np.tile(MEANS["mlp_means"][layer], (len(IDS), 1)), atol=1e-12
        )


def test_keep_and_fill_are_what_the_sheet_holds() -> None:
    edits = Edits(**SWITCHES, **MEANS)
    z = RANDOM.normal(size=(3, D))
    for layer in range(L):
        keep, fill = edits.keep(layer, D), edits.fill(layer, D)
        assert keep.tolist() == [s for s in SWITCHES["heads"][layer] for _ in range(K)]
        np.testing.assert_array_equal(edits.switch_heads(z, layer), z * keep + fill)
    assert not Edits(heads=np.zeros((L, H))).fill(0, D).any()


@pytest.mark.parametrize("edits", [Edits(), Edits(STEERING.block, STEERING.vector, STEERING.at, **SWITCHES, **MEANS)])
def test_several_prompts_at_once_are_each_by_itself(model: Model, edits: Edits) -> None:
    prompts = np.array([IDS, IDS[::-1], [9] * len(IDS)])
    together = forward(prompts, model.weights, model.config, edits)
    for i, ids in enumerate(prompts.tolist()):
        alone = forward(ids, model.weights, model.config, edits)
        for name in alone.keys() - {"pos_embed"}:
            np.testing.assert_allclose(together[name][i], alone[name], atol=1e-12, err_msg=name)


def test_the_residual_stream_of_transformers_moves_by_the_vector() -> None:
    """Block 1's saved input at the first position, added there once more."""
    model = load(str(MICRO))
    with np.load(MICRO / "expected.npz") as saved:
        ids, hidden = saved["ids"].tolist(), saved["hidden_states"]
    vector = hidden[1][0].astype(np.float64)
    edits = Edits(block=1, vector=vector, at=np.eye(len(ids))[0])
    stream = forward(ids, model.weights, model.config, edits)["blocks.1.resid_pre"]
    np.testing.assert_allclose(stream[0], 2 * hidden[1][0], atol=1e-5)
    np.testing.assert_allclose(stream[1:], hidden[1][1:], atol=1e-5)
