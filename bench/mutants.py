"""How much of a workbook check sees: `python bench/mutants.py [BOOK.xlsx] [--seed N] [--whole N]`.

Makes mutants of a good workbook (the bundled model's, unless one is named): in one formula of each band, and of each
kind of formula outside the bands, an operator, a constant, a reference that is moved by a row, a branch, the whole
formula frozen to what it shows; and each name's target moved by a row. Reading finds all of them. How many would their
values betray alone, with all that check tries? A mutant is calculated from NumPy's numbers, which is what its formula
sees in a workbook that is right but for it. What is left is told apart: it sits in a branch that check lists as never
taken, or shows the same whatever is tried.

--whole N: so many of them are also written into files of their own and given to `check --allow-changed`.
"""

import argparse
import random
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.sax.saxutils import escape

import xlgpt
from xlgpt.engines import FormulasLibrary
from xlgpt.errors import FormulaError
from xlgpt.verify.branches import Taken, branches_of
from xlgpt.verify.cases import usual
from xlgpt.verify.check import _sheets
from xlgpt.verify.compare import compare
from xlgpt.verify.tokens_of import tokens_of
from xlgpt.verify.trial import Trial, Truth
from xlgpt.workbook.book import Book
from xlgpt.xlsx.formula import PARTS, Formula
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import Values, overlap, part

KINDS = ("operator", "constant", "reference", "branch", "frozen")
OTHER = {
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "<": ">",
    ">": "<",
    "<=": ">",
    ">=": "<",
    "=": "<>",
    "<>": "=",
    "&": "+",
}
OPERATOR = re.compile(r"<=|>=|<>|[-+*/<>=&]")
CELL = re.compile(r"(\$?[A-Z]{1,3}\$?)(\d+)(?![\w.(])")


@dataclass(frozen=True)
class Mutant:
    """A formula that is changed: what stands there instead, a text without `=` or frozen values; at which letter."""

    kind: str
    band: str
    original: Formula
    text: str = ""
    frozen: Values | None = None
    at: int = 0

    def __str__(self) -> str:
        stands = "its value" if self.frozen is not None else f"={self.text[:150]}"
        return f"{self.original.cells.absolute} ({self.kind}, {self.band or 'outside bands'}): {stands}"


@dataclass(frozen=True)
class Outcome:
    """Which mutants their values betray, and of the others those that sit in a branch that was never taken."""

    found: list[Mutant]
    untaken: list[Mutant]
    alike: list[Mutant]


def mutants(book: Book, seed: int = 0) -> Iterator[Mutant]:
    """One of each kind for each band, and for each shape of formula outside bands."""
    chance = random.Random(seed)
    for sheet in (name for name in book.sheets if name not in book.weights.sheets):
        cells = book.cells(sheet)
        bands = {
            i: p.band.name for p in book.layout.bands.values() if p.cells.sheet == sheet for i in cells.over(p.cells)
        }
        groups: dict[str, list[int]] = {}
        for i, formula in enumerate(cells.formulas):
            groups.setdefault(bands.get(i) or "?" + re.sub(r"\d+", "", formula.text), []).append(i)
        for numbers in groups.values():
            for kind in KINDS:
                made = (_mutant(kind, bands.get(i, ""), book, sheet, i, chance) for i in _shuffled(numbers, chance))
                yield from [mutant for mutant in made if mutant][:1]


def _shuffled(numbers: list[int], chance: random.Random) -> list[int]:
    return chance.sample(numbers, min(len(numbers), 8))


def _mutant(kind: str, band: str, book: Book, sheet: str, i: int, chance: random.Random) -> Mutant | None:
    """A formula with such a fault; None where it has no place for it."""
    formula, saved = book.cells(sheet).formulas[i], book.cells(sheet).saved[i]
    if kind == "frozen":
        return Mutant(kind, band, formula, frozen=saved) if saved is not None else None
    changes = list(_changes(kind, formula.text))
    if not changes:
        return None
    start, end, new = chance.choice(changes)
    text = formula.text[:start] + new + formula.text[end:]
    same = tokens_of(text, sheet) == tokens_of(formula.text, sheet)
    return None if same else Mutant(kind, band, formula, text, at=start)


def _changes(kind: str, text: str) -> Iterator[tuple[int, int, str]]:
    """Every place in a formula for such a fault: from where, to where, and what stands there then."""
    end = 0
    for found in [*PARTS.finditer(text), None]:
        start = found.start() if found else len(text)
        if kind == "operator":
            yield from ((end + m.start(), end + m.end(), OTHER[m[0]]) for m in OPERATOR.finditer(text[end:start]))
        if not found:
            break
        end = found.end()
        if kind == "constant" and found["number"]:
            yield start, end, f"{float(found[0]) * 1.01 + 1:.12g}"
        if kind == "reference" and found["reference"] and (cell := CELL.search(found[0])):
            yield start, end, CELL.sub(lambda m: f"{m[1]}{int(m[2]) + 1}", found[0]) if cell else found[0]
    if kind == "branch":
        yield from ((b.start, b.end, '"!"') for b in branches_of(text) if b.end)


