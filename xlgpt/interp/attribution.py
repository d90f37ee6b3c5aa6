"""What each part of the model adds to one token's logit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xlgpt.model import reference
from xlgpt.model.checkpoint import Model
from xlgpt.model.config import GPT2Config
from xlgpt.model.edits import NOTHING, Edits

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each part of the model adds to the target's logit at one position. They add up to `logit`.

    heads: [L, H]. biases: [L], of attention's projection, which belong to no head. mlps: [L], with their biases.
    steering: of the vector that Edits adds. adapter: of what an adapter adds to attention's results; what it adds to an
    MLP's is the MLP's. final_bias: of the last layer norm.
    """

    target: int
    logit: float
    embed: float
    pos_embed: float
    steering: float
    heads: Array
    biases: Array
    mlps: Array
    adapter: float
    final_bias: float

    @property
    def total(self) -> float:
        """The sum of all parts."""
        rows = self.heads.sum() + self.biases.sum() + self.mlps.sum()
        return float(self.embed + self.pos_embed + self.steering + self.adapter + rows + self.final_bias)


def attribute(ids: list[int], model: Model, target: int, edits: Edits = NOTHING, position: int = -1) -> Attribution:
    """Direct logit attribution (Elhage et al. 2021): each part's way to the target's logit past all later blocks.

    The last layer norm divides by the spread that the whole stream has there.
    """
    cache = reference.forward(ids, model.weights, model.config, edits)
    return attribution(cache, model, target, position)


def logit_direction(unembed: NDArray[np.floating], cache: dict[str, Array], model: Model, position: int) -> Array:
    """What a token's logit is read with in the last residual stream at a position, [D].

    unembed: the token's row of the unembedding, [D]. The last layer norm centres the stream; a centred direction reads
    the same from one that is not.
    """
    gain = model.weights.tensor("ln_f.weight").astype(np.float64) * unembed.astype(np.float64)
    direction: Array = (gain - gain.mean()) / cache["ln_final.scale"][position]
    return direction


def attribution(cache: dict[str, Array], model: Model, target: int, position: int = -1) -> Attribution:
    """The same from the activations that a run left behind."""
    config, weights = model.config, model.weights
    unembed = weights.tensor(config.unembedding)[target].astype(np.float64)  # [D]
    direction = logit_direction(unembed, cache, model, position)
    heads, biases = np.empty((config.n_layer, config.n_head)), np.empty(config.n_layer)
    for layer in range(config.n_layer):
        way = weights.tensor(f"h.{layer}.attn.c_proj.weight").astype(np.float64) @ direction  # [H K]
        z = cache[f"blocks.{layer}.attn.z"][position].reshape(-1)  # [H K]
        heads[layer] = (z * way).reshape(config.n_head, -1).sum(axis=1)
        biases[layer] = weights.tensor(f"h.{layer}.attn.c_proj.bias").astype(np.float64) @ direction
    attended = sum(cache[f"blocks.{i}.attn_out"][position] @ direction for i in range(config.n_layer))
    return Attribution(
        target,
        float(cache["logits"][position, target]),
        float(cache["embed"][position] @ direction),
        float(cache["pos_embed"][position] @ direction),
        float(_added(cache, position, config) @ direction),
        heads,
        biases,
        np.array([cache[f"blocks.{i}.mlp_out"][position] @ direction for i in range(config.n_layer)]),
        float(attended - heads.sum() - biases.sum()),
        float(
            weights.tensor("ln_f.bias").astype(np.float64)
            @ weights.tensor(config.unembedding)[target].astype(np.float64)
        ),
    )


def _added(cache: dict[str, Array], position: int, config: GPT2Config) -> Array:
    """What is added to the stream before the blocks, [D]: nothing without steering."""
    leaves = [
        cache["embed"] + cache["pos_embed"],
        *(cache[f"blocks.{i}.resid_post"] for i in range(config.n_layer - 1)),
    ]
    enters = [cache[f"blocks.{i}.resid_pre"] for i in range(config.n_layer)]
    added: Array = sum((new - old)[position] for new, old in zip(enters, leaves, strict=True))
    return added
