"""The functions that have a number in formulas ([MS-XLSB] 2.5.98.10, Ftab), and how they take their arguments.

A signature is the class of the result (R reference, V value, A array) and one pair of letters for each parameter, the
last of which goes for all that follow (with *2, the last two in turn). The first letter says what the parameter takes:
R a reference as it stands, V a value. The second says what becomes of a value there, and so of its tokens' class:
    o  what it is by itself is kept
    v  it is one value
    a  it is an array
    t  it is what the function itself is, one value or an array; under a reference it is one value
    x  as t, but what is an array by itself stays one
After "The Microsoft Excel File Format" (OpenOffice.org), 3.2.3, and held against the tokens that Excel wrote.
"""

from dataclasses import dataclass
from functools import cached_property

MOST = 255  # arguments ([MS-XLSB] 2.5.98.46, cparams, but for those of a future function)

# The number of a function that is called by its name, which is the first argument: one of an add-in, of a macro, or
# one that is newer than the format and therefore a defined name such as _xlfn.UNICHAR ([MS-XLSB] 2.2.2.3).
BY_NAME = 255

# signature -> name number [least[-most]] (1 where nothing is said)
_SIGNATURES = {
    "V": "NA 10 0, PI 19 0, TRUE 34 0, FALSE 35 0, RAND 63 0, NOW 74 0, TODAY 221 0",
    "V Vt": """
        ISNA 2, ISERROR 3, DOLLAR 13 1-2, FIXED 14 1-3, SIN 15, COS 16, TAN 17, ATAN 18, SQRT 20, EXP 21, LN 22,
        LOG10 23, ABS 24, INT 25, SIGN 26, ROUND 27 2, REPT 30 2, MID 31 3, LEN 32, VALUE 33, NOT 38, MOD 39 2,
        TEXT 48 2, PV 56 3-5, FV 57 3-5, NPER 58 3-5, PMT 59 3-5, RATE 60 3-6, DATE 65 3, TIME 66 3, DAY 67, MONTH 68,
        YEAR 69, WEEKDAY 70 1-2,
        HOUR 71, MINUTE 72, SECOND 73, SEARCH 82 2-3, ATAN2 97 2, ASIN 98, ACOS 99, LOG 109 1-2,
        CHAR 111, LOWER 112, UPPER 113, PROPER 114, LEFT 115 1-2, RIGHT 116 1-2, EXACT 117 2, TRIM 118, REPLACE 119 4,
        SUBSTITUTE 120 3-4, CODE 121, FIND 124 2-3, ISERR 126, ISTEXT 127, ISNUMBER 128, ISBLANK 129, DDB 144 4-5,
        CLEAN 162, IPMT 167 4-6, PPMT 168 4-6, FACT 184, ISNONTEXT 190, TRUNC 197 1-2, ISLOGICAL 198,
        ROUNDUP 212 2, ROUNDDOWN 213 2, ADDRESS 219 2-5, DAYS360 220 2-3, SINH 229,
        COSH 230, TANH 231, ASINH 232, ACOSH 233, ATANH 234, ERROR.TYPE 261, COMBIN 276 2, EVEN 279, FLOOR 285 2,
        CEILING 288 2, NORMSDIST 294, ODD 298, POISSON 300 3, CONCATENATE 336 0-255, POWER 337 2, RADIANS 342,
        DEGREES 343, DATEDIF 351 3, ROMAN 354 1-2""",
    "V Ro": """
        HEX2DEC 385, DEC2BIN 387 1-2, DEC2HEX 388 1-2, OCT2DEC 392, BIN2DEC 393, IMABS 399, IMLN 401, IMEXP 406,
        IMAGINARY 409, IMREAL 410, COMPLEX 411 2-3, FACTDOUBLE 415, QUOTIENT 417 2, DELTA 418 1-2, ISEVEN 420,
        ISODD 421, MROUND 422 2, EOMONTH 450 2, YEARFRAC 451 2-3, RANDBETWEEN 464 2, WEEKNUM 465 1-2""",
    "V Rx": """
        COUNT 0 0-255, SUM 4 0-255, AVERAGE 5 1-255, MIN 6 1-255, MAX 7 1-255, STDEV 12 1-255, AND 36 1-255,
        OR 37 1-255, VAR 46 1-255, ISREF 105, COUNTA 169 0-255, PRODUCT 183 0-255, STDEVP 193 1-255, VARP 194 1-255,
        MEDIAN 227 1-255, AVEDEV 269 1-255, DEVSQ 318 1-255, SUMSQ 321 0-255, AVERAGEA 361 1-255, MAXA 362 1-255,
        MINA 363 1-255""",
    "V Rx Vt": "LARGE 325 2, SMALL 326 2, PERCENTILE 328 2",
    "V Ro ": "ROW 8 0-1, COLUMN 9 0-1, T 130, N 131, COUNTBLANK 347",
    "V Ra": "ROWS 76, COLUMNS 77",
    "V Vt Rx": "NPV 11 2-255",
    "V Vt Ra": "LOOKUP 28 2-3",
    "V Vt Ro": "SUBTOTAL 344 2-255",
    "V Vt Ro Vt": "RANK 216 2-3",
    "V Vt Rx Rt": "MATCH 64 2-3",
    "V Vv Ro": "CELL 125 1-2",
    "V Vv Vo": "HYPERLINK 359 1-2",
    "V Vv Ro Ro Vv": "HLOOKUP 101 3-4, VLOOKUP 102 3-4",
    "V Vx": "TYPE 86",
    "V Va": "SUMPRODUCT 228 1-255, SUMX2MY2 304 2, SUMX2PY2 305 2, SUMXMY2 303 2, INTERCEPT 311 2, SLOPE 315 2, "
    "MODE 330 1-255",
    "V Ra Vt": "MIRR 61 3, IRR 62 1-2",
    "V Ro Rt": "DPRODUCT 189 3",
    "V Ro Vt": "COUNTIF 346 2",
    "V Ro Vt Ro": "SUMIF 345 2-3, AVERAGEIF 483 2-3",
    "V Ro Vt *2": "COUNTIFS 481 2-254",
    "V Ro Ro Vt *2": "SUMIFS 482 3-255, AVERAGEIFS 484 3-255",
    "V Vo Ro": "IFERROR 480 2",
    "R Vo Ro": "IF 1 2-3, CHOOSE 100 2-255",
    "R Ra Vv": "INDEX 29 2-4",
    "R Ro Vt": "OFFSET 78 3-5",
    "R Vt": "INDIRECT 148 1-2",
    "A Ra Ra Vv": "LINEST 49 1-4",
    "A Vo": "TRANSPOSE 83",
    "A Va": "MMULT 165 2",
    "A Ra": "FREQUENCY 252 2",
}

