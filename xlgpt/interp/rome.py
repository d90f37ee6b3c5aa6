"""A fact rewritten by a rank-one change of one MLP's second matrix: ROME (Meng et al. 2022, section 3).

An MLP is read as a memory: its hidden vector is a key, what c_proj makes of it a value. The change adds to the value of
one key, and as little as can be to those of all other keys of a text:

    c_proj + C⁻¹k / (kᵀC⁻¹k) · δᵀ        C = K·Kᵀ / n over the text's n keys, and a small ridge

k is the mean of the keys at one token, over the prompt alone and behind some texts that the model itself wrote. δ is
found by a few gradient steps (Adam) that make the target likely, as in the paper, and not in closed form: what comes
behind the MLP, layer norms and attention, is not linear, and a direction straight to the target's logit breaks the
other answers. The way back is in NumPy (xlgpt.model.backward), since there is no torch at run time.

The paper takes the subject's last token. Here causal tracing chooses between that and the prompt's last token: a model
of few blocks fetches the subject in its first attention already, and its MLPs answer at the prompt's end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from xlgpt.model import reference
from xlgpt.model.adapter import Adapter, LowRank
from xlgpt.model.backward import gradient
from xlgpt.model.checkpoint import Model, Weights
from xlgpt.model.config import GPT2Config
from xlgpt.model.edits import Edits
from xlgpt.model.sampling import Sampling, write
from xlgpt.parallel import HERE, Workers, in_order
from xlgpt.progress import Progress, silent

Array = NDArray[np.float64]
PREFIXES, PREFIX_TOKENS = 5, 24  # texts that the model writes to stand before the prompt, and how long they are
STEPS, RATE, DECAYS = 40, 0.2, (0.9, 0.999)  # of Adam (Kingma and Ba 2015)
LIKELY = 0.999  # how likely the target must be on average for the steps to end
LONGEST = 4  # times the MLP's own result there: the paper's limit for δ
RIDGE = 1e-4  # times the mean of C's diagonal


@dataclass(frozen=True)
class Place:
    """Where a model is changed: the MLP of a block, for what it reads at one token of each prompt.

    prompts: token ids, each with the place of that token.
    """

    block: int
    prompts: tuple[tuple[tuple[int, ...], int], ...]


def rewrite(
    model: Model,
    place: Place,
    target: int,
    texts: Sequence[Sequence[int]],
    name: str,
    progress: Progress = silent,
    others: Workers = HERE,
) -> Adapter:
    """The rank-one change after which the target is what follows the prompts.

    texts: documents as token ids, whose keys are to be left alone; of none the change reads k itself.
    others: what runs the model.
    """
    key = np.mean(_at_places(model, place, "mlp.post", others), axis=0)  # [F]
    reads = np.linalg.solve(covariance(model, texts, place.block, others), key) if texts else key
    reads = reads / (reads @ key)
    added = value(model, place, target, progress, others)
    A, B = (part.astype(np.float32).astype(np.float64) for part in (reads[:, None], added[None]))
    return Adapter(name, {f"h.{place.block}.mlp.c_proj": LowRank(A, B)})


def _at_places(model: Model, place: Place, name: str, others: Workers) -> list[Array]:
    """An activation of the block at that token of each prompt."""
    run = partial(states, model.weights, model.config, f"blocks.{place.block}.{name}")
    found = in_order(others, run, [ids for ids, _ in place.prompts])
    return [state[at] for state, (_, at) in zip(found, place.prompts, strict=True)]


def states(weights: Weights, config: GPT2Config, name: str, ids: Sequence[Sequence[int]] | Sequence[int]) -> Array:
    """An activation of one prompt, [T, …], or of several of one length, [B, T, …]."""
    return reference.forward(np.array(ids), weights, config)[name]


def covariance(model: Model, texts: Sequence[Sequence[int]], block: int, others: Workers = HERE) -> Array:
    """The mean of k·kᵀ over all tokens of some documents, [F, F], with a small ridge, so that it has an inverse."""
    total, count = np.zeros((model.config.n_inner, model.config.n_inner)), 0
    pieces = [
        ids[i : i + model.config.n_positions] for ids in texts for i in range(0, len(ids), model.config.n_positions)
    ]
    run = partial(states, model.weights, model.config, f"blocks.{block}.mlp.post")
    together = [[pieces[i] for i in numbers] for numbers in reference.batches(pieces, model.config)]
    for found in in_order(others, run, together):
        keys = found.reshape(-1, len(total))
        total, count = total + keys.T @ keys, count + len(keys)
    ridge = max(RIDGE * float(np.trace(total)) / len(total), np.finfo(np.float64).tiny)
    inverted: Array = (total + ridge * np.eye(len(total))) / max(1, count)
    return inverted


def value(model: Model, place: Place, target: int, progress: Progress = silent, others: Workers = HERE) -> Array:
    """δ [D]: added to what the MLP writes at that token of each prompt, it makes the target likely."""
    written = _at_places(model, place, "mlp_out", others)
    longest = LONGEST * float(np.linalg.norm(written[0]))
    run = partial(_slope, model.weights, model.config, place.block, target)
    added, first, second = np.zeros((3, model.config.n_embd))
    for step in range(1, STEPS + 1):
        progress("Finding the value", step - 1, STEPS)
        changed = [(ids, at, own + added) for (ids, at), own in zip(place.prompts, written, strict=True)]
        found = list(in_order(others, run, changed))
        if np.mean([likely for likely, _ in found]) > LIKELY:
            break
        slope = np.mean([slope for _, slope in found], axis=0)
        first = DECAYS[0] * first + (1 - DECAYS[0]) * slope
        second = DECAYS[1] * second + (1 - DECAYS[1]) * slope * slope
        way = first / (1 - DECAYS[0] ** step) / (np.sqrt(second / (1 - DECAYS[1] ** step)) + 1e-8)
        added = added - RATE * way
        added = added * min(1.0, longest / float(np.linalg.norm(added)))
    return added


def _slope(
    weights: Weights, config: GPT2Config, block: int, target: int, changed: tuple[tuple[int, ...], int, Array]
) -> tuple[float, Array]:
    """How likely the target is behind a prompt, and the gradient of -log of that at what its MLP writes, [D].

    changed: the prompt, the place of a token in it, and what the MLP is to write there.
    """
    ids, at, written = changed
    patched = np.full((len(ids), len(written)), np.nan)
    patched[at] = written
    edits = Edits(patched={f"blocks.{block}.mlp_out": patched})
    cache = reference.forward(list(ids), weights, config, edits)
    at_logits = np.zeros_like(cache["logits"])
    at_logits[-1] = reference.softmax(cache["logits"][-1])
    likely = float(at_logits[-1, target])
    at_logits[-1, target] -= 1
    return likely, gradient(cache, at_logits, weights, config, block + 1)[at]


def own_prefixes(model: Model, others: Workers = HERE) -> Iterator[str]:
    """Whole sentences that the model writes by itself from the beginning of a text, seeded; none for want of one."""
    starts = sorted(model.tokenizer.special)
    if not starts:
        return
    run = partial(_written, model.weights, model.config, starts[0])
    for ids in in_order(others, run, range(1, PREFIXES + 1)):
        text = model.tokenizer.decode(ids)
        sentences = text[: text.rfind(".") + 1].strip()
        if sentences:
            yield f"{sentences} "


def _written(weights: Weights, config: GPT2Config, start: int, seed: int) -> list[int]:
    """What a model writes from the beginning of a text, by a seed."""
    follows, length = reference.what_follows(weights, config), min(PREFIX_TOKENS, config.n_positions // 2)
    return write([start], length, follows, Sampling(temperature=1, seed=seed), start)
