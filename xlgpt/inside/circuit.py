"""The sheet Circuit: heads and MLPs switched off or down, and what each part adds to the target's logit."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.attribution import Attribution, attribution
from xlgpt.edits import Edits
from xlgpt.inside.thought import Thought
from xlgpt.settings import Settings

Array = NDArray[np.float64]
Values = NDArray[Any]


def switches(settings: Settings) -> Edits:
    """The switches as they stand in the cells. What is gone gives its mean, or zero."""
    heads, mlps = settings.numbers("circuit.heads"), settings.numbers("circuit.mlps")[:, 0]
    if settings.text("circuit.ablate").lower() == "zero":
        return Edits(heads=heads, mlps=mlps)
    head_means, mlp_means = (settings.numbers(f"circuit.{part}_means") for part in ("head", "mlp"))
    return Edits(heads=heads, mlps=mlps, head_means=head_means, mlp_means=mlp_means)


def circuit(thought: Thought) -> dict[str, Values]:
    """The bands of the sheet. L n_layer, H n_head, K width of a head, D n_embd."""
    target, tokenizer = thought.target("circuit.target"), thought.model.tokenizer
    logits = thought.seen["logits"][thought.shown]  # [V]
    found: dict[str, Values] = {
        "answer": _one(tokenizer.shown(int(logits.argmax()))),
        "sure": _one(1 / np.exp(logits - logits.max()).sum()),
        "status": _one(_status(thought, target)),
        "block": np.arange(thought.model.config.n_layer),
    }
    if target is not None:
        found |= _way(thought, target)
        found |= _adds(attribution(thought.seen, thought.model, target, thought.shown))
        found["target_id"] = _one(target)
    bands = (p for p in thought.layout.bands.values() if p.band.name.startswith("circuit.") and not p.band.is_input)
    short = {placed.band.name.removeprefix("circuit."): placed.dims for placed in bands}
    return {f"circuit.{name}": found.get(name, np.full(dims, "", dtype=object)) for name, dims in short.items()}


def _way(thought: Thought, target: int) -> dict[str, Values]:
    """What the target's logit is read with, and each head's way to it."""
    config, weights = thought.model.config, thought.model.weights
    head = weights.tensor("wte.weight" if config.tie_word_embeddings else "lm_head.weight")
    gain = weights.tensor("ln_f.weight").astype(np.float64) * head[target].astype(np.float64)
    direction = (gain - gain.mean()) / thought.seen["ln_final.scale"][thought.shown]  # [D]
    projections = (weights.tensor(f"h.{i}.attn.c_proj.weight").astype(np.float64) for i in range(config.n_layer))
    way = np.stack([projection @ direction for projection in projections])  # [L, H K]
    return {"direction": direction[None], "way": way.reshape(config.n_layer, config.n_head, config.d_head)}


def _adds(parts: Attribution) -> dict[str, Values]:
    """What each part adds, and all together."""
    single = {
        "logit": parts.logit,
        "total": parts.total,
        "difference": 0.0,
        "embed_adds": parts.embed,
        "pos_embed_adds": parts.pos_embed,
        "steering_adds": parts.steering,
        "final_bias_adds": parts.final_bias,
    }
    rows = {
        "head_adds": parts.heads,
        "bias_adds": parts.biases,
        "mlp_adds": parts.mlps,
        "attention_adds": parts.heads.sum(axis=1) + parts.biases,
    }
    return {name: _one(value) for name, value in single.items()} | rows


def _status(thought: Thought, target: int | None) -> str:
    text = thought.settings.text("circuit.target")
    if not text:
        return "Type the token whose logit is to be taken apart into the cell of the target."
    if target is None:
        return f"“{text}” is not one token of this model: capital letters matter, and so does a space in front."
    bands = [thought.settings.cells[name] for name in ("circuit.heads", "circuit.mlps")]
    off = sum(int((cells != 1).sum()) for cells in bands)
    every = sum(math.prod(cells.shape) for cells in bands)
    return f"{off} of {every} components are switched off or down." if off else f"All {every} components are on."


def _one(value: object) -> Values:
    return np.array([value], dtype=object)
