"""The tokenizer in cells, in LibreOffice, against tiktoken: over a thousand texts of every kind."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CONFIG, SHARED, random_tensors
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import xlgpt
from xlgpt.book import Book
from xlgpt.bpe import tokenization
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.tokenizer import Tokenizer
from xlgpt.unicode import RANGES

pytestmark = pytest.mark.libreoffice
TINY = Path(xlgpt.__file__).parent / "tiny"
GPT2 = SHARED / "gpt2-tokenizer"
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


@pytest.fixture(scope="module", params=["bundled", "GPT-2"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Book, LibreOffice]]:
    if request.param == "GPT-2" and not GPT2.is_dir():
        pytest.skip("../shared/gpt2-tokenizer is not there")
    folder = tmp_path_factory.mktemp("tokens")
    path = build(folder, TINY, 1280, 128) if request.param == "bundled" else build(folder, GPT2, 50257, 256)
    book = Book(path)
    engine = LibreOffice(book)
    engine.write(book.named("max_new_tokens"), 0)  # to cut a text is enough
    yield book, engine
    engine.close()


def test_the_ids_are_tiktoken_s(engine: tuple[Book, LibreOffice]) -> None:
    book, office = engine
    tried = texts(book.tokenizer, book.max_bytes)
    assert len(tried) >= 1000
    ids, status = book.named("token_ids"), book.named("status")
    wrong = []
    for text in tried:
        shown, said = office.try_text(text, ids, status)
        found = [int(i) for i in shown[:, 0] if i != ""]
        if found != book.tokenizer.encode(text) or (said[0, 0] == "ok") != bool(text):
            wrong.append((text, found, said[0, 0]))
    assert not wrong, (len(wrong), wrong[:5])


def test_the_merges_are_seen(engine: tuple[Book, LibreOffice]) -> None:
    """The last merge of each word leaves its tokens: in GPT-2's vocabulary ␣fun and ology, ␣rein and jury."""
    book, office = engine
    text = " funology reinjury"
    columns = [book.named(f"merge.{part}") for part in ("word", "left", "right", "text", "id", "rank")]
    shown = [column[:, 0].tolist() for column in office.try_text(text, *columns)]
    merges = [merge for merge in zip(*shown, strict=True) if merge[0] != ""]
    way, named = tokenization(text, book.tokenizer), book.tokenizer.shown
    assert merges == [(m.word, named(m.left), named(m.right), named(m.id), m.id, m.rank) for m in way.merges]
    if book.config.vocab_size == 50257:
        assert {"␣fun", "ology", "␣rein", "jury"} <= {merge[3] for merge in merges}
        assert way.ids == book.tokenizer.encode(text)
        assert [named(i) for i in way.ids] == ["␣fun", "ology", "␣rein", "jury"]
