"""A model at work on one prompt: what the sheets that look inside are computed from."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from xlgpt.checkpoint import Model
from xlgpt.layout import Layout
from xlgpt.settings import Settings


@dataclass(frozen=True)
class Thought:
    """A model, the ids that it read, every activation by its name (logits [T, V] among them), and what is chosen.

    n_tokens: how many of the ids are the prompt's; it wrote the others itself. shown: the row whose prediction the
    sheet LM head shows, from 0.
    """

    model: Model
    layout: Layout
    settings: Settings
    ids: tuple[int, ...]
    n_tokens: int
    shown: int
    seen: dict[str, NDArray[Any]]

    def token(self, name: str) -> int:
        """The position in the prompt that an input band chooses: the last where it is empty, or the nearest."""
        chosen = self.settings.cells[name][0, 0]
        last = self.n_tokens - 1
        return last if isinstance(chosen, str) else max(0, min(int(chosen // 1), last))

    def target(self, name: str) -> int | None:
        """The id of the token whose text, with ␣ or spaces, stands in an input band; None where it is no token."""
        text, tokenizer = self.settings.text(name).replace(" ", "␣"), self.model.tokenizer
        found = (i for i in range(len(tokenizer.tokens)) if tokenizer.shown(i) == text)
        return next(found, None) if text else None
