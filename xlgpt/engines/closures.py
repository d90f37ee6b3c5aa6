"""Makes functions of formulas that were taken apart: each shape of formula once, for all cells that have it.

The functions are the `formulas` library's; here is what a spreadsheet does around them: IF and CHOOSE calculate only
what they come to, and ROW, COLUMN and `:` ask where cells are, not what they hold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from formulas.ranges import Ranges
from formulas.tokens.operand import Error, XlError

from xlgpt.engines import gaps
from xlgpt.engines.tree import Argument, Call, Constant, Node, first_bits
from xlgpt.errors import FormulaError
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import Values

NO_VALUE = Error.errors["#VALUE!"]
NO_REFERENCE = Error.errors["#REF!"]
SINGLE = (bool, float, int)


@dataclass(slots=True)
class Evaluation:
    """A formula while it is evaluated.

    value: what cells show, as the library takes it. arguments: the formula's references and numbers. cells: where it
    stands. taken: the branches that it took, a bit each.
    """

    value: Callable[[Range], Values]
    arguments: tuple[Range | float, ...]
    cells: Range
    taken: int = 0


Function = Callable[[Evaluation], Any]
Reference = Callable[[Evaluation], Range | None]


@dataclass(frozen=True)
class Compiled:
    """A shape of formula as a function, and how many branches it has."""

    run: Function
    branches: int


def compiled(root: Node) -> Compiled:
    """The function of a formula that was taken apart. It raises FormulaError."""
    bits = first_bits(root)
    return Compiled(_function(root, bits), bits[-1])


Bits = dict[int, int]  # of a branching call, by its identity: its first branch


def _function(node: Node, bits: Bits) -> Function:
    if isinstance(node, Constant):
        value = node.value
        return lambda at: value
    if isinstance(node, Argument):
        return _argument(node.number)
    return SPECIAL.get(node.name, _call)(node, bits)


def _argument(number: int) -> Function:
    """A reference's values, or a number."""

    def run(at: Evaluation) -> Any:
        argument = at.arguments[number]
        return argument if type(argument) is float else at.value(argument)  # type: ignore[arg-type]

    return run


def _call(node: Call, bits: Bits) -> Function:
    """A function or an operator, by the library or by what stands in for it."""
    arguments = [_function(argument, bits) for argument in node.arguments]
    by = gaps.WORKAROUNDS.get(node.name, gaps.plain)

    def run(at: Evaluation) -> Any:
        return _called(by, node, [argument(at) for argument in arguments], at)

    return run


def _called(by: Callable[[Call, list[Any]], Any], node: Call, values: list[Any], at: Evaluation) -> Any:
    try:
        return by(node, values)
    except Exception as e:
        raise FormulaError(
            f"{at.cells.absolute} cannot be evaluated: the formulas library fails in {node.name}: {e}."
        ) from e


def _if(node: Call, bits: Bits) -> Function:
    """IF calculates only the branch that it takes, unless its condition is an array."""
    condition, *branches = [_function(argument, bits) for argument in node.arguments]
    yes, no = 1 << bits[id(node)], 2 << bits[id(node)]
    then, otherwise = branches if len(branches) == 2 else (*branches, _false)

    def run(at: Evaluation) -> Any:
        asked = condition(at)
        one = asked if type(asked) in SINGLE else _only(asked)
        if one is None:
            return by_element(asked, at)
        at.taken |= yes if one else no
        return then(at) if one else otherwise(at)

    def by_element(asked: Any, at: Evaluation) -> Any:
        known = [bool(v) for v in np.unique(_numbers(asked))]
        at.taken |= (yes if True in known else 0) | (no if False in known else 0)
        values = [branch(at) for branch in branches]
        found = gaps.each_by(asked, values)
        return node.function(*node.extra, asked, *values) if found is None else found

    return run


def _false(at: Evaluation) -> bool:
    """What an IF without an else comes to."""
    return False


def _only(value: Any) -> Any:
    """The one number or truth value that it holds; None for anything else."""
    one = np.ravel(value)
    return one[0] if len(one) == 1 and isinstance(one[0], bool | np.bool_ | int | float) else None


def _numbers(value: Any) -> Values:
    """The numbers and truth values among some."""
    flat = np.ravel(value)
    if flat.dtype.kind in "bif":
        return flat
    return np.array([v for v in flat if isinstance(v, bool | np.bool_ | int | float)], dtype=np.float64)


