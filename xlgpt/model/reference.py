"""GPT-2 in NumPy, float64: what every cell of a workbook is held against.

Weights by the checkpoint's names (Radford et al. 2019), activations by TransformerLens' names without `hook_`.
Shapes: T tokens, D n_embd, H heads, K width of a head, F n_inner, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xlgpt.model.config import GPT2Config
from xlgpt.model.edits import NOTHING, Edits

Array = NDArray[np.float64]
ROOM = 1 << 28  # bytes that the activations of prompts that run together take


class Tensors(Protocol):
    """Weights by name, read one at a time so that a large model never stands in memory whole."""

    def tensor(self, name: str) -> NDArray[Any]:
        """The tensor of that checkpoint name."""


def gelu_new(x: Array) -> Array:
    """Hendrycks and Gimpel 2016, the tanh approximation that GPT-2 uses."""
    cube = x * x * x  # NumPy takes 80 times as long for x**3, longer than for all else in a small model
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * cube)))


def gelu(x: Array) -> Array:
    """Hendrycks and Gimpel 2016, exact: x times the normal distribution function."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


ACTIVATIONS = {"gelu_new": gelu_new, "gelu": gelu, "relu": relu}


def softmax(x: Array) -> Array:
    """Exponentials that add up to 1 along the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def forward(
    ids: list[int] | NDArray[np.int64],
    weights: Tensors,
    config: GPT2Config,
    edits: Edits = NOTHING,
    unembeds: bool = True,
) -> dict[str, Array]:
    """Run the model on at least one token. Returns every activation by name, logits [T, V] among them.

    Several prompts of one length, [B, T], run together; then all activations but pos_embed have a first axis more.
    unembeds: whether logits are wanted, which take as long as several blocks.
    """

    def w(name: str) -> Array:
        return weights.tensor(name).astype(np.float64, copy=False)

    def linear(x: Array, name: str, read: Array | None = None) -> Array:  # [T, in] -> [T, out]
        flat = x.reshape(-1, x.shape[-1]) @ w(f"{name}.weight") + w(f"{name}.bias")
        return edits.adapt(flat.reshape(*x.shape[:-1], -1), x if read is None else read, name)

    def layer_norm(x: Array, ln: str, out: str) -> Array:  # [T, D] -> [T, D]
        cache[f"{out}.scale"] = np.sqrt(x.var(axis=-1, keepdims=True) + config.layer_norm_epsilon)  # [T, 1]
        centred = x - x.mean(axis=-1, keepdims=True)
        cache[f"{out}.normalized"] = centred / cache[f"{out}.scale"] * w(f"{ln}.weight") + w(f"{ln}.bias")
        return cache[f"{out}.normalized"]

    def attention(x: Array, layer: int) -> Array:  # [T, D] -> [T, D]
        h, name = f"h.{layer}.attn", f"blocks.{layer}.attn"
        qkv = np.split(linear(x, f"{h}.c_attn"), 3, axis=-1)  # three times [T, D]
        q, k, v = (part.reshape(*x.shape[:-1], config.n_head, config.d_head) for part in qkv)  # [T, H, K]
        scores = np.einsum("...qhk,...phk->...hqp", q, k) / config.attn_divisor(layer)  # [H, T, T]
        scores[..., ~np.tri(T, dtype=bool)] = -np.inf  # no token looks at a later one
        pattern = softmax(scores)  # [H, T, T]
        fetched = np.einsum("...hqp,...phk->...qhk", pattern, v).reshape(x.shape)
        z = edits.switch_heads(fetched, layer)  # [T, H K]
        cache[f"{name}.q"], cache[f"{name}.k"], cache[f"{name}.v"] = q, k, v
        cache[f"{name}.attn_scores"], cache[f"{name}.pattern"], cache[f"{name}.z"] = scores, pattern, z.reshape(q.shape)
        return linear(z, f"{h}.c_proj")

    def mlp(x: Array, layer: int) -> Array:  # [T, D] -> [T, D]
        h, name = f"h.{layer}.mlp", f"blocks.{layer}.mlp"
        cache[f"{name}.pre"] = linear(x, f"{h}.c_fc")  # [T, F]
        cache[f"{name}.post"] = ACTIVATIONS[config.activation_function](cache[f"{name}.pre"])  # [T, F]
        written = edits.ablate_neurons(cache[f"{name}.post"], layer)
        return edits.switch_mlp(linear(written, f"{h}.c_proj", read=cache[f"{name}.post"]), layer)

    cache: dict[str, Array] = {}
    T = np.shape(ids)[-1]
    wte = weights.tensor("wte.weight")  # [V, D]
    cache["embed"] = edits.patch("embed", wte[ids].astype(np.float64))  # [T, D]
    cache["pos_embed"] = w("wpe.weight")[:T]  # [T, D]
    x = cache["embed"] + cache["pos_embed"]
    for layer in range(config.n_layer):
        b = f"blocks.{layer}"
        cache[f"{b}.resid_pre"] = x = edits.steer(x, layer)
        attn_out = attention(layer_norm(x, f"h.{layer}.ln_1", f"{b}.ln1"), layer)
        cache[f"{b}.attn_out"] = edits.patch(f"{b}.attn_out", attn_out)
        cache[f"{b}.resid_mid"] = x = x + cache[f"{b}.attn_out"]
        mlp_out = mlp(layer_norm(x, f"h.{layer}.ln_2", f"{b}.ln2"), layer)
        cache[f"{b}.mlp_out"] = edits.patch(f"{b}.mlp_out", mlp_out)
        cache[f"{b}.resid_post"] = x = edits.patch(f"{b}.resid_post", x + cache[f"{b}.mlp_out"])
    final = layer_norm(x, "ln_f", "ln_final")
    if not unembeds:
        return cache
    unembed = wte if config.tie_word_embeddings else weights.tensor(config.unembedding)  # [V, D]
    scores = [final @ rows.T.astype(np.float64, copy=False) for rows in slices(unembed)]
    cache["logits"] = np.concatenate(scores, axis=-1)
    return cache


def by_length(prompts: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """The numbers of the prompts of each length, which can run together."""
    found: dict[int, list[int]] = {}
    for i, ids in enumerate(prompts):
        found.setdefault(len(ids), []).append(i)
    return found


def batches(prompts: Sequence[Sequence[int]], config: GPT2Config) -> Iterator[list[int]]:
    """The same, but no more together than that their activations take a quarter of a gigabyte; at least one."""
    of_a_token = 8 * (config.n_layer * (12 * config.n_embd + 2 * config.n_inner) + 2 * config.vocab_size)
    for length, numbers in by_length(prompts).items():
        most = max(1, ROOM // (of_a_token * length))
        yield from (numbers[i : i + most] for i in range(0, len(numbers), most))


def slices(matrix: NDArray[Any], rows: int = 4096) -> list[NDArray[Any]]:
    """A tall matrix in pieces, so that only one of them is widened to float64 at a time."""
    return [matrix[i : i + rows] for i in range(0, len(matrix), rows)]


def what_follows(weights: Tensors, config: GPT2Config, edits: Edits = NOTHING) -> Callable[[list[int]], Array]:
    """A function from ids to the logits [V] of what comes after them."""
    return lambda ids: forward(ids, weights, config, edits)["logits"][-1]
