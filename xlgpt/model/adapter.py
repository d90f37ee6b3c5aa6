"""LoRA adapters (Hu et al. 2021) as PEFT saves them: beside a matrix W stands the product of two thin ones, A and B."""

import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - importing it teaches NumPy, and so safetensors, the type bfloat16
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from xlgpt.errors import BadAdapter, OutputError
from xlgpt.model.config import GPT2Config, weight_shapes
from xlgpt.model.json_object import read_object

Array = NDArray[np.float64]
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
MODULES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")  # of a block, which an adapter may change
TENSOR = re.compile(r"base_model\.model\.(?P<matrix>.+)\.lora_(?P<part>[AB])\.weight")

# Keys of adapter_config.json that are read here, or change no number of a trained adapter: where and how it began.
HARMLESS = frozenset(
    """
    auto_mapping base_model_name_or_path bias ensure_weight_tying exclude_modules fan_in_fan_out inference_mode
    init_lora_weights layers_pattern layers_to_transform lora_alpha lora_dropout megatron_core peft_type peft_version
    qalora_group_size r rank_pattern alpha_pattern revision runtime_config target_modules target_parameters task_type
    use_rslora
    """.split()
)
BEGINNINGS = (True, False, "gaussian", "orthogonal", "eva")  # init_lora_weights that leave the model's own W as it is


@dataclass(frozen=True, eq=False)
class LowRank:
    """What is added to a matrix [in, out]: scaling times A [in, r] times B [r, out].

    PEFT saves lora_A.weight [r, in] and lora_B.weight [out, r]: both are transposed here, as GPT-2's own matrices are.
    """

    A: Array
    B: Array
    scaling: float = 1.0

    @property
    def rank(self) -> int:
        """How many columns A has, and rows B."""
        return len(self.B)

    def added(self, x: Array) -> Array:
        """scaling · (x·A)·B, [..., in] -> [..., out]: never the whole product of the two matrices."""
        flat = (x.reshape(-1, x.shape[-1]) @ self.A * self.scaling) @ self.B
        return flat.reshape(*x.shape[:-1], -1)


@dataclass(frozen=True, eq=False)
class Adapter:
    """A fine-tune: for some matrices, by their names in the checkpoint (h.0.attn.c_attn), what is added to each."""

    name: str
    matrices: Mapping[str, LowRank] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(part.A.size + part.B.size for part in self.matrices.values())

    def added(self, x: Array, matrix: str, scale: float = 1.0) -> Array | float:
        """What comes on top of x·W, so many times; 0 where the adapter has nothing for that matrix."""
        return scale * self.matrices[matrix].added(x) if matrix in self.matrices else 0.0


def read_adapter(folder: Path, config: GPT2Config) -> Adapter:
    """Read adapter_config.json and adapter_model.safetensors, and hold them against the model. Raises BadAdapter."""
    told = read_object(folder / CONFIG, BadAdapter, "PEFT")
    _check_kind(told, folder)
    tensors = _read_tensors(folder / TENSORS)
    matrices = dict.fromkeys(matrix for matrix, _ in tensors)
    if not matrices:
        raise BadAdapter(f"{folder} changes no matrix; {TENSORS} is empty.")
    for matrix in matrices:
        _check_matrix(matrix, config, folder)
    in_order = (f"h.{layer}.{module}" for layer in range(config.n_layer) for module in MODULES)
    places = {_short(matrix): matrix for matrix in matrices}
    found = {name: _low_rank(places[name], tensors, told, config, folder) for name in in_order if name in places}
    return Adapter(folder.resolve().name, found)


def write_adapter(folder: Path, adapter: Adapter) -> None:
    """Write a folder that `peft` loads, and read_adapter reads, float32. An adapter that stands there gives way.

    Whatever goes wrong, no half of a folder is left. Raises OutputError.
    """
    check_folder(folder)
    tensors = {}
    for name, part in adapter.matrices.items():
        for letter, thin in (("A", part.A.T), ("B", part.B.T)):
            key = f"base_model.model.transformer.{name}.lora_{letter}.weight"
            tensors[key] = np.ascontiguousarray(thin, dtype=np.float32)
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "target_modules": list(adapter.matrices),  # PEFT takes every module whose name ends so
        "fan_in_fan_out": True,
        "inference_mode": True,
        "r": 1,
        "lora_alpha": 1,
        "rank_pattern": {name: part.rank for name, part in adapter.matrices.items()},
        "alpha_pattern": {name: part.scaling * part.rank for name, part in adapter.matrices.items()},
    }
    beside, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        beside.mkdir(parents=True)
        (beside / CONFIG).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        (beside / TENSORS).write_bytes(save(tensors, {"format": "pt"}))
        if folder.exists():
            folder.rename(old)
        beside.rename(folder)
    except OSError as e:
        raise OutputError(f"{folder} cannot be written: {e.strerror}.") from e
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # it is in its place, or was never made
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def check_folder(folder: Path) -> None:
    """Whether an adapter may be written there: over another one, never over anything else. Raises OutputError."""
    if os.path.lexists(folder) and (
        not folder.is_dir() or {path.name for path in folder.iterdir()} - {CONFIG, TENSORS}
    ):
        raise OutputError(f"{folder} is there already, and is no adapter; name another folder.")


