"""Which rows LibreOffice calculates when a word is appended to a prompt, and when the last token's id is typed over.

    python bench/append_a_word.py [--model random:n_layer=4,n_embd=512]

After each change the last block's rows are read one after the other; a row is calculated when it is read, if it has to
be, so its seconds say whether it was. Prints a Markdown table.
"""

import argparse
import tempfile
import time
from pathlib import Path

import xlgpt
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.workbook.book import Book

TEXT, WORD = "If today is Tuesday, tomorrow is Wednesday. He", " is"


def seconds_by_row(engine: LibreOffice, book: Book, rows: int) -> list[float]:
    """The seconds that the tokens take, and then each row of all blocks."""
    last = book.named(f"blocks.{book.config.n_layer - 1}.resid_post")
    seconds = []
    for cells in (book.named("token_ids"), *(last.rows(i, i + 1) for i in range(rows))):
        start = time.perf_counter()
        engine.read(cells)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Build, calculate a prompt, append a word, type over the last id; print what each row took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="random:n_layer=4,n_embd=512")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "book.xlsx"
        xlgpt.build(path, model=args.model, context=16, prompt=TEXT)
        book = Book(path)
        before, after = len(book.prompt.ids), len(book.prompt_of(TEXT + WORD).ids)
        ids = book.named("token_ids")
        engine = LibreOffice(book)
        try:
            first = f"the prompt, {before} tokens"
            columns = {}
            for what, text in ((first, TEXT), (f"a word more, {after} tokens", TEXT + WORD)):
                engine.try_text(text, book.named("prompt"))
                columns[what] = seconds_by_row(engine, book, after)
            engine._ask("set", ("Tokens", ids.row + after - 1, ids.column, 1, 1), [[1.0]])
            columns["the last id typed over"] = seconds_by_row(engine, book, after)
        finally:
            engine.close()
    print(f"{args.model}; seconds\n\n| row | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}")
    rows = [list(line) for line in zip(*columns.values(), strict=True)]
    for name, line in zip(["the tokens", *map(str, range(1, after + 1))], rows, strict=True):
        print(f"| {name} | {' | '.join(f'{seconds:.2f}' for seconds in line)} |")
    print(f"| all | {' | '.join(f'{sum(column):.2f}' for column in columns.values())} |")


if __name__ == "__main__":
    main()
