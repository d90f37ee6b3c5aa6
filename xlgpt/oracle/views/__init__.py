"""Looking inside: for each optional sheet a module that computes in NumPy what its bands show."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from xlgpt.oracle.run import Run
from xlgpt.oracle.views.adapters import adapters
from xlgpt.oracle.views.anatomy import anatomy
from xlgpt.oracle.views.attention import attention
from xlgpt.oracle.views.circuit import circuit
from xlgpt.oracle.views.facts import facts
from xlgpt.oracle.views.features import features
from xlgpt.oracle.views.lens import lens
from xlgpt.oracle.views.proof import proof
from xlgpt.oracle.views.steering import steering
from xlgpt.oracle.views.tracing import tracing

__all__ = ["VIEWS", "Run"]

VIEWS: dict[str, Callable[[Run], dict[str, NDArray[Any]]]] = {
    "adapters": adapters,
    "anatomy": anatomy,
    "attention": attention,
    "circuit": circuit,
    "facts": facts,
    "features": features,
    "lens": lens,
    "proof": proof,
    "steering": steering,
    "tracing": tracing,
}
