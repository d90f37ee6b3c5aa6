"""A model at work on one prompt: what the sheets that look inside are computed from."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from xlgpt.checkpoint import Model
from xlgpt.layout import Layout
from xlgpt.settings import Settings


@dataclass(frozen=True)
class Thought:
    """A model, the ids that it read, every activation by its name (logits [T, V] among them), and what is chosen."""

    model: Model
    layout: Layout
    settings: Settings
    ids: tuple[int, ...]
    seen: dict[str, NDArray[Any]]

    def token(self, name: str) -> int:
        """The position that an input band chooses: the last where it is empty, the nearest that there is otherwise."""
        chosen = self.settings.cells[name][0, 0]
        last = len(self.ids) - 1
        return last if isinstance(chosen, str) else max(0, min(int(chosen // 1), last))
