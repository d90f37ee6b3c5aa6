"""The sheet Features: how active a sparse autoencoder's features are, and what each promotes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.inside.thought import Thought
from xlgpt.reference import slices

Array = NDArray[np.float64]
Values = NDArray[Any]
BEST = 5


def features(thought: Thought) -> dict[str, Values]:
    """The bands of the sheet. S features that stand there, T tokens, D n_embd, V vocabulary."""
    settings, config = thought.settings, thought.model.config
    block = max(0, min(int(settings.counted("features.block") // 1), config.n_layer - 1))
    active = _activations(thought, thought.seen[f"blocks.{block}.resid_pre"][: thought.n_tokens])  # [S, T]
    best = _best(thought, settings.numbers("features.W_dec"))
    shown = np.vectorize(thought.model.tokenizer.shown, otypes=[object])
    activation: Values = np.full(thought.layout.bands["features.activation"].dims, "", dtype=object)
    activation[:, : thought.n_tokens] = active
    values: dict[str, Values] = {
        "at_block": np.array([block]),
        "active": np.array([(active[:, -1] > 0).sum()]),
        "peak": active[:, 1:].max(axis=-1, initial=0.0),
        "promotes": shown(65535 - best.astype(np.int64) % 65536),
        "activation": activation,
        "best": best,
    }
    return {f"features.{name}": value for name, value in values.items()}


def _activations(thought: Thought, x: Array) -> Array:
    """MAX(0, (stream - b_dec) W_enc + b_enc), as in SAELens' standard autoencoder: [T, D] -> [S, T]."""
    settings = thought.settings
    x = x - settings.counted("features.centred") * x.mean(axis=-1, keepdims=True) - settings.numbers("features.b_dec")
    found: Array = np.maximum(0, settings.numbers("features.W_enc") @ x.T + settings.numbers("features.b_enc"))
    return found


def _best(thought: Thought, written: Array) -> Array:
    """The five best scores of tokens for each row of W_dec [S, D], packed with their ids, [S, 5]."""
    weights = thought.model.weights
    head = slices(weights.tensor("wte.weight" if thought.model.config.tie_word_embeddings else "lm_head.weight"))
    scores = np.concatenate([written @ part.T.astype(np.float64) for part in head], axis=-1)  # [S, V]
    packed: Array = np.floor(scores * 1e7) * 65536 + 65535 - np.arange(scores.shape[-1])
    best: Array = np.sort(packed, axis=-1)[:, : -BEST - 1 : -1]
    return best
