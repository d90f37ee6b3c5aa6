"""What may be changed in a model while it runs: a vector or an adapter added, activations replaced, parts ablated."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xlgpt.model.adapter import Adapter

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AblatedNeurons:
    """What of a block's MLP is not written: one neuron's part, or that of each token's so many strongest neurons."""

    block: int
    neuron: float | None = None
    strongest: int = 0

    def left(self, post: Array, layer: int) -> Array:
        """The activations [..., T, F] that still write."""
        if layer != self.block:
            return post
        if self.neuron is not None:
            return np.where(np.arange(post.shape[-1]) == self.neuron, 0.0, post)
        least = np.sort(post, axis=-1)[..., -min(self.strongest, post.shape[-1]), None]
        return np.where(post >= least, 0.0, post)


@dataclass(frozen=True, eq=False)
class Edits:
    """Nothing, unless told. Where nothing is told, no number changes, not even in its last bit.

    Steering (Turner et al. 2023): before block `block` each position t gets `at[t]` times `vector` [D] added to its
    residual stream. at: [at least T], or one number for all positions.

    Switches: `heads` [L, H] and `mlps` [L] say how much of each is left: 1 on, 0 off, fractions between. What is gone
    gives its mean instead, `head_means` [L, H, K] (of attn.z) and `mlp_means` [L, D] (of mlp_out), or, where these are
    not told, zero. neurons: those that are ablated: their activations stay as they are, but they write nothing.

    adapter (Hu et al. 2021): x·W + b becomes x·W + b + adapter_scale · alpha/r · (x·A)·B. It reads the activations of
    ablated neurons too; what an ablated MLP gives, it gives with it.

    patched (activation patching, Vig et al. 2020): of `embed`, or of a block's attn_out, mlp_out or resid_post, by
    TransformerLens' name, what stands in its place [..., T, D]; where it holds NaN, the activation stays as it comes.
    """

    block: int = 0
    vector: Array | None = None
    at: Array | float = 1.0
    heads: Array | None = None
    mlps: Array | None = None
    head_means: Array | None = None
    mlp_means: Array | None = None
    neurons: AblatedNeurons | None = None
    adapter: Adapter | None = None
    adapter_scale: float = 1.0
    patched: Mapping[str, Array] = field(default_factory=dict)

    def patch(self, name: str, activation: Array) -> Array:
        """An activation [..., T, D], or what stands in its place."""
        if name not in self.patched:
            return activation
        return np.where(np.isnan(self.patched[name]), activation, self.patched[name])

    def adapt(self, y: Array, x: Array, matrix: str) -> Array:
        """What comes of a matrix: y = x·W + b [..., out], and what the adapter makes of x [..., in] on top."""
        return y if self.adapter is None else y + self.adapter.added(x, matrix, self.adapter_scale)

    def steer(self, resid_pre: Array, layer: int) -> Array:
        """What enters a block: [..., T, D], and the vector where it is added."""
        if self.vector is None or layer != self.block:
            return resid_pre
        return resid_pre + np.atleast_1d(self.at)[: resid_pre.shape[-2], None] * self.vector

    def switch_heads(self, z: Array, layer: int) -> Array:
        """What is left of a block's heads, side by side: [..., T, H K]."""
        return z if self.heads is None else z * self.keep(layer, z.shape[-1]) + self.fill(layer, z.shape[-1])

    def switch_mlp(self, mlp_out: Array, layer: int) -> Array:
        """What is left of a block's MLP: [..., T, D]."""
        if self.mlps is None:
            return mlp_out
        mean = 0.0 if self.mlp_means is None else self.mlp_means[layer]
        return mlp_out * self.mlps[layer] + (1 - self.mlps[layer]) * mean

    def ablate_neurons(self, post: Array, layer: int) -> Array:
        """What the neurons of a block write with: [..., T, F]."""
        return post if self.neurons is None else self.neurons.left(post, layer)

    def keep(self, layer: int, width: int) -> Array:
        """How much of each of the heads' `width` numbers is left, [H K]."""
        assert self.heads is not None
        return np.repeat(self.heads[layer], width // self.heads.shape[1])

    def fill(self, layer: int, width: int) -> Array:
        """What is added to what is left, [H K]."""
        means = np.zeros(width) if self.head_means is None else self.head_means[layer].reshape(-1)
        return (1 - self.keep(layer, width)) * means


NOTHING = Edits()
