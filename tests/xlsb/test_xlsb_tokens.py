"""Formulas as tokens: Excel's own, read as text and compiled again, are the same bytes; and so are those we build."""

import re
import struct
from collections import Counter
from pathlib import Path

import pytest
from xlsb_samples import DATA, EXCEL, MORE, Found, Workbook, defined, formulas, tokens, workbooks

from xlgpt.errors import UnsupportedFormula
from xlgpt.xlsb import ptg
from xlgpt.xlsb.functions import FUNCTIONS, FUTURE
from xlgpt.xlsb.text import formula_text
from xlgpt.xlsb.tokens import Compiled, Compiler

EQUAL, UNDEFINED = "equal", "equal but for bytes that mean nothing, or the second of two references to a sheet"
OTHER_BOOK = "of another workbook, of an add-in, or of a sheet that is gone"
FUNCTION = "a function that we do not write"
TOKEN = "a token that we do not write: of a table, of an intersection that is empty"
GONE = "cells that are gone: #REF! says not whether it was a cell or a block, nor the class, which old files kept"
WHOLE = "a whole number as a double: typed with a decimal point, or made by another program"
SUM_AS_FUNCTION = "SUM of one argument as a function: made by another program"
VOLATILE = "marked as volatile with nothing in it that is"

EXPECTED = {
    (EQUAL, "array"): 13,
    (EQUAL, "cell"): 1609,
    (EQUAL, "condition"): 6,
    (EQUAL, "list"): 2,
    (EQUAL, "name"): 82,
    (EQUAL, "shared"): 13,
    (EQUAL, "validation"): 62,
    (UNDEFINED, "array"): 9,
    (UNDEFINED, "cell"): 28,
    (UNDEFINED, "name"): 2,
    (OTHER_BOOK, "name"): 63,
    (FUNCTION, "array"): 2,
    (FUNCTION, "cell"): 225,
    (TOKEN, "cell"): 2,
    (WHOLE, "cell"): 2,
}
EXPECTED_IN_ALL = {
    (EQUAL, "array"): 11,
    (EQUAL, "cell"): 5575,
    (EQUAL, "condition"): 26,
    (EQUAL, "list"): 74,
    (EQUAL, "name"): 1168,
    (EQUAL, "shared"): 569,
    (EQUAL, "validation"): 74,
    (UNDEFINED, "array"): 5,
    (UNDEFINED, "cell"): 730,
    (UNDEFINED, "condition"): 1,
    (UNDEFINED, "name"): 16,
    (UNDEFINED, "shared"): 15,
    (OTHER_BOOK, "cell"): 1872,
    (OTHER_BOOK, "name"): 218,
    (FUNCTION, "cell"): 33,
    (FUNCTION, "name"): 1,
    (FUNCTION, "shared"): 5,
    (TOKEN, "cell"): 2,
    (TOKEN, "name"): 1,
    (GONE, "cell"): 22,
    (GONE, "list"): 1,
    (GONE, "name"): 9,
    (WHOLE, "cell"): 2,
    (SUM_AS_FUNCTION, "cell"): 2,
    (VOLATILE, "list"): 1,
}

# No sample has these two; like CHAR and CODE they take one value ([MS-XLSB] 2.2.2.3).
BY_SPECIFICATION = {"_XLFN.UNICHAR", "_XLFN.UNICODE"}


def outcome(book: Workbook, found: Found) -> str:
    """Whether Excel's tokens -> text -> our tokens are Excel's, or why they cannot be."""
    try:
        text = formula_text(found.compiled, book.scope, found.place)
        ours = Compiler(book.scope, found.sheet).compiled(text, found.kind, found.place)
    except UnsupportedFormula as e:
        return why_unsupported(str(e))
    if ours == found.compiled:
        return EQUAL
    theirs = defined(found.compiled, book.scope)
    return UNDEFINED if ours == theirs else why_different(theirs, f"{found.where}: ={text} {ours.tokens.hex()}")


def why_unsupported(message: str) -> str:
    if "another workbook" in message:
        return OTHER_BOOK
    if "function" in message:
        return FUNCTION
    assert "has a token 0x" in message, message
    return TOKEN


def why_different(theirs: Compiled, what: str) -> str:
    codes = list(tokens(theirs))
    if any(token in (0x2A, 0x2B, 0x3C, 0x3D) for token, _ in codes):
        return GONE
    if any(token == ptg.NUMBER and is_whole(code) for token, code in codes):
        return WHOLE
    if any(code[1:] == b"\x01\x04\x00" for token, code in codes if token == 0x22):
        return SUM_AS_FUNCTION
    assert codes[0][1][:2] == bytes((ptg.ATTRIBUTE, ptg.VOLATILE)), f"{what}, Excel has {theirs.tokens.hex()}"
    return VOLATILE


def is_whole(code: bytes) -> bool:
    (number,) = struct.unpack("<d", code[1:])
    return number == int(number) and 0 <= number < 65_536


def outcomes(folder: Path) -> Counter[tuple[str, str]]:
    return Counter((outcome(book, found), found.kind.value) for book in workbooks(folder) for found in formulas(book))


def test_tokens_of_excel() -> None:
    assert outcomes(DATA) == EXPECTED


def test_every_function_is_proven() -> None:
    """The classes of each function's arguments stand in tokens of Excel's that ours are equal to."""
    equal = [
        (book, found)
        for book in workbooks(DATA)
        for found in formulas(book)
        if outcome(book, found) in (EQUAL, UNDEFINED)
    ]
    called = {name for book, found in equal for name in functions_of(book, found)}
    assert {*FUNCTIONS, *FUTURE} - called == BY_SPECIFICATION


def functions_of(book: Workbook, found: Found) -> set[str]:
    return set(re.findall(r"[A-Z_][\w.]*(?=\()", formula_text(found.compiled, book.scope, found.place).upper()))


@pytest.mark.slow
@pytest.mark.shared
def test_tokens_of_excel_in_all_samples() -> None:
    assert outcomes(EXCEL) == EXPECTED_IN_ALL


@pytest.mark.parametrize("folder", MORE)
def test_tokens_of_excel_in_further_samples(folder: Path) -> None:
    """Any folder of workbooks that Excel saved; what is neither equal nor of a known reason fails."""
    found = outcomes(folder)
    assert sum(count for (what, _), count in found.items() if what in (EQUAL, UNDEFINED)), found
