"""A model at work on one prompt: what the sheets that look inside are computed from."""

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from xlgpt.compiler.layout import Layout
from xlgpt.compiler.settings import Settings
from xlgpt.model.checkpoint import Model


@dataclass(frozen=True)
class Run:
    """A model, the ids that it read, every activation by its name (logits [T, V] among them), and what is chosen.

    n_given: how many of the ids were given; it wrote the others itself. n_tokens: the same; 0 while something is
    wrong. shown: the row whose prediction the sheet LM head shows, from 0. prompt: the text of the prompt. shows:
    what all other sheets' bands show.
    """

    model: Model
    layout: Layout
    settings: Settings
    ids: tuple[int, ...]
    n_given: int
    n_tokens: int
    shown: int
    cache: dict[str, NDArray[Any]]
    prompt: str = ""
    shows: dict[str, NDArray[Any]] = field(default_factory=dict)

    def token(self, name: str) -> int:
        """The position in the prompt that an input band chooses: the last where it is empty, or the nearest."""
        chosen = self.settings.cells[name][0, 0]
        last = self.n_tokens - 1
        return last if isinstance(chosen, str) else max(0, min(int(chosen // 1), last))

    def target(self, name: str) -> int | None:
        """The id of the token whose text, with ␣ or spaces, stands in an input band; None where it is no token."""
        return self.model.tokenizer.ids_shown.get(self.settings.text(name).replace(" ", "␣"))
