"""How long LibreOffice takes over a workbook: load, a full calculation, and one after an edit of the last token.

    python bench/libreoffice_speed.py [--model random:gpt2] [--context 16] [--matmul auto] [--generate N] [--sheets all]
        [--ending xlsb]

Every row of the context is in use. Seconds of the clock, and of the processor in LibreOffice. Prints a Markdown table.
"""

import argparse
import tempfile
import time
from pathlib import Path

import psutil

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
    parser.add_argument("--ending", default="xlsx", choices=("xlsx", "xlsb"))
    args = parser.parse_args()
    rows: list[tuple[str, float, float]] = []

    def timed(what: str, start: float) -> float:
        rows.append((what, time.perf_counter() - start, processor() - sum(row[2] for row in rows)))
        return time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"book.{args.ending}"
        start = time.perf_counter()
        prompt = full_prompt(args.model, args.context)
        built = xlgpt.build(
            path,
            args.model,
            prompt,
            context=args.context,
            matmul=args.matmul,
            generate=args.generate,
            sheets=args.sheets,
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
            timed("calculate after an edit of the last token", start)
            memory = max(each.memory_info().rss for each in children())
        finally:
            engine.close()
    about = f"{args.model}, {args.matmul}, {book.new_tokens} tokens to write"
    cells = f"{built.cells:,} cells, {built.formulas:,} formulas, {built.size / 1e6:.0f} MB"
    print(
        f"{about}: {cells}, {built.peak_memory / 1e6:.0f} MB of memory to build, {memory / 1e6:.0f} MB in LibreOffice\n"
    )
    print("| step | seconds | of LibreOffice's processor |\n| --- | ---: | ---: |")
    for what, seconds, of_processor in rows:
        print(f"| {what} | {seconds:.1f} | {of_processor:.1f} |")


def children() -> list[psutil.Process]:
    """Processes that this one started, and those that they did."""
    return psutil.Process().children(recursive=True)


def processor() -> float:
    """Seconds of the processor that LibreOffice has used so far."""
    offices = (each for each in children() if each.name().startswith("soffice"))
    return sum(sum(each.cpu_times()[:2]) for each in offices)


if __name__ == "__main__":
    main()
