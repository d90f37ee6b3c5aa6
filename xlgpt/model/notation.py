"""How the cells of a file write a weight: as a decimal (.xlsx), or in binary (.xlsb); exactly, or with fewer digits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]

MOST = 9  # significant digits; that many tell any two float32 apart
LARGEST = np.finfo(np.float32).max
MANTISSA = 23  # bits of a float32 behind its point
CHUNK = 1 << 16  # numbers rounded at a time: they fit a core's cache


@dataclass(frozen=True)
class Notation:
    """What becomes of a float32 in a cell.

    rounded: to so many significant digits. read: what a spreadsheet reads from the cell of each. bytes_a_weight:
    measured in a large model's file, by the number of digits; 0 for all. least: digits with which a model still speaks.
    """

    rounded: Callable[[Singles, int], Singles]
    read: Callable[[Singles], Singles | Doubles]
    bytes_a_weight: Mapping[int, float]
    least: int

    def size(self, parameters: int, digits: int = 0) -> float:
        """About how many bytes a large model's file has."""
        return parameters * self.bytes_a_weight[digits]

    def digits_that_fit(self, parameters: int, limit: int) -> list[int]:
        """How many digits leave a large model's file below a limit, the most first; 0, for all, in front."""
        digits = (0, *range(MOST, self.least - 1, -1))
        return [n for n in digits if self.size(parameters, n) <= limit]


def significant(numbers: Singles, digits: int) -> Singles:
    """The float32 nearest to each number's decimal of so many significant digits: no shorter decimal means it."""
    result = np.array(numbers, dtype=np.float32)
    flat = result.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        scale = _scale(part, digits)
        part[:] = np.clip(np.rint(part * scale) / scale, -LARGEST, LARGEST)
    return result


def shortest(numbers: Singles) -> Doubles:
    """The shortest decimal that reads back to each float32: what `orjson` prints into its cell.

    Where a decimal of so many digits does not read back, no shorter one does. Of the most digits but one nearly all do.
    """
    flat = np.ascontiguousarray(numbers, dtype=np.float32).reshape(-1)
    result = np.empty(flat.size)
    for start in range(0, flat.size, CHUNK):
        left, found = flat[start : start + CHUNK], result[start : start + CHUNK]
        most = _scale(left, MOST)
        scale = most / 10
        found[:] = _decimal(left, scale)
        longest = np.flatnonzero(found.astype(np.float32) != left)
        found[longest] = _decimal(left[longest], most[longest])
        scale[longest] = np.nan  # none is equal to that
        where = np.arange(len(left))
        for _ in range(MOST - 2):
            scale = scale / 10
            decimal = _decimal(left, scale)
            same = np.flatnonzero(decimal.astype(np.float32) == left)
            where, left, scale = where[same], left[same], scale[same]
            found[where] = decimal[same]
    return result.reshape(np.shape(numbers))


def _decimal(numbers: Singles, scale: Doubles) -> Doubles:
    """The nearest of those decimals that a scale makes whole."""
    nearest: Doubles = np.rint(numbers * scale) / scale
    return nearest


def bits(digits: int) -> int:
    """How many bits behind the point are finer than so many significant digits, by at least 2 times.

    5 digits take 18: with sign and exponent the upper 30 bits of a double, which is what an RkNumber holds.
    """
    return min(MANTISSA, ceil(digits * log2(10)) + 1)


def cut(numbers: Singles, digits: int) -> Singles:
    """Each number rounded to the nearest that has only `bits` behind its point; of two as near, the even one."""
    result = np.array(numbers, dtype=np.float32)
    if spare := MANTISSA - bits(digits):
        whole = result.view(np.uint32)  # a carry out of the mantissa is one more of the exponent, as it should be
        whole += ((whole >> spare) & 1) + ((1 << spare - 1) - 1)
        whole &= ~np.uint32((1 << spare) - 1)
        most = (np.array(LARGEST).view(np.uint32) >> spare << spare).view(np.float32)
        np.clip(result, -most, most, out=result)
    return result


def exactly(numbers: Singles) -> Singles:
    """Each float32 as it stands: as a double it is the same number, in twice the memory."""
    return numbers


def _scale(numbers: Singles, digits: int) -> Doubles:
    """What makes so many digits of each number whole.

    Its power of ten follows from its exponent bits, but for the one power that may lie between two powers of 2.
    """
    ten, scales = _scales(digits)
    exponent = (numbers.view(np.uint32) >> 23).astype(np.intp) & 255
    scale: Doubles = scales.take(2 * exponent + (np.abs(numbers) >= ten.take(exponent)))
    return scale


@cache
def _scales(digits: int) -> tuple[Doubles, Doubles]:
    """For each exponent of float32: the power of ten above its least number, and what makes `digits` digits whole.

    The latter twice, for numbers below that power and for all others, one beside the other.
    """
    floor = [int(np.floor(np.log10(2.0 ** max(exponent - 127, -126)))) for exponent in range(256)]
    powers = ([k + 1 for k in floor], [digits - 1 - k - above for k in floor for above in (0, 1)])
    ten, scales = (np.array([float(f"1e{power}") for power in each]) for each in powers)
    return ten, scales


DECIMAL = Notation(
    significant, shortest, {0: 6.1, 1: 2.0, 2: 2.6, 3: 3.3, 4: 3.9, 5: 4.6, 6: 5.2, 7: 5.8, 8: 6.1, 9: 6.1}, 3
)
BINARY = Notation(  # 2 digits are 8 bits behind the point, one more than bfloat16 has, in which models are trained
    cut, exactly, {0: 4.8, 1: 2.0, 2: 2.4, 3: 2.8, 4: 3.6, 5: 3.9, 6: 4.5, 7: 4.8, 8: 4.8, 9: 4.8}, 2
)
