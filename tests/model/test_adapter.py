"""LoRA adapters: read as PEFT saved them, and the reference with one held against the answers of `peft`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FIXTURES, MICRO
from safetensors.numpy import load_file, save_file

from xlgpt.errors import BadAdapter
from xlgpt.model.adapter import MODULES, Adapter, read_adapter
from xlgpt.model.checkpoint import TINY, load
from xlgpt.model.edits import Edits
from xlgpt.model.reference import forward

SAVED = ("lora-all", "lora-patterns")
PREFIX = "base_model.model.transformer."
Tensors = dict[str, Any]
Change = Callable[..., Path]


@pytest.fixture
def change(tmp_path: Path) -> Change:
    """Writes a copy of an adapter: keywords change its configuration, `edit` its tensors."""

    def changed(edit: Callable[[Tensors], Any] | None = None, **told: Any) -> Path:
        folder = shutil.copytree(FIXTURES / "lora-all", tmp_path / "mine")
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | told))
        if edit:
            tensors = load_file(folder / "adapter_model.safetensors")
            edit(tensors)
            save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return changed


def refused(folder: Path, model: Path = MICRO) -> str:
    with pytest.raises(BadAdapter) as failure:
        read_adapter(folder, load(str(model)).config)
    return str(failure.value)


@pytest.mark.parametrize("name", SAVED)
def test_saved_answers_of_peft(name: str) -> None:
    model = load(str(MICRO))
    adapter = read_adapter(FIXTURES / name, model.config)
    with np.load(FIXTURES / name / "expected.npz") as saved:
        ids, whole, half = saved["ids"].tolist(), saved["logits"], saved["half"]

    def logits(edits: Edits) -> np.ndarray:
        return np.asarray(forward(ids, model.weights, model.config, edits)["logits"])

    np.testing.assert_allclose(logits(Edits(adapter=adapter)), whole, atol=1e-5, rtol=0)
    np.testing.assert_allclose(logits(Edits(adapter=adapter, adapter_scale=0.5)), half, atol=1e-5, rtol=0)
    assert np.abs(logits(Edits()) - whole).max() > 1
    assert np.array_equal(logits(Edits()), logits(Edits(adapter=Adapter("nothing"))))


def test_ranks_and_scalings_are_those_that_the_patterns_name() -> None:
    adapter = read_adapter(FIXTURES / "lora-patterns", load(str(MICRO)).config)
    assert {name: (part.rank, pytest.approx(part.scaling)) for name, part in adapter.matrices.items()} == {
        "h.1.attn.c_attn": (1, 2.5),
        "h.1.mlp.c_proj": (4, 7 / 4**0.5),
        "h.2.attn.c_attn": (3, 2.5 / 3**0.5),
        "h.2.mlp.c_proj": (4, 5 / 4**0.5),
    }
    whole = read_adapter(FIXTURES / "lora-all", load(str(MICRO)).config)
    assert list(whole.matrices) == [f"h.{layer}.{module}" for layer in range(3) for module in MODULES]
    assert whole.parameters == 3 * 2 * ((12 + 36) + (12 + 12) + (12 + 48) + (48 + 12))


def test_names_without_transformer_and_half_precision_are_read(change: Change) -> None:
    def edit(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace("transformer.", "")] = tensors.pop(name).astype(np.float16)

    adapter = read_adapter(change(edit), load(str(MICRO)).config)
    assert len(adapter.matrices) == 12
    assert adapter.name == "mine"


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"peft_type": "IA3"}, "is an adapter of the type IA3; xlgpt knows LORA only"),
        ({"use_dora": True}, "is a DoRA"),
        ({"modules_to_save": ["wte"]}, "brings whole modules along (wte)"),
        ({"bias": "lora_only"}, "changes biases"),
        ({"lora_bias": True}, "changes biases"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa', which changes the model's own matrices"),
        ({"layer_replication": [[0, 2]]}, "sets layer_replication = [[0, 2]], which xlgpt does not know"),
        ({"r": 3}, "lora_A of transformer.h.0.attn.c_attn has the shape [2, 12]; adapter_config.json asks for [3, 12]"),
        ({"r": 0}, "r of transformer.h.0.attn.c_attn is 0; it must be a whole number of at least 1"),
        ({"lora_alpha": "2"}, "lora_alpha of transformer.h.0.attn.c_attn is '2', which is no number"),
        ({"rank_pattern": {"(": 2}}, "rank_pattern in adapter_config.json has a name that is no pattern"),
    ],
)
def test_another_kind_is_refused_in_a_sentence(change: Change, told: dict[str, Any], says: str) -> None:
    assert says in refused(change(**told))


def renamed(old: str, new: str) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        for name in [name for name in tensors if old in name]:
            tensors[name.replace(old, new)] = tensors.pop(name)

    return edit


C_ATTN_A = f"{PREFIX}h.0.attn.c_attn.lora_A.weight"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (renamed("h.0.attn.c_attn.lora_A.weight", "wte.lora_embedding_A"), "changes embeddings"),
        (renamed("lora_B.weight", "lora_B.bias"), "lora_B.bias, which no plain LoRA has"),
        (lambda t: t.update({f"{PREFIX}h.0.attn.c_attn.lora_magnitude_vector": np.ones(3)}), "which no plain LoRA has"),
        (
            renamed("h.0.attn.c_attn", "layers.0.self_attn.q_proj"),
            "changes transformer.layers.0.self_attn.q_proj; of a",
        ),
        (renamed("h.2.", "h.7."), "changes block 7, and the model has blocks 0 to 2: the adapter belongs to another"),
        (lambda t: t.pop(C_ATTN_A), "lacks lora_A of transformer.h.0.attn.c_attn"),
        (lambda t: t[C_ATTN_A].fill(np.nan), "holds a number that is not finite"),
        (lambda t: t.update({C_ATTN_A: np.ones((2, 12), dtype=np.int8)}), "is no matrix of decimal numbers"),
        (lambda t: t.clear(), "changes no matrix"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_in_a_sentence(change: Change, edit: Any, says: str) -> None:
    assert says in refused(change(edit))


def test_an_adapter_of_another_width_is_refused(change: Change) -> None:
    assert "with 12 inputs, and the model's has 96: the adapter belongs to another model" in refused(change(), TINY)


@pytest.mark.parametrize("size", [0, 7, 400, -1])
def test_a_file_cut_short_is_refused(change: Change, size: int) -> None:
    folder = change()
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert "is damaged or cut short" in refused(folder)


def test_files_that_are_not_there_or_no_json_are_refused(change: Change, tmp_path: Path) -> None:
    assert "holds no adapter_config.json; xlgpt reads a folder that PEFT saved" in refused(tmp_path / "nowhere")
    folder = change()
    (folder / "adapter_model.safetensors").unlink()
    assert "holds no adapter_model.safetensors" in refused(folder)
    (folder / "adapter_config.json").write_text("[")
    assert "is not valid JSON" in refused(folder)
    (folder / "adapter_config.json").write_text("[]")
    assert "does not hold a JSON object" in refused(folder)


@pytest.mark.train
@pytest.mark.parametrize("rslora", [False, True])
def test_peft_itself(tmp_path: Path, rslora: bool) -> None:
    """A new adapter, on all matrices, with patterns: saved by peft, and read here."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2LMHeadModel

    told: dict[str, Any] = {"r": 2, "lora_alpha": 7, "target_modules": ["c_attn", "c_proj", "c_fc"]}
    told |= {"rank_pattern": {"attn.c_proj": 3, "h.1.mlp.c_fc": 5}, "alpha_pattern": {"h.0.*": 1.5}}
    base = GPT2LMHeadModel.from_pretrained(MICRO, attn_implementation="eager").double()
    model = get_peft_model(base, LoraConfig(**told, use_rslora=rslora, fan_in_fan_out=True)).eval()
    ids = [3, 1, 200, 40, 41]
    with torch.no_grad():
        for name, numbers in model.named_parameters():
            if "lora_" in name:
                numbers.normal_(0, 0.5)
        wanted = model(torch.tensor([ids])).logits[0].numpy()
    model.save_pretrained(tmp_path)
    ours = load(str(MICRO))
    adapter = read_adapter(tmp_path, ours.config)
    logits = forward(ids, ours.weights, ours.config, Edits(adapter=adapter))["logits"]
    np.testing.assert_allclose(logits, wanted, atol=1e-5, rtol=0)
