"""What the `formulas` library (1.3.4) gets wrong and the models need, worked around here and nowhere else.

Each has a test in tests/test_engines.py that fails when the library is mended, so that the workaround can go. Each note
is written so that it can be sent upstream as it stands.
"""

from contextlib import suppress
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import numpy as np

from xlgpt.engines.formula import EMPTY, Call
from xlgpt.worksheet import Values

NOTES = {
    "INDEX": (
        "INDEX(range, row, 0) should give the whole row, and INDEX(range, 0, column) the whole column. It gives the "
        "first cell of it, repeated: `_index` turns a row or column of 0 into the first, by max(0, number - 1)."
    ),
    "INDEX:INDEX": (
        "INDEX(range, …) over a Ranges object makes a Ranges object for every cell of the range, whichever is asked "
        "for: for 1,000,000 cells that takes minutes and gigabytes. Only the reference asked for need be made."
    ),
    "MMULT": (
        "MMULT looks at every number of both matrices, one by one in Python, for an error value (raise_errors), also "
        "where the array is float64 and cannot hold one: 0.4 s for 768 × 3072, of which the product takes 1 ms."
    ),
    "SUMPRODUCT": (
        "SUMPRODUCT compares every number of every array with an empty cell, as objects, also where the arrays are "
        "float64 and hold none: 0.3 ms for two columns of 3072, of which the product takes 5 µs."
    ),
    "=": (
        "A comparison of two single values goes through numpy.vectorize and a generator for each argument: 60 µs where "
        'the comparison takes 0.1. Of 20,000 formulas that begin with IF(cell="", …), it takes most of the time.'
    ),
    "+": (
        "The operators and functions that go by element (wrap_ufunc) are called once for every number of an array, "
        "through numpy.vectorize: 60 µs each, also where the array is float64 and NumPy's own function would do."
    ),
    "CHOOSE": (
        "CHOOSE(number, a, b, …) calculates all of a, b, … though only one is needed, and it is no reference, so that "
        "INDEX(CHOOSE(…), 1):INDEX(CHOOSE(…), 2) is an error."
    ),
    "IF": (
        "IF(condition, a, b) calculates both a and b when the condition is a single value, though only one is needed: "
        '=IF(A1="", "", MMULT(…)) multiplies matrices for a row that is empty.'
    ),
}


def plain(call: Call, values: list[Any]) -> Any:
    """A function by the library."""
    return _unboxed(call.function(*call.extra, *values))


def _unboxed(found: Any) -> Any:
    """A block in which all are numbers, or all truth values, as NumPy's own rather than as objects."""
    if isinstance(found, np.ndarray) and found.dtype == object:
        for kinds, dtype in (((float, int, np.float64), np.float64), ((bool, np.bool_), np.bool_)):
            if all(type(value) in kinds for value in found.flat):
                return np.asarray(found, dtype)
    return found


class _Numbers:
    """A block of numbers that NumPy can read and the library does not search for error values."""

    def __init__(self, values: Values):
        self._values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Values:
        return self._values


def mmult(call: Call, values: list[Any]) -> Any:
    """MMULT by the library, with blocks of float64 spared the search for error values, which they cannot hold."""
    spared = [_Numbers(v) if isinstance(v, np.ndarray) and v.dtype == np.float64 else v for v in values]
    return plain(call, spared)


def sumproduct(call: Call, values: list[Any]) -> Any:
    """SUMPRODUCT by the library, unless it is of two blocks of one shape, of numbers and of texts, which count as 0."""
    if len(values) == 2 and np.shape(values[0]) == np.shape(values[1]):
        blocks = [_without_texts(value) if isinstance(value, np.ndarray) else None for value in values]
        if blocks[0] is not None and blocks[1] is not None:
            return float(np.vdot(blocks[0], blocks[1]))
    return plain(call, values)


def _without_texts(values: Values) -> Values | None:
    """As float64, texts as 0; None where anything else is there."""
    if values.dtype == object and set(map(type, values.flat)) <= {float, str, type(EMPTY)}:
        return np.array([v if type(v) is float else 0.0 for v in values.flat]).reshape(values.shape)
    return values if values.dtype == np.float64 else None


def index(call: Call, values: list[Any]) -> Any:
    """INDEX by the library, except for a whole row or a whole column."""
    array = np.atleast_2d(values[0])
    row, column = (whole(value) for value in ([*values[1:], None, None])[:2])
    if len(values) > 2 and (row == 0) != (column == 0):
        within = (column if row == 0 else row) or 0
        if 1 <= within <= array.shape[row == 0]:
            return _unboxed(array[:, within - 1 : within] if row == 0 else array[within - 1 : within])
    return plain(call, values)


def whole(value: Any) -> int | None:
    """A single number as a whole number; None for anything else."""
    one = np.ravel(value)
    if len(one) != 1 or isinstance(one[0], str | bool):
        return None
    try:
        return int(one[0])
    except (TypeError, ValueError):
        return None


def first_and_last(rows: Any, columns: Any, height: int, width: int) -> tuple[int, int, int, int] | None:
    """The block that INDEX(reference, rows, columns) stands for: first row, first column, height, width."""
    if height == 1 and columns is None:
        rows, columns = 1, rows
    row, column = whole(rows), 1 if columns is None else whole(columns)
    if row is None or column is None or not (0 <= row <= height and 0 <= column <= width):
        return None
    return max(0, row - 1), max(0, column - 1), 1 if row else height, 1 if column else width


def _is_number(value: Any) -> bool:
    """Whether it is a number, or a block of numbers or truth values as NumPy keeps them."""
    return type(value) in (float, int) or (isinstance(value, np.ndarray | np.number) and value.dtype.kind in "fib")


COMPARISONS = {"=": eq, "<>": ne, "<": lt, "<=": le, ">": gt, ">=": ge}


def compare(call: Call, values: list[Any]) -> Any:
    """A comparison by the library, unless it is of numbers alone or of a single value with empty text."""
    if all(map(_is_number, values)):
        with suppress(ValueError):  # shapes that do not fit
            return COMPARISONS[call.name](*values)
    one, other = (value.item() if isinstance(value, np.ndarray) and value.size == 1 else value for value in values)
    numbers = type(one) in (int, float) and type(other) in (int, float)
    if numbers or (
        call.name in ("=", "<>") and isinstance(other, str) and other == "" and type(one) in (int, float, str)
    ):
        return COMPARISONS[call.name](one, other)
    return plain(call, values)


ARITHMETIC = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "U-": np.negative,
    "INT": np.floor,
    "EXP": np.exp,
    "SQRT": np.sqrt,
    "TANH": np.tanh,
}


def arithmetic(call: Call, values: list[Any]) -> Any:
    """Some arithmetic by NumPy, where it is of numbers alone and gives numbers; else by the library."""
    if all(map(_is_number, values)):
        with np.errstate(all="ignore"), suppress(ValueError):  # shapes that do not fit
            found = ARITHMETIC[call.name](*(np.asarray(value, np.float64) for value in values))
            if np.isfinite(found).all():
                return found
    return plain(call, values)


WORKAROUNDS = {"INDEX": index, "MMULT": mmult, "SUMPRODUCT": sumproduct}
WORKAROUNDS |= dict.fromkeys(COMPARISONS, compare) | dict.fromkeys(ARITHMETIC, arithmetic)
