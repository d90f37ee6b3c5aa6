"""What LibreOffice calculates again after a change at the end of the prompt, for several lengths of the context.

    python bench/prefix_reuse.py [--model random:gpt2] [--contexts 4,16,32,64]

Three quarters of the rows are the prompt's. Prints a Markdown table: seconds of the processor that LibreOffice took, so
that a busy machine matters little, and shares of the full recalculation.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from inside_cost import Stopwatch
from libreoffice_speed import full_prompt

import xlgpt
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.oracle.given import as_typed, typed_cells
from xlgpt.workbook.book import Book


def measure(model: str, context: int) -> dict[str, float]:
    """The steps for one context: a prompt, a word more, tokens written, tokens typed, the last id typed over."""
    prompt = full_prompt(model, context * 3 // 4)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "book.xlsx"
        xlgpt.build(path, model=model, context=context, prompt=prompt, generate=2 if context < 8 else 4, sheets="none")
        book = Book(path)
        engine = LibreOffice(book)
        reads, settings, watch = book.named("completion"), book.settings, Stopwatch(engine)

        def timed(step: Callable[[], object]) -> float:
            seconds = watch.time(step)
            print(f"{context} rows: {seconds:.2f} s", file=sys.stderr, flush=True)
            return seconds

        def calculate(text: str, new_tokens: int) -> None:
            engine.calculate(book.prompt_of(text), settings.changed({"max_new_tokens": new_tokens}))
            engine.read(reads)
            engine.read(book.named("next_token"))

        last_row = len(book.prompt_of(prompt).ids) - 1

        def type_over() -> None:
            engine.write(book.named("token_ids").cell(last_row, 0), 5.0)
            engine.read(book.named("next_token"))

        def type_token(row: int) -> None:
            cells = typed_cells({row: as_typed(1000, False, book.tokenizer) or ""}, book.context)
            settings_typed = settings.changed({"typed_tokens": cells, "max_new_tokens": 0})
            engine.calculate(book.prompt_of(prompt), settings_typed)
            engine.read(book.named("next_token"))

        try:
            engine.read(book.named("n_tokens"))
            found = {"everything": timed(lambda: calculate(prompt, 0))}
            rows = {"in the last row": last_row, "behind the last": last_row + 1, "in the middle": last_row // 2}
            for where, row in rows.items():
                found[f"a token typed {where}"] = timed(partial(type_token, row))
                calculate(prompt, 0)
            found["a word more"] = timed(lambda: calculate(prompt + " The", 0))
            calculate(prompt, 0)
            found["the first token written"] = timed(lambda: calculate(prompt, 1))
            found["one more token written"] = timed(lambda: calculate(prompt, 2))
            if more := book.new_tokens - 2:
                last = timed(lambda: calculate(prompt, book.new_tokens))
                found["each further token, by itself"] = (last - found["one more token written"]) / more
            calculate(prompt, 0)
            found["the last id typed over"] = timed(type_over)  # its formula is gone now
        finally:
            engine.close()
    return found


def main() -> None:
    """Measure every context and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="random:gpt2")
    parser.add_argument("--contexts", default="4,16,32,64")
    args = parser.parse_args()
    found = {context: measure(args.model, context) for context in map(int, args.contexts.split(","))}
    print("| rows | " + " | ".join(map(str, found)) + " |\n| --- |" + " ---: |" * len(found))
    for step in found[max(found)]:
        cells = (
            f"{steps[step]:.2f} s ({steps[step] / steps['everything']:.0%})" if step in steps else ""
            for steps in found.values()
        )
        print(f"| {step} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
