"""Weights with fewer digits: a smaller file, and logits that move a little."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from xlgpt.errors import UsageError
from xlgpt.model.checkpoint import Model, Weights, in_memory

MOST = 9  # significant digits; that many tell any two float32 apart
LARGEST = np.finfo(np.float32).max
KEPT = 3_000_000  # parameters of a model that is read once, for many tokens
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

    def pieces(self, name: str) -> Iterator[NDArray[np.float32]]:
        """The same, some rows at a time."""
        return (significant(piece, self.digits) for piece in self.weights.pieces(name))


def rounded(model: Model, digits: int | None) -> Model:
    """A model whose weights have at most so many significant digits; None or 0 leaves them exact. Raises UsageError."""
    if not digits:
        return model
    if not 1 <= digits <= MOST:
        raise UsageError(f"--precision {digits}: give 1 to {MOST} significant digits, or none for exact weights.")
    return replace(model, weights=Rounded(model.weights, digits), precision=digits)


def significant(numbers: NDArray[np.float32], digits: int) -> NDArray[np.float32]:
    """The float32 nearest to each number's decimal of so many significant digits: no shorter decimal means it."""
    result = np.array(numbers, dtype=np.float32)
    flat = result.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        scale = _scale(part, digits)
        part[:] = np.clip(np.rint(part * scale) / scale, -LARGEST, LARGEST)
    return result


@dataclass(frozen=True)
class InCells:
    """The same tensors as a spreadsheet reads them: as float64, from the shortest decimal of each float32."""

    weights: Weights

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor that belongs to the model."""
        return self.weights.shapes()

    def tensor(self, name: str) -> NDArray[np.float64]:
        """One tensor. Raises BadCheckpoint where it is not finite or not readable."""
        return shortest(self.weights.tensor(name))


def in_cells(model: Model) -> Model:
    """The model as its workbook will hold it; of a small one, the weights stay in memory."""
    held = replace(model, weights=cast(Weights, InCells(model.weights)))
    return in_memory(held) if model.parameters <= KEPT else held


def shortest(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """The shortest decimal that reads back to each float32: what `orjson` prints into its cell.

    Where a decimal of so many digits does not read back, no shorter one does.
    """
    flat = np.ascontiguousarray(numbers, dtype=np.float32).reshape(-1)
    result = np.empty(flat.size)
    for start in range(0, flat.size, CHUNK):
        left, found = flat[start : start + CHUNK], result[start : start + CHUNK]
        scale, where = _scale(left, MOST), np.arange(len(left))
        found[:] = np.rint(left * scale) / scale
        for _ in range(MOST - 1):
            scale = scale / 10
            decimal = np.rint(left * scale) / scale
            same = np.flatnonzero(decimal.astype(np.float32) == left)
            where, left, scale = where[same], left[same], scale[same]
            found[where] = decimal[same]
    return result.reshape(np.shape(numbers))


def _scale(numbers: NDArray[np.float32], digits: int) -> NDArray[np.float64]:
    """What makes so many digits of each number whole.

    Its power of ten follows from its exponent bits, but for the one power that may lie between two powers of 2.
    """
    ten, low, high = _scales(digits)
    exponent = (numbers.view(np.uint32) >> 23) & 255
    scale: NDArray[np.float64] = np.where(np.abs(numbers) < ten[exponent], low[exponent], high[exponent])
    return scale


@cache
def _scales(digits: int) -> tuple[NDArray[np.float64], ...]:
    """For each exponent of float32: the power of ten above its least number, and what makes `digits` digits whole."""
    floor = [int(np.floor(np.log10(2.0 ** max(exponent - 127, -126)))) for exponent in range(256)]
    powers = ([k + 1 for k in floor], [digits - 1 - k for k in floor], [digits - 2 - k for k in floor])
    return tuple(np.array([float(f"1e{power}") for power in each]) for each in powers)
