"""Tokens as a formula's text, without its `=`: what tokens.py compiles, read back."""

import struct
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from xlgpt.errors import UnsupportedFormula
from xlgpt.xlsb import ptg
from xlgpt.xlsb.functions import BY_NAME, BY_NUMBER
from xlgpt.xlsb.place import ORIGIN, Corner, Place, cells_text
from xlgpt.xlsb.scope import Scope
from xlgpt.xlsb.tokens import Compiled
from xlgpt.xlsx.ranges import quoted

MOST_ALIKE = 64  # kinds of formulas of one length that are told apart
HOLE = "\0"  # where the text of an operand belongs

_ERRORS = {code: text for text, code in ptg.ERRORS.items()}
_BINARY = {code: text for text, code in (ptg.BINARY | ptg.JOINS).items()}


def formula_text(compiled: Compiled, scope: Scope, place: Place = ORIGIN) -> str:
    """The text of a formula's tokens.

    place: the cell that it is read for, by which tokens of a shared formula, a validation or a conditional format move.
    Raises UnsupportedFormula at a token, a function, a sheet or a name that we do not know.
    """
    return _Reader(compiled, scope, place).text()


class Texts:
    """The texts of many formulas: those that differ in nothing but cells and whole numbers are read once."""

    def __init__(self, scope: Scope):
        self.scope = scope
        self._known: dict[int, list[_Alike]] = {}  # by the length of their tokens

    def of(self, compiled: Compiled, place: Place = ORIGIN) -> str:
        """The same as `formula_text`."""
        tokens, known = compiled.tokens, self._known.setdefault(len(compiled.tokens), [])
        if compiled.extra:
            return formula_text(compiled, self.scope, place)
        number = int.from_bytes(tokens, "little")
        for like in known:
            if number & like.mask == like.fixed:
                return like.text(tokens)
        new = _alike(compiled, self.scope) if len(known) < MOST_ALIKE else None
        if new is None:
            return formula_text(compiled, self.scope, place)
        known.append(new)
        return new.text(tokens)


class _Operand(NamedTuple):
    """Some cells or a whole number among tokens: where it stands, in which form, and what writes how many numbers."""

    at: int
    form: str
    write: Callable[..., str]
    numbers: int


class _Alike(NamedTuple):
    """Formulas that differ in nothing but their operands: which bits of their tokens are the same, and how these are.

    numbers: of all operands. writes: what writes each, and how many numbers that takes. written: with %s for each.
    """

    mask: int
    fixed: int
    numbers: struct.Struct
    writes: tuple[tuple[Callable[..., str], int], ...]
    written: str

    def text(self, tokens: bytes) -> str:
        """Of one of them."""
        numbers = iter(self.numbers.unpack(tokens))
        return self.written % tuple([write(*islice(numbers, count)) for write, count in self.writes])


def _alike(compiled: Compiled, scope: Scope) -> _Alike | None:
    """What a formula has in common with others like it; None where its text depends on more than its tokens."""
    tokens = compiled.tokens
    reader = _Reader(compiled, scope, ORIGIN, HOLE)
    written, operands = reader.text(), reader.operands
    if reader.moves or written.count(HOLE) != len(operands):
        return None
    mask, form, end = bytearray(b"\xff" * len(tokens)), "<", 0
    for each in operands:
        form += f"{each.at - end}x{each.form}"
        end = each.at + struct.calcsize(f"<{each.form}")
        mask[each.at : end] = bytes(end - each.at)
    bits = int.from_bytes(mask, "little")
    return _Alike(
        bits,
        int.from_bytes(tokens, "little") & bits,
        struct.Struct(f"{form}{len(tokens) - end}x"),
        tuple((each.write, each.numbers) for each in operands),
        written.replace("%", "%%").replace(HOLE, "%s"),
    )


@lru_cache(1 << 16)
def _cells_of(*numbers: int) -> str:
    """Cells by the rows of their corners, and then their columns."""
    half = len(numbers) // 2
    return cells_text(tuple(map(Corner, numbers[:half], numbers[half:])))


