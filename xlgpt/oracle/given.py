"""Which tokens a workbook is given: those of the prompt, and those that are typed into rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.layout import Layout
from xlgpt.compiler.sentences import say
from xlgpt.compiler.settings import Settings
from xlgpt.model.tokenizer import Tokenizer
from xlgpt.model.unicode import kind_of

NOT_TYPED, NO_TOKEN = -1, -2  # in place of a typed token's id


@dataclass(frozen=True)
class Typed:
    """What stands in a row's cell: its text with ␣ for a space, whether one may be put in front, and the token's id.

    has_space: whether it is the token with a space put in front.
    """

    text: str
    is_spaced: bool
    id: int
    has_space: bool = False


@dataclass(frozen=True)
class Given:
    """The tokens that are given, from the first row on without a gap, what each row's cell holds, and what is wrong.

    ids: as many rows as are in use before anything is written. prompt: how many the prompt alone has.
    """

    ids: tuple[int, ...]
    typed: tuple[Typed, ...]
    prompt: int
    prompt_status: str
    status: str

    @property
    def room(self) -> int:
        """How many rows can be written below: up to the next into which something was typed."""
        below = [typed.id == NOT_TYPED for typed in self.typed[len(self.ids) :]]
        return below.index(False) if False in below else len(below)


def given(prompt: list[int], tokenizer: Tokenizer, layout: Layout, settings: Settings) -> Given:
    """Put typed tokens in the place of the prompt's."""
    cells = [value if isinstance(value, str) else f"{value:.10g}" for value in settings.cells["typed_tokens"][:, 0]]
    typed = tuple(typed_token(text, row == 0, tokenizer) for row, text in enumerate(cells))
    prompt_status = _prompt_status(len(prompt), layout)
    there = prompt if prompt_status == "ok" else []
    ids: list[int] = []
    for row, cell in enumerate(typed):
        found = cell.id if cell.id != NOT_TYPED else there[row] if row < len(there) else NOT_TYPED
        if found < 0:
            break
        ids.append(found)
    return Given(tuple(ids), typed, len(there), prompt_status, _status(prompt_status, typed, len(ids)))


def typed_token(text: str, is_first: bool, tokenizer: Tokenizer) -> Typed:
    """What a person means who types this into a row: a word is taken with a space in front, in quotes as it stands."""
    if not text:
        return Typed("", False, NOT_TYPED)
    is_quoted = len(text) > 2 and text[0] == text[-1] == '"'
    exact = (text[1:-1] if is_quoted else text).replace(" ", "␣")
    is_spaced = not is_first and not is_quoted and kind_of(ord(exact[0])) in ("L", "N")
    spaced = tokenizer.ids_shown.get(f"␣{exact}") if is_spaced else None
    if spaced is not None:
        return Typed(exact, is_spaced, spaced, has_space=True)
    return Typed(exact, is_spaced, tokenizer.ids_shown.get(exact, NO_TOKEN))


def as_typed(i: int, is_first: bool, tokenizer: Tokenizer) -> str | None:
    """What to type for a token; None where no text means it."""
    shown = tokenizer.shown(i)
    for text in (shown, f'"{shown}"'):
        if typed_token(text, is_first, tokenizer).id == i:
            return text
    return None


def typed_cells(texts: Mapping[int, str], height: int) -> NDArray[Any]:
    """The cells for typed tokens, [height, 1], with these texts in some rows."""
    column = np.full((height, 1), "", dtype=object)
    for row, text in texts.items():
        column[row, 0] = text
    return column


def cells(found: Given, height: int, size: int) -> dict[str, NDArray[Any]]:
    """What the columns about typed tokens show. size: of the vocabulary."""
    notes = {NO_TOKEN: say("model/tokens", "note_single")}
    below = [typed.id >= 0 and row >= len(found.ids) for row, typed in enumerate(found.typed)]
    columns: dict[str, list[Any]] = {
        "typed.text": [typed.text for typed in found.typed],
        "typed.spaced": [int(typed.is_spaced) for typed in found.typed],
        "typed.with": [size - typed.id if typed.id >= 0 and typed.has_space else 0 for typed in found.typed],
        "typed.without": [size - typed.id if typed.id >= 0 and not typed.has_space else 0 for typed in found.typed],
        "typed.id": [typed.id for typed in found.typed],
        "typed.note": [
            say("model/tokens", "note_empty") if lost else notes.get(typed.id, "")
            for typed, lost in zip(found.typed, below, strict=True)
        ],
        "given": [int(row < len(found.ids)) for row in range(height)],
        "prompt_tokens": [found.prompt],
        "prompt_status": [found.prompt_status],
        "status": [found.status],
        "n_tokens": [len(found.ids) if found.status == "ok" else 0],
    }
    return {name: np.array(column, dtype=object) for name, column in columns.items()}


def _prompt_status(count: int, layout: Layout) -> str:
    known, there = layout.config.n_positions, layout.room.context
    if count > known:
        return say("model/tokens", "too_many", count=count, n_positions=known)
    return "ok" if count <= there else say("model/tokens", "too_few_rows", count=count, context=there)


def _status(prompt_status: str, typed: tuple[Typed, ...], count: int) -> str:
    """ok, or what is wrong."""
    if prompt_status != "ok":
        return prompt_status
    wrong = next((row for row, cell in enumerate(typed) if cell.id == NO_TOKEN), None)
    if wrong is not None:
        return say("model/tokens", "no_single", position=wrong)
    if any(cell.id >= 0 for cell in typed[count:]):
        return say("model/tokens", "below_empty")
    return "ok" if count else say("model/tokens", "no_token")
