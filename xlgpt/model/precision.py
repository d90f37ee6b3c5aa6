"""Weights with fewer digits: a smaller file, and logits that move a little."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from xlgpt.errors import UsageError
from xlgpt.model.checkpoint import Model, Weights, in_memory
from xlgpt.model.notation import DECIMAL, MOST, Doubles, Notation, Singles

KEPT = 3_000_000  # parameters of a model that is read once, for many tokens


@dataclass(frozen=True)
class Rounded:
    """The same tensors, each number rounded to so many significant digits."""

    weights: Weights
    digits: int
    notation: Notation

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor that belongs to the model."""
        return self.weights.shapes()

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32. Raises BadCheckpoint where it is not finite or not readable."""
        return self.notation.rounded(self.weights.tensor(name), self.digits)

    def pieces(self, name: str, start: int = 0) -> Iterator[NDArray[np.float32]]:
        """The same, some rows at a time."""
        return (self.notation.rounded(piece, self.digits) for piece in self.weights.pieces(name, start))

    def files(self) -> tuple[Path, ...]:
        """The files that they are read from."""
        return self.weights.files()


def rounded(model: Model, digits: int | None, notation: Notation = DECIMAL) -> Model:
    """A model whose weights have at most so many significant digits; None or 0 leaves them exact. Raises UsageError.

    notation: of the file that they are for. In binary they are rounded to bits, which are finer than the digits.
    """
    if not digits:
        return model
    if not 1 <= digits <= MOST:
        raise UsageError(f"--precision {digits}: give 1 to {MOST} significant digits, or none for exact weights.")
    return replace(model, weights=Rounded(model.weights, digits, notation), precision=digits)


@dataclass(frozen=True)
class InCells:
    """The same tensors as a spreadsheet reads them from a file's cells: as float64, or as float32 that are the same."""

    weights: Weights
    notation: Notation

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor that belongs to the model."""
        return self.weights.shapes()

    def tensor(self, name: str) -> Singles | Doubles:
        """One tensor. Raises BadCheckpoint where it is not finite or not readable."""
        return self.notation.read(self.weights.tensor(name))


def in_cells(model: Model, notation: Notation = DECIMAL) -> Model:
    """The model as its workbook will hold it; of a small one, the weights stay in memory."""
    held = replace(model, weights=cast(Weights, InCells(model.weights, notation)))
    return in_memory(held) if model.parameters <= KEPT else held
