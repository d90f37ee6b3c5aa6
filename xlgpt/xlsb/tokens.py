"""A formula's text as tokens ([MS-XLSB] 2.5.98.88, Rgce), by whose classes Excel calculates."""

import math
import re
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import accumulate, chain
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xlgpt.errors import UnsupportedFormula
from xlgpt.xlsb import ptg
from xlgpt.xlsb.functions import BY_NAME, FUNCTIONS, FUTURE
from xlgpt.xlsb.parse import Array, Binary, Call, Cells, Constant, Error, Name, Node, Paren, Unary, parse
from xlgpt.xlsb.place import COLUMN_MASK, COLUMN_MOVES, ORIGIN, ROW_MOVES, Place, read_cells
from xlgpt.xlsb.place import Corner as Cell
from xlgpt.xlsb.scope import Kind, Scope
from xlgpt.xlsx.formula import Corner, Formulas, Number
from xlgpt.xlsx.ranges import Whole

_CELL = re.compile(r"(?<![\w.$'\"\\])(\$?[A-Z]{1,3}\$?[1-9][0-9]{0,6})(?![\w.(!])")
_VARYING = re.compile(  # cells, and numbers below 10,000 to which no minus belongs
    r"(?<![\w.$'\"\\])(\$?[A-Z]{1,3}\$?[1-9][0-9]{0,6}|(?<![-+(,=<>*/^&E]-)[0-9]{1,4})(?![\w.(!'])"
)
_LONGEST = 16_384  # bytes of tokens ([MS-XLSB] 2.5.98.1, CellParsedFormula, cce)


class Compiled(NamedTuple):
    """A formula's tokens (Rgce), and what stands behind them (RgbExtra)."""

    tokens: bytes
    extra: bytes = b""


class Alike(NamedTuple):
    """The tokens of formulas that are alike, [formulas, bytes], and what stands behind those of each."""

    tokens: NDArray[np.uint8]
    extra: bytes = b""

    @classmethod
    def one(cls, compiled: Compiled) -> "Alike":
        """Of one formula."""
        return cls(np.frombuffer(compiled.tokens, np.uint8)[None], compiled.extra)

    def of(self, i: int) -> Compiled:
        """Those of the i-th."""
        return Compiled(self.tokens[i].tobytes(), self.extra)


def member(first: Place) -> Compiled:
    """What a cell has that an array formula or a shared formula fills: where the first of its cells is."""
    return Compiled(struct.pack("<BI", ptg.EXPRESSION_OF, first.row), struct.pack("<I", first.column))


