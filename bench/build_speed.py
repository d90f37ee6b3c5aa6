"""How fast the build is, beside two other writers in the same run.

    python bench/build_speed.py [--model random:gpt2] [--context 16] [--only xlgpt --only "xlgpt, .xlsb"]

Each runs in a process of its own, so that its peak memory is its own. Seconds are those of the clock, and those of the
processor in it and in all that it started. Prints a Markdown table.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROWS, COLUMNS = 1000, 1000  # what the other writers write: a million cells each


def matrix() -> np.ndarray:
    """Numbers like weights: float32, normal(0, 0.02)."""
    return np.random.default_rng(0).standard_normal((ROWS, COLUMNS), dtype=np.float32) * np.float32(0.02)


def by_xlgpt(path: Path, model: str, context: int) -> int:
    """A whole workbook, everything included; returns its cells."""
    import xlgpt

    prompt = "If today is Tuesday, tomorrow is Wednesday."
    return xlgpt.build(path, model=model, context=context, prompt=prompt).cells


def by_xlsxwriter(path: Path, model: str, context: int) -> int:
    """XlsxWriter in constant-memory mode."""
    import xlsxwriter

    book = xlsxwriter.Workbook(path, {"constant_memory": True})
    sheet = book.add_worksheet()
    for i, row in enumerate(matrix().astype(float)):
        for j, number in enumerate(row):
            sheet.write_number(i, j, number)
    book.close()
    return ROWS * COLUMNS


def by_rust(path: Path, model: str, context: int) -> int:
    """rustpy-xlsxwriter, which takes rows as dictionaries."""
    import rustpy_xlsxwriter

    names = [str(i) for i in range(COLUMNS)]
    rows = (dict(zip(names, row, strict=True)) for row in matrix().astype(float).tolist())
    rustpy_xlsxwriter.FastExcel(str(path)).sheet("Sheet1", rows).save()
    return ROWS * COLUMNS


WRITERS: dict[str, Callable[[Path, str, int], int]] = {
    "xlgpt": by_xlgpt,
    "xlgpt, .xlsb": by_xlgpt,
    "XlsxWriter, constant memory": by_xlsxwriter,
    "rustpy-xlsxwriter": by_rust,
}


def measure(writer: str, model: str, context: int) -> dict[str, float]:
    """Run one writer in this process."""
    from xlgpt.memory import peak_memory

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("book.xlsb" if writer.endswith(".xlsb") else "book.xlsx")
        start = time.perf_counter()
        with peak_memory() as peak:
            cells = WRITERS[writer](path, model, context)
        seconds = time.perf_counter() - start
        return {"cells": cells, "seconds": seconds, "bytes": path.stat().st_size, "memory": peak.bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="random:gpt2")
    parser.add_argument("--context", type=int, default=16)
    parser.add_argument("--only", choices=WRITERS, action="append")
    parser.add_argument("--here", choices=WRITERS, help="run this one in this process, and print JSON")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.here, args.model, args.context)))
        return
    print("| writer | cells | seconds | processor | seconds per million cells | times xlgpt | MB | peak memory, MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    base = 0.0
    for writer in args.only or WRITERS:
        command = [sys.executable, __file__, "--here", writer, "--model", args.model, "--context", str(args.context)]
        before = processor()
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        each = found["seconds"] / found["cells"] * 1e6
        base = base or each
        print(
            f"| {writer} | {found['cells']:,} | {found['seconds']:.1f} | {processor() - before:.1f} | {each:.3f} "
            f"| {each / base:.1f} | {found['bytes'] / 1e6:.0f} | {found['memory'] / 1e6:.0f} |",
            flush=True,
        )


def processor() -> float:
    """Seconds of the processor in all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
