"""The sheet Anatomy: how many numbers each part has learned, and how long a token's vector is on its way."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.oracle.run import Run

PARTS = ("token embeddings", "positions", "attention", "MLP", "layer norms", "LM head")
WAY = {"into": "resid_pre", "adds_attn": "attn_out", "adds_mlp": "mlp_out", "out": "resid_post"}


def anatomy(run: Run) -> dict[str, NDArray[Any]]:
    """The bands of the sheet: numbers [6] by part and [n_layer] by block, lengths [n_layer] of the chosen vector."""
    sizes = {name: int(np.prod(shape)) for name, shape in run.model.weights.shapes().items()}
    layers = range(run.model.config.n_layer)

    def count(*prefixes: str) -> int:
        return sum(size for name, size in sizes.items() if name.startswith(prefixes))

    attention = np.array([count(f"h.{i}.attn.") for i in layers])
    mlp = np.array([count(f"h.{i}.mlp.") for i in layers])
    norms = np.array([count(f"h.{i}.ln_") for i in layers])
    parts = [count("wte."), count("wpe."), attention.sum(), mlp.sum(), norms.sum() + count("ln_f."), count("lm_head.")]
    return _way(run) | {
        "anatomy.part": np.array(PARTS, dtype=object),
        "anatomy.numbers": np.array(parts),
        "anatomy.share": np.array(parts) / sum(parts),
        "anatomy.total": np.array([sum(parts)]),
        "anatomy.mlp_share": mlp.sum(keepdims=True) / (attention + mlp + norms).sum(),
        "anatomy.blocks": np.array([f"block {i}" for i in layers], dtype=object),
        "anatomy.attn": attention,
        "anatomy.mlp": mlp,
        "anatomy.norms": norms,
        "anatomy.block": attention + mlp + norms,
    }


def _way(run: Run) -> dict[str, NDArray[Any]]:
    """Which token is followed, and the Euclidean lengths of its vector and of what the blocks add to it."""
    layers = range(run.model.config.n_layer)
    if not run.n_tokens:
        lengths = {f"anatomy.{key}": np.full(len(layers), "", dtype=object) for key in WAY}
        return lengths | {f"anatomy.{key}": np.array([""], dtype=object) for key in ("row", "text")}
    token = run.token("anatomy.token")
    found = {
        f"anatomy.{key}": np.array([np.linalg.norm(run.cache[f"blocks.{i}.{name}"][token]) for i in layers])
        for key, name in WAY.items()
    }
    text = run.model.tokenizer.shown(run.ids[token])
    return found | {"anatomy.row": np.array([token + 1]), "anatomy.text": np.array([text], dtype=object)}
