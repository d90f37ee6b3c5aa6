"""The best tokens for some vectors, as the sheets find them: slice by slice of the vocabulary."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.template import numbers
from xlgpt.model.checkpoint import Model
from xlgpt.model.reference import slices

Array = NDArray[np.float64]
BEST = 5


@dataclass(frozen=True)
class Best:
    """Of N vectors: the codes of the five best tokens [N, 5], and for each place the best left in each slice [N, 5, S].

    A code is the score in ten-millionths, and behind it, as the last digits, 65535 less the token's id.
    """

    codes: Array
    in_slice: Array

    @property
    def ids(self) -> NDArray[np.int64]:
        """The five best tokens [N, 5]."""
        found: NDArray[np.int64] = 65535 - self.codes.astype(np.int64) % 65536
        return found


def scores(model: Model, x: Array) -> Array:
    """A score for every token of the vocabulary: [N, D] -> [N, V]."""
    parts = slices(model.weights.tensor(model.config.unembedding))
    return np.concatenate([x @ part.T.astype(np.float64, copy=False) for part in parts], axis=-1)


def codes(scored: Array) -> Array:
    """The codes of the scores [N, V]."""
    found: Array = np.floor(scored * 1e7) * 65536 + 65535 - np.arange(scored.shape[-1])
    return found


def best(model: Model, scored: Array) -> Best:
    """The five best by the scores [N, V]."""
    coded = codes(scored)
    five = np.sort(coded, axis=-1)[:, : -BEST - 1 : -1]  # [N, 5]
    above = np.concatenate([np.full((len(five), 1), np.inf), five[:, :-1]], axis=-1)  # [N, 5]: the place before
    left = [by_slice(model, np.where(coded < above[:, [i]], coded, -np.inf), np.maximum) for i in range(BEST)]
    return Best(five, np.stack(left, axis=1))


def by_slice(model: Model, values: Array, of: np.ufunc) -> Array:
    """What a function, such as np.add, makes of each slice of the vocabulary: [..., V] -> [..., S]."""
    found: Array = of.reduceat(values, range(0, values.shape[-1], numbers(model.config)["slice_size"]), axis=-1)
    return found
