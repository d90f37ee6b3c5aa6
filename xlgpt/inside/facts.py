"""The sheet Facts: the neurons that fire for a token, what they respond to and write, and what is silenced."""

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.edits import Silence
from xlgpt.inside.thought import Thought
from xlgpt.reference import slices
from xlgpt.settings import Settings

Array = NDArray[np.float64]
Values = NDArray[Any]
TOP, BEST, BINS, WIDTH, SAMPLE = 10, 5, 40, 0.025, 128


def silence(settings: Settings) -> Silence | None:
    """What is silenced; None where nothing is. A neuron that is chosen comes before so many of the strongest."""
    block, strongest = int(settings.counted("facts.block")), int(settings.counted("facts.strongest") // 1)
    if block != settings.counted("facts.block"):
        return None
    if settings.is_number("facts.silence"):
        return Silence(block, neuron=settings.number("facts.silence"))
    return Silence(block, strongest=max(1, strongest)) if settings.counted("facts.strongest") > 0 else None


def facts(thought: Thought) -> dict[str, Values]:
    """The bands of the sheet. T tokens, F n_inner, D n_embd, V vocabulary."""
    config, tokenizer = thought.model.config, thought.model.tokenizer
    block = max(0, min(int(thought.settings.counted("facts.block") // 1), config.n_layer - 1))
    at = thought.token("facts.token")
    logits = thought.seen["logits"][thought.shown]  # [V]
    texts = {
        "at_token": tokenizer.shown(thought.ids[at]),
        "answer": tokenizer.shown(int(logits.argmax())),
        "status": _status(thought, block, at),
    }
    numbers = {"at_block": block, "at": at, "sure": 1 / np.exp(logits - logits.max()).sum()}
    found = {name: np.array([value], dtype=object) for name, value in (texts | numbers).items()}
    written = thought.model.weights.tensor(f"h.{block}.mlp.c_proj.weight").astype(np.float64)  # [F, D]
    found |= _neurons(thought, block, at, written) | _directions(written[:SAMPLE])
    return {f"facts.{name}": value for name, value in found.items()}


def _neurons(thought: Thought, block: int, at: int, written: Array) -> dict[str, Values]:
    """The neurons that fire most, what they respond to and what they write."""
    post, pre = (thought.seen[f"blocks.{block}.mlp.{name}"] for name in ("post", "pre"))  # [T, F]
    top = np.argsort(-post[at], kind="stable")[:TOP]
    config, weights = thought.model.config, thought.model.weights
    head = slices(weights.tensor("wte.weight" if config.tie_word_embeddings else "lm_head.weight"))
    scores = np.concatenate([written[top] @ part.T.astype(np.float64) for part in head], axis=-1)  # [TOP, V]
    packed = np.floor(scores * 1e7) * 65536 + 65535 - np.arange(scores.shape[-1])
    best = -np.sort(-packed, axis=-1)[:, :BEST]
    shown = np.vectorize(thought.model.tokenizer.shown, otypes=[object])
    rows: dict[str, Values] = {
        "neuron": top,
        "activation": post[at, top],
        "promotes": shown(65535 - best.astype(np.int64) % 65536),
        "responds": pre[:, top].T,
        "best": best,
    }
    return {name: _padded(value, thought.layout.bands[f"facts.{name}"].dims) for name, value in rows.items()}


def _directions(rows: Array) -> dict[str, Values]:
    """How the cosines between rows [N, D] are spread, and how those of random directions would be."""
    lengths = np.linalg.norm(rows, axis=1)
    cosines = (rows @ rows.T / np.outer(lengths, lengths))[np.tril_indices(len(rows), -1)]
    edges = np.concatenate([[-2], -0.5 + WIDTH * np.arange(1, BINS), [2]])
    chance = NormalDist(sigma=rows.shape[1] ** -0.5)
    below = np.array([chance.cdf(edge) for edge in edges])
    return {
        "cosine": -0.5 + WIDTH * (np.arange(BINS) + 0.5),
        "upto": edges[1:],
        "pairs": np.histogram(cosines, edges)[0],
        "by_chance": len(cosines) * np.diff(below),
        "spread": np.array([cosines.std()]),
        "random": np.array([chance.stdev]),
        "length": lengths,
    }


def _status(thought: Thought, block: int, at: int) -> str:
    settings, config = thought.settings, thought.model.config
    if settings.counted("facts.block") != block or settings.is_text("facts.block"):
        return (
            f"There is no block {settings.text('facts.block')}: this model has 0 to {config.n_layer - 1}, "
            f"and {block} is shown."
        )
    if settings.is_number("facts.token") and settings.number("facts.token") != at:
        return f"There is no token at position {settings.text('facts.token')}; {at} is shown."
    if settings.is_number("facts.silence"):
        neuron = settings.number("facts.silence")
        if neuron not in range(config.n_inner):
            return f"There is no neuron {settings.text('facts.silence')}: a block has 0 to {config.n_inner - 1}."
        return f"Neuron {neuron:.0f} of block {block} is silent."
    strongest = settings.counted("facts.strongest")
    if strongest >= 1:
        count = min(int(strongest), config.n_inner)
        return f"The {count} strongest neurons of every token in block {block} are silent."
    return "Nothing is silenced."


def _padded(values: Values, dims: tuple[int, ...]) -> Values:
    """The values in the upper left of a band's cells, the others empty."""
    padded = np.full(dims, "", dtype=object)
    padded[tuple(slice(size) for size in values.shape)] = values
    return padded