_VOLATILE = {"RAND", "RANDBETWEEN", "NOW", "OFFSET", "CELL", "INDIRECT", "TODAY"}


@dataclass(frozen=True)
class Function:
    """A function's number, how many arguments it takes, and how it takes them."""

    name: str
    number: int
    least: int
    most: int
    result: str
    parameters: tuple[str, ...]
    repeats: int
    volatile: bool

    @cached_property
    def varies(self) -> bool:
        """Whether a formula says how many arguments there are (PtgFuncVar in place of PtgFunc)."""
        return self.least != self.most

    def parameter(self, index: int) -> str:
        """How it takes its argument of that index."""
        beyond = index - len(self.parameters)
        return self.parameters[index if beyond < 0 else beyond % self.repeats - self.repeats]


def _read(signature: str, entry: str) -> Function:
    result, *parameters = signature.split()
    repeats = int(parameters.pop()[1:]) if parameters and parameters[-1].startswith("*") else 1
    name, number, *count = entry.split()
    least, _, most = (count[0] if count else "1").partition("-")
    return Function(
        name, int(number), int(least), int(most or least), result, tuple(parameters), repeats, name in _VOLATILE
    )


FUNCTIONS = {
    function.name: function
    for signature, entries in _SIGNATURES.items()
    for function in (_read(signature, entry) for entry in entries.split(","))
}
BY_NUMBER = {function.number: function for function in FUNCTIONS.values()}


# Functions newer than the format: defined names, of which a book has those that it uses ([MS-XLSB] 2.2.2.3).
_FUTURE_SIGNATURES = {
    "V Vt": "_xlfn.UNICHAR, _xlfn.UNICODE, _xlfn.POISSON.DIST, _xlfn._FV",
    "A Va": "_xlfn.UNIQUE",
}
FUTURE = {
    name.upper(): _read(signature, f"{name} {BY_NAME} 0-{MOST - 1}")
    for signature, names in _FUTURE_SIGNATURES.items()
    for name in names.split(", ")
}
