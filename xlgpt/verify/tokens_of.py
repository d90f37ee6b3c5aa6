"""A formula as a row of tokens that any program which saves it leaves as they are."""

from functools import lru_cache

from xlgpt.xlsx.formula import PARTS
from xlgpt.xlsx.worksheet import a1_range

Token = str
DIGITS = 15  # of a number that LibreOffice and Excel keep
PREFIXES = ("_XLFN.", "_XLWS.")  # of functions that are newer than the format
TRUTHS = ("TRUE", "FALSE")
BEFORE_A_SIGN = tuple("(,;=<>+-*/^&{")


@lru_cache(maxsize=4096)
def tokens_of(formula: str, sheet: str = "") -> tuple[Token, ...]:
    """The tokens of a formula without its `=`, on a sheet of that name.

    What means the same is the same: white space, capitals of names and functions, dollar signs, quotes round a sheet's
    name, the name of the formula's own sheet, `_xlfn.`, how a number is written, TRUE for TRUE(), a sign that is plus.
    """
    found: list[Token] = []
    end = 0
    for part in PARTS.finditer(formula):
        _add_signs(formula[end : part.start()], found)
        found.append(_normal(part[0], part.lastgroup or "", sheet))
        end = part.end()
    _add_signs(formula[end:], found)
    return tuple(found)


def _add_signs(text: str, found: list[Token]) -> None:
    """Operators and brackets, one by one."""
    for sign in text:
        if sign.isspace() or (sign == "+" and (not found or found[-1] in BEFORE_A_SIGN or found[-1].endswith("("))):
            continue
        if sign == ")" and found and found[-1].removesuffix("(") in TRUTHS:
            found[-1] = found[-1].removesuffix("(")
        else:
            found.append(sign)


def _normal(part: str, kind: str, sheet: str) -> Token:
    match kind:
        case "number":
            return f"{float(part):.{DIGITS}g}"
        case "function":
            name = part.upper()
            for prefix in PREFIXES:
                name = name.removeprefix(prefix)
            return name
        case "reference":
            return _reference(part, sheet)
        case "error":
            return part.upper()
    return part


def _reference(part: str, sheet: str) -> Token:
    """Cells or a name; the sheet is said unless it is the formula's own."""
    of, _, within = part.rpartition("!")
    of = of[1:-1].replace("''", "'") if of.startswith("'") else of
    cells = a1_range("", within)
    text = cells.a1 if cells else within.upper()
    return text if of.casefold() in ("", sheet.casefold()) else f"{of.casefold()}!{text}"