class Compiler:
    """Compiles the formulas of a sheet, those that differ in nothing but their cells and small numbers once.

    sheet: its name; defined names that are of it come before the workbook's. None: a name's or the workbook's own.
    cells: for names, in small letters, the cells to write in their place, each with its sheet.
    """

    def __init__(self, scope: Scope, sheet: str | None = None, cells: Mapping[str, str] = MappingProxyType({})):
        self._scope, self._sheet, self._cells = scope, sheet, cells
        self._shapes: dict[tuple[object, ...], _Shape | None] = {}

    def compiled(self, formula: str, kind: Kind = Kind.CELL, place: Place = ORIGIN) -> Compiled:
        """The tokens of a formula, given without its `=`.

        place: where it stands, the first of its cells; only those kinds that write distances depend on it.
        Raises UnsupportedFormula where it refers to what the workbook does not hold, or has a function whose classes
        we do not know.
        """
        if kind.relative or kind is Kind.NAME:
            return self._writer(formula, kind, place).compiled()
        parts = _VARYING.split(formula)
        shape = self._shape(formula, kind, parts)
        return shape.over(parts[1::2]) if shape else self._writer(formula, kind, place).compiled()

    def alike(self, formulas: Formulas, kind: Kind) -> Alike | None:
        """The tokens of formulas that are alike, given without `=`; None where their bytes differ in more.

        Raises UnsupportedFormula as `compiled` does.
        """
        if formulas.count == 1:
            (text,) = formulas.texts()
            return Alike.one(self.compiled(text, kind))
        varying = [piece for piece in formulas.pieces if not isinstance(piece, str)]
        starts, text = [], ""
        for piece in formulas.pieces:
            starts += [] if isinstance(piece, str) else [len(text)]
            text += piece if isinstance(piece, str) else piece.texts(formulas.count)[0]
        parts = _VARYING.split(text)
        shape = self._shape(text, kind, parts)
        ends = list(accumulate(map(len, parts)))
        places = {end: i for i, end in enumerate(ends[::2])}  # where each of what may vary begins
        if not shape or any(start not in places for start in starts) or not all(map(_is_small, varying)):
            return None
        first = shape.over(parts[1::2])
        tokens = np.tile(np.frombuffer(first.tokens, np.uint8), (formulas.count, 1))
        for start, piece in zip(starts, varying, strict=True):
            for at, values, form in zip(shape.fields[places[start]], *_values(piece), strict=True):
                tokens[:, at : at + int(form[2])].view(form)[:, 0] = values
        return Alike(tokens, first.extra)

    def _shape(self, formula: str, kind: Kind, parts: list[str]) -> "_Shape | None":
        """What a formula is but for its cells and small numbers; None where more depends on them."""
        key = kind, "\0".join(parts[::2]), *map(str.isdecimal, parts[1::2])  # 7+A1 is another than A1+7
        if key not in self._shapes:
            writer = self._writer(formula, kind, ORIGIN)
            result = writer.compiled()
            self._shapes[key] = _Shape.of(result, writer.fields) if writer.varying == parts[1::2] else None
        return self._shapes[key]

    def _writer(self, formula: str, kind: Kind, place: Place) -> "_Writer":
        return _Writer(formula, self._scope, self._sheet, kind, place, self._cells)

    def moving(self, formula: str) -> Callable[[int], Compiled]:
        """The tokens of a cell's formula, given without its `=`, by how many rows below it they are to stand.

        Raises UnsupportedFormula, also where whole rows or joined references would move.
        """
        writer = self._writer(formula, Kind.CELL, ORIGIN)
        tokens, extra = writer.compiled()
        cells = [each for each in zip(writer.fields, writer.varying, strict=True) if len(each[0]) != 1]
        if _CELL.split(formula)[1::2] != [cell for _, cell in cells]:
            raise UnsupportedFormula(f"The formula ={formula} cannot be moved by rows.")
        moves = [row for (row, _), cell in cells if "$" not in cell[1:]]
        rows = [int.from_bytes(tokens[at : at + 4], "little") for at in moves]

        def down(count: int) -> Compiled:
            moved = bytearray(tokens)
            for at, row in zip(moves, rows, strict=True):
                struct.pack_into("<I", moved, at, row + count)
            return Compiled(bytes(moved), extra)

        return down


class _Shape(NamedTuple):
    """A compiled formula with places for its cells' rows and columns and its numbers, and in which order they stand."""

    template: bytes
    order: tuple[int, ...]
    extra: bytes
    fields: list[tuple[int, ...]]

    @classmethod
    def of(cls, compiled: Compiled, fields: list[tuple[int, ...]]) -> "_Shape":
        """fields: at which bytes each cell has its row (4 bytes) and its column (2), each number its own (2)."""
        places = [(at, 4 if len(field) > 1 and at == field[0] else 2) for field in fields for at in field]
        order = sorted(range(len(places)), key=places.__getitem__)
        template, done = b"", 0
        for at, size in map(places.__getitem__, order):
            template += compiled.tokens[done:at].replace(b"%", b"%%") + b"%b"
            done = at + size
        template += compiled.tokens[done:].replace(b"%", b"%%")
        return cls(template, tuple(order), compiled.extra, fields)

    def over(self, varying: list[str]) -> Compiled:
        """The same formula over other cells, with other numbers."""
        found = [*chain.from_iterable(map(_bytes_of, varying))]
        return Compiled(self.template % tuple([found[i] for i in self.order]), self.extra)


_parsed = lru_cache(1 << 12)(parse)  # of cells that stand for names


def _is_small(piece: Corner | Number) -> bool:
    """Whether a number has so few digits that it stands as one that may vary."""
    return isinstance(piece, Corner) or np.max(piece.values) < 10_000