def _check_kind(told: dict[str, Any], folder: Path) -> None:
    """Whether it is x·W + b + alpha/r·(x·A)·B and nothing else. Raises BadAdapter."""
    if told.get("peft_type") != "LORA":
        raise BadAdapter(f"{folder} is an adapter of the type {told.get('peft_type')}; xlgpt knows LORA only.")
    if told.get("use_dora"):
        raise BadAdapter(f"{folder} is a DoRA, which scales each column of a matrix anew; xlgpt knows plain LoRA only.")
    if told.get("modules_to_save"):
        kept = ", ".join(map(str, told["modules_to_save"]))
        raise BadAdapter(
            f"{folder} brings whole modules along ({kept}); xlgpt takes what LoRA adds to matrices, no more."
        )
    if told.get("bias", "none") != "none" or told.get("lora_bias"):
        raise BadAdapter(f"{folder} changes biases; xlgpt takes what LoRA adds to matrices, no more.")
    if told.get("init_lora_weights", True) not in BEGINNINGS:
        raise BadAdapter(
            f"{folder} began with init_lora_weights = {told['init_lora_weights']!r}, which changes the model's own "
            "matrices too; save it with PEFT's path_initial_model_for_weight_conversion."
        )
    for key, value in told.items():
        if key not in HARMLESS and value not in (None, False, {}, []):
            raise BadAdapter(
                f"{folder} sets {key} = {value!r}, which xlgpt does not know; it may change the arithmetic."
            )


def _read_tensors(path: Path) -> dict[tuple[str, str], Array]:
    """The tensors as float64, by the name of their matrix and A or B."""
    if not path.is_file():
        raise BadAdapter(
            f"{path.parent} holds no {path.name}; a pickle, which can run code when it is read, is not read."
        )
    try:
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as e:
        raise BadAdapter(f"{path} is damaged or cut short ({e}); save or download it again.") from e
    found = {}
    for name, tensor in tensors.items():
        parts = TENSOR.fullmatch(name)
        if "lora_embedding" in name:
            raise BadAdapter(f"{path} changes embeddings ({name}); xlgpt takes what LoRA adds to a block's matrices.")
        if not parts:
            raise BadAdapter(f"{path} holds the tensor {name}, which no plain LoRA has.")
        if tensor.dtype.kind not in "fV" or tensor.ndim != 2:  # V: bfloat16, to NumPy
            raise BadAdapter(f"{path}: the tensor {name} is no matrix of decimal numbers.")
        found[parts["matrix"], parts["part"]] = tensor.astype(np.float64)
        if not np.isfinite(found[parts["matrix"], parts["part"]]).all():
            raise BadAdapter(f"{path}: the tensor {name} holds a number that is not finite; a cell cannot.")
    return found


def _short(matrix: str) -> str:
    """A matrix' name in the checkpoint, which has no `transformer.` in front."""
    return matrix.removeprefix("transformer.")


def _check_matrix(matrix: str, config: GPT2Config, folder: Path) -> None:
    """Whether the model has it, in a block. Raises BadAdapter."""
    found = re.fullmatch(r"h\.(\d+)\.(.+)", _short(matrix))
    if not found or found[2] not in MODULES:
        raise BadAdapter(
            f"{folder} changes {matrix}; of a GPT-2, xlgpt takes changes of {', '.join(MODULES)} in its blocks."
        )
    if int(found[1]) >= config.n_layer:
        raise BadAdapter(
            f"{folder} changes block {found[1]}, and the model has blocks 0 to {config.n_layer - 1}: "
            "the adapter belongs to another model."
        )


def _low_rank(
    matrix: str, tensors: dict[tuple[str, str], Array], told: dict[str, Any], config: GPT2Config, folder: Path
) -> LowRank:
    """What is added to one matrix. Raises BadAdapter."""
    for part in "AB":
        if (matrix, part) not in tensors:
            raise BadAdapter(f"{folder} lacks lora_{part} of {matrix}; {TENSORS} was cut short or changed.")
    rank = _number(told, "r", "rank_pattern", matrix, folder)
    alpha = _number(told, "lora_alpha", "alpha_pattern", matrix, folder)
    inputs, outputs = weight_shapes(config)[f"{_short(matrix)}.weight"]
    for part, ours, which in (("A", (rank, inputs), 1), ("B", (outputs, rank), 0)):
        shape = tensors[matrix, part].shape
        if shape[which] != ours[which]:
            raise BadAdapter(
                f"{folder} changes a matrix {matrix} with {shape[which]} {('outputs', 'inputs')[which]}, and the "
                f"model's has {ours[which]}: the adapter belongs to another model."
            )
        if shape != ours:
            raise BadAdapter(
                f"{folder}: lora_{part} of {matrix} has the shape {list(shape)}; {CONFIG} asks for {list(ours)}."
            )
    divisor = math.sqrt(rank) if told.get("use_rslora") else rank  # Kalajdzievski 2023
    return LowRank(tensors[matrix, "A"].T, tensors[matrix, "B"].T, alpha / divisor)


def _number(told: dict[str, Any], key: str, pattern: str, matrix: str, folder: Path) -> float:
    """r or lora_alpha of a matrix: what a pattern that its name ends with says, or else what is said of all."""
    value = told.get(key, 8)  # PEFT's own
    patterns = told.get(pattern) or {}
    try:
        named = next((name for name in patterns if re.match(rf"(.*\.)?({name})$", matrix)), None)  # as PEFT looks it up
    except re.error as e:
        raise BadAdapter(f"{folder}: {pattern} in {CONFIG} has a name that is no pattern: {e}.") from e
    value = value if named is None else patterns[named]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadAdapter(f"{folder}: {key} of {matrix} is {value!r}, which is no number.")
    if key == "r" and (value != int(value) or value < 1):
        raise BadAdapter(f"{folder}: r of {matrix} is {value!r}; it must be a whole number of at least 1.")
    return value
