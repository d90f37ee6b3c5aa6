"""Sparse autoencoders of the residual stream, as SAELens saves them: features, and what each stands for."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - importing it teaches NumPy, and so safetensors, the type bfloat16
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from xlgpt.errors import BadAutoencoder, UsageError
from xlgpt.interp.steering import Vector
from xlgpt.model.checkpoint import Model
from xlgpt.model.json_object import read_object

Array = NDArray[np.float64]
HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_pre")
FAMILY = {"gpt2": "gpt2", "gpt2-small": "gpt2"} | {
    name: name for name in ("gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2", "tiny")
}  # models that are known not to be each other; TransformerLens calls gpt2 gpt2-small


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """A sparse autoencoder on what enters a block (Bricken et al. 2023; Bloom 2024).

    W_enc: [D, S]. b_enc: [S]. W_dec: [S, D]. b_dec: [D].
    subtracts: whether b_dec is taken from the stream before it is encoded (SAELens' apply_b_dec_to_input).
    centred: whether it was trained on a stream whose mean over D is 0 at each position. TransformerLens makes it so
    unless told otherwise (center_writing_weights); no layer norm can tell.
    """

    name: str
    block: int
    W_enc: Array
    b_enc: Array
    W_dec: Array
    b_dec: Array
    subtracts: bool = True
    centred: bool = False

    @property
    def size(self) -> int:
        """How many features there are."""
        return len(self.b_enc)

    def features(self, resid_pre: Array) -> Array:
        """How active every feature is: [..., D] -> [..., S]."""
        weight, bias = self.encoder(range(self.size))
        return np.maximum(resid_pre @ weight + bias, 0)

    def encoder(self, features: range | list[int]) -> tuple[Array, Array]:
        """Columns [D, n] and biases [n] such that those features are MAX(0, resid_pre times columns plus biases).

        Both what is subtracted from the stream and its centring are worked into them.
        """
        columns = self.W_enc[:, features]
        bias = self.b_enc[features] - (self.b_dec @ columns if self.subtracts else 0)
        return columns - columns.mean(axis=0) * self.centred, bias

    def decoded(self, features: Array) -> Array:
        """What features say the stream is: [..., S] -> [..., D]; of a centred one, less its mean."""
        return features @ self.W_dec + self.b_dec

    def vector(self, feature: int) -> Vector:
        """The direction that a feature writes, for steering. Raises UsageError."""
        if not 0 <= feature < self.size:
            raise UsageError(f"There is no feature {feature}; the autoencoder has features 0 to {self.size - 1}.")
        return Vector(f"feature {feature}", self.W_dec[feature], self.block)

    def most_active(self, resid_pre: Array, count: int) -> list[int]:
        """The features that are most active somewhere in a prompt, [T, D], the first the most; none that is silent.

        The first token counts only where it is alone: in GPT-2 its stream is so long that it wakes any feature.
        """
        peaks = self.features(resid_pre[1:] if len(resid_pre) > 1 else resid_pre).max(axis=0)
        return [int(i) for i in np.argsort(-peaks, kind="stable")[:count] if peaks[i] > 0]


def cells(autoencoder: Autoencoder, chosen: list[int]) -> dict[str, Any]:
    """What the sheet Features holds of an autoencoder, by band: the weights of those features."""
    return {
        "features.block": autoencoder.block,
        "features.centred": int(autoencoder.centred),
        "features.number": np.array([chosen]).T.astype(object),
        "features.W_enc": autoencoder.W_enc[:, chosen].T.astype(object),
        "features.b_enc": autoencoder.b_enc[chosen, None].astype(object),
        "features.W_dec": autoencoder.W_dec[chosen].astype(object),
        "features.b_dec": (autoencoder.b_dec[None] * autoencoder.subtracts).astype(object),
    }


def read_autoencoder(folder: Path, model: Model) -> Autoencoder:
    """Read SAELens' cfg.json and sae_weights.safetensors, and hold them against the model. Raises BadAutoencoder."""
    config = _read_config(folder / "cfg.json")
    block = _block(config, folder)
    tensors = _read_tensors(folder / "sae_weights.safetensors")
    _check_kind(config, tensors, folder)
    _check_model(config, block, model, folder)
    width, size = config.get("d_in", model.config.n_embd), config.get("d_sae", len(tensors["b_enc"]))
    shapes = {"W_enc": (width, size), "b_enc": (size,), "W_dec": (size, width), "b_dec": (width,)}
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise BadAutoencoder(
                f"{folder}: the tensor {name} has shape {list(tensors[name].shape)}; cfg.json asks for {list(shape)}."
            )
    return Autoencoder(
        folder.resolve().name,
        block,
        **{name: tensors[name] for name in shapes},
        subtracts=config.get("apply_b_dec_to_input", True),
        centred=config.get("model_from_pretrained_kwargs", {}).get("center_writing_weights", "hook_point" in config),
    )


def _read_config(path: Path) -> dict[str, Any]:
    """cfg.json with the names of SAELens 3 to 5: version 6 has some in `metadata`, those before 3 others."""
    raw = read_object(path, BadAutoencoder, "SAELens")
    if not isinstance(raw.get("metadata", {}), dict):
        raise BadAutoencoder(f"{path} does not hold a JSON object.")
    config: dict[str, Any] = raw.get("metadata", {}) | raw
    if not isinstance(config.setdefault("model_from_pretrained_kwargs", {}) or {}, dict):
        raise BadAutoencoder(f"{path}: model_from_pretrained_kwargs is no JSON object.")
    return config | {"model_from_pretrained_kwargs": config["model_from_pretrained_kwargs"] or {}}


def _block(config: dict[str, Any], folder: Path) -> int:
    """The block before which the stream is read; gpt2-small-res-jb calls it hook_point."""
    hook = config.get("hook_name", config.get("hook_point"))
    found = HOOK.fullmatch(str(hook))
    if not found:
        raise BadAutoencoder(
            f"{folder} reads {hook}; xlgpt knows autoencoders of blocks.N.hook_resid_pre, the stream before a block."
        )
    return int(found[1])


def _read_tensors(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise BadAutoencoder(f"{path.parent} holds no {path.name}; xlgpt reads a folder that SAELens saved.")
    try:
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as e:
        raise BadAutoencoder(f"{path} is damaged or no safetensors file ({e}); download it again.") from e
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise BadAutoencoder(f"{path}: the tensor {name} holds a number that is not finite; a cell cannot.")
    return tensors


def _check_kind(config: dict[str, Any], tensors: dict[str, Array], folder: Path) -> None:
    """Whether features are relu(stream times W_enc plus b_enc) and nothing else. Raises BadAutoencoder."""
    settings = {
        "architecture": (config.get("architecture", "standard"), ("standard",)),
        "activation function": (config.get("activation_fn_str", config.get("activation_fn", "relu")), ("relu",)),
        "normalize_activations": (config.get("normalize_activations", "none"), ("none", None, False)),
    }
    for name, (value, known) in settings.items():
        if value not in known:
            raise BadAutoencoder(f"{folder}: its {name} is {value}; xlgpt knows {known[0]} only.")
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        if name not in tensors:
            raise BadAutoencoder(f"{folder} lacks the tensor {name}.")
    scale = tensors.get("scaling_factor", np.ones(1))  # some of gpt2-small-res-jb carry one of ones along
    extra = sorted(set(tensors) - {"W_enc", "b_enc", "W_dec", "b_dec", "scaling_factor"})
    if extra or not np.allclose(scale, 1):
        raise BadAutoencoder(
            f"{folder} holds the tensor {extra[0] if extra else 'scaling_factor'}, which no standard autoencoder has."
        )


def _check_model(config: dict[str, Any], block: int, model: Model, folder: Path) -> None:
    """Whether it can be, and as far as names tell is, an autoencoder of this model. Raises BadAutoencoder."""
    width, blocks = model.config.n_embd, model.config.n_layer
    if config.get("d_in", width) != width:
        raise BadAutoencoder(
            f"{folder} reads a stream of {config['d_in']} numbers, and the model's has {width}: "
            "the autoencoder belongs to another model."
        )
    if block >= blocks:
        raise BadAutoencoder(
            f"{folder} reads the stream before block {block}, and the model has blocks 0 to {blocks - 1}: "
            "the autoencoder belongs to another model."
        )
    theirs, ours = (FAMILY.get(str(name)) for name in (config.get("model_name"), model.name))
    if theirs and ours and theirs != ours:
        raise BadAutoencoder(f"{folder} was trained on {config['model_name']}, not on {model.name}.")
