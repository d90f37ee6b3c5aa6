"""Texts that a tokenizer must cut: all kinds of characters, words at their borders, whatever Hypothesis draws."""

import json
import random
import shutil
from pathlib import Path

from conftest import CONFIG, random_tensors, write_vocabulary
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import xlgpt
from xlgpt.model.tokenizer import Tokenizer
from xlgpt.model.unicode import RANGES

TEXTS = json.loads((Path(__file__).parent / "texts.json").read_text(encoding="utf-8"))
CONTRACTIONS = (
    "'s 't 're 've 'm 'll 'd 'S 'RE 'lL 'r 'x ''s 's's 'st 'res 'vex 'lll 'ſ ’s 'e 11's !'s ''ll can't CAN'T".split()
)
SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", "\u0085", "\ufeff"]
PARTS = [
    "a",
    "Z",
    "7",
    "½",
    "é",
    "e\u0301",
    "漢",
    "한",
    "ا",
    "न",
    "😀",
    "👍🏽",
    "\u200d",
    "!",
    "'",
    *CONTRACTIONS,
    *SPACES,
]
UNWRITABLE = "\x00\x01\r\ufffe\uffff"  # no cell holds them, or LibreOffice makes others of them


def writable(character: str) -> bool:
    return character not in UNWRITABLE and (ord(character) >= 32 or character in "\t\n")


ANY = st.characters(exclude_categories=["Cs"]).filter(writable)


def drawn(strategy: st.SearchStrategy[str], count: int) -> list[str]:
    """So many texts of a strategy, the same each time."""
    found: list[str] = []

    @seed(4)
    @settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(text: str) -> None:
        found.append(text)

    collect()
    return found


def borders() -> list[str]:
    """The characters at both sides of every border between kinds, some in each text."""
    codes = [code for first, _ in RANGES for code in (first - 1, first) if code > 31 and not 0xD800 <= code <= 0xDFFF]
    characters = [chr(code) for code in codes if writable(chr(code))]
    return ["a".join(characters[i : i + 24]) for i in range(0, len(characters), 24)]


def words(tokenizer: Tokenizer, count: int) -> list[str]:
    """Words of the vocabulary, and some of them in a row."""
    some = random.Random(7)
    whole = [
        token.decode() for token in tokenizer.tokens if token.isascii() and all(32 <= byte < 127 for byte in token)
    ]
    return [*some.sample(whole, count), *("".join(some.choices(whole, k=some.randint(2, 12))) for _ in range(count))]


def texts(tokenizer: Tokenizer, max_bytes: int) -> list[str]:
    chosen = [*TEXTS, *borders(), *words(tokenizer, 75)]
    chosen += [
        before + middle + after for before in ("x", "1", " ", "\n") for middle in CONTRACTIONS for after in ("", " y")
    ]
    chosen += [
        before + space + after for space in SPACES for before in ("", "a", "!") for after in ("", "b", " c", "\n")
    ]
    chosen += drawn(st.text(ANY, max_size=40), 100)
    chosen += drawn(st.lists(st.sampled_from(PARTS) | ANY, max_size=30).map("".join), 150)
    chosen += [
        "a" * max_bytes,
        " " * max_bytes,
        "ab" * (max_bytes // 2),
        "漢" * (max_bytes // 3),
        "😀" * (max_bytes // 4),
    ]
    shortened = [text.encode()[:max_bytes].decode(errors="ignore") for text in chosen]
    return list(dict.fromkeys(text for text in shortened if all(map(writable, text))))


def build(folder: Path, vocabulary: Path, vocab_size: int, max_bytes: int) -> Path:
    """A workbook with a real vocabulary and hardly any weights."""
    config = CONFIG | {"n_layer": 1, "vocab_size": vocab_size, "n_positions": max_bytes}
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(config))
    save_file(random_tensors(config), folder / "model" / "model.safetensors")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(vocabulary / name, folder / "model" / name)
    xlgpt.build(folder / "book.xlsx", str(folder / "model"), "hello", context=max_bytes, max_bytes=max_bytes)
    return folder / "book.xlsx"


def made_up(folder: Path, count: int) -> Path:
    """A vocabulary of so many merges: words of a capital letter or a space, and small letters, one more in each merge.

    However it is put together a word is cut in one way, as it is in a vocabulary that was learnt.
    """
    some, tokens = random.Random(11), ["Ġ", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    merges: dict[str, None] = {}
    while len(merges) < count:
        left, right = some.choice(tokens), some.choice("abcdefghijklmnopqrstuvwxyz")
        if (merge := f"{left} {right}") not in merges:
            merges[merge] = None
            tokens.append(left + right)
    folder.mkdir()
    write_vocabulary(folder, list(merges))
    return folder