def _values(piece: Corner | Number) -> tuple[tuple[Whole, ...], tuple[str, ...]]:
    """A row and a column as tokens have them, or a number; and their forms."""
    if isinstance(piece, Number):
        return (piece.values,), ("<u2",)
    flags = (0 if piece.column_stays else COLUMN_MOVES) | (0 if piece.row_stays else ROW_MOVES)
    return (piece.row, piece.column | flags), ("<u4", "<u2")


@lru_cache(1 << 16)
def _bytes_of(varying: str) -> tuple[bytes, ...]:
    if varying.isdecimal():
        return (struct.pack("<H", int(varying)),)
    ((row, column),) = read_cells(varying)
    return struct.pack("<I", row), struct.pack("<H", column)


class _Context(NamedTuple):
    """What an argument inherits from the expression around it.

    Its rule and what the rule came to (both as functions.py has them), and whether it gives a reference.
    """

    rule: str
    outcome: str
    in_reference: bool


_ROOTS = {  # how a formula as a whole is taken, and whether a value that is kept as it is becomes an array in it
    Kind.CELL: ("Vv", False),
    Kind.SHARED: ("Vv", False),
    Kind.ARRAY: ("Vv", True),
    Kind.NAME: ("Ra", True),
    Kind.VALIDATION: ("Vv", True),
    Kind.LIST: ("Ra", True),
    Kind.CONDITION: ("Vv", True),
}


