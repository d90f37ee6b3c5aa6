"""The way back through GPT-2: how a number made of the logits changes with what enters a block.

It reads the activations that a run of the reference left behind, under the same names; there is no torch at run time.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from xlgpt.model.config import GPT2Config
from xlgpt.model.reference import Tensors, gelu, slices

Array = NDArray[np.float64]


def gelu_new_slope(x: Array) -> Array:
    """The derivative of the tanh approximation."""
    root = math.sqrt(2 / math.pi)
    t = np.tanh(root * (x + 0.044715 * x * x * x))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x)


def gelu_slope(x: Array) -> Array:
    """The derivative of x·Φ(x): Φ(x), and x times the normal density."""
    below = np.divide(gelu(x), x, out=np.full_like(x, 0.5), where=x != 0)
    density: Array = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return below + x * density


def relu_slope(x: Array) -> Array:
    """1 above 0, and otherwise 0."""
    return (x > 0).astype(np.float64)


SLOPES = {"gelu_new": gelu_new_slope, "gelu": gelu_slope, "relu": relu_slope}


def gradient(cache: Mapping[str, Array], at_logits: Array, weights: Tensors, config: GPT2Config, block: int) -> Array:
    """The gradient of a number at blocks.{block}.resid_pre, [..., T, D], from its gradient at the logits [..., T, V].

    cache: what `forward` returned for the same weights, without edits but a vector added at that block or before.
    """

    def w(name: str) -> Array:
        return weights.tensor(name).astype(np.float64, copy=False)

    def layer_norm(d: Array, x: Array, ln: str, out: str) -> Array:  # [T, D] -> [T, D]
        scale = cache[f"{out}.scale"]  # [T, 1]
        normal, d = (x - x.mean(axis=-1, keepdims=True)) / scale, d * w(f"{ln}.weight")
        return (d - d.mean(axis=-1, keepdims=True) - normal * (d * normal).mean(axis=-1, keepdims=True)) / scale

    def attention(d: Array, layer: int) -> Array:  # [T, D] -> [T, D]
        h, name = f"h.{layer}.attn", f"blocks.{layer}.attn"
        q, k, v, pattern = (cache[f"{name}.{part}"] for part in ("q", "k", "v", "pattern"))  # [T, H, K], [H, T, T]
        at_z = (d @ w(f"{h}.c_proj.weight").T).reshape(q.shape)  # [T, H, K]
        at_pattern = np.einsum("...qhk,...phk->...hqp", at_z, v)  # [H, T, T]
        at_scores = pattern * (at_pattern - (at_pattern * pattern).sum(axis=-1, keepdims=True))
        at_scores = at_scores / config.attn_divisor(layer)
        at_q = np.einsum("...hqp,...phk->...qhk", at_scores, k)
        at_k = np.einsum("...hqp,...qhk->...phk", at_scores, q)
        at_v = np.einsum("...hqp,...qhk->...phk", pattern, at_z)
        at_qkv = np.concatenate([part.reshape(d.shape) for part in (at_q, at_k, at_v)], axis=-1)  # [T, 3 D]
        return at_qkv @ w(f"{h}.c_attn.weight").T

    def mlp(d: Array, layer: int) -> Array:  # [T, D] -> [T, D]
        at_post = d @ w(f"h.{layer}.mlp.c_proj.weight").T  # [T, F]
        at_pre = at_post * SLOPES[config.activation_function](cache[f"blocks.{layer}.mlp.pre"])
        return at_pre @ w(f"h.{layer}.mlp.c_fc.weight").T

    unembed = slices(weights.tensor(config.unembedding))  # of [V, D]
    ends = np.cumsum([len(rows) for rows in unembed])[:-1]
    pieces = zip(np.split(at_logits, ends, axis=-1), unembed, strict=True)
    at_final = sum(part @ rows.astype(np.float64, copy=False) for part, rows in pieces)
    last = config.n_layer - 1
    d = layer_norm(np.asarray(at_final), cache[f"blocks.{last}.resid_post"], "ln_f", "ln_final")
    for layer in range(last, block - 1, -1):
        b = f"blocks.{layer}"
        d = d + layer_norm(mlp(d, layer), cache[f"{b}.resid_mid"], f"h.{layer}.ln_2", f"{b}.ln2")
        d = d + layer_norm(attention(d, layer), cache[f"{b}.resid_pre"], f"h.{layer}.ln_1", f"{b}.ln1")
    return d
