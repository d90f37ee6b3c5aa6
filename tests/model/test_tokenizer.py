"""The tokenizer against tiktoken's own reader of such files, against `transformers`, and on damaged files."""

import json
import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
import tiktoken
from conftest import MICRO, SHARED, write_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from xlgpt.errors import BadVocabulary
from xlgpt.model.tokenizer import Tokenizer, read_tokenizer

GPT2 = SHARED / "gpt2-tokenizer"
END = "<|endoftext|>"
SIZE = 300  # rows of the embedding; the small vocabulary has fewer tokens
TEXTS = [
    "",
    "hello world",
    "hello  world\n\n\tthe end ",
    "I'll say we're DON'T it's I'VE",
    "x=3.14159; y=2,000,000",
    "naïve Ünïcödé, 日本語, ﷽, 👩‍👩‍👧‍👦, \u200b\u0301",
    "\x00\x01\x1f\x7f\x85\xa0\ufeff",
    " " * 50 + "the" + "\n" * 9,
    "a" * 20_000,
    " " * 32_767,
    "\U0001f600" * 5_000,
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(folder)
    return folder


@pytest.fixture(scope="module", params=["small", pytest.param("gpt2", marks=pytest.mark.shared)])
def folder(request: pytest.FixtureRequest, small: Path) -> Path:
    return small if request.param == "small" else GPT2


@cache
def ours(folder: Path) -> Tokenizer:
    return read_tokenizer(folder, 50257 if folder == GPT2 else SIZE)


@cache
def theirs(folder: Path) -> tiktoken.Encoding:
    """GPT-2's files as tiktoken reads them, with the pattern of openai/gpt-2's encoder.py."""
    with patch.dict(os.environ, TIKTOKEN_CACHE_DIR=""):  # or it would answer with an earlier run's file
        ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "merges.txt"), str(folder / "vocab.json"))
    pattern = r"""'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}]+| ?[\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={END: len(ranks)})


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:12]))
def test_hard_texts(folder: Path, text: str) -> None:
    ids = ours(folder).encode(text)
    assert ids == theirs(folder).encode_ordinary(text)
    assert ours(folder).decode(ids) == text


@settings(deadline=None)
@given(st.text() | st.text("he lowrd'stax\n1 "))
def test_any_text(folder: Path, text: str) -> None:
    ids = ours(folder).encode(text)
    assert ids == theirs(folder).encode_ordinary(text)
    assert ours(folder).decode(ids) == text


def test_transformers_agrees() -> None:
    saved = json.loads((MICRO / "tokens.json").read_text(encoding="utf-8"))
    assert len(saved) == 8
    for text, ids in saved:
        assert read_tokenizer(MICRO, SIZE).encode(text) == ids, text[:20]


@pytest.mark.shared
def test_published_ids() -> None:
    assert ours(GPT2).encode("hello world") == [31373, 995]  # tiktoken, tests/test_simple_public.py
    assert ours(GPT2).text(50256) == END


def test_special_tokens_in_a_text_are_plain_text(folder: Path) -> None:
    ids = ours(folder).encode(f"hello{END}")
    assert not ours(folder).special & set(ids)
    assert ours(folder).special == {theirs(folder).eot_token}
    assert ours(folder).decode(ids) == f"hello{END}"


def test_every_token_has_its_bytes(folder: Path) -> None:
    tokenizer, encoding = ours(folder), theirs(folder)
    assert list(tokenizer.tokens[: encoding.n_vocab]) == [
        encoding.decode_single_token_bytes(i) for i in range(encoding.n_vocab)
    ]


def test_every_pair_becomes_its_token(folder: Path) -> None:
    tokenizer = ours(folder)
    pairs = tokenizer.pairs()
    assert len(pairs) == len((folder / "merges.txt").read_text(encoding="utf-8").split("\n")) - 2
    assert pairs == sorted(pairs)
    for key, left, right, merged, _ in pairs:
        assert divmod(key, 65536) == (left, right)
        assert tokenizer.tokens[left] + tokenizer.tokens[right] == tokenizer.tokens[merged]
    assert [merged for *_, merged, rank in sorted(pairs, key=lambda pair: pair[-1])] == list(
        range(256, 256 + len(pairs))
    )


def test_ids_may_stand_in_any_order(small: Path, tmp_path: Path) -> None:
    vocab = json.loads((small / "vocab.json").read_text(encoding="utf-8"))
    new = random.Random(0).sample(range(SIZE), len(vocab))
    (tmp_path / "vocab.json").write_text(json.dumps({name: new[i] for name, i in vocab.items()}))
    (tmp_path / "merges.txt").write_bytes((small / "merges.txt").read_bytes())
    for text in TEXTS:
        assert read_tokenizer(tmp_path, SIZE).encode(text) == [new[i] for i in theirs(small).encode_ordinary(text)]


def test_ids_without_a_token_say_so(small: Path) -> None:
    used = theirs(small).n_vocab
    assert ours(small).tokens[used:] == (b"",) * (SIZE - used)
    assert ours(small).text(SIZE - 1) == f"<unused {SIZE - 1}>"


def edited(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (removed("vocab.json"), r"vocab\.json cannot be read"),
        (removed("merges.txt"), r"merges\.txt cannot be read"),
        (written("vocab.json", b"{"), r"vocab\.json is not valid JSON"),
        (written("vocab.json", b"[1, 2]"), r"vocab\.json does not map"),
        (written("vocab.json", b'{"a": "b"}'), r"vocab\.json does not map"),
        (written("vocab.json", b'{"\xff": 1}'), r"vocab\.json is not UTF-8"),
        (written("merges.txt", b"\xff \xfe"), r"merges\.txt is not UTF-8"),
        (edited("vocab.json", '"!": 0', '"!": 1'), r"vocab\.json gives one id to two tokens"),
        (
            edited("vocab.json", f'"{END}": 280', f'"{END}": {SIZE}'),
            rf"vocab\.json gives .*endoftext.* the id {SIZE}.* {SIZE} rows",
        ),
        (edited("vocab.json", '"!": 0', '"!": -1'), r"vocab\.json gives '!' the id -1"),
        (edited("vocab.json", '"!": 0, ', ""), r"vocab\.json lacks the byte '!'"),
        (edited("merges.txt", "h e\n", "h x\n"), r"merges\.txt, line 3: 'h x'"),
        (edited("merges.txt", "h e\n", "h e e\n"), r"merges\.txt, line 3: 'h e e'"),
        (edited("merges.txt", "h e\n", "he\n"), r"merges\.txt, line 3: 'he'"),
        (edited("merges.txt", "h e\n", "h e\nh e\n"), r"merges\.txt, line 4: 'he' was merged before"),
    ],
)
def test_damaged_files(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    write_vocabulary(tmp_path)
    damage(tmp_path)
    with pytest.raises(BadVocabulary, match=message):
        read_tokenizer(tmp_path, SIZE)


def test_windows_line_ends(small: Path, tmp_path: Path) -> None:
    write_vocabulary(tmp_path)
    merges = (tmp_path / "merges.txt").read_bytes()
    (tmp_path / "merges.txt").write_bytes(merges.replace(b"\n", b"\r\n"))
    assert read_tokenizer(tmp_path, SIZE) == ours(small)
