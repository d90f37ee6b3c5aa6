"""How long LibreOffice takes over a workbook: load, a full calculation, and one after an edit of the last token.

    python bench/libreoffice_speed.py [--model random:gpt2] [--context 16] [--matmul auto] [--generate N] [--sheets all]

Every row of the context is in use. Prints a Markdown table.
"""

import argparse
import tempfile
import time
from pathlib import Path

import xlgpt
from xlgpt.compiler.matmul import CHOICES
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.model.checkpoint import load
from xlgpt.workbook.book import Book

PASSAGE = "If today is Tuesday, tomorrow is Wednesday. Mike is quick. He moves quickly. The cow says moo. " * 20


def full_prompt(model: str, context: int) -> str:
    """The beginning of a passage that fills the context."""
    tokenizer = load(model).tokenizer
    return tokenizer.decode(tokenizer.encode(PASSAGE)[:context])


def main() -> None:
    """Build, load, calculate, edit, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="random:gpt2")
    parser.add_argument("--context", type=int, default=16)
    parser.add_argument("--matmul", default="auto", choices=CHOICES)
    parser.add_argument("--generate", type=int)
    parser.add_argument("--sheets", default="all")
    args = parser.parse_args()
    rows: list[tuple[str, float]] = []

    def timed(what: str, start: float) -> float:
        rows.append((what, time.perf_counter() - start))
        return time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "book.xlsx"
        start = time.perf_counter()
        prompt = full_prompt(args.model, args.context)
        built = xlgpt.build(
            path, args.model, prompt, args.context, matmul=args.matmul, generate=args.generate, sheets=args.sheets
        )
        start = timed("build", start)
        book = Book(path)
        reads = book.named("next_token")
        start = time.perf_counter()
        engine = LibreOffice(book)
        try:
            engine.read(book.named("n_tokens"))  # it loads while others work; wait for it
            start = timed("start LibreOffice and load", start)
            engine.calculate(book.prompt)
            engine.read(reads)
            start = timed(f"calculate {len(book.prompt.ids)} tokens", start)
            ids = book.named("token_ids")
            engine.write(ids.cell(len(book.prompt.ids) - 1, 0), 1.0)
            engine.read(reads)
            start = timed("calculate after an edit of the last token", start)
        finally:
            engine.close()
    about = f"{args.model}, {args.matmul}, {book.new_tokens} tokens to write"
    cells = f"{built.cells:,} cells, {built.formulas:,} formulas, {built.size / 1e6:.0f} MB"
    print(f"{about}: {cells}, {built.peak_memory / 1e6:.0f} MB of memory to build\n")
    print("| step | seconds |\n| --- | ---: |")
    for what, seconds in rows:
        print(f"| {what} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