class _Writer:
    """Writes one formula.

    `varying` and `fields`: its cells and small numbers in their order, and where each of them stands in the tokens.
    """

    def __init__(
        self, formula: str, scope: Scope, sheet: str | None, kind: Kind, place: Place, cells: Mapping[str, str]
    ):
        self._replaced = cells
        self._formula, self._scope, self._sheet, self._kind, self._place = formula, scope, sheet, kind, place
        self._root, self._arrays = _ROOTS[kind]
        self._tokens, self._extra = bytearray(), bytearray()
        self._volatile = False
        self.varying: list[str] = []
        self.fields: list[tuple[int, ...]] = []

    def compiled(self) -> Compiled:
        rule = self._root[1]
        try:
            self._write(parse(self._formula), self._root, _Context(rule, rule, self._root[0] == "R"))
        except RecursionError as e:
            raise self._unsupported("is nested too deeply") from e
        if self._volatile:
            self._mark_volatile()
        if len(self._tokens) > _LONGEST:
            raise self._unsupported(f"has more than {_LONGEST:,} bytes of tokens")
        return Compiled(bytes(self._tokens), bytes(self._extra))

    def _mark_volatile(self) -> None:
        if self._tokens[:2] == bytes((ptg.ATTRIBUTE, ptg.SPACE)):
            self._tokens[1] |= ptg.VOLATILE
        else:
            self._tokens[:0] = bytes((ptg.ATTRIBUTE, ptg.VOLATILE, 0, 0))
            self.fields = [tuple(at + 4 for at in field) for field in self.fields]

    def _unsupported(self, why: str) -> UnsupportedFormula:
        return UnsupportedFormula(f"The formula ={self._formula} {why}.")

    # Expressions

    def _write(self, node: Node, parameter: str, context: _Context) -> None:
        """Append the tokens of an expression that stands where a parameter takes it."""
        match node:
            case Constant():
                self._spaces(node.space)
                written = _constant(node.value)
                if written[0] == ptg.INTEGER and (number := int.from_bytes(written[1:], "little")) < 10_000:
                    self.varying.append(str(number))
                    self.fields.append((len(self._tokens) + 1,))
                self._tokens += written
            case Error() if node.sheet is None and node.text != "#REF!":
                self._spaces(node.space)
                self._tokens += bytes((ptg.ERROR, ptg.ERRORS[node.text]))
            case Unary():
                self._write(node.operand, "V=", self._inside("", parameter, context)[1])
                self._spaces(node.space)
                self._tokens.append(ptg.UNARY[node.operator])
            case Binary() if node.operator in ptg.BINARY:
                inside = self._inside("", parameter, context)[1]
                self._write(node.left, "V=", inside)
                self._write(node.right, "V=", inside)
                self._spaces(node.space)
                self._tokens.append(ptg.BINARY[node.operator])
            case Binary():
                self._joined(node, parameter, context)
            case Paren():
                self._write(node.inner, parameter, context)
                self._close(node)
            case Call():
                self._call(node, parameter, context)
            case _:
                natural = "A" if isinstance(node, Array) else "R"
                self._spaces(node.space)
                self._operand(node, ptg.CLASSES[self._inside(natural, parameter, context)[0]])

    def _inside(self, natural: str, parameter: str, context: _Context) -> tuple[str, _Context]:
        """The class of an expression which by itself has one, or none, and what its operands inherit."""
        rule = parameter[1]
        if parameter[0] == "V" and natural == "R":
            natural = "V"
        if rule == "=":  # an operand of an operator is taken as the operator is
            rule = context.rule
        outcome = _outcome(rule, natural, context)
        if natural == "V" and (outcome == "a" or (outcome == "o" and self._arrays)):
            natural = "A"
        elif natural == "A" and outcome == "v":
            natural = "V"
        return natural, _Context(rule, outcome, natural == "R")

    def _spaces(self, space: str, where: int = ptg.BEFORE) -> None:
        while space:
            count = min(len(space) - len(space.lstrip(space[0])), 255)
            self._tokens += bytes((ptg.ATTRIBUTE, ptg.SPACE, where + (space[0] == "\n"), count))
            space = space[count:]

    def _close(self, node: Paren) -> None:
        self._spaces(node.space, ptg.BEFORE_OPEN)
        self._spaces(node.end_space, ptg.BEFORE_CLOSE)
        self._tokens.append(ptg.PAREN)

    # Operands

    def _operand(self, node: Node, base: int) -> None:
        match node:
            case Array():
                self._tokens += bytes((base + ptg.ARRAY,)) + bytes(14)
                self._extra += _array_extra(node)
            case Cells():
                self._cells(node, base)
            case Name(sheet=None) if cells := self._replaced.get(node.text.casefold()):
                self._named_cells(cells, base)
            case Name():
                self._name(node, base)
            case Error(sheet=None):
                self._tokens += bytes((base + ptg.CELL_GONE,)) + bytes(6)
            case Error():
                self._tokens += struct.pack("<BH6x", base + ptg.CELL_3D_GONE, self._sheet_number(str(node.sheet)))

    def _cells(self, node: Cells, base: int) -> None:
        corners = read_cells(node.text)
        one = len(corners) == 1
        if node.sheet is not None:
            number = self._sheet_number(node.sheet)
            self._tokens += struct.pack("<BH", base + (ptg.CELL_3D if one else ptg.AREA_3D), number)
        elif self._kind is Kind.NAME:
            raise self._unsupported(f"is a name's and refers to {node.text} without saying of which sheet")
        elif self._kind.relative and any(any(corner.moves) for corner in corners):
            self._tokens.append(base + (ptg.CELL_RELATIVE if one else ptg.AREA_RELATIVE))
        else:
            self._tokens.append(base + (ptg.CELL if one else ptg.AREA))
        self._corners(node, corners)

    def _named_cells(self, cells: str, base: int) -> None:
        """Cells that stand for a name: the formula's text does not have them, so they do not vary."""
        node, count = _parsed(cells), len(self.varying)
        assert isinstance(node, Cells)
        self._cells(node, base)
        del self.varying[count:], self.fields[count:]

    def _corners(self, node: Cells, corners: tuple[Cell, ...]) -> None:
        if self._kind.relative:
            corners = tuple(corner.seen_from(self._place) for corner in corners)
        start, count = len(self._tokens), len(corners)
        rows, columns = zip(*corners, strict=True)
        self._tokens += struct.pack(f"<{count}I{count}H", *rows, *columns)
        if _CELL.match(node.text):  # not whole rows or columns
            self.varying += node.text.split(":")
            self.fields += ((start + 4 * i, start + 4 * count + 2 * i) for i in range(count))

    def _sheet_number(self, sheet: str) -> int:
        number = self._scope.sheet_numbers.get(sheet.lower())
        if number is None:
            raise self._unsupported(f"refers to the sheet {sheet}, to which the workbook has no reference")
        return number

    def _name(self, node: Name, base: int) -> None:
        if node.sheet is None:
            self._tokens += struct.pack("<BI", base + ptg.NAME, self._name_number(node.text, self._sheet))
        else:
            sheet = self._sheet_number(node.sheet)
            number = self._name_number(node.text, node.sheet)
            self._tokens += struct.pack("<BHI", base + ptg.NAME_3D, sheet, number)

    def _name_number(self, name: str, sheet: str | None) -> int:
        for of in (sheet and sheet.lower(), None):
            if number := self._scope.name_numbers.get((name.lower(), of)):
                return number
        raise self._unsupported(f"has the name {name}, which the workbook does not")

    # References joined by operators

    def _joined(self, node: Binary, parameter: str, context: _Context) -> None:
        """Behind a token that says how long they are and, where cells alone do, what they come to."""
        own, inside = self._inside("R", parameter, context)
        blocks = None if self._kind.relative else _blocks(node)
        if blocks is None:
            self._tokens += bytes((ptg.CLASSES[own] + ptg.MEMORY_FUNCTION, 0, 0))
        else:
            self._tokens += bytes((ptg.CLASSES[own] + ptg.MEMORY_AREA,)) + bytes(6)
            self._extra += struct.pack("<I", len(blocks)) + b"".join(struct.pack("<4I", *block) for block in blocks)
            self.varying.append("")  # what it comes to depends on the cells: this formula is no shape for others
            self.fields.append(())
        start = len(self._tokens)
        self._join(node, inside)
        self._tokens[start - 2 : start] = struct.pack("<H", len(self._tokens) - start)

    def _join(self, node: Node, context: _Context) -> None:
        match node:
            case Binary() if node.operator in ptg.JOINS:
                self._join(node.left, context)
                self._join(node.right, context)
                self._spaces(node.space)
                self._tokens.append(ptg.JOINS[node.operator])
            case Paren():
                self._join(node.inner, context)
                self._close(node)
            case _:
                self._write(node, "Ro", context)

    # Functions

    def _call(self, node: Call, parameter: str, context: _Context) -> None:
        name, count = node.function.upper(), len(node.arguments)
        function = FUNCTIONS.get(name) or FUTURE.get(name)
        if function is None:
            raise self._unsupported(f"has the function {node.function}, whose tokens xlgpt does not know")
        if not function.least <= count <= function.most:
            raise self._unsupported(f"gives {function.name} {count} arguments")
        own, inside = self._inside(function.result, parameter, context)
        self._volatile |= function.volatile
        if function.number == BY_NAME:
            self._tokens += struct.pack("<BI", ptg.CLASSES["R"] + ptg.NAME, self._name_number(function.name, None))
            count += 1

        def write(i: int) -> None:
            if i < len(node.arguments):
                self._write(node.arguments[i], function.parameter(i), inside)
            if i >= len(node.arguments) - 1:
                self._spaces(node.space)
                self._spaces(node.end_space, ptg.BEFORE_CLOSE)

        gotos = self._choices(function.name, write, len(node.arguments))
        if function.name == "SUM" and count == 1:
            self._tokens += bytes((ptg.ATTRIBUTE, ptg.SUM, 0, 0))
        elif function.varies:
            self._tokens += struct.pack("<BBH", ptg.CLASSES[own] + ptg.FUNCTION_VARIABLE, count, function.number)
        else:
            self._tokens += struct.pack("<BH", ptg.CLASSES[own] + ptg.FUNCTION, function.number)
        for goto in gotos:
            self._patch(goto + 2, len(self._tokens) - goto - 5)  # to the last byte of the function

    def _choices(self, name: str, write: Callable[[int], None], count: int) -> list[int]:
        """Let the arguments be written, and say where jumps to the end of the function stand.

        Only the first argument of IF, CHOOSE and IFERROR, and the chosen one, are calculated (2.5.98.25 to 28).
        """
        match name:
            case "IF":
                return self._if(write, count)
            case "CHOOSE":
                return self._choose(write, count)
            case "IFERROR":
                return self._if_error(write)
        for i in range(max(count, 1)):
            write(i)
        return []

    def _if(self, write: Callable[[int], None], count: int) -> list[int]:
        write(0)
        test = self._attribute(ptg.IF)
        write(1)
        gotos = [self._attribute(ptg.GOTO)]
        self._patch(test + 2, len(self._tokens) - test - 4)
        if count == 3:
            write(2)
            gotos.append(self._attribute(ptg.GOTO))
        return gotos

    def _choose(self, write: Callable[[int], None], count: int) -> list[int]:
        write(0)
        self._patch(self._attribute(ptg.CHOOSE) + 2, count - 1)
        gotos, table = [], len(self._tokens)
        self._tokens += bytes(2 * count)
        for i in range(1, count):
            self._patch(table + 2 * i - 2, len(self._tokens) - table)
            write(i)
            gotos.append(self._attribute(ptg.GOTO))
        self._patch(table + 2 * count - 2, len(self._tokens) - table)
        return gotos

    def _if_error(self, write: Callable[[int], None]) -> list[int]:
        write(0)
        test = self._attribute(ptg.IF_ERROR)
        write(1)
        self._patch(test + 2, len(self._tokens) - test - 4)
        return [self._attribute(ptg.GOTO)]

    def _attribute(self, kind: int) -> int:
        self._tokens += bytes((ptg.ATTRIBUTE, kind, 0, 0))
        return len(self._tokens) - 4

    def _patch(self, at: int, number: int) -> None:
        self._tokens[at : at + 2] = struct.pack("<H", number)


