"""The sheet Circuit: heads and MLPs ablated, and what each part adds to the target's logit."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.sentences import say
from xlgpt.compiler.settings import Settings
from xlgpt.interp.attribution import Attribution, attribution, logit_direction
from xlgpt.model.edits import Edits
from xlgpt.oracle.run import Run

Array = NDArray[np.float64]
Values = NDArray[Any]


def switches(settings: Settings) -> Edits:
    """The switches as they stand in the cells. What is gone gives its mean, or zero."""
    heads, mlps = settings.numbers("circuit.heads"), settings.numbers("circuit.mlps")[:, 0]
    if settings.text("circuit.ablate").lower() == "zero":
        return Edits(heads=heads, mlps=mlps)
    head_means, mlp_means = (settings.numbers(f"circuit.{part}_means") for part in ("head", "mlp"))
    return Edits(heads=heads, mlps=mlps, head_means=head_means, mlp_means=mlp_means)


def circuit(run: Run) -> dict[str, Values]:
    """The bands of the sheet. L n_layer, H n_head, K width of a head, D n_embd."""
    target, tokenizer = run.target("circuit.target"), run.model.tokenizer
    logits = run.cache["logits"][run.shown]  # [V]
    found: dict[str, Values] = {
        "answer": _one(tokenizer.shown(int(logits.argmax()))),
        "sure": _one(1 / np.exp(logits - logits.max()).sum()),
        "status": _one(_status(run, target)),
        "block": np.arange(run.model.config.n_layer),
    }
    if target is not None:
        found |= _way(run, target)
        found |= _adds(attribution(run.cache, run.model, target, run.shown))
        found["target_id"] = _one(target)
    bands = (p for p in run.layout.bands.values() if p.band.name.startswith("circuit.") and not p.band.is_input)
    short = {placed.band.name.removeprefix("circuit."): placed.dims for placed in bands}
    return {f"circuit.{name}": found.get(name, np.full(dims, "", dtype=object)) for name, dims in short.items()}


def _way(run: Run, target: int) -> dict[str, Values]:
    """What the target's logit is read with, and each head's way to it."""
    config, weights = run.model.config, run.model.weights
    unembed = weights.tensor(config.unembedding)[target]  # [D]
    direction = logit_direction(unembed, run.cache, run.model, run.shown)  # [D]
    projections = (weights.tensor(f"h.{i}.attn.c_proj.weight").astype(np.float64) for i in range(config.n_layer))
    way = np.stack([projection @ direction for projection in projections])  # [L, H K]
    return {
        "unembed": unembed[None],
        "direction": direction[None],
        "way": way.reshape(config.n_layer, config.n_head, config.d_head),
    }


def _adds(parts: Attribution) -> dict[str, Values]:
    """What each part adds, and all together."""
    single = {
        "logit": parts.logit,
        "total": parts.total,
        "difference": 0.0,
        "embed_adds": parts.embed,
        "pos_embed_adds": parts.pos_embed,
        "steering_adds": parts.steering,
        "adapter_adds": parts.adapter,
        "final_bias_adds": parts.final_bias,
    }
    rows = {
        "head_adds": parts.heads,
        "bias_adds": parts.biases,
        "mlp_adds": parts.mlps,
        "attention_adds": parts.heads.sum(axis=1) + parts.biases,
    }
    return {name: _one(value) for name, value in single.items()} | rows


def _status(run: Run, target: int | None) -> str:
    text = run.settings.text("circuit.target")
    if not text:
        return say("views/circuit", "no_target")
    if target is None:
        return say("views/circuit", "no_such_target", target=text)
    bands = [run.settings.cells[name] for name in ("circuit.heads", "circuit.mlps")]
    off = sum(int((cells != 1).sum()) for cells in bands)
    every = sum(math.prod(cells.shape) for cells in bands)
    if off:
        return say("views/circuit", "some_ablated", ablated=off, components=every)
    return say("views/circuit", "all_on", components=every)


def _one(value: object) -> Values:
    return np.array([value], dtype=object)