def _iferror(node: Call, bits: Bits) -> Function:
    values, first = [_function(argument, bits) for argument in node.arguments], bits[id(node)]

    def run(at: Evaluation) -> Any:
        found = [value(at) for value in values]
        for failed in {isinstance(value, XlError) for value in np.ravel(np.asarray(found[0], dtype=object))}:
            at.taken |= 1 << first + failed
        return _called(gaps.plain, node, found, at)

    return run


def _choose(node: Call, bits: Bits) -> Function:
    """CHOOSE calculates only the value that it takes."""
    chosen, values = _choice(node, bits), [_function(argument, bits) for argument in node.arguments[1:]]

    def run(at: Evaluation) -> Any:
        number = chosen(at)
        return NO_VALUE if number is None else values[number](at)

    return run


def _choice(node: Call, bits: Bits) -> Callable[[Evaluation], int | None]:
    """Which value CHOOSE takes, from 0; None where there is no such one."""
    asked, count, first = _function(node.arguments[0], bits), len(node.arguments) - 1, bits[id(node)]

    def run(at: Evaluation) -> int | None:
        number = gaps.whole(asked(at))
        if number is None or not 1 <= number <= count:
            return None
        at.taken |= 1 << first + number - 1
        return number - 1

    return run


def _range(node: Call, bits: Bits) -> Function:
    """The cells between two references."""
    block = _reference(node, bits)

    def run(at: Evaluation) -> Any:
        cells = block(at)
        return at.value(cells) if cells else NO_REFERENCE

    return run


def _referring(node: Call, bits: Bits) -> Function:
    """A function that asks where cells are: of none, where the formula stands."""
    block = _reference(node.arguments[0], bits) if node.arguments else lambda at: at.cells

    def run(at: Evaluation) -> Any:
        where = block(at)
        return node.function(*node.extra, Ranges().push(where.a1)) if where else NO_REFERENCE

    return run


SPECIAL: dict[str, Callable[[Call, Bits], Function]] = {
    "IF": _if,
    "IFERROR": _iferror,
    "CHOOSE": _choose,
    ":": _range,
    **dict.fromkeys(("ROW", "COLUMN", "ROWS", "COLUMNS"), _referring),
}


def _reference(node: Node, bits: Bits) -> Reference:
    """The cells that a reference, an INDEX, a CHOOSE or a range between two of them stands for; None for all else."""
    if isinstance(node, Argument):
        return _cells(node.number)
    of = REFERENCES.get(node.name) if isinstance(node, Call) else None
    return of(node, bits) if of and isinstance(node, Call) else lambda at: None


def _cells(number: int) -> Reference:
    def run(at: Evaluation) -> Range | None:
        argument = at.arguments[number]
        return argument if isinstance(argument, Range) else None

    return run


def _index(node: Call, bits: Bits) -> Reference:
    block = _reference(node.arguments[0], bits)
    places = [_function(argument, bits) for argument in node.arguments[1:]]

    def run(at: Evaluation) -> Range | None:
        of = block(at)
        row, column = ([*(place(at) for place in places), None])[:2]
        found = gaps.first_and_last(row, column, of.height, of.width) if of else None
        if not (of and found):
            return None
        return of.rows(found[0], found[0] + found[2]).columns(found[1], found[1] + found[3])

    return run


def _chosen(node: Call, bits: Bits) -> Reference:
    chosen, blocks = _choice(node, bits), [_reference(argument, bits) for argument in node.arguments[1:]]

    def run(at: Evaluation) -> Range | None:
        number = chosen(at)
        return None if number is None else blocks[number](at)

    return run


def _between(node: Call, bits: Bits) -> Reference:
    first, last = [_reference(argument, bits) for argument in node.arguments]

    def run(at: Evaluation) -> Range | None:
        one, other = first(at), last(at)
        return _around(one, other) if one and other and one.sheet == other.sheet else None

    return run


REFERENCES: dict[str, Callable[[Call, Bits], Reference]] = {"INDEX": _index, "CHOOSE": _chosen, ":": _between}


def _around(first: Range, last: Range) -> Range:
    row, column = min(first.row, last.row), min(first.column, last.column)
    height = max(first.row + first.height, last.row + last.height) - row
    width = max(first.column + first.width, last.column + last.width) - column
    return Range(first.sheet, row, column, height, width)
