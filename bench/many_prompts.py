"""Changes the prompt of a workbook in LibreOffice hundreds of times, each with a full answer, held against NumPy.

    python bench/many_prompts.py [--changes 300] [--model tiny] [--seed 0]

LibreOffice 7.4 can crash when formulas that are alike read ranges of calculated cells, so the compiler makes none
(`later_apart` in xlgpt/compiler/compile.py); this is where it would. Exit code 1 where an answer is wrong.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import xlgpt
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.oracle.values import expected
from xlgpt.workbook.book import Book

CLOSE = 1e-5  # two logits nearer than this may change places: float32 weights against their decimals
PARTS = ["If", " today", " is", " Tuesday", ",", " tomorrow", "Mike", " Jedi", ".", "'s", "'LL", " 1", "23", "\n", "\t"]
PARTS += ["  ", "é", "漢字", " Ω", "😀", "👍🏽", "\u00a0", "<|endoftext|>", "def f(x):", "aaaaaaa", "!?", " the"]


def some_text(chance: random.Random, book: Book) -> str:
    """A text of random length that fits the workbook's rows."""
    while True:
        text = "".join(chance.choices(PARTS, k=chance.randint(0, 24)))
        if len(text.encode()) <= book.max_bytes and len(book.tokenizer.encode(text)) <= book.context:
            return text


def main() -> int:
    """Build, change, compare; print what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--changes", type=int, default=300)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance, wrong, lengths = random.Random(args.seed), 0, []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "book.xlsx"
        xlgpt.build(path, model=args.model)
        book = Book(path)
        engine = LibreOffice(book)
        start = time.perf_counter()
        try:
            for _ in range(args.changes):
                prompt = book.prompt_of(some_text(chance, book))
                engine.calculate(prompt)
                shown = engine.read(book.named("next_token_id"))[0, 0]
                lengths.append(len(prompt.ids))
                truth = expected(prompt.text, book.model, book.layout, book.settings)
                if not agrees(shown, truth):
                    wrong += 1
                    print(f"{prompt.text!r}: {shown}, but {truth.get('next_token_id', 'nothing')}")
        finally:
            engine.close()
    print(
        f"{args.changes} changes, 0 to {max(lengths)} tokens, {wrong} answers wrong, "
        f"{time.perf_counter() - start:.0f} s with NumPy's share"
    )
    return bool(wrong)


def agrees(shown: object, truth: dict[str, np.ndarray]) -> bool:
    """Whether a next token's id is the reference's, or one as likely; nothing for nothing."""
    if "logits" not in truth:
        return shown == ""
    return isinstance(shown, float) and truth["logits"][int(shown)] > truth["logits"].max() - CLOSE


if __name__ == "__main__":
    sys.exit(main())
