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
from xlgpt.model.checkpoint import Model
from xlgpt.model.edits import Edits
from xlgpt.model.tokenizer import Tokenizer

Array = NDArray[np.float64]
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
) -> Trace:
    """Trace a prompt's most likely next token.

    window: of attn_out and mlp_out so many blocks are put back together, around the one that is named: 10 of 48 as in
    the paper unless told, and at least one. The noise is normal, DEVIATIONS as wide as the numbers of wte, and seeded.
    """
    config = model.config
    window = max(1, config.n_layer * 10 // 48) if window is None else window
    clean = reference.forward(ids, model.weights, config)
    answer = int(clean["logits"][-1].argmax())
    embed = _spoilt(clean["embed"], subject, float(model.weights.tensor("wte.weight").std()), samples)  # [S, T, D]

    def likely(patched: Mapping[str, Array], prompts: Array) -> Array:
        together = np.broadcast_to(np.array(ids), prompts.shape[:-1])
        run = reference.forward(together, model.weights, config, Edits(patched={"embed": prompts, **patched}))
        found: Array = reference.softmax(run["logits"][:, -1])[:, answer]
        return found

    def restored(kind: str, layer: int) -> Array:
        """A run for each token and each sample of the noise, [T]."""
        layers = [layer] if kind == "resid_post" else around(layer, window, config.n_layer)
        patched = {}
        for name in (f"blocks.{i}.{kind}" for i in layers):
            one_each = np.where(np.eye(len(ids), dtype=bool)[:, :, None], clean[name], np.nan)  # [T, T, D]
            patched[name] = np.repeat(one_each, samples, axis=0)
        found: Array = likely(patched, np.tile(embed, (len(ids), 1, 1))).reshape(-1, samples).mean(axis=1)
        return found

    grids = {kind: np.array([restored(kind, layer) for layer in range(config.n_layer)]) for kind in kinds}
    probability = float(reference.softmax(clean["logits"][-1])[answer])
    return Trace(tuple(ids), subject, answer, probability, float(likely({}, embed).mean()), grids, window)


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
