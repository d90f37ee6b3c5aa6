"""Causal tracing (Meng et al. 2022, section 2): which states carry an answer from the subject to the end of a prompt.

The subject's token vectors are spoilt by noise, so that the answer is gone. Then one state is put back to what it was
without the noise: how much of the answer comes back?
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from xlgpt.errors import BadSubject
from xlgpt.model import reference
from xlgpt.model.checkpoint import Model, Weights
from xlgpt.model.config import GPT2Config
from xlgpt.model.edits import Edits
from xlgpt.model.tokenizer import Tokenizer
from xlgpt.parallel import HERE, Workers, in_order

Array = NDArray[np.float64]
Places = NDArray[np.int64]
KINDS = ("resid_post", "attn_out", "mlp_out")  # the states that are put back, by TransformerLens' names
DEVIATIONS = 3  # of the token vectors' numbers: how large the noise is
SAMPLES = 10  # of the noise, over which everything is averaged
SEED = 0


@dataclass(frozen=True, eq=False)
class Trace:
    """What came of a prompt's answer. Probabilities are means over the samples of the noise.

    subject: its tokens. answer: the id of the token that the undisturbed model finds most likely. clean, corrupted: how
    likely it is without and with noise. restored: for each of KINDS how likely it is with the state of that block, at
    that token, put back, [L, T]. window: how many blocks' attn_out or mlp_out are put back together.
    """

    ids: tuple[int, ...]
    subject: range
    answer: int
    clean: float
    corrupted: float
    restored: Mapping[str, Array]
    window: int

    def shares(self, kind: str) -> Array:
        """How much of what the noise took comes back, [L, T]; 0 where it took nothing."""
        gone = self.clean - self.corrupted
        return (self.restored[kind] - self.corrupted) / gone if gone else np.zeros_like(self.restored[kind])

    def decisive(self, blocks: Iterable[int], tokens: Iterable[int]) -> tuple[int, int]:
        """The block and the token, of these, whose MLP brings most of the answer back."""
        restored = self.restored["mlp_out"]
        return max(product(blocks, tokens), key=lambda place: restored[place])


def subject_tokens(text: str, subject: str, tokenizer: Tokenizer, start: int = 0) -> range:
    """The tokens of a text that the subject takes part in, at its first place from `start` on. Raises BadSubject."""
    start = text.find(subject, start)
    if not subject or start < 0:
        raise BadSubject(f"The subject {subject!r} is not in the prompt {text!r}; capitals and spaces matter.")
    first, end = (len(text[:i].encode()) for i in (start, start + len(subject)))
    edges = np.cumsum([0, *(len(tokenizer.tokens[i]) for i in tokenizer.encode(text))])  # in bytes
    within = np.flatnonzero((edges[1:] > first) & (edges[:-1] < end))
    return range(int(within[0]), int(within[-1]) + 1)


def trace(
    model: Model,
    ids: list[int],
    subject: range,
    samples: int = SAMPLES,
    window: int | None = None,
    kinds: Sequence[str] = KINDS,
    others: Workers = HERE,
) -> Trace:
    """Trace a prompt's most likely next token.

    window: of attn_out and mlp_out so many blocks are put back together, around the one that is named: 10 of 48 as in
    the paper unless told, and at least one. The noise is normal, DEVIATIONS as wide as the numbers of wte, and seeded.
    others: what runs the model, a block's states at a time.
    """
    n_layer = model.config.n_layer
    window = max(1, n_layer * 10 // 48) if window is None else window
    question = _Question(model.weights, model.config, tuple(ids), subject, samples, window)
    places = [(kind, layer) for kind in kinds for layer in range(n_layer)]
    rows = in_order(others, question.restored, places)
    grids = {kind: np.array([next(rows) for _ in range(n_layer)]) for kind in kinds}
    here = _Spoilt(question)
    probability = float(reference.softmax(here.clean["logits"][-1])[here.answer])
    corrupted = float(here.likely([], np.zeros(samples, dtype=int), np.arange(samples)).mean())
    return Trace(tuple(ids), subject, here.answer, probability, corrupted, grids, window)


@dataclass(frozen=True)
class _Question:
    """What another process needs to trace a prompt."""

    weights: Weights
    config: GPT2Config
    ids: tuple[int, ...]
    subject: range
    samples: int
    window: int

    def restored(self, place: tuple[str, int]) -> Array:
        """How likely the answer is with the states of that kind and block put back, at each token, [T]."""
        return _Spoilt(self).restored(*place)


class _Spoilt:
    """A prompt without the noise and with it."""

    def __init__(self, question: _Question):
        self._question = question
        self.clean = reference.forward(list(question.ids), question.weights, question.config)
        self.answer = int(self.clean["logits"][-1].argmax())
        deviation = float(question.weights.tensor("wte.weight").std(dtype=np.float64))
        self.embed = _spoilt(self.clean["embed"], question.subject, deviation, question.samples)  # [S, T, D]

    def likely(self, names: Sequence[str], tokens: Places, samples: Places) -> Array:
        """How likely the answer is in some runs, each with a sample of the noise and these states put back at a token.

        names: of the states. tokens, samples: the numbers of each run's, [R].
        """
        asked, found = self._question, list[Array]()
        for some in reference.batches([asked.ids] * len(tokens), asked.config):
            is_here = (tokens[some, None] == np.arange(len(asked.ids)))[..., None]  # [R, T, 1]
            patched = {name: np.where(is_here, self.clean[name], np.nan) for name in names}
            edits = Edits(patched={"embed": self.embed[samples[some]], **patched})
            run = reference.forward(np.array([asked.ids] * len(some)), asked.weights, asked.config, edits)
            found.append(reference.softmax(run["logits"][:, -1])[:, self.answer])
        return np.concatenate(found)

    def restored(self, kind: str, layer: int) -> Array:
        """A run for each token and each sample of the noise, [T]."""
        asked = self._question
        layers = [layer] if kind == "resid_post" else around(layer, asked.window, asked.config.n_layer)
        tokens, samples = np.divmod(np.arange(len(asked.ids) * asked.samples), asked.samples)
        likely = self.likely([f"blocks.{i}.{kind}" for i in layers], tokens, samples)
        found: Array = likely.reshape(-1, asked.samples).mean(axis=1)
        return found


def around(layer: int, window: int, n_layer: int) -> range:
    """The so many blocks in whose middle a block stands, as far as there are some."""
    first = layer - window // 2
    return range(max(0, first), min(n_layer, first + window))


def _spoilt(embed: Array, subject: range, deviation: float, samples: int) -> Array:
    """The token vectors [T, D], so many times [S, T, D], with noise on the subject's."""
    noise = np.random.default_rng(SEED).normal(0, DEVIATIONS * deviation, (samples, len(subject), embed.shape[-1]))
    spoilt = np.repeat(embed[None], samples, axis=0)
    spoilt[:, subject.start : subject.stop] += noise
    return spoilt
