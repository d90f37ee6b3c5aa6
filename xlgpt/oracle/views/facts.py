"""The sheet Facts: the neurons that fire for a token, what they respond to and write, and what is ablated."""

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.sentences import say
from xlgpt.compiler.settings import Settings
from xlgpt.model.edits import AblatedNeurons
from xlgpt.oracle.run import Run
from xlgpt.oracle.views.best import best, scores

Array = NDArray[np.float64]
Values = NDArray[Any]
TOP, BINS, WIDTH, SAMPLE = 10, 40, 0.025, 128


def ablated_neurons(settings: Settings) -> AblatedNeurons | None:
    """What is ablated; None where nothing is. A neuron that is chosen comes before so many of the strongest."""
    block, strongest = int(settings.counted("facts.block")), int(settings.counted("facts.strongest") // 1)
    if block != settings.counted("facts.block"):
        return None
    if settings.is_number("facts.ablate"):
        return AblatedNeurons(block, neuron=settings.number("facts.ablate"))
    return AblatedNeurons(block, strongest=max(1, strongest)) if settings.counted("facts.strongest") > 0 else None


def facts(run: Run) -> dict[str, Values]:
    """The bands of the sheet. T tokens, F n_inner, D n_embd, V vocabulary."""
    config, tokenizer = run.model.config, run.model.tokenizer
    block = max(0, min(int(run.settings.counted("facts.block") // 1), config.n_layer - 1))
    at = run.token("facts.token")
    logits = run.cache["logits"][run.shown]  # [V]
    texts = {
        "at_token": tokenizer.shown(run.ids[at]),
        "answer": tokenizer.shown(int(logits.argmax())),
        "status": _status(run, block, at),
    }
    numbers = {"at_block": block, "at": at, "sure": 1 / np.exp(logits - logits.max()).sum()}
    found = {name: np.array([value], dtype=object) for name, value in (texts | numbers).items()}
    written = run.model.weights.tensor(f"h.{block}.mlp.c_proj.weight").astype(np.float64)  # [F, D]
    found |= _neurons(run, block, at, written) | _directions(written[:SAMPLE])
    return {f"facts.{name}": value for name, value in found.items()}


def _neurons(run: Run, block: int, at: int, written: Array) -> dict[str, Values]:
    """The neurons that fire most, what they respond to and what they write."""
    post, pre = (run.cache[f"blocks.{block}.mlp.{name}"] for name in ("post", "pre"))  # [T, F]
    top = np.argsort(-post[at], kind="stable")[:TOP]
    found = best(run.model, scores(run.model, written[top]))
    shown = np.vectorize(run.model.tokenizer.shown, otypes=[object])
    rows: dict[str, Values] = {
        "neuron": top,
        "activation": post[at, top],
        "promotes": shown(found.ids),
        "responds": pre[:, top].T,
        "fires": post[[at]],
        "best": found.codes,
        "direction": written[top],
        "best_in_slice": found.in_slice,
    }
    return {name: _padded(value, run.layout.bands[f"facts.{name}"].dims) for name, value in rows.items()}


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


def _status(run: Run, block: int, at: int) -> str:
    settings, config = run.settings, run.model.config
    if settings.counted("facts.block") != block or settings.is_text("facts.block"):
        asked = settings.text("facts.block")
        return say("views/facts", "no_block", block=asked, last=config.n_layer - 1, at_block=block)
    if settings.is_number("facts.token") and settings.number("facts.token") != at:
        return say("views/facts", "no_token", token=settings.text("facts.token"), at=at)
    if settings.is_number("facts.ablate"):
        neuron = settings.number("facts.ablate")
        if neuron not in range(config.n_inner):
            return say("views/facts", "no_neuron", ablate=neuron, last_neuron=config.n_inner - 1)
        return say("views/facts", "neuron_ablated", ablate=neuron, at_block=block)
    strongest = settings.counted("facts.strongest")
    if strongest >= 1:
        count = min(int(strongest), config.n_inner)
        return say("views/facts", "strongest_ablated", strongest=count, at_block=block)
    return say("views/facts", "nothing_ablated")


def _padded(values: Values, dims: tuple[int, ...]) -> Values:
    """The values in the upper left of a band's cells, the others empty."""
    padded = np.full(dims, "", dtype=object)
    padded[tuple(slice(size) for size in values.shape)] = values
    return padded
