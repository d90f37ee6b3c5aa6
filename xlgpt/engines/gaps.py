"""What the `formulas` library (1.3.4) gets wrong and the models need, worked around here and nowhere else.

Each has a test in tests/engines/test_engines.py that fails when the library is mended, so that the workaround can go.
Each note is written so that it can be sent upstream as it stands.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from math import isfinite
from operator import add, eq, ge, gt, le, lt, mod, mul, ne, sub, truediv
from typing import Any

import numpy as np

from xlgpt.engines.tree import EMPTY, Call
from xlgpt.xlsx.worksheet import Values

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
    "SUM": (
        "SUM, MAX, AVERAGE and their like look at every number one by one in Python, also where the array is float64 "
        "and holds nothing else: 0.9 s for 2,000,000 numbers, of which the sum takes 1 ms."
    ),
    "=": (
        "A comparison of two single values goes through numpy.vectorize and a generator for each argument: 60 µs where "
        'the comparison takes 0.1. Of 20,000 formulas that begin with IF(cell="", …), it takes most of the time.'
    ),
    "+": (
        "The operators and functions that go by element (wrap_ufunc) are called once for every number of an array, "
        "through numpy.vectorize: 60 µs each, also where the array is float64 and NumPy's own function would do."
    ),
    "LARGE": (
        "LARGE and SMALL look at every number one by one in Python, also where the array is float64 and holds nothing "
        "else, and sort all of them for each rank: 0.4 ms for 1,280 numbers, of which the sort takes 10 µs."
    ),
    "MATCH": (
        "MATCH of a number looks at every cell of the range one by one in Python, also where it is float64 and sorted: "
        "0.6 ms for 1,000 numbers, of which NumPy's searchsorted takes 2 µs."
    ),
    "N": "N of one cell goes through an array of objects: 20 µs where a look at its type takes 0.1.",
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
    """SUMPRODUCT by the library, unless it is of blocks of one shape, of numbers and of texts, which count as 0."""
    found = (_without_texts(value) for value in values if isinstance(value, np.ndarray))
    blocks = [block for block in found if block is not None]
    if len(blocks) == len(values) and len({block.shape for block in blocks}) == 1:
        return float(reduce(np.multiply, blocks).sum())
    return plain(call, values)


OF_NUMBERS: dict[str, Callable[[Values], Any]] = {
    "SUM": np.sum,
    "MAX": np.max,
    "MIN": np.min,
    "AVERAGE": np.mean,
    "VARP": np.var,
    "STDEVP": np.std,
}


def summary(call: Call, values: list[Any]) -> Any:
    """SUM, MAX and their like by the library, unless of one block of numbers, and of texts, which do not count."""
    if len(values) == 1 and isinstance(values[0], np.ndarray):
        numbers = _numbers_in(values[0])
        if numbers is not None and numbers.size:
            return float(OF_NUMBERS[call.name](numbers))
    return plain(call, values)


def _holds_texts(values: Values) -> bool:
    """Whether it is a block of objects, all of them numbers or texts."""
    return values.dtype == object and set(map(type, values.flat)) <= {float, str, type(EMPTY)}


def _numbers_in(values: Values) -> Values | None:
    """The numbers of a block that holds but numbers and texts; None for any other."""
    if _holds_texts(values):
        return np.array([v for v in values.flat if type(v) is float])
    return values.astype(np.float64, copy=False) if values.dtype.kind in "if" else None


def _without_texts(values: Values) -> Values | None:
    """As float64, texts as 0; None where anything else is there."""
    if _holds_texts(values):
        return np.array([v if type(v) is float else 0.0 for v in values.flat]).reshape(values.shape)
    return values if values.dtype == np.float64 else None


def index(call: Call, values: list[Any]) -> Any:
    """INDEX by the library, except for a whole row, a whole column or one cell of a matrix."""
    array = np.atleast_2d(values[0])
    row, column = (whole(value) for value in ([*values[1:], None, None])[:2])
    if len(values) == 2 and 1 in array.shape:  # along the one row or column
        row, column = (1, row) if array.shape[0] == 1 else (row, 1)
    if row and column and row <= array.shape[0] and column <= array.shape[1]:
        return _unboxed(array[row - 1 : row, column - 1 : column])
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
PLAIN = (float, int, str, type(EMPTY))


def compare(call: Call, values: list[Any]) -> Any:
    """A comparison by the library, unless it is of single numbers and texts, of numbers alone, or with empty text."""
    one, other = map(_single, values)
    of = COMPARISONS[call.name]
    asks_for_empty = call.name in ("=", "<>") and isinstance(other, str) and other == ""
    if type(one) in PLAIN and type(other) in PLAIN:
        one, other = _instead_of_empty(one, other), _instead_of_empty(other, one)
        if isinstance(one, str) and isinstance(other, str):
            return of(one.upper(), other.upper())
        if not (isinstance(one, str) or isinstance(other, str)):
            return of(one, other)
        if call.name in ("=", "<>"):  # a number and a text
            return call.name == "<>"
    if all(map(_is_number, values)):
        with suppress(ValueError):  # shapes that do not fit
            return of(*values)
    if asks_for_empty and isinstance(one, np.ndarray):
        if one.dtype == np.float64:
            return np.full(one.shape, call.name == "<>")
        if set(map(type, one.flat)) <= {float, str}:
            return np.asarray(of(one, other), bool)
    return plain(call, values)


def _instead_of_empty(value: Any, other: Any) -> Any:
    """An empty cell is compared as empty text with a text, and as 0 with a number."""
    if value is not EMPTY:
        return value
    return "" if isinstance(other, str) else 0.0


def ranked(call: Call, values: list[Any]) -> Any:
    """LARGE or SMALL by the library, unless of a block of numbers and one rank that it has."""
    block, rank = values[0], whole(values[1])
    if isinstance(block, np.ndarray) and block.dtype == np.float64 and rank and 1 <= rank <= block.size:
        return float(np.sort(block, axis=None)[-rank if call.name == "LARGE" else rank - 1])
    return plain(call, values)


def match(call: Call, values: list[Any]) -> Any:
    """MATCH by the library, unless of a number that is there, or in ascending numbers, of which none is met twice."""
    wanted, block, kind = _single(values[0]), values[1], whole(values[2]) if len(values) > 2 else 1
    if type(wanted) is float and isinstance(block, np.ndarray) and block.dtype == np.float64:
        line = block.ravel()
        if kind == 0 and (line == wanted).any():
            return float((line == wanted).argmax() + 1)
        if kind == 1 and wanted >= line[0] and (line[1:] >= line[:-1]).all():
            before, upto = (int(line.searchsorted(wanted, side)) for side in ("left", "right"))
            if upto - before <= 1:
                return float(upto)
    return plain(call, values)


def number(call: Call, values: list[Any]) -> Any:
    """N by the library, unless of one number, text or empty cell."""
    one = _single(values[0])
    if type(one) in PLAIN:
        return float(one) if type(one) in (float, int) else 0.0
    return plain(call, values)


def _single(value: Any) -> Any:
    """What a block of one cell holds; anything else as it is."""
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value


def each_by(condition: Any, branches: list[Any]) -> Values | None:
    """IF of a block by NumPy, value by value; None where the library has to do it."""
    if not (isinstance(condition, np.ndarray) and condition.dtype.kind in "bif"):
        return None
    values = [*branches, False][:2]
    blocks = [value if isinstance(value, np.ndarray) else np.array(value, dtype=object) for value in values]
    if any(_is_number(value) is False for value in values):
        blocks = [block.astype(object) for block in blocks]
    with suppress(ValueError):  # shapes that do not fit
        found: Values = np.where(condition != 0, *blocks)
        return _unboxed(found) if found.dtype == object else found
    return None


ARITHMETIC = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "U-": np.negative,
    "MOD": np.mod,
    "INT": np.floor,
    "EXP": np.exp,
    "SQRT": np.sqrt,
    "TANH": np.tanh,
}


OF_TWO = {"+": add, "-": sub, "*": mul, "/": truediv, "MOD": mod}


def arithmetic(call: Call, values: list[Any]) -> Any:
    """Some arithmetic by Python or NumPy, where it is of numbers alone and gives numbers; else by the library."""
    single = list(map(_single, values))
    if call.name in OF_TWO and all(type(value) is float for value in single):
        with suppress(ArithmeticError):
            number = OF_TWO[call.name](*single)
            if isfinite(number):
                return number
    if all(map(_is_number, values)):
        with np.errstate(all="ignore"), suppress(ValueError):  # shapes that do not fit
            found = ARITHMETIC[call.name](*(np.asarray(value, np.float64) for value in values))
            if np.isfinite(found).all():
                return found
    return plain(call, values)


WORKAROUNDS = {"INDEX": index, "MMULT": mmult, "SUMPRODUCT": sumproduct, "MATCH": match, "N": number}
WORKAROUNDS |= dict.fromkeys(("LARGE", "SMALL"), ranked) | dict.fromkeys(OF_NUMBERS, summary)
WORKAROUNDS |= dict.fromkeys(COMPARISONS, compare) | dict.fromkeys(ARITHMETIC, arithmetic)
