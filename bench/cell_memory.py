"""What a cell takes of LibreOffice's memory: a number, a formula, a cell that an array formula fills.

    python bench/cell_memory.py

Of each kind two workbooks, one with a million cells more than the other: the difference is theirs. Prints a Markdown
table.
"""

import json
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import xlsxwriter
from xlsxwriter.worksheet import Worksheet

from xlgpt.engines.libreoffice import SERVER, SETTINGS, find_python, find_soffice

COLUMNS = 1000
SMALL, LARGE = 500, 1500  # rows


def numbers(sheet: Worksheet, row: int) -> None:
    """A number in each cell."""
    for column in range(COLUMNS):
        sheet.write_number(row, column, column / 7)


def formulas(sheet: Worksheet, row: int) -> None:
    """A formula in each cell."""
    for column in range(COLUMNS):
        sheet.write_formula(row, column, "=COLUMN()/7", value=column / 7)


def one_array(sheet: Worksheet, row: int) -> None:
    """An array formula over the row."""
    sheet.write_array_formula(row, 0, row, COLUMNS - 1, f"{{=COLUMN(A{row + 1}:ALL{row + 1})/7}}", value=1 / 7)
    for column in range(1, COLUMNS):
        sheet.write_number(row, column, (column + 1) / 7)


KINDS: dict[str, Callable[[Worksheet, int], None]] = {
    "a number": numbers,
    "a formula": formulas,
    "a cell of an array formula": one_array,
}


def memory(path: Path, profile: Path) -> int:
    """Bytes that LibreOffice holds once it has loaded and calculated a workbook."""
    (profile / "user").mkdir(parents=True)
    (profile / "user" / "registrymodifications.xcu").write_text(SETTINGS, encoding="utf-8")
    soffice = find_soffice()
    command = [find_python(soffice), str(SERVER), soffice, str(profile), f"xlgpt{uuid.uuid4().hex}", "60"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as server:
        assert server.stdin
        assert server.stdout
        server.stdout.readline()
        for request in ({"do": "open", "with": [str(path)]}, {"do": "calculate", "with": [True]}):
            server.stdin.write(json.dumps(request).encode() + b"\n")
            server.stdin.flush()
            server.stdout.readline()
        office = psutil.Process(server.pid).children(recursive=True)
        held = max(process.memory_info().rss for process in office)
        server.stdin.close()
    return int(held)


def held(write: Callable[[Worksheet, int], None], rows: int) -> int:
    """Bytes for so many rows of a kind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "book.xlsx"
        with xlsxwriter.Workbook(path) as book:
            sheet = book.add_worksheet()
            for row in range(rows):
                write(sheet, row)
        return memory(path, Path(folder) / "profile")


def main() -> None:
    """Measure each kind and print the table."""
    print("| what | bytes |\n| --- | ---: |")
    for what, write in KINDS.items():
        each = (held(write, LARGE) - held(write, SMALL)) / ((LARGE - SMALL) * COLUMNS)
        print(f"| {what} | {each:.0f} |", flush=True)


if __name__ == "__main__":
    main()
