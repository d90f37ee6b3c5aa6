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

import numpy as np
from numpy.typing import NDArray

from xlgpt.model import reference
from xlgpt.model.adapter import Adapter, LowRank
from xlgpt.model.backward import gradient
from xlgpt.model.checkpoint import Model
from xlgpt.model.edits import Edits
from xlgpt.model.sampling import Sampling, write
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
    model: Model, place: Place, target: int, texts: Sequence[Sequence[int]], name: str, progress: Progress = silent
) -> Adapter:
    """The rank-one change after which the target is what follows the prompts.

    texts: documents as token ids, whose keys are to be left alone; of none the change reads k itself.
    """
    keys = [states(model, ids, place.block, "mlp.post")[at] for ids, at in place.prompts]
    key = np.mean(keys, axis=0)  # [F]
    reads = np.linalg.solve(covariance(model, texts, place.block), key) if texts else key
    reads = reads / (reads @ key)
    added = value(model, place, target, progress)
    A, B = (part.astype(np.float32).astype(np.float64) for part in (reads[:, None], added[None]))
    return Adapter(name, {f"h.{place.block}.mlp.c_proj": LowRank(A, B)})


def states(model: Model, ids: Sequence[int], block: int, name: str) -> Array:
    """An activation of a block, [T, …]."""
    return reference.forward(list(ids), model.weights, model.config)[f"blocks.{block}.{name}"]


def covariance(model: Model, texts: Sequence[Sequence[int]], block: int) -> Array:
    """The mean of k·kᵀ over all tokens of some documents, [F, F], with a small ridge, so that it has an inverse."""
    total, count = np.zeros((model.config.n_inner, model.config.n_inner)), 0
    pieces = [
        ids[i : i + model.config.n_positions] for ids in texts for i in range(0, len(ids), model.config.n_positions)
    ]
    for numbers in reference.by_length(pieces).values():
        together = np.array([pieces[i] for i in numbers])
        cache = reference.forward(together, model.weights, model.config)
        keys = cache[f"blocks.{block}.mlp.post"].reshape(-1, len(total))
        total, count = total + keys.T @ keys, count + len(keys)
    ridge = max(RIDGE * float(np.trace(total)) / len(total), np.finfo(np.float64).tiny)
    found: Array = (total + ridge * np.eye(len(total))) / max(1, count)
    return found


def value(model: Model, place: Place, target: int, progress: Progress = silent) -> Array:
    """δ [D]: added to what the MLP writes at that token of each prompt, it makes the target likely."""
    written = [states(model, ids, place.block, "mlp_out") for ids, _ in place.prompts]
    longest = LONGEST * float(np.linalg.norm(written[0][place.prompts[0][1]]))
    added, first, second = np.zeros((3, model.config.n_embd))
    for step in range(1, STEPS + 1):
        progress("Finding the value", step - 1, STEPS)
        found = [_slope(model, place, i, own, added, target) for i, own in enumerate(written)]
        if np.mean([likely for likely, _ in found]) > LIKELY:
            break
        slope = np.mean([slope for _, slope in found], axis=0)
        first = DECAYS[0] * first + (1 - DECAYS[0]) * slope
        second = DECAYS[1] * second + (1 - DECAYS[1]) * slope * slope
        way = first / (1 - DECAYS[0] ** step) / (np.sqrt(second / (1 - DECAYS[1] ** step)) + 1e-8)
        added = added - RATE * way
        added = added * min(1.0, longest / float(np.linalg.norm(added)))
    return added


def _slope(model: Model, place: Place, i: int, own: Array, added: Array, target: int) -> tuple[float, Array]:
    """How likely the target is behind the i-th prompt, and the gradient of -log of that at δ, [D]."""
    ids, at = place.prompts[i]
    patched = np.full_like(own, np.nan)
    patched[at] = own[at] + added
    edits = Edits(patched={f"blocks.{place.block}.mlp_out": patched})
    cache = reference.forward(list(ids), model.weights, model.config, edits)
    at_logits = np.zeros_like(cache["logits"])
    at_logits[-1] = reference.softmax(cache["logits"][-1])
    likely = float(at_logits[-1, target])
    at_logits[-1, target] -= 1
    return likely, gradient(cache, at_logits, model.weights, model.config, place.block + 1)[at]


def own_prefixes(model: Model) -> Iterator[str]:
    """Whole sentences that the model writes by itself from the beginning of a text, seeded; none for want of one."""
    starts = sorted(model.tokenizer.special)
    if not starts:
        return
    follows = reference.what_follows(model.weights, model.config)
    length = min(PREFIX_TOKENS, model.config.n_positions // 2)
    for seed in range(1, PREFIXES + 1):
        ids = write(starts[:1], length, follows, Sampling(temperature=1, seed=seed), starts[0])
        text = model.tokenizer.decode(ids)
        sentences = text[: text.rfind(".") + 1].strip()
        if sentences:
            yield f"{sentences} "
