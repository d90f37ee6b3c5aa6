"""Which characters are letters, numbers and white space, as tiktoken's own engine decides them.

The table in `unicode_ranges.txt` holds what that engine (Rust's `regex`, with the Unicode version it was built with)
says of each code point: the Python module `regex` has newer data and differs in thousands of them. Made by

    python -m xlgpt.unicode
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import tiktoken

FILE = Path(__file__).with_name("unicode_ranges.txt")
PATTERNS = {"S": r"\s", "L": r"\p{L}", "N": r"\p{N}"}
OTHER = "O"


class CharacterRange(NamedTuple):
    """Code points of one kind, up to the next range: L letter, N number, S white space, O anything else."""

    first: int
    kind: str


def read() -> tuple[CharacterRange, ...]:
    """The table in the package."""
    lines = (line.split() for line in FILE.read_text(encoding="ascii").splitlines())
    return tuple(CharacterRange(int(first, 16), kind) for first, kind in lines)


RANGES = read()
FIRSTS = [each.first for each in RANGES]


def kind_of(code: int) -> str:
    """L, N, S or O."""
    return RANGES[bisect_right(FIRSTS, code) - 1].kind


def ask_tiktoken() -> Iterator[CharacterRange]:
    """The table as the installed tiktoken means it: every code point is tried."""
    matches = {kind: _matcher(pattern) for kind, pattern in PATTERNS.items()}
    before = ""
    for code in range(0x110000):
        half = 0xD800 <= code <= 0xDFFF  # no text holds one
        kind = OTHER if half else next((kind for kind, match in matches.items() if match(chr(code))), OTHER)
        if kind != before:
            yield CharacterRange(code, kind)
        before = kind


def _matcher(pattern: str) -> Callable[[str], bool]:
    ranks = {bytes([i]): i for i in range(256)}
    encoding = tiktoken.Encoding("one character", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return lambda character: bool(encoding.encode_ordinary(character))


if __name__ == "__main__":
    FILE.write_text("".join(f"{each.first:X} {each.kind}\n" for each in ask_tiktoken()), encoding="ascii")
