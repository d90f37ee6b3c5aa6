"""Takes a formula apart: the library's parser and functions, in a tree that is evaluated from the root.

Formulas that differ only in their references and numbers, as those of 32 rows, 12 heads and 12 blocks do, share a tree.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import schedula
from formulas import Parser
from formulas.errors import BaseError
from formulas.functions import get_functions, not_implemented
from formulas.tokens.function import Function
from formulas.tokens.operator import Operator

from xlgpt.errors import FormulaError
from xlgpt.xlsx.formula import PARTS

ARGUMENT = "xlgpt_arg_"
BRANCHING = ("IF", "CHOOSE", "IFERROR")  # what they come to is one of several arguments
EMPTY = schedula.EMPTY  # what the library reads from an empty cell


@dataclass(frozen=True)
class Constant:
    """A text, a number or an error value that stands in the formula."""

    value: Any


@dataclass(frozen=True)
class Argument:
    """A reference or a number of the formula, by its place among them."""

    number: int


@dataclass(frozen=True)
class Call:
    """One of the library's functions or operators. `extra` are arguments that it wants ahead of the formula's own."""

    name: str
    function: Callable[..., Any]
    extra: tuple[Any, ...]
    arguments: tuple["Node", ...]


Node = Constant | Argument | Call


@dataclass(frozen=True)
class Tree:
    """A formula taken apart, and its references and numbers in the order of their places."""

    root: Node
    arguments: tuple[str | float, ...]


def take_apart(text: str) -> Tree:
    """The tree of a formula without its `=`. Raises FormulaError where the library cannot read it."""
    arguments: list[str | float] = []

    def replaced(found: re.Match[str]) -> str:
        part = found[0]
        if found["reference"] and part.upper() not in ("TRUE", "FALSE"):
            arguments.append(part)
        elif found["number"]:
            arguments.append(float(part))
        else:
            return part
        return f"{ARGUMENT}{len(arguments) - 1}"

    return Tree(_parsed(PARTS.sub(replaced, text)), tuple(arguments))


@cache
def _parsed(pattern: str) -> Node:
    try:
        root: Node = _Parser().ast(f"={pattern}")[1][-1]
    except BaseError as e:
        raise FormulaError(f"the formulas library cannot read ={pattern.replace(ARGUMENT, '#')}") from e
    return root


class _TreeBuilder:
    """Stands in for the library's builder: it is handed the tokens in the order of their evaluation."""

    def __init__(self, match: Any = None):
        self._stack: list[Node] = []

    def __len__(self) -> int:
        return len(self._stack)

    def __getitem__(self, index: int) -> Node:
        return self._stack[index]

    def append(self, token: Any) -> None:
        if isinstance(token, Operator | Function):
            count = token.get_n_args
            arguments = tuple(self._stack[len(self._stack) - count :])
            del self._stack[len(self._stack) - count :]
            self._stack.append(_call(token, arguments))
        elif token.name.upper().startswith(ARGUMENT.upper()):
            self._stack.append(Argument(int(token.name[len(ARGUMENT) :])))
        else:
            self._stack.append(Constant(token.compile()))

    def finish(self) -> None:
        pass


class _Parser(Parser):  # type: ignore[misc]
    ast_builder = _TreeBuilder


def _call(token: Any, arguments: tuple[Node, ...]) -> Call:
    name = token.name.upper()
    if isinstance(token, Function) and name not in get_functions():
        raise FormulaError(f"the formulas library does not know the function {name}")
    function = token.compile()
    if function is not_implemented:
        raise FormulaError(f"the formulas library does not know {name}")
    if isinstance(function, dict):
        return Call(name, function["function"], tuple(function.get("extra_inputs", {}).values()), arguments)
    return Call(name, function, (), arguments)


def first_bits(root: Node) -> dict[int, int]:
    """For each branching call of a tree, by its identity, the number of its first branch; -1 has how many there are."""
    found: dict[int, int] = {}
    count = 0
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Call):
            if node.name in BRANCHING:
                found[id(node)] = count
                count += ways(node)
            waiting += reversed(node.arguments)
    return found | {-1: count}


def ways(call: Call) -> int:
    """How many branches a call has; an IF without an else has one all the same."""
    return len(call.arguments) - 1 if call.name == "CHOOSE" else 2
