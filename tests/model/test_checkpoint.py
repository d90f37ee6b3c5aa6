"""The GPT-2 family: every way in which a checkpoint of it is stored says the same, and nothing else is read."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conftest import CONFIG, Edit, Tensors, random_tensors
from safetensors.numpy import load_file, save_file

from xlgpt.errors import BadCheckpoint, ModelNotFound, UnsupportedModel, UsageError, XlgptError
from xlgpt.model import checkpoint
from xlgpt.model.checkpoint import Kept, Model, load
from xlgpt.model.precision import rounded
from xlgpt.model.reference import forward

Make = Callable[..., Path]


def assert_holds(model: Model, wanted: Tensors) -> None:
    assert model.weights.shapes() == {name: value.shape for name, value in wanted.items()}
    for name, value in wanted.items():
        np.testing.assert_array_equal(model.weights.tensor(name), value, err_msg=name)


def prefixed(tensors: Tensors) -> None:
    for name in list(tensors):
        tensors[f"transformer.{name}"] = tensors.pop(name)


def masked(tensors: Tensors) -> None:
    for layer in range(CONFIG["n_layer"]):
        tensors[f"h.{layer}.attn.bias"] = np.tri(CONFIG["n_positions"], dtype=bool)[None, None]
        tensors[f"h.{layer}.attn.masked_bias"] = np.array(-1e4, dtype=np.float32)


def masked_and_prefixed(tensors: Tensors) -> None:
    masked(tensors)
    prefixed(tensors)


def head_stored_though_tied(tensors: Tensors) -> None:
    prefixed(tensors)
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].copy()


@pytest.mark.parametrize("edit", [None, prefixed, masked, masked_and_prefixed, head_stored_though_tied])
def test_stored_forms_mean_the_same(make_checkpoint: Make, edit: Edit | None) -> None:
    assert_holds(load(str(make_checkpoint(edit))), random_tensors(CONFIG))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["F16", "BF16"])
def test_half_precision_is_widened_exactly(make_checkpoint: Make, dtype: Any) -> None:
    halves = {name: value.astype(dtype) for name, value in random_tensors(CONFIG).items()}
    model = load(str(make_checkpoint(lambda tensors: tensors.update(halves))))
    assert_holds(model, {name: value.astype(np.float32) for name, value in halves.items()})


def test_shards_are_found_by_the_index(make_checkpoint: Make) -> None:
    folder = make_checkpoint(prefixed)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    assert_holds(load(str(folder)), random_tensors(CONFIG))

    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"model-00002-of-00002\.safetensors"):
        load(str(folder))


@pytest.mark.parametrize("weight_map", ['{"a": "../elsewhere.safetensors"}', '{"a": 1}', "[]", "null"])
def test_damaged_index(make_checkpoint: Make, weight_map: str) -> None:
    folder = make_checkpoint()
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "model.safetensors.index.json").write_text(f'{{"weight_map": {weight_map}}}')
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors\.index\.json"):
        load(str(folder))


def test_untied_head_is_a_tensor_of_its_own(make_checkpoint: Make) -> None:
    head = np.ones((CONFIG["vocab_size"], CONFIG["n_embd"]), dtype=np.float32)
    model = load(str(make_checkpoint(lambda t: t.update({"lm_head.weight": head}), tie_word_embeddings=False)))
    assert_holds(model, random_tensors(CONFIG) | {"lm_head.weight": head})


def test_n_inner_sets_the_width_of_the_mlp(make_checkpoint: Make) -> None:
    assert load(str(make_checkpoint(n_inner=5))).weights.shapes()["h.1.mlp.c_fc.weight"] == (CONFIG["n_embd"], 5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_norm_epsilon", 1e-3),
        ("activation_function", "gelu"),
        ("activation_function", "relu"),
        ("scale_attn_weights", False),
        ("scale_attn_by_inverse_layer_idx", True),
    ],
)
def test_switches_are_read(make_checkpoint: Make, key: str, value: object) -> None:
    assert getattr(load(str(make_checkpoint(**{key: value}))).config, key) == value


@pytest.mark.parametrize(
    "harmless",
    [
        {"n_ctx": 1024, "task_specific_params": {"conversational": {"max_length": 1000}}},  # DialoGPT
        {"_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},  # distilgpt2
        {
            "reorder_and_upcast_attn": True,
            "torch_dtype": "float32",
            "use_cache": True,
            "resid_pdrop": 0.1,
        },  # Cerebras-GPT
        {"add_cross_attention": False, "pruned_heads": {}, "rope_scaling": None},
    ],
)
def test_keys_that_change_nothing_are_passed_over(make_checkpoint: Make, harmless: dict[str, Any]) -> None:
    load(str(make_checkpoint(**harmless)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("add_cross_attention", True),
        ("activation_function", "silu"),
        ("model_type", "llama"),
        ("rope_theta", 10000.0),
        ("pruned_heads", {"0": [1]}),
        ("quantization_config", {"bits": 4}),
    ],
)
def test_other_arithmetic_is_refused_by_name(make_checkpoint: Make, key: str, value: object) -> None:
    with pytest.raises(UnsupportedModel, match=value if key == "model_type" else key):
        load(str(make_checkpoint(**{key: value})))


def test_pickles_are_never_read(make_checkpoint: Make, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path / "sprung").write_text, ("",)

    folder = make_checkpoint()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    load(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFound, match=r"pytorch_model\.bin is a pickle.*safetensors"):
        load(str(folder))
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def bundled(make_checkpoint: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "TINY", make_checkpoint(folder="tiny"))


@pytest.mark.usefixtures("bundled")
def test_random_weights_are_seeded() -> None:
    name = "random:n_layer=1,n_embd=16"
    first, again, other = load(name, 7).weights, load(name, 7).weights, load(name, 8).weights
    for tensor in first.shapes():
        np.testing.assert_array_equal(first.tensor(tensor), again.tensor(tensor))
        assert not np.array_equal(first.tensor(tensor), other.tensor(tensor))
    assert not np.array_equal(first.tensor("h.0.ln_1.bias"), first.tensor("h.0.ln_2.bias"))


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize(
    ("name", "parameters"),  # of the models as published: Radford et al. 2019, with the tied head counted once
    [
        ("random:gpt2", 124_439_808),
        ("random:gpt2-medium", 354_823_168),
        ("random:gpt2-large", 774_030_080),
        ("random:gpt2-xl", 1_557_611_200),
    ],
)
def test_random_sizes_are_those_of_the_published_models(name: str, parameters: int) -> None:
    model = load(name)
    assert model.parameters == parameters
    assert len(model.tokenizer.tokens) == 50257


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize(
    "dimensions",
    [
        "",
        "gpt3",
        "n_layer",
        "n_layer=two",
        "n_layer=-1",
        "n_layer=0",
        "width=3",
        "n_embd=10,n_head=3",
        f"vocab_size={10**12}",
    ],
)
def test_random_dimensions_that_make_no_model(dimensions: str) -> None:
    with pytest.raises(UsageError, match=f"^random:{dimensions}: "):
        load(f"random:{dimensions}")


def test_every_failure_is_one_of_ours(make_checkpoint: Make) -> None:
    """Cut anywhere, config.json and the weights give a sentence, never another exception."""
    folder = make_checkpoint()
    for name in ("config.json", "model.safetensors"):
        whole = (folder / name).read_bytes()
        for length in (0, 1, 8, 9, 50, len(whole) // 2, len(whole) - 1):
            (folder / name).write_bytes(whole[:length])
            with pytest.raises(XlgptError):
                load(str(folder))
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("model", ["tiny", "random:n_layer=1,n_embd=60,n_head=2"])
@pytest.mark.parametrize("digits", [None, 3])
def test_pieces_are_the_tensor(model: str, digits: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlgpt.model.checkpoint.PIECE", 1000)
    weights = rounded(load(model), digits).weights
    for name in weights.shapes():
        pieces = list(weights.pieces(name))
        assert max(piece.size for piece in pieces) <= max([1000, *weights.shapes()[name][1:]])
        np.testing.assert_array_equal(np.concatenate(pieces), weights.tensor(name))
        for piece, again in zip(pieces[1:], weights.pieces(name, 1), strict=True):
            np.testing.assert_array_equal(piece, again)


def test_a_piece_says_where_in_the_tensor_a_number_is_not_finite(
    make_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors["wte.weight"][123, 4] = np.nan

    monkeypatch.setattr("xlgpt.model.checkpoint.PIECE", 80)
    with pytest.raises(BadCheckpoint, match=r"wte.weight holds nan at \[123, 4\]"):
        list(load(str(make_checkpoint(spoil))).weights.pieces("wte.weight"))


def test_no_more_weights_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are read again for each run, with the same result to the last bit."""
    model = load("tiny")
    whole = forward([1, 2, 3], Kept(model.weights), model.config)
    monkeypatch.setattr(checkpoint, "HELD", 1_000_000)
    some = Kept(model.weights)
    first, again = (forward([1, 2, 3], some, model.config) for _ in range(2))
    assert all(np.array_equal(whole[name], run[name]) for run in (first, again) for name in whole)
    kept = {name: tensor for name in model.weights.shapes() if (tensor := some.tensor(name)) is some.tensor(name)}
    assert 500_000 < sum(tensor.nbytes for tensor in kept.values()) <= 1_000_000
    assert "wte.weight" in kept
