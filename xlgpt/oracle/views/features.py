"""The sheet Features: how active a sparse autoencoder's features are, and what each promotes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.oracle.run import Run
from xlgpt.oracle.views.best import best, scores

Array = NDArray[np.float64]
Values = NDArray[Any]


def features(run: Run) -> dict[str, Values]:
    """The bands of the sheet. S features that stand there, T tokens, D n_embd, V vocabulary."""
    settings, config = run.settings, run.model.config
    block = max(0, min(int(settings.counted("features.block") // 1), config.n_layer - 1))
    active = _activations(run, run.cache[f"blocks.{block}.resid_pre"][: run.n_tokens])  # [S, T]
    found = best(run.model, scores(run.model, settings.numbers("features.W_dec")))
    shown = np.vectorize(run.model.tokenizer.shown, otypes=[object])
    activation: Values = np.full(run.layout.bands["features.activation"].dims, "", dtype=object)
    activation[:, : run.n_tokens] = active
    values: dict[str, Values] = {
        "at_block": np.array([block]),
        "active": np.array([(active[:, -1] > 0).sum()]),
        "peak": active[:, 1:].max(axis=-1, initial=0.0),
        "promotes": shown(found.ids),
        "activation": activation,
        "best": found.codes,
        "best_in_slice": found.in_slice,
    }
    return {f"features.{name}": value for name, value in values.items()}


def _activations(run: Run, x: Array) -> Array:
    """MAX(0, (stream - b_dec) W_enc + b_enc), as in SAELens' standard autoencoder: [T, D] -> [S, T]."""
    settings = run.settings
    x = x - settings.counted("features.centred") * x.mean(axis=-1, keepdims=True) - settings.numbers("features.b_dec")
    found: Array = np.maximum(0, settings.numbers("features.W_enc") @ x.T + settings.numbers("features.b_enc"))
    return found
