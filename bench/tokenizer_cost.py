"""What the tokenizer in cells costs: file size, loading and calculating, with and without it, in LibreOffice.

    python bench/tokenizer_cost.py                        # the bundled vocabulary
    python bench/tokenizer_cost.py ../shared/gpt2-tokenizer   # GPT-2's, with 50,000 merges

The workbooks have hardly any weights, so that the tokenizer is what is measured. "Without" has rows for one byte.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import xlgpt
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.model.config import parse_config, weight_shapes
from xlgpt.workbook.book import Book

SHORT = "The capital of France is"
LONG = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness. " * 3
)
TEN = "Mike is a Jedi. He pulls out his"


def checkpoint(folder: Path, vocabulary: Path) -> Path:
    """A GPT-2 with this vocabulary and few weights."""
    size = len(json.loads((vocabulary / "vocab.json").read_text(encoding="utf-8")))
    config = {"n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 256, "vocab_size": size}
    random = np.random.default_rng(0)
    shapes = weight_shapes(parse_config(config, "bench"))
    folder.mkdir()
    save_file({n: random.normal(0, 0.3, s).astype(np.float32) for n, s in shapes.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((vocabulary / name).read_bytes())
    return folder


def measure(path: Path, texts: dict[str, str]) -> dict[str, float]:
    """Seconds to load, and to have the tokens of a changed prompt."""
    book = Book(path)
    start = time.perf_counter()
    engine = LibreOffice(book)
    try:
        started = time.perf_counter()
        engine.read(book.named("n_layer"))
        found = {"starting": started - start, "loading": time.perf_counter() - started}
        tokens = (book.named("token_ids"), book.named("status"))
        engine.try_text("x", *tokens)
        for name, text in texts.items():
            start = time.perf_counter()
            engine.try_text(text, *tokens)
            found[name] = time.perf_counter() - start
    finally:
        engine.close()
    return found


def appended(path: Path) -> tuple[int, float, float]:
    """A prompt of some ten tokens: how many, the seconds to calculate it, and those after a word is appended."""
    book = Book(path)
    engine = LibreOffice(book)
    try:
        engine.calculate(book.prompt_of("x"))
        seconds = []
        for text in (TEN, TEN + " phone"):
            start = time.perf_counter()
            engine.calculate(book.prompt_of(text))
            seconds.append(time.perf_counter() - start)
        return len(book.prompt_of(TEN).ids), seconds[0], seconds[1]
    finally:
        engine.close()


def main() -> None:
    vocabulary = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(xlgpt.__file__).parent / "model" / "tiny"
    with tempfile.TemporaryDirectory() as folder:
        model = checkpoint(Path(folder) / "model", vocabulary)
        for name, max_bytes in (("without", 1), ("with 256 bytes", 256)):
            path = Path(folder) / "book.xlsx"
            xlgpt.build(path, str(model), prompt="", context=16, max_bytes=max_bytes)
            found = measure(
                path, {"a short prompt": SHORT, "256 bytes": LONG[:250]} if max_bytes > 1 else {"one byte": "y"}
            )
            line = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in found.items())
            print(f"{name}: {path.stat().st_size / 1e6:.2f} MB, {line}")
        path = Path(folder) / "tiny.xlsx"
        xlgpt.build(path, "tiny")
        tokens, before, after = appended(path)
        print(f"tiny, all of it: a prompt of {tokens} tokens {before:.2f} s, the same and one word more {after:.2f} s")


if __name__ == "__main__":
    main()
