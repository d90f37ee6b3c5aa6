"""Weights with fewer digits: a smaller file, and logits that move a little."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xlgpt.checkpoint import Model, Weights
from xlgpt.errors import UsageError

MOST = 9  # significant digits; that many tell any two float32 apart
LARGEST = np.finfo(np.float32).max
CHUNK = 1 << 16  # numbers rounded at a time: they fit a core's cache


@dataclass(frozen=True)
class Rounded:
    """The same tensors, each number rounded to so many significant digits."""

    weights: Weights
    digits: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor that belongs to the model."""
        return self.weights.shapes()

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32. Raises BadCheckpoint where it is not finite or not readable."""
        return significant(self.weights.tensor(name), self.digits)


def rounded(model: Model, digits: int | None) -> Model:
    """A model whose weights have at most so many significant digits; None or 0 leaves them exact. Raises UsageError."""
    if not digits:
        return model
    if not 1 <= digits <= MOST:
        raise UsageError(f"--precision {digits}: give 1 to {MOST} significant digits, or none for exact weights.")
    return replace(model, weights=Rounded(model.weights, digits), precision=digits)


def significant(numbers: NDArray[np.float32], digits: int) -> NDArray[np.float32]:
    """The float32 nearest to each number's decimal of so many significant digits: no shorter decimal means it.

    A number's power of ten follows from its exponent bits, but for the one power that may lie between two powers of 2.
    """
    result = np.array(numbers, dtype=np.float32)
    flat = result.reshape(-1)
    ten, low, high = _scales(digits)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        exponent = (part.view(np.uint32) >> 23) & 255
        scale = np.where(np.abs(part) < ten[exponent], low[exponent], high[exponent])
        part[:] = np.clip(np.rint(part * scale) / scale, -LARGEST, LARGEST)
    return result


def _scales(digits: int) -> tuple[NDArray[np.float64], ...]:
    """For each exponent of float32: the power of ten above its least number, and what makes `digits` digits whole."""
    floor = [int(np.floor(np.log10(2.0 ** max(exponent - 127, -126)))) for exponent in range(256)]
    powers = ([k + 1 for k in floor], [digits - 1 - k for k in floor], [digits - 2 - k for k in floor])
    return tuple(np.array([float(f"1e{power}") for power in each]) for each in powers)
