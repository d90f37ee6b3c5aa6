"""How fast a workbook is read back and checked: `python bench/check_speed.py BOOK.xlsx [sheet]`.

Reads the largest sheet of weights (or the one named) with xlgpt, python-calamine and openpyxl, and all weights with
xlgpt; then checks the workbook with each engine that is installed. openpyxl takes minutes for a large sheet, so it may
be left out with --no-openpyxl.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import xlgpt
from xlgpt.errors import EngineNotFound
from xlgpt.memory import peak_memory
from xlgpt.workbook.book import Book


def timed(title: str, work: Callable[[], object]) -> None:
    start = time.monotonic()
    with peak_memory() as peak:
        found = work()
    seconds = time.monotonic() - start
    print(f"{title:32} {seconds:8.1f} s   {peak.bytes / 1e6:8,.0f} MB at the peak   {found}", flush=True)


def with_calamine(path: Path, sheet: str) -> str:
    from python_calamine import CalamineWorkbook

    rows = CalamineWorkbook.from_path(path).get_sheet_by_name(sheet).to_python()
    return f"{sum(map(len, rows)):,} cells"


def with_openpyxl(path: Path, sheet: str) -> str:
    import openpyxl

    rows = openpyxl.load_workbook(path, read_only=True)[sheet].iter_rows(values_only=True)
    return f"{sum(map(len, rows)):,} cells"


def with_xlgpt(path: Path, sheet: str = "") -> str:
    weights = Book(path).weights
    names = weights.sheets[sheet] if sheet else list(weights.shapes())
    return f"{sum(weights.cells(name).size for name in names):,} cells"


def checked(path: Path, engine: str) -> str:
    try:
        return list(xlgpt.check(path, engine=engine).sentences())[-1]
    except EngineNotFound as e:
        return str(e)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("book", type=Path)
    parser.add_argument("sheet", nargs="?")
    parser.add_argument("--no-openpyxl", action="store_true")
    options = parser.parse_args()
    path, weights = options.book, Book(options.book).weights
    sizes = {sheet: sum(weights.shapes()[name][0] for name in names) for sheet, names in weights.sheets.items()}
    sheet = options.sheet or max(sizes, key=lambda name: sizes[name])
    timed(f"xlgpt, {sheet}", lambda: with_xlgpt(path, sheet))
    timed(f"calamine, {sheet}", lambda: with_calamine(path, sheet))
    if not options.no_openpyxl:
        timed(f"openpyxl, {sheet}", lambda: with_openpyxl(path, sheet))
    timed("xlgpt, all weights", lambda: with_xlgpt(path))
    for engine in ("formulas", "libreoffice"):
        timed(f"check --engine {engine}", lambda engine=engine: checked(path, engine))


if __name__ == "__main__":
    main()
