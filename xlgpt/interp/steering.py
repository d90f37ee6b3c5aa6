"""Steering vectors: made from texts that differ in one thing, read from files, written to one."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import ml_dtypes  # noqa: F401 - importing it teaches NumPy, and so safetensors, the type bfloat16
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from xlgpt.errors import BadVectors, UsageError
from xlgpt.model import reference
from xlgpt.model.checkpoint import Model, in_memory
from xlgpt.model.config import GPT2Config
from xlgpt.model.tokenizer import check_text
from xlgpt.xlsx.package import replacing

Array = NDArray[np.float64]
BLOCK_IN_NAME = re.compile(r"\bblocks?[. _]?(\d+)", re.IGNORECASE)  # as in blocks.2.hook_resid_pre
DIFFERENCE, COMPONENT = "difference of means", "first principal component"


@dataclass(frozen=True, eq=False)
class Vector:
    """A direction [D] in the residual stream; where and how strongly it is to be added, where that is known.

    block: it is added to what enters this block. coefficient: what it is multiplied with.
    """

    name: str
    values: Array
    block: int | None = None
    coefficient: float | None = None


# Made from texts.


def steer(model: Model, positive: list[str], negative: list[str], block: int) -> tuple[Vector, Vector]:
    """What the residual stream before a block has at the last token of some texts, and not of others.

    Two ways to it: the difference of the means (activation addition, Turner et al. 2023), and the first principal
    component (representation engineering, Zou et al. 2023), turned and scaled like the difference. Where there
    are as many texts of either kind it is that of the pairs' differences, each taken both ways, and otherwise that of
    all texts around the middle between the two means. Raises UsageError.
    """
    if not positive or not negative:
        raise UsageError("Give at least one text with --positive and one with --negative.")
    check_block(block, model.config)
    read_once = in_memory(model)
    with_it, without = (last_streams(read_once, texts, block) for texts in (positive, negative))
    difference = with_it.mean(axis=0) - without.mean(axis=0)
    if not np.linalg.norm(difference):
        raise UsageError(f"The residual stream before block {block} is the same for both kinds of texts.")
    component = _first_component(with_it, without)
    component *= np.linalg.norm(difference) * (1 if component @ difference >= 0 else -1)
    return Vector(DIFFERENCE, difference, block), Vector(COMPONENT, component, block)


def _first_component(with_it: Array, without: Array) -> Array:
    """The direction of length 1 in which texts of both kinds differ most."""
    if len(with_it) == len(without):
        spread = with_it - without
    else:
        spread = np.concatenate([with_it, without]) - (with_it.mean(axis=0) + without.mean(axis=0)) / 2
    first: Array = np.linalg.svd(spread, full_matrices=False).Vh[0]
    return first


def last_streams(model: Model, texts: list[str], block: int) -> Array:
    """resid_pre of a block at each text's last token, [texts, D]. Raises UsageError."""
    for text in texts:
        check_text(text)
    prompts = [model.tokenizer.encode(text) for text in texts]
    for text, ids in zip(texts, prompts, strict=True):
        if not 0 < len(ids) <= model.config.n_positions:
            raise UsageError(
                f"The text {text[:40]!r} has {len(ids)} tokens; the model takes 1 to {model.config.n_positions}."
            )
    streams = np.empty((len(texts), model.config.n_embd))
    for numbers in reference.by_length(prompts).values():
        together = np.array([prompts[i] for i in numbers])
        cache = reference.forward(together, model.weights, model.config)
        streams[numbers] = cache[f"blocks.{block}.resid_pre"][:, -1]
    return streams


def check_block(block: int, config: GPT2Config) -> None:
    """Whether the model has such a block. Raises UsageError."""
    if not 0 <= block < config.n_layer:
        raise UsageError(f"There is no block {block}; the model has blocks 0 to {config.n_layer - 1}.")