class _Reader:
    """hole: what stands in the text for each operand, in place of its own. moves: whether any moves with the place."""

    def __init__(self, compiled: Compiled, scope: Scope, place: Place, hole: str = ""):
        self._tokens, self._extra = compiled
        self._scope, self._place, self._hole = scope, place, hole
        self.operands: list[_Operand] = []
        self.moves = False
        self._at = self._extra_at = 0
        self._stack: list[str] = []
        self._spaces = {ptg.BEFORE: "", ptg.BEFORE_OPEN: "", ptg.BEFORE_CLOSE: ""}

    def text(self) -> str:
        try:
            while self._at < len(self._tokens):
                self._token()
            if len(self._stack) != 1 or self._extra_at != len(self._extra):
                raise UnsupportedFormula("The tokens of a formula do not make one expression.")
        except (IndexError, struct.error, UnicodeDecodeError) as e:
            raise UnsupportedFormula("The tokens of a formula are cut off or damaged.") from e
        return self._stack[0]

    def _take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self._tokens, self._at)
        self._at += struct.calcsize("<" + form)
        return values

    def _operand(self, form: str, write: Callable[..., str]) -> str:
        at, numbers = self._at, self._take(form)
        self.operands.append(_Operand(at, form, write, len(numbers)))
        return self._hole or write(*numbers)

    def _take_extra(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self._extra, self._extra_at)
        self._extra_at += struct.calcsize("<" + form)
        return values

    def _space(self, where: int = ptg.BEFORE) -> str:
        space, self._spaces[where] = self._spaces[where], ""
        return space

    def _push(self, text: str) -> None:
        self._stack.append(self._space() + text)

    def _token(self) -> None:
        (code,) = self._take("B")
        if code in _BINARY:
            self._operator(_BINARY[code])
        elif read := _READERS.get(code):
            read(self)
        else:
            raise UnsupportedFormula(f"A formula has a token 0x{code:02X}, which xlgpt does not know.")

    def _operator(self, sign: str) -> None:
        right, left = self._stack.pop(), self._stack.pop()
        self._stack.append(left + self._space() + sign + right)

    def _prefix(self, sign: str) -> None:
        self._push(sign + self._stack.pop())

    def _percent(self) -> None:
        self._stack.append(self._stack.pop() + self._space() + "%")

    def _paren(self) -> None:
        inner = self._stack.pop()
        self._stack.append(f"{self._space(ptg.BEFORE_OPEN)}({inner}{self._space(ptg.BEFORE_CLOSE)})")

    def _string(self) -> None:
        (length,) = self._take("H")
        (data,) = self._take(f"{2 * length}s")
        self._push(quoted_text(data.decode("utf-16-le", "surrogatepass")))

    def _attribute(self) -> None:
        kind, first, second = self._take("BBB")
        if kind & ptg.SPACE:
            if first > 5:
                raise UnsupportedFormula("A formula begins with spaces of a kind that xlgpt does not write.")
            self._spaces[first & ~1] += "\n" * second if first & 1 else " " * second
        elif kind == ptg.SUM:
            self._call("SUM", 1)
        elif kind == ptg.CHOOSE:
            self._at += 2 * (first + 256 * second + 1)
        elif kind not in (ptg.VOLATILE, ptg.IF, ptg.IF_ERROR, ptg.GOTO):
            raise UnsupportedFormula(f"A formula has an attribute 0x{kind:02X}, which xlgpt does not know.")

    def _error(self) -> None:
        self._push(error_text(*self._take("B")))

    def _boolean(self) -> None:
        self._push("TRUE" if self._take("B")[0] else "FALSE")

    def _integer(self) -> None:
        self._push(self._operand("H", str))

    def _number(self) -> None:
        self._push(number_text(self._take("d")[0]))

    def _call(self, name: str, count: int) -> None:
        arguments = self._stack[len(self._stack) - count :]
        if len(arguments) != count:
            raise IndexError
        del self._stack[len(self._stack) - count :]
        self._push(f"{name}({','.join(arguments)}{self._space(ptg.BEFORE_CLOSE)})")

    def _function(self) -> None:
        (number,) = self._take("H")
        function = BY_NUMBER.get(number)
        if not function:
            raise UnsupportedFormula(f"A formula has the function of the number {number}, which xlgpt does not know.")
        self._call(function.name, function.least)

    def _function_variable(self) -> None:
        count, number = self._take("BH")
        if number == BY_NAME:
            name = self._stack.pop(len(self._stack) - count)
            self._call(name, count - 1)
        elif function := BY_NUMBER.get(number):
            self._call(function.name, count)
        else:
            raise UnsupportedFormula(f"A formula has the function of the number {number}, which xlgpt does not know.")

    def _name(self) -> None:
        (number,) = self._take("I")
        self._push(self._name_of(number)[0])

    def _name_3d(self) -> None:
        sheet, number = self._take("HI")
        self._push(self._sheet(sheet) + self._name_of(number)[0])

    def _name_of(self, number: int) -> tuple[str, str | None]:
        if not 0 < number <= len(self._scope.names):
            raise UnsupportedFormula(f"A formula has the name of the number {number}, which the workbook does not.")
        return self._scope.names[number - 1]

    def _sheet(self, number: int) -> str:
        if number >= len(self._scope.sheets):
            raise UnsupportedFormula(f"A formula refers to sheets by the number {number}, which the workbook has not.")
        sheet = self._scope.sheets[number]
        if sheet is None:
            raise UnsupportedFormula("A formula refers to another workbook, to an add-in, or to a sheet that is gone.")
        return quoted_sheet(sheet) + "!"

    def _cells(self, count: int, sheet: str = "", relative: bool = False) -> None:
        form = f"{count}I{count}H"
        if not relative:
            self._push(sheet + self._operand(form, _cells_of))
            return
        self.moves = True
        numbers = self._take(form)
        corners = map(Corner, numbers[:count], numbers[count:])
        self._push(sheet + cells_text(tuple(corner.moved_to(self._place) for corner in corners)))

    def _cells_3d(self, count: int) -> None:
        self._cells(count, self._sheet(self._take("H")[0]))

    def _gone(self, size: int) -> None:
        self._at += size
        self._push("#REF!")

    def _gone_3d(self, size: int) -> None:
        sheet = self._sheet(self._take("H")[0])
        self._at += size
        self._push(sheet + "#REF!")

    def _array(self) -> None:
        self._at += 14
        rows, columns = self._take_extra("II")
        self._push("{" + ";".join(",".join(self._element() for _ in range(columns)) for _ in range(rows)) + "}")

    def _element(self) -> str:
        (kind,) = self._take_extra("B")
        if kind == 0:
            return number_text(self._take_extra("d")[0])
        if kind == 1:
            (length,) = self._take_extra("H")
            (data,) = self._take_extra(f"{2 * length}s")
            return quoted_text(data.decode("utf-16-le", "surrogatepass"))
        if kind == 2:
            return "TRUE" if self._take_extra("B")[0] else "FALSE"
        if kind == 4:
            return error_text(self._take_extra("B3x")[0])
        raise UnsupportedFormula(f"An array of constants has an element of the kind {kind}, which xlgpt does not know.")

    def _memory_area(self) -> None:
        self._take("IH")
        (count,) = self._take_extra("I")
        self._take_extra(f"{4 * count}I")

    def _memory_function(self) -> None:
        self._take("H")


