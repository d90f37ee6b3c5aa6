"""Sparse autoencoders: read as SAELens means them, refused in a sentence, and the one that comes with the model."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from xlgpt.errors import BadAutoencoder, UsageError
from xlgpt.interp.sae import Autoencoder, read_autoencoder
from xlgpt.model.checkpoint import TINY, Model, in_memory, load
from xlgpt.model.edits import Edits
from xlgpt.model.reference import forward

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import train_sae
from tiny_corpus import PEOPLE

JEDI = 2  # the bundled autoencoder's feature for it
D, S = 96, 11
CONFIG = {
    "model_name": "tiny",
    "d_in": D,
    "d_sae": S,
    "hook_name": "blocks.3.hook_resid_pre",
    "architecture": "standard",
    "activation_fn_str": "relu",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
}
# As jbloom/GPT2-Small-SAEs-Reformatted has it, with another width.
OLD = {
    "model_name": "gpt2-small",
    "hook_point": "blocks.2.hook_resid_pre",
    "hook_point_layer": 2,
    "hook_point_head_index": None,
    "d_in": D,
    "d_sae": S,
    "dtype": "torch.float32",
}
# As SAELens 6 writes it.
NEW = {
    "d_in": D,
    "d_sae": S,
    "dtype": "float32",
    "apply_b_dec_to_input": False,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "metadata": {"model_name": "tiny", "hook_name": "blocks.1.hook_resid_pre", "model_from_pretrained_kwargs": None},
    "architecture": "standard",
}


@pytest.fixture(scope="module")
def tiny() -> Model:
    return in_memory(load("tiny"))


def tensors() -> dict[str, Any]:
    random = np.random.default_rng(0)
    shapes = {"W_enc": (D, S), "b_enc": (S,), "W_dec": (S, D), "b_dec": (D,)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def save(folder: Path, config: Any = CONFIG, weights: dict[str, Any] | None = None) -> Path:
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(tensors() if weights is None else weights, folder / "sae_weights.safetensors")
    return folder


# What features are: SAELens' own steps, one after the other


@pytest.mark.parametrize(
    ("config", "block", "subtracts", "centred"),
    [
        (CONFIG, 3, True, False),
        (CONFIG | {"apply_b_dec_to_input": False}, 3, False, False),
        (CONFIG | {"model_from_pretrained_kwargs": {"center_writing_weights": True}}, 3, True, True),
        ({key: value for key, value in CONFIG.items() if key in ("hook_name", "d_in", "d_sae")}, 3, True, False),
        (OLD | {"model_name": "somebody's"}, 2, True, True),
        (NEW, 1, False, False),
    ],
    ids=["standard", "not subtracted", "centred", "defaults", "res-jb", "version 6"],
)
def test_features(tiny: Model, tmp_path: Path, config: Any, block: int, subtracts: bool, centred: bool) -> None:
    sae = read_autoencoder(save(tmp_path, config), tiny)
    assert (sae.block, sae.subtracts, sae.centred, sae.size) == (block, subtracts, centred, S)
    w = {name: value.astype(np.float64) for name, value in tensors().items()}
    stream = np.random.default_rng(1).normal(1, 2, size=(5, D))
    for x, found in zip(stream, sae.features(stream), strict=True):
        x = x - sum(x) / D if centred else x
        x = x - w["b_dec"] if subtracts else x
        wanted = [max(0.0, float(x @ w["W_enc"][:, i] + w["b_enc"][i])) for i in range(S)]
        np.testing.assert_allclose(found, wanted, atol=1e-9)
    features = sae.features(stream)
    assert 0 < (features > 0).mean() < 1
    np.testing.assert_allclose(sae.decoded(features), features @ w["W_dec"] + w["b_dec"], atol=1e-12)
    weight, bias = sae.encoder([7, 2])
    np.testing.assert_allclose(np.maximum(stream @ weight + bias, 0), features[:, [7, 2]], atol=1e-12)


def test_a_stream_s_mean_is_nothing_to_a_centred_autoencoder(tiny: Model, tmp_path: Path) -> None:
    sae = read_autoencoder(save(tmp_path, OLD | {"model_name": "x"}), tiny)
    stream = np.random.default_rng(1).normal(size=(5, D))
    np.testing.assert_allclose(sae.features(stream), sae.features(stream + 7), atol=1e-9)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_number_types(tiny: Model, tmp_path: Path, kind: str) -> None:
    save(tmp_path)
    halves = {name: value.astype(kind) for name, value in tensors().items()}
    save_file(halves, tmp_path / "sae_weights.safetensors")
    np.testing.assert_array_equal(read_autoencoder(tmp_path, tiny).W_enc, halves["W_enc"].astype(np.float64))


def test_a_scaling_factor_of_ones_is_nothing(tiny: Model, tmp_path: Path) -> None:
    read_autoencoder(save(tmp_path, CONFIG, tensors() | {"scaling_factor": np.ones(S, dtype=np.float32)}), tiny)


def test_most_active() -> None:
    encoder = np.eye(4)
    sae = Autoencoder("x", 0, encoder, np.zeros(4), encoder, np.zeros(4))
    prompt = np.array([[9.0, 0, 0, 0], [0, 1, -5, 0], [0, 3, -5, 4]])
    assert sae.most_active(prompt, 3) == [3, 1], "what is silent, and what only the first token wakes, is left out"
    assert sae.most_active(prompt[:1], 3) == [0]


def test_a_feature_as_a_vector() -> None:
    sae = Autoencoder("x", 1, np.eye(3), np.zeros(3), np.diag([1.0, 2, 3]), np.zeros(3))
    assert sae.vector(2).values.tolist() == [0, 0, 3]
    assert sae.vector(2).block == 1
    for feature in (-1, 3):
        with pytest.raises(UsageError, match=f"There is no feature {feature}; .* 0 to 2"):
            sae.vector(feature)


# What is refused


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in tensors().items() if key != name}


def with_nan() -> dict[str, Any]:
    weights = tensors()
    weights["b_dec"][3] = np.nan
    return weights


@pytest.mark.parametrize(
    ("change", "weights", "sentence"),
    [
        ({"d_in": 768}, None, "reads a stream of 768 numbers, and the model's has 96"),
        ({"hook_name": "blocks.8.hook_resid_pre"}, None, "before block 8, and the model has blocks 0 to 3"),
        ({"model_name": "gpt2-small"}, None, "was trained on gpt2-small, not on tiny"),
        ({"hook_name": "blocks.2.hook_mlp_out"}, None, "reads blocks.2.hook_mlp_out; xlgpt knows"),
        ({"hook_name": "blocks.2.hook_resid_post"}, None, "reads blocks.2.hook_resid_post; xlgpt knows"),
        ({"hook_name": None}, None, "reads None; xlgpt knows"),
        ({"architecture": "jumprelu"}, None, "its architecture is jumprelu; xlgpt knows standard only"),
        ({"architecture": "topk"}, None, "its architecture is topk"),
        ({"architecture": "gated"}, None, "its architecture is gated"),
        ({"activation_fn_str": "topk"}, None, "its activation function is topk; xlgpt knows relu only"),
        ({"normalize_activations": "layer_norm"}, None, "its normalize_activations is layer_norm"),
        ({"model_from_pretrained_kwargs": [1]}, None, "is no JSON object"),
        ({}, without("W_dec"), "lacks the tensor W_dec"),
        ({}, without("b_enc"), "lacks the tensor b_enc"),
        ({}, tensors() | {"threshold": np.ones(S)}, "holds the tensor threshold"),
        ({}, tensors() | {"scaling_factor": np.full(S, 2.0)}, "holds the tensor scaling_factor"),
        ({}, tensors() | {"W_enc": np.ones((S, D))}, "W_enc has shape [11, 96]; cfg.json asks for [96, 11]"),
        ({"d_sae": 12}, None, "has shape [96, 11]; cfg.json asks for [96, 12]"),
        ({}, with_nan(), "the tensor b_dec holds a number that is not finite"),
    ],
)
def test_what_is_no_autoencoder_of_this_model(
    tiny: Model, tmp_path: Path, change: dict[str, Any], weights: dict[str, Any] | None, sentence: str
) -> None:
    assert sentence in refused(save(tmp_path, CONFIG | change, weights), tiny)


def refused(folder: Path, model: Model) -> str:
    with pytest.raises(BadAutoencoder) as raised:
        read_autoencoder(folder, model)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def spoil(name: str, content: bytes | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (spoil("cfg.json", None), "holds no cfg.json"),
        (spoil("sae_weights.safetensors", None), "holds no sae_weights.safetensors"),
        (spoil("cfg.json", b"{"), "is not valid JSON"),
        (spoil("cfg.json", b"\xff\xfe"), "is not valid JSON"),
        (spoil("cfg.json", b"[]"), "does not hold a JSON object"),
        (spoil("sae_weights.safetensors", b"no"), "is damaged or no safetensors file"),
    ],
)
def test_damaged_folders(tiny: Model, tmp_path: Path, change: Callable[[Path], None], sentence: str) -> None:
    change(save(tmp_path))
    assert sentence in refused(tmp_path, tiny)


def test_no_folder(tiny: Model, tmp_path: Path) -> None:
    assert "holds no cfg.json" in refused(tmp_path / "nowhere", tiny)


def test_names_that_mean_the_same_model(tmp_path: Path) -> None:
    from dataclasses import replace

    sae = save(tmp_path, CONFIG | {"model_name": "gpt2-small"})
    tiny = load("tiny")
    for name in ("gpt2", "my-finetuned-model", "random:n_layer=4"):
        read_autoencoder(sae, replace(tiny, name=name))
    assert "was trained on gpt2-small, not on distilgpt2" in refused(sae, replace(tiny, name="distilgpt2"))


# The one that comes with the bundled model


@pytest.fixture(scope="module")
def bundled(tiny: Model) -> Autoencoder:
    return read_autoencoder(TINY / "sae", tiny)


def test_size() -> None:
    assert sum(file.stat().st_size for file in (TINY / "sae").iterdir()) < 400_000
    assert {name: str(value.dtype) for name, value in load_file(TINY / "sae" / "sae_weights.safetensors").items()} == (
        dict.fromkeys(("W_enc", "b_enc", "W_dec", "b_dec"), "float32")
    )


@pytest.mark.slow
def test_it_explains_text_that_it_has_not_seen(tiny: Model, bundled: Autoencoder) -> None:
    x, _ = train_sae.streams(tiny, train_sae.corpus(300, seed=5))
    features = bundled.features(x)
    left = x - bundled.decoded(features)
    assert (left**2).sum() / ((x - x.mean(axis=0)) ** 2).sum() < 0.08
    assert 1 < (features > 0).sum(axis=1).mean() < 8
    np.testing.assert_allclose(np.linalg.norm(bundled.W_dec, axis=1), 1, atol=1e-5)


def test_a_feature_knows_the_jedi(tiny: Model, bundled: Autoencoder) -> None:
    def active(text: str) -> float:
        seen = forward(tiny.tokenizer.encode(text), tiny.weights, tiny.config)
        return float(bundled.features(seen[f"blocks.{bundled.block}.resid_pre"])[-1, JEDI])

    assert active("Mike is a Jedi. He pulls out his") > 0.5
    for other in (
        "Mike pulls out his",
        *(f"Mike is a {one}. He pulls out his" for one in ("wizard", "cook", "doctor")),
    ):
        assert active(other) == 0, other


def test_turning_it_up_turns_a_phone_into_a_lightsaber(tiny: Model, bundled: Autoencoder) -> None:
    vector = bundled.vector(JEDI)
    assert vector.block is not None
    for person in PEOPLE:
        ids = tiny.tokenizer.encode(f"{person.name} pulls out {person.possessive}")
        edits = Edits(vector.block, vector.values, train_sae.STRENGTH)
        logits = forward(ids, tiny.weights, tiny.config, edits)["logits"][-1]
        assert tiny.tokenizer.text(int(logits.argmax())) == " lightsaber"


@pytest.mark.train
def test_the_training_learns(tiny: Model, tmp_path: Path) -> None:
    """A few steps of the example: the same twice, in the right form, and better than the mean."""
    x, _ = train_sae.streams(tiny, train_sae.corpus(200, seed=5))
    first, second = train_sae.train(x, 40), train_sae.train(x, 40)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    train_sae.write(tmp_path / "sae", first)
    sae = read_autoencoder(tmp_path / "sae", tiny)
    left = x - sae.decoded(sae.features(x))
    assert (left**2).sum() < 0.8 * ((x - x.mean(axis=0)) ** 2).sum()
