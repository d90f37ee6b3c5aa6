"""The branches of a formula: what IF, CHOOSE and IFERROR may come to, and which of them were taken."""

from collections.abc import Iterable
from dataclasses import dataclass

from xlgpt.engines.tree import BRANCHING
from xlgpt.verify.sheets_to_check import CheckedSheet
from xlgpt.workbook.book import Book
from xlgpt.xlsx.formula import PARTS


@dataclass(frozen=True)
class Branch:
    """A branch as it stands in a formula: the call with its condition, what it comes to then, and where that stands."""

    call: str
    value: str
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        return f"{self.call} … {self.value}"


def branches_of(formula: str) -> list[Branch]:
    """The branches of a formula, in the order of first_bits."""
    found: list[tuple[int, list[Branch]]] = []
    open_calls: list[tuple[str, int, list[int]]] = []  # its name, where it begins, where its arguments begin
    for sign, start, end in _signs(formula):
        if sign.endswith("(") or sign == "{":
            open_calls.append((sign[:-1].upper(), start, [end]))
        elif sign == "," and open_calls:
            open_calls[-1][2].append(end)
        elif sign in (")", "}") and open_calls:
            name, begin, edges = open_calls.pop()
            if name in BRANCHING:
                spans = [(a, b - 1) for a, b in zip(edges, [*edges[1:], end], strict=True)]
                found.append((begin, _branches(name, formula, spans)))
    return [branch for _, each in sorted(found, key=lambda item: item[0]) for branch in each]


def _signs(formula: str) -> list[tuple[str, int, int]]:
    """Functions with their bracket, brackets and commas, and where each stands; none inside texts."""
    found, end = [], 0
    for part in [*PARTS.finditer(formula), None]:
        start = part.start() if part else len(formula)
        found += [(formula[i], i, i + 1) for i in range(end, start) if formula[i] in "(){},"]
        if part:
            end = part.end()
            if part["function"]:
                found.append((part[0], part.start(), end))
    return found


def _branches(name: str, formula: str, spans: list[tuple[int, int]]) -> list[Branch]:
    condition = formula[slice(*spans[0])]
    values = [Branch(f"{name}({condition}", formula[a:b], a, b) for a, b in spans[1:]]
    if name == "IFERROR":
        return [Branch(name, condition, *spans[0]), *values]
    return values if len(values) != 1 or name == "CHOOSE" else [*values, Branch(f"IF({condition}", "FALSE")]


Place = tuple[str, int]  # a formula: its sheet, and its number there
Taken = dict[Place, tuple[int, int]]  # how many branches it has, and those taken, a bit each


def merged(parts: Iterable[Taken]) -> Taken:
    """What was taken in one of several parts."""
    found: Taken = {}
    for part in parts:
        for place, (count, bits) in part.items():
            found[place] = (count, bits | found.get(place, (0, 0))[1])
    return found


@dataclass(frozen=True)
class Untaken:
    """Of `count` branches in all cells, `missing` were never taken; those `nowhere` in no row of their band."""

    count: int
    missing: int
    nowhere: tuple[str, ...]


def never_taken(taken: Taken, book: Book, sheets: Iterable[CheckedSheet]) -> Untaken:
    """What is left over, band by band."""
    count, missing, nowhere = 0, 0, list[str]()
    for sheet in sheets:
        formulas = book.cells(sheet.name).formulas
        names = {i: placed.band.name for placed, cells in sheet.bands for i in book.cells(sheet.name).over(cells)}
        alike: dict[tuple[str, int], tuple[int, int]] = {}  # by band and number of branches: one of them, and the taken
        for i in range(len(formulas)):
            ways, bits = taken.get((sheet.name, i), (0, 0))
            count, missing = count + ways, missing + ways - bits.bit_count()
            key = (names.get(i, ""), ways)
            alike[key] = (i, alike.get(key, (i, 0))[1] | bits)
        for (name, ways), (i, bits) in alike.items():
            texts = branches_of(formulas[i].text) if bits.bit_count() < ways else []
            cell = formulas[i].cells.absolute
            nowhere += [f"{name or cell}: {text}" for bit, text in enumerate(texts) if not bits >> bit & 1]
    return Untaken(count, missing, tuple(nowhere))
