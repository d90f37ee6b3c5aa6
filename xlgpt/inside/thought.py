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
