"""What cells must show, and how far what they do show is from it."""

from dataclasses import replace

import numpy as np

from xlgpt.compiler.layout import Placed
from xlgpt.oracle.values import on_sheet
from xlgpt.verify.report import BandResult
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import CellError, Cells, Values, overlap, part

TOLERANCE = 1e-6  # absolute, and again relative
NUMBERS = {float, int, np.float64, np.int64}


def expected_cells(values: dict[str, Values], placed: Placed) -> Values | None:
    """What every cell of a band must show: "" where there is no token. None where that is not known."""
    cells: Values = np.full((placed.cells.height, placed.cells.width), "", dtype=object)
    if placed.band.name not in values:
        return None if "logits" in values else cells  # without a token, all that is not known is empty
    known = on_sheet(values[placed.band.name], placed)
    cells[: len(known)] = known
    cells[~filled(placed)] = ""
    cells[np.equal(cells, cells, dtype=object) == False] = ""  # noqa: E712 - NaN: a key that no token has
    return cells


def filled(placed: Placed) -> Values:
    """Which cells of a band there are: with a column per key, up to the row's own token; or one fewer each row."""
    tokens, keys = placed.dims[0], placed.dims[-1]
    until = np.arange(tokens) if placed.band.shape[-1] == "key" else np.full(tokens, keys)
    until = keys - 1 - np.arange(tokens) if placed.band.shrinks else until
    there = np.arange(keys) <= until.reshape(-1, *[1] * (len(placed.dims) - 1))
    return np.broadcast_to(there, placed.dims).reshape(placed.cells.height, placed.cells.width)


def compare(name: str, cells: Range, shown: Values, wanted: Values) -> BandResult:
    """Hold what a block of cells shows against what it must show."""
    ours, theirs = _numbers(shown), _numbers(wanted)
    both = np.isfinite(ours) & np.isfinite(theirs)
    gap = np.where(both, np.abs(np.where(both, ours - theirs, 0)), 0)
    size = np.where(both, np.abs(theirs), 0)
    relative = np.divide(gap, size, out=np.zeros_like(gap), where=size > TOLERANCE)
    excess = np.where(both, gap - TOLERANCE * size, _unlike(shown, wanted, both))
    row, column = (int(i) for i in np.unravel_index(int(excess.argmax()), excess.shape))
    error = _first_error(shown)
    if error:
        worst = cells.cell(*error).absolute
        problem = f"{worst} shows the error {shown[error]}."
    else:
        worst, bad = cells.cell(row, column).absolute, excess[row, column] > TOLERANCE
        problem = f"{worst} shows {_said(shown[row, column])}; it must be {_said(wanted[row, column])}." if bad else ""
    worst = worst if problem or both.any() else ""
    return BandResult(name, int(excess.size), float(gap.max()), float(relative.max()), worst, problem)


def one_of(name: str, cells: Range, shown: Values, possible: tuple[float, ...]) -> BandResult:
    """Hold what differs from program to program against what it may be."""
    wrong = next((place for place, value in np.ndenumerate(shown) if value not in possible), None)
    if wrong is None:
        return BandResult(name, int(shown.size))
    allowed = " or ".join(map(_said, possible))
    cell = cells.cell(*wrong).absolute
    return BandResult(
        name, int(shown.size), worst=cell, problem=f"{cell} shows {_said(shown[wrong])}; it must be {allowed}."
    )


def _first_error(shown: Values) -> tuple[int, int] | None:
    """The place of the first error value."""
    if shown.dtype != object or CellError not in set(map(type, shown.flat)):
        return None
    return next((place for place, value in np.ndenumerate(shown) if isinstance(value, CellError)), None)


def _numbers(values: Values) -> Values:
    """The numbers among some values; NaN for all else."""
    if values.dtype != object:
        return np.asarray(values, dtype=np.float64)
    there = np.not_equal(values, "", dtype=object).astype(bool)
    if set(map(type, values[there])) <= NUMBERS:  # the common case, without a step in Python for each cell
        numbers = np.full(values.shape, np.nan)
        numbers[there] = values[there].astype(np.float64)
        return numbers
    flat = [v if type(v) is float else _number(v) for v in values.flat]
    return np.array(flat, dtype=np.float64).reshape(values.shape)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | np.number) and not isinstance(value, bool) else np.nan


def _unlike(shown: Values, wanted: Values, both: Values) -> Values:
    """Infinity where at least one of two values is no number and they are not the same."""
    if both.all():
        return np.zeros(both.shape)
    differs = np.asarray(shown, dtype=object) != np.asarray(wanted, dtype=object)
    return np.where(differs & ~both, np.inf, 0.0)


def _said(value: object) -> str:
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return f"{float(value):.9g}"
    return repr(str(value)) if value != "" else "nothing"


def stale(found: BandResult, cells: Range, shown: Values, saved: Cells) -> BandResult | None:
    """The same band, where a saved value is not the calculated one."""
    kept = shown.copy()
    for i in saved.over(cells):
        block, values = saved.formulas[i].cells, saved.saved[i]
        if values is None:  # never calculated, so nothing is claimed
            continue
        common = overlap(block, cells) or block
        kept = kept.astype(object) if values.dtype == object and kept.dtype != object else kept
        part(kept, cells, common)[:] = part(values, block, common)
    differs = compare(found.name, cells, kept, shown)
    if differs.problem:
        return replace(found, worst=differs.worst, problem=f"The saved value is stale: {differs.problem}")
    return None
