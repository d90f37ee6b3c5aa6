"""What each head and each MLP gives on average: what stands in its place when it is ablated."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xlgpt.model import reference
from xlgpt.model.checkpoint import Model
from xlgpt.model.config import GPT2Config

Array = NDArray[np.float64]
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PROMPTS = tuple(f"If today is {day}, tomorrow is" for day in DAYS)  # what a new workbook's means are taken over


@dataclass(frozen=True, eq=False)
class Means:
    """The components' means over all positions of some prompts. heads: [L, H, K], of attn.z. mlps: [L, D]."""

    heads: Array
    mlps: Array

    def cells(self) -> dict[str, Array]:
        """What the sheet Circuit holds of them, by band; so many decimals are enough, and short in a file."""
        heads = self.heads.reshape(len(self.heads), -1)
        return {"circuit.head_means": heads.round(6), "circuit.mlp_means": self.mlps.round(6)}


def component_means(prompts: list[list[int]], weights: reference.Tensors, config: GPT2Config) -> Means:
    """The mean of every head's z and every MLP's result, over all positions of all prompts."""
    heads = np.zeros((config.n_layer, config.n_head, config.d_head))
    mlps = np.zeros((config.n_layer, config.n_embd))
    for ids in reference.batches(prompts, config):
        cache = reference.forward(np.array([prompts[i] for i in ids]), weights, config, unembeds=False)
        for layer in range(config.n_layer):
            heads[layer] += cache[f"blocks.{layer}.attn.z"].sum(axis=(0, 1))
            mlps[layer] += cache[f"blocks.{layer}.mlp_out"].sum(axis=(0, 1))
    count = sum(map(len, prompts))
    return Means(heads / count, mlps / count)


def usual_means(model: Model) -> Means:
    """The means over the seven weekdays' prompts, which GPT-2 cuts into as many tokens each, so they run together."""
    prompts = [model.tokenizer.encode(prompt)[: model.config.n_positions] for prompt in PROMPTS]
    return component_means(prompts, model.weights, model.config)