def _outcome(rule: str, natural: str, context: _Context) -> str:
    """What a rule comes to: a value is kept as it is (o), made one value (v), or made an array (a)."""
    match rule:
        case "t" if context.rule == "x":
            return context.outcome if context.in_reference else "o"
        case "t" if context.rule != "t" and context.in_reference:
            return "v"
        case "t":
            return context.outcome
        case "x":
            return context.outcome if natural == "R" or context.outcome == "a" else "o"
    return rule


def _constant(value: float | str | bool | None) -> bytes:
    match value:
        case None:
            return bytes((ptg.MISSING,))
        case bool():
            return bytes((ptg.BOOLEAN, value))
        case str():
            data = value.encode("utf-16-le", "surrogatepass")
            return struct.pack("<BH", ptg.TEXT, len(data) // 2) + data
    if 0 <= value < 65_536 and value == int(value) and math.copysign(1, value) > 0:
        return struct.pack("<BH", ptg.INTEGER, int(value))
    return struct.pack("<Bd", ptg.NUMBER, value)


def _array_extra(node: Array) -> bytes:
    """PtgExtraArray ([MS-XLSB] 2.5.98.36): the numbers of rows and columns, and each element behind its type."""
    if len({len(row) for row in node.rows}) > 1:
        raise UnsupportedFormula("An array of constants has rows of different lengths.")
    elements = (_element(element) for row in node.rows for element in row)
    return struct.pack("<II", len(node.rows), len(node.rows[0])) + b"".join(elements)


def _element(element: Constant | Error) -> bytes:
    if isinstance(element, Error):
        return struct.pack("<BB3x", 4, ptg.ERRORS[element.text])
    match element.value:
        case bool():
            return struct.pack("<BB", 2, element.value)
        case str():
            text = element.value.encode("utf-16-le", "surrogatepass")
            return struct.pack("<BH", 1, len(text) // 2) + text
    return struct.pack("<Bd", 0, element.value)


class _Block(NamedTuple):
    first_row: int
    last_row: int
    first_column: int
    last_column: int


def _blocks(node: Node) -> list[_Block] | None:
    """The cells that joined references are; None where not cells of this sheet alone say so."""
    match node:
        case Cells(sheet=None):
            corners = read_cells(node.text)
            rows = [corner.row for corner in corners]
            columns = [corner.column & COLUMN_MASK for corner in corners]
            return [_Block(min(rows), max(rows), min(columns), max(columns))]
        case Paren():
            return _blocks(node.inner)
        case Binary():
            left, right = _blocks(node.left), _blocks(node.right)
            if left is None or right is None:
                return None
            if node.operator == ",":
                return left + right
            pairs = ((a, b) for a in left for b in right)
            if node.operator == ":":
                return [_bounds(a, b) for a, b in pairs]
            common = (_overlap(a, b) for a, b in pairs)
            return [c for c in common if c.first_row <= c.last_row and c.first_column <= c.last_column]
    return None


def _bounds(a: _Block, b: _Block) -> _Block:
    return _Block(min(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), max(a[3], b[3]))


def _overlap(a: _Block, b: _Block) -> _Block:
    return _Block(max(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), min(a[3], b[3]))