def number_text(number: float) -> str:
    """A number as formulas have it: the shortest decimal that reads back to the same double, up to 21 digits long."""
    mantissa, _, exponent = repr(float(number)).partition("e")
    if not exponent:
        return mantissa.removesuffix(".0")
    return (
        f"{mantissa}E{int(exponent):+d}" if int(exponent) < -6 or int(exponent) > 20 else f"{Decimal(repr(number)):f}"
    )


def quoted_text(text: str) -> str:
    """A text as formulas have it."""
    return '"' + text.replace('"', '""') + '"'


def quoted_sheet(sheet: str) -> str:
    """A sheet's name, or First:Last, as formulas have it."""
    return quoted(sheet.replace("'", "''"))


def error_text(code: int) -> str:
    """An error value."""
    if code not in _ERRORS:
        raise UnsupportedFormula(f"A formula has the error value {code}, which xlgpt does not know.")
    return _ERRORS[code]


_Read = Callable[[_Reader], None]
_PLAIN: dict[int, _Read] = {
    ptg.UNARY["+"]: lambda reader: reader._prefix("+"),
    ptg.UNARY["-"]: lambda reader: reader._prefix("-"),
    ptg.UNARY["%"]: _Reader._percent,
    ptg.PAREN: _Reader._paren,
    ptg.MISSING: lambda reader: reader._push(""),
    ptg.TEXT: _Reader._string,
    ptg.ATTRIBUTE: _Reader._attribute,
    ptg.ERROR: _Reader._error,
    ptg.BOOLEAN: _Reader._boolean,
    ptg.INTEGER: _Reader._integer,
    ptg.NUMBER: _Reader._number,
}
_CLASSED: dict[int, _Read] = {  # without their class
    ptg.ARRAY: _Reader._array,
    ptg.FUNCTION: _Reader._function,
    ptg.FUNCTION_VARIABLE: _Reader._function_variable,
    ptg.NAME: _Reader._name,
    ptg.CELL: lambda reader: reader._cells(1),
    ptg.AREA: lambda reader: reader._cells(2),
    ptg.CELL_RELATIVE: lambda reader: reader._cells(1, relative=True),
    ptg.AREA_RELATIVE: lambda reader: reader._cells(2, relative=True),
    ptg.CELL_GONE: lambda reader: reader._gone(6),
    ptg.AREA_GONE: lambda reader: reader._gone(12),
    ptg.MEMORY_AREA: _Reader._memory_area,
    ptg.MEMORY_FUNCTION: _Reader._memory_function,
    ptg.NAME_3D: _Reader._name_3d,
    ptg.CELL_3D: lambda reader: reader._cells_3d(1),
    ptg.AREA_3D: lambda reader: reader._cells_3d(2),
    ptg.CELL_3D_GONE: lambda reader: reader._gone_3d(6),
    ptg.AREA_3D_GONE: lambda reader: reader._gone_3d(12),
}
_READERS = _PLAIN | {base + token: read for base in ptg.CLASSES.values() for token, read in _CLASSED.items()}
