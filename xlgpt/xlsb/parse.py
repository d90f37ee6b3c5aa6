"""A formula's text as a tree, with its spaces, which Excel keeps."""

import re
from typing import NamedTuple, TypeAlias

from xlgpt.errors import UnsupportedFormula

_LEXER = re.compile(
    r"""(?P<space>[ \n]*)(?:
    (?P<text>"(?:[^"]|"")*")
  | (?P<error>\#(?:NULL!|DIV/0!|VALUE!|REF!|NAME\?|NUM!|N/A|GETTING_DATA))
  | (?P<sheet>(?:'(?:[^']|'')+'|[\w.]+(?::[\w.]+)?)!)?
    (?: (?P<cells>\$?[A-Za-z]{1,3}\$?[0-9]+(?![\w.(])(?::\$?[A-Za-z]{1,3}\$?[0-9]+(?![\w.(]))?
               |\$?[A-Za-z]{1,3}:\$?[A-Za-z]{1,3}(?![\w.(]) | \$?[0-9]+:\$?[0-9]+(?![\w.]))
      | (?P<gone>\#REF!) | (?P<function>[^\W\d][\w.]*\() | (?P<name>[^\W\d\\][\w.\\?]*|\\[\w.\\?]*) )
  | (?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
  | (?P<operator><=|>=|<>|[-+*/^&=<>%(),:;{}])
  | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_STARTS = {"text", "error", "cells", "gone", "function", "name", "number"}

_PRECEDENCE = {
    **dict.fromkeys(("=", "<>", "<", ">", "<=", ">="), 1),
    "&": 2,
    **dict.fromkeys("+-", 3),
    **dict.fromkeys("*/", 4),
    "^": 5,
}
_UNION = 6  # operators on references bind the most


class Constant(NamedTuple):
    """A number, a text, a truth value, or nothing where an argument is left out."""

    value: float | str | bool | None
    space: str = ""


class Error(NamedTuple):
    """An error value such as #N/A; with a sheet, a reference that has lost its cells."""

    text: str
    sheet: str | None = None
    space: str = ""


class Cells(NamedTuple):
    """A cell, a block of cells, whole rows or whole columns, as the text has them."""

    text: str
    sheet: str | None = None
    space: str = ""


class Name(NamedTuple):
    """A defined name; with a sheet, that of a sheet."""

    text: str
    sheet: str | None = None
    space: str = ""


class Array(NamedTuple):
    """An array of constants, row by row."""

    rows: tuple[tuple["Constant | Error", ...], ...]
    space: str = ""


class Unary(NamedTuple):
    """An operator before an expression, or % behind it."""

    operator: str
    operand: "Node"
    space: str = ""


class Binary(NamedTuple):
    """An operator between two expressions: of values, or of references, where it is a colon, a space or a comma."""

    operator: str
    left: "Node"
    right: "Node"
    space: str = ""


class Paren(NamedTuple):
    """An expression in parentheses."""

    inner: "Node"
    space: str = ""
    end_space: str = ""


class Call(NamedTuple):
    """A function with its arguments."""

    function: str
    arguments: "tuple[Node, ...]"
    space: str = ""
    end_space: str = ""


Node: TypeAlias = Constant | Error | Cells | Name | Array | Unary | Binary | Paren | Call


class _Token(NamedTuple):
    kind: str
    text: str
    space: str
    sheet: str | None = None


def parse(formula: str) -> Node:
    """The tree of a formula, without its `=`. Raises UnsupportedFormula where it is none that this grammar knows."""
    return _Parser(formula).whole()


def _tokens(formula: str) -> list[_Token]:
    tokens: list[_Token] = []
    place = 0
    while not tokens or tokens[-1].kind != "end":
        found = _LEXER.match(formula, place)
        if not found:
            raise UnsupportedFormula(f"The formula ={formula} cannot be read from its character {place + 1} on.")
        kind, sheet = str(found.lastgroup), found["sheet"]
        tokens.append(_Token(kind, found[kind], found["space"], sheet and _unquoted(sheet[:-1])))
        place = found.end()
    return tokens


def _unquoted(sheet: str) -> str:
    return sheet[1:-1].replace("''", "'") if sheet.startswith("'") else sheet


class _Parser:
    """Reads by precedence: each method leaves `_next` at the token behind what it has read."""

    def __init__(self, formula: str):
        self._formula, self._tokens, self._place = formula, _tokens(formula), 0

    def whole(self) -> Node:
        node = self._expression(0, unions=True)
        if self._peek().kind != "end":
            raise self._surprise()
        return node

    def _peek(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        self._place += 1
        return self._tokens[self._place - 1]

    def _expect(self, text: str) -> _Token:
        if self._peek().text != text:
            raise self._surprise()
        return self._take()

    def _surprise(self) -> UnsupportedFormula:
        token = self._peek()
        where = f"at {token.text}" if token.text else "at its end"
        return UnsupportedFormula(f"The formula ={self._formula} cannot be read {where}.")

    def _expression(self, least: int, *, unions: bool = False) -> Node:
        """An expression of operators that bind at least so much; where unions may stand, a comma joins references."""
        left = self._operand()
        while True:
            token = self._peek()
            binds = _UNION if unions and token.text == "," else _PRECEDENCE.get(token.text, 0)
            if token.kind != "operator" or not binds or binds < least:
                return left
            self._take()
            left = Binary(token.text, left, self._expression(binds + 1), token.space)

    def _operand(self) -> Node:
        token = self._peek()
        if token.kind == "operator" and token.text in "+-":
            self._take()
            if token.text == "-" and self._peek().kind == "number" and not self._peek().space:
                return self._percents(Constant(-float(self._take().text), token.space))
            return Unary(token.text, self._operand(), token.space)
        return self._percents(self._intersection())

    def _percents(self, node: Node) -> Node:
        while self._peek().text == "%" and self._peek().kind == "operator":
            node = Unary("%", node, self._take().space)
        return node

    def _intersection(self) -> Node:
        node = self._range()
        while (token := self._peek()).space and (token.kind in _STARTS or token.text == "("):
            self._tokens[self._place] = token._replace(space=token.space[1:])
            node = Binary(" ", node, self._range())
        return node

    def _range(self) -> Node:
        node = self._atom()
        while self._peek().text == ":" and self._peek().kind == "operator":
            space = self._take().space
            node = Binary(":", node, self._atom(), space)
        return node

    def _atom(self) -> Node:
        token = self._take()
        match token.kind:
            case "number":
                return Constant(float(token.text), token.space)
            case "text":
                return Constant(token.text[1:-1].replace('""', '"'), token.space)
            case "error":
                return Error(token.text, None, token.space)
            case "gone":
                return Error("#REF!", token.sheet, token.space)
            case "cells":
                return Cells(token.text.upper(), token.sheet, token.space)
            case "name":
                if token.text.upper() in ("TRUE", "FALSE") and token.sheet is None:
                    return Constant(token.text.upper() == "TRUE", token.space)
                return Name(token.text, token.sheet, token.space)
            case "function":
                arguments = self._arguments()
                sheet = f"{token.sheet}!" if token.sheet else ""
                return Call(sheet + token.text[:-1], arguments, token.space, self._expect(")").space)
            case "operator" if token.text == "(":
                inner = self._expression(0, unions=True)
                return Paren(inner, token.space, self._expect(")").space)
            case "operator" if token.text == "{":
                return Array(self._array(), token.space)
        self._place -= 1
        raise self._surprise()

    def _arguments(self) -> tuple[Node, ...]:
        if self._peek().text == ")":
            return ()
        arguments = [self._argument()]
        while self._peek().text == ",":
            self._take()
            arguments.append(self._argument())
        return tuple(arguments)

    def _argument(self) -> Node:
        if self._peek().kind == "operator" and self._peek().text in ",)":
            return Constant(None)
        return self._expression(0)

    def _array(self) -> tuple[tuple[Constant | Error, ...], ...]:
        rows, row = [], [self._constant()]
        while (separator := self._take().text) != "}":
            if separator == ";":
                rows.append(tuple(row))
                row = []
            elif separator != ",":
                self._place -= 1
                raise self._surprise()
            row.append(self._constant())
        return (*rows, tuple(row))

    def _constant(self) -> Constant | Error:
        sign = -1.0 if self._peek().text == "-" else 1.0
        if sign < 0:
            self._take()
        node = self._atom()
        if not isinstance(node, Constant | Error):
            self._place -= 1
            raise self._surprise()
        if isinstance(node, Constant) and isinstance(node.value, float):
            return Constant(sign * node.value)
        return node
