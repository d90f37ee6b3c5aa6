"""Tokens by their codes ([MS-XLSB] 2.5.98.16, Ptg)."""

from collections.abc import Iterator

EXPRESSION_OF = 0x01  # PtgExp: the formula stands in the first cell of an array or of a shared formula
BINARY = {"+": 3, "-": 4, "*": 5, "/": 6, "^": 7, "&": 8, "<": 9, "<=": 10, "=": 11, ">=": 12, ">": 13, "<>": 14}
JOINS = {" ": 0x0F, ",": 0x10, ":": 0x11}  # operators whose operands are references, and so is what they give
UNARY = {"+": 0x12, "-": 0x13, "%": 0x14}
PAREN, MISSING, TEXT, ATTRIBUTE, ERROR, BOOLEAN, INTEGER, NUMBER = 0x15, 0x16, 0x17, 0x19, 0x1C, 0x1D, 0x1E, 0x1F

# Kinds of PtgAttr: bits in the byte behind 0x19. SPACE may have VOLATILE with it.
VOLATILE, IF, CHOOSE, GOTO, SUM, SPACE, IF_ERROR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x40, 0x80
BEFORE, BEFORE_OPEN, BEFORE_CLOSE = 0, 2, 4  # where spaces stand (2.5.98.85, PtgAttrSpaceType); one more: line breaks

# Operands and functions: to these, the class is added.
CLASSES = {"R": 0x20, "V": 0x40, "A": 0x60}
ARRAY, FUNCTION, FUNCTION_VARIABLE, NAME, CELL, AREA, MEMORY_AREA = 0, 1, 2, 3, 4, 5, 6
MEMORY_FUNCTION, CELL_GONE, AREA_GONE, CELL_RELATIVE, AREA_RELATIVE = 9, 10, 11, 12, 13
NAME_3D, CELL_3D, AREA_3D, CELL_3D_GONE, AREA_3D_GONE = 25, 26, 27, 28, 29

ERRORS = {"#NULL!": 0, "#DIV/0!": 7, "#VALUE!": 15, "#REF!": 23, "#NAME?": 29, "#NUM!": 36, "#N/A": 42}
ERRORS["#GETTING_DATA"] = 43

_SIZES = {EXPRESSION_OF: 5, ATTRIBUTE: 4, ERROR: 2, BOOLEAN: 2, INTEGER: 3, NUMBER: 9}
_CLASSED_SIZES = {ARRAY: 15, FUNCTION: 3, FUNCTION_VARIABLE: 4, NAME: 5, CELL: 7, AREA: 13, MEMORY_AREA: 7}
_CLASSED_SIZES |= {MEMORY_FUNCTION: 3, CELL_GONE: 7, AREA_GONE: 13, CELL_RELATIVE: 7, AREA_RELATIVE: 13, NAME_3D: 7}
_CLASSED_SIZES |= {CELL_3D: 9, AREA_3D: 15, CELL_3D_GONE: 9, AREA_3D_GONE: 15}


def split(tokens: bytes) -> Iterator[bytes]:
    """Each token with what belongs to it, of those that xlgpt writes."""
    at = 0
    while at < len(tokens):
        code = tokens[at]
        size = _SIZES.get(code, 1) if code < 0x20 else _CLASSED_SIZES[code & 0x1F]
        if code == TEXT:
            size = 3 + 2 * int.from_bytes(tokens[at + 1 : at + 3], "little")
        elif code == ATTRIBUTE and tokens[at + 1] == CHOOSE:
            size = 6 + 2 * int.from_bytes(tokens[at + 2 : at + 4], "little")
        yield tokens[at : at + size]
        at += size