def name_mutants(book: Book) -> Iterator[Mutant]:
    """Each name, moved by a row, in one of the formulas that use it."""
    users: dict[str, tuple[str, int, int, int]] = {}
    for sheet in (name for name in book.sheets if name not in book.weights.sheets):
        for i, formula in enumerate(book.cells(sheet).formulas):
            for found in PARTS.finditer(formula.text):
                if found["reference"] and book.has(found[0]):
                    users.setdefault(found[0], (sheet, i, *found.span()))
    for name, (sheet, i, start, end) in users.items():
        formula, cells = book.cells(sheet).formulas[i], book.named(name)
        moved = cells.rows(1, cells.height + 1).absolute
        text = formula.text[:start] + moved + formula.text[end:]
        yield Mutant("name", name, formula, text, at=start)


def by_value(book: Book, made: list[Mutant]) -> Outcome:
    """Try all that check tries, and calculate the mutants alone from NumPy's numbers."""
    left, found = list(made), list[Mutant]()
    trial, taken = Trial(book, FormulasLibrary(book), _sheets(book)), dict[tuple[str, int], tuple[int, int]]()
    for group in usual(book, brief=False):
        for case in group:
            assert not any(sheet.problems for sheet in trial.result(case).sheets), "the workbook is not good"
            truth = trial._truth(case)
            engine = trial._fed(truth)
            caught = [mutant for mutant in left if _differs(book, engine, mutant, truth)]
            found += caught
            left = [mutant for mutant in left if mutant not in caught]
    taken = trial.engine.taken_branches()  # type: ignore[attr-defined]
    numbers = {
        formula.cells: (sheet, i)
        for sheet in {mutant.original.cells.sheet for mutant in left}
        for i, formula in enumerate(book.cells(sheet).formulas)
    }
    untaken = [mutant for mutant in left if _is_untaken(mutant, taken, numbers)]
    return Outcome(found, untaken, [mutant for mutant in left if mutant not in untaken])


def _differs(book: Book, engine: FormulasLibrary, mutant: Mutant, truth: Truth) -> bool:
    cells = mutant.original.cells
    try:
        shown = mutant.frozen if mutant.frozen is not None else engine.alone(replace(mutant.original, text=mutant.text))
    except FormulaError:
        return True
    wanted = _wanted(book, cells, truth)
    return bool(compare("", cells, shown, wanted).problem)


def _wanted(book: Book, cells: Range, truth: Truth) -> Values:
    """What a formula's cells must show."""
    known = truth.others(cells)
    if known is not None:
        return known
    for placed in book.layout.bands.values():
        values = truth.band(placed)
        if placed.cells.sheet == cells.sheet and values is not None and overlap(placed.cells, cells) == cells:
            return part(values, placed.cells, cells)
    raise LookupError(cells)


def _is_untaken(mutant: Mutant, taken: Taken, numbers: dict[Range, tuple[str, int]]) -> bool:
    """Whether what was changed stands in a branch that no case took."""
    _, bits = taken.get(numbers[mutant.original.cells], (0, 0))
    branches = branches_of(mutant.original.text)
    return any(b.start <= mutant.at < max(b.end, b.start + 1) and not bits >> i & 1 for i, b in enumerate(branches))


def written(book: Book, mutant: Mutant, out: Path) -> Path:
    """A copy of the workbook with the mutant in it."""
    cells = mutant.original.cells
    cell = re.compile(rf'(<c r="{cells.first}"[^>]*>)(<f[^>]*>)([^<]*)(</f>)')

    def change(found: re.Match[str]) -> str:
        formula = f"{found[2]}{escape(mutant.text)}{found[4]}" if mutant.frozen is None else ""
        return found[1] + formula

    with zipfile.ZipFile(book.path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry == book.part(cells.sheet):
                text, count = cell.subn(change, content.decode())
                assert count == 1, mutant
                content = text.encode()
            new.writestr(entry, content)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("book", type=Path, nargs="?")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", type=int, default=0)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        path = options.book or Path(folder) / "tiny.xlsx"
        if not options.book:
            xlgpt.build(path, model="tiny")
        book = Book(path)
        made = [*mutants(book, options.seed), *name_mutants(book)]
        outcome = by_value(book, made)
        columns = {"made": made, "by value": outcome.found, "not taken": outcome.untaken, "alike": outcome.alike}
        counts = {title: Counter(mutant.kind for mutant in column) for title, column in columns.items()}
        print("| kind | " + " | ".join(columns) + " |")
        for kind in (*KINDS, "name"):
            print(f"| {kind} | " + " | ".join(f"{count[kind]:,}" for count in counts.values()) + " |")
        print("| all | " + " | ".join(f"{count.total():,}" for count in counts.values()) + " |")
        for title in ("not taken", "alike"):
            print(f"\n{title}:", *map(str, columns[title]), sep="\n  ")
        for mutant in random.Random(options.seed).sample(outcome.found, options.whole):
            if mutant.kind != "name":
                report = xlgpt.check(written(book, mutant, Path(folder) / "mutant.xlsx"), allow_changed=True)
                print("FAILED" if not report.passed else "NOT FOUND", mutant, flush=True)


if __name__ == "__main__":
    main()
