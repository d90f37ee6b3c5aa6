"""Causal tracing as a workbook brings it along: the prompts that NumPy traced for it, and how much came back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.interp.relations import read_relations, subject_of
from xlgpt.interp.tracing import KINDS, Trace, subject_tokens, trace
from xlgpt.model.checkpoint import Model, in_memory

Values = NDArray[Any]
DECIMALS = 6  # of a probability that is kept: enough, and short in a file
MARK = "*"  # behind a token that is the subject's, as in the paper's figures


@dataclass(frozen=True)
class ToTrace:
    """A prompt, and what it is about."""

    prompt: str
    subject: str


def to_trace(model: Model, prompts: Sequence[str], subject: str | None) -> tuple[ToTrace, ...]:
    """Those of some prompts whose subject is known: the first one's, where it is told, and those of the model's facts.

    Raises BadSubject, BadRelations.
    """
    if subject is not None:
        subject_tokens(prompts[0], subject, model.tokenizer)  # is it there?
    file = model.companions.relations
    relations = read_relations(file) if file else ()
    subjects = [subject or subject_of(relations, prompts[0]), *(subject_of(relations, text) for text in prompts[1:])]
    return tuple(ToTrace(text, about) for text, about in zip(prompts, subjects, strict=True) if about)


def most_tokens(model: Model, traced: Sequence[ToTrace]) -> int:
    """How many tokens the longest of the prompts has; 0 of none."""
    return max((len(model.tokenizer.encode(one.prompt)) for one in traced), default=0)


def trace_cells(model: Model, traced: Sequence[ToTrace]) -> dict[str, Values]:
    """What the sheet Tracing keeps of each prompt, by band: a row each, and in a map the blocks of a token together."""
    if not traced:
        return {}
    kept, tokenizer = in_memory(model), model.tokenizer
    found: list[Trace] = []
    for one in traced:
        tokens = subject_tokens(one.prompt, one.subject, tokenizer)
        found.append(trace(kept, tokenizer.encode(one.prompt), tokens))
    shown = [[tokenizer.shown(i) + MARK * (at in t.subject) for at, i in enumerate(t.ids)] for t in found]
    width = most_tokens(model, traced)
    cells = {
        "kept.prompts": _rows([(one.prompt,) for one in traced], 1),
        "kept.about": _rows(
            [(one.subject, tokenizer.shown(t.answer)) for one, t in zip(traced, found, strict=True)], 2
        ),
        "kept.likely": _rows([(round(t.clean, DECIMALS), round(t.corrupted, DECIMALS)) for t in found], 2),
        "kept.tokens": _rows(shown, width),
    }
    for kind in KINDS:
        maps = (t.restored[kind].T.round(DECIMALS).ravel().tolist() for t in found)  # of [T, L]
        cells[f"kept.{kind}"] = _rows(list(maps), width * model.config.n_layer)
    return cells


def _rows(rows: Sequence[Sequence[Any]], width: int) -> Values:
    """Rows of one length: behind the end of a shorter one its cells are empty."""
    return np.array([[*row, *[""] * (width - len(row))] for row in rows], dtype=object)
