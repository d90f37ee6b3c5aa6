"""Looking inside: for each optional sheet a module that computes in NumPy what its bands show."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from xlgpt.inside.anatomy import anatomy
from xlgpt.inside.attention import attention
from xlgpt.inside.circuit import circuit
from xlgpt.inside.facts import facts
from xlgpt.inside.lens import lens
from xlgpt.inside.thought import Thought

__all__ = ["VIEWS", "Thought"]

VIEWS: dict[str, Callable[[Thought], dict[str, NDArray[Any]]]] = {
    "anatomy": anatomy,
    "attention": attention,
    "circuit": circuit,
    "facts": facts,
    "lens": lens,
}