def table(vectors: tuple[Vector, ...], model: Model) -> Table:
    """A line a vector: its length, and the tokens that it would promote if the model ended there."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("vector")
    shown.add_column("length", justify="right")
    shown.add_column("promotes")
    for vector in vectors:
        tokens = (model.tokenizer.shown(i) for i in promoted(vector.values, model, 5))
        shown.add_row(Text(vector.name), f"{np.linalg.norm(vector.values):.2f}", Text("  ".join(tokens)))
    return shown


def promoted(direction: Array, model: Model, count: int) -> list[int]:
    """The tokens whose logits a direction [D] in the last residual stream would raise most, the first the most."""
    gain = model.weights.tensor("ln_f.weight").astype(np.float64) * (direction - direction.mean())  # [D]
    unembed = model.weights.tensor(model.config.unembedding)  # [V, D]
    logits = np.concatenate([rows.astype(np.float64) @ gain for rows in reference.slices(unembed)])
    return [int(i) for i in np.argsort(-logits, kind="stable")[:count]]


# Files.


def write_vectors(path: Path, vectors: tuple[Vector, ...]) -> None:
    """Write a safetensors file, float32, with the block and the coefficient of the first as metadata.

    Raises OutputError, UsageError.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} does not end in .safetensors, the kind of file that vectors are written to.")
    first = vectors[0]
    metadata = {"block": first.block, "coefficient": first.coefficient}
    known = {key: f"{value:g}" for key, value in metadata.items() if value is not None}
    tensors = {vector.name: vector.values.astype(np.float32) for vector in vectors}
    with replacing(path) as file:
        file.write(save(tensors, known))


def read_vectors(path: Path, config: GPT2Config) -> tuple[Vector, ...]:
    """The vectors in a .npy, .npz or safetensors file, by name, held against the model.

    One in a .npy file has the file's name. A file with several may say for all of them, as metadata or as arrays of one
    number, `block` and `coefficient`; a block may also stand in a name, as in `blocks.2.hook_resid_pre`.
    Raises BadVectors.
    """
    arrays, facts = _read(path)
    block, coefficient = (_fact(facts, key, path) for key in ("block", "coefficient"))
    if block is not None and block != int(block):
        raise BadVectors(f"{path} says block {block:g}, which is no block.")
    vectors = []
    for name, array in arrays.items():
        found = BLOCK_IN_NAME.search(name)
        before = int(found[1]) if found else None if block is None else int(block)
        vectors += [replace(one, block=before, coefficient=coefficient) for one in _rows(name, array, path)]
    if not vectors:
        raise BadVectors(f"{path} holds no vector.")
    for one in vectors:
        _check(one, path, config)
    return tuple(vectors)


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """A file's arrays, and what it says about them."""
    try:
        if path.suffix == ".npy":
            return {path.stem: np.load(path, allow_pickle=False)}, {}
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            return arrays, {key: arrays.pop(key) for key in ("block", "coefficient") if key in arrays}
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as e:
        raise BadVectors(f"There is no file {path}.") from e
    except (OSError, ValueError, EOFError, TypeError, BadZipFile, SafetensorError) as e:
        raise BadVectors(f"{path} is damaged, or no {path.suffix} file of numbers.") from e
    raise BadVectors(f"{path} does not end in .npy, .npz or .safetensors, the kinds of file that vectors come in.")


def _fact(facts: dict[str, Any], key: str, path: Path) -> float | None:
    if key not in facts:
        return None
    try:
        value = float(facts[key])
    except (ValueError, TypeError) as e:
        raise BadVectors(f"{path} says {key} {facts[key]}, which is no number.") from e
    if not np.isfinite(value):
        raise BadVectors(f"{path} says {key} {value}, which a cell cannot hold.")
    return value


def _rows(name: str, array: NDArray[Any], path: Path) -> list[Vector]:
    """A vector, or each row of a matrix."""
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiuV":  # V: bfloat16, to NumPy
        raise BadVectors(f"{path}: {name} is no row of numbers, nor several.")
    values = array.astype(np.float64)
    if values.ndim == 1:
        return [Vector(name, values)]
    names = [name] if len(values) == 1 else [f"{name} {i}" for i in range(len(values))]
    return [Vector(one, row) for one, row in zip(names, values, strict=True)]


def _check(vector: Vector, path: Path, config: GPT2Config) -> None:
    """Whether a vector can be added to the model's residual stream. Raises BadVectors."""
    if len(vector.values) != config.n_embd:
        raise BadVectors(
            f"{path}: {vector.name} has {len(vector.values)} numbers; the model's residual stream has {config.n_embd}, "
            "so the vector belongs to another model."
        )
    if not np.isfinite(vector.values).all():
        where = int(np.flatnonzero(~np.isfinite(vector.values))[0])
        raise BadVectors(f"{path}: {vector.name} holds {vector.values[where]} at {where}; a cell cannot.")
    if vector.block is not None and not 0 <= vector.block < config.n_layer:
        raise BadVectors(
            f"{path}: {vector.name} is for block {vector.block}; the model has blocks 0 to {config.n_layer - 1}."
        )
