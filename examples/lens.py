"""The logit lens: what the model would say if it ended after this block.

    python examples/lens.py

Builds a workbook with the sheet Logit lens, lets its own formulas calculate, and prints what they show.
"""

import xlgpt
from xlgpt.engines import FormulasLibrary
from xlgpt.workbook.book import Book


def main() -> None:
    built = xlgpt.build("lens.xlsx", model="tiny", prompt="If today is Tuesday, tomorrow is", sheets="lens")
    book = Book(built.path)
    engine = FormulasLibrary(book)
    engine.calculate(book.prompt, book.settings.changed({"lens.target": " Wednesday"}))
    best, ranks, shares = (
        engine.read(book.named(f"lens.{band}"))[0] for band in ("best_token", "target_rank", "target_probability")
    )
    for column, (token, rank, share) in enumerate(zip(best, ranks, shares, strict=True)):
        place = f"block {column - 1}" if column else "embeddings"
        print(f"{place:10}  the best is {token:12}  ␣Wednesday has rank {rank:.0f}, {share:.1%}")


if __name__ == "__main__":
    main()
