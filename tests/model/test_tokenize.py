"""The steps from a text to token ids, in Python and in the terminal."""

import json
from pathlib import Path

import pytest
from conftest import run_xlgpt, write_vocabulary
from hypothesis import given
from hypothesis import strategies as st

import xlgpt
from xlgpt.errors import BadVocabulary
from xlgpt.model.bpe import check_vocabulary, cut, tokenization
from xlgpt.model.checkpoint import load
from xlgpt.model.tokenizer import Tokenizer, read_tokenizer
from xlgpt.model.unicode import RANGES, ask_tiktoken

TEXTS = json.loads((Path(__file__).parents[1] / "texts.json").read_text(encoding="utf-8"))
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PARTS = st.sampled_from(["'s", "'ll", "'", " ", "  ", "\n", "\t", "\u00a0", "a", "Z", "7", "é", "漢", "😀", "!"])


def test_the_kinds_of_characters_are_tiktoken_s() -> None:
    assert tuple(ask_tiktoken()) == RANGES


@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_words_of_many_kinds_of_text(text: str) -> None:
    assert tokenization(text, load("tiny").tokenizer).ids == load("tiny").tokenizer.encode(text)
    assert "".join(cut(text)) == text


@given(ANY | st.lists(PARTS | st.characters(exclude_categories=["Cs"]), max_size=40).map("".join))
def test_ids_are_tiktoken_s(text: str) -> None:
    way = tokenization(text, load("tiny").tokenizer)
    assert way.ids == load("tiny").tokenizer.encode(text)
    assert [piece.id for piece in list(way.states())[-1]] == way.ids


def test_words() -> None:
    assert cut("It's  12 o'clock,\n\n I'LL go") == [
        "It",
        "'s",
        " ",
        " 12",
        " o",
        "'",
        "clock",
        ",",
        "\n\n",
        " I",
        "'",
        "LL",
        " go",
    ]


def test_each_step_can_be_looked_at() -> None:
    steps = xlgpt.tokenize("Wednesday is fun", model="tiny")
    assert steps.way.words == ("Wednesday", " is", " fun")
    assert steps.ids == load("tiny").tokenizer.encode("Wednesday is fun")
    assert len(steps.way.bytes) - len(steps.way.merges) == len(steps.ids)
    assert all(merge.rank >= 0 for merge in steps.way.merges)


def test_the_command_prints_them() -> None:
    result = run_xlgpt("tokenize", "It's 😀", "--model", "tiny")
    assert result.returncode == 0, result.stderr
    for part in ("Characters", "U+1F600", "f0 9f 98 80", "Words", "Merges", "Tokens", "␣"):
        assert part in result.stdout


@pytest.mark.parametrize(
    ("merges", "fits"),
    [
        (["a a", "aa a"], True),
        (["a a", "a aa"], False),  # tiktoken makes aa + a
        (["b c", "a b", "ab c"], False),  # bc is made before ab
        (["a b", "b c", "ab c"], True),
        (["a a", "aa aa", "aaaa aa"], True),
    ],
)
def test_vocabularies_that_are_merged_otherwise_are_refused(merges: list[str], fits: bool, tmp_path: Path) -> None:
    write_vocabulary(tmp_path, merges)
    tokenizer = read_tokenizer(tmp_path, 300)
    if fits:
        check_vocabulary(tokenizer)
    else:
        with pytest.raises(BadVocabulary):
            check_vocabulary(tokenizer)


@st.composite
def vocabularies(draw: st.DrawFn) -> Tokenizer:
    """Merges of a few letters, each of pieces that are there."""
    bytes_ = tuple(bytes([i]) for i in range(256))
    tokens = list(bytes_)
    pieces = [97, 98]
    merges = []
    for _ in range(draw(st.integers(1, 6))):
        left, right = draw(st.sampled_from(pieces)), draw(st.sampled_from(pieces))
        whole = tokens[left] + tokens[right]
        if whole not in tokens:
            pieces.append(len(tokens))
            merges.append((left, right, len(tokens)))
            tokens.append(whole)
    return Tokenizer(tuple(tokens), tuple(merges), frozenset())


@given(vocabularies(), st.text("ab", max_size=24))
def test_a_vocabulary_that_is_not_refused_is_cut_as_tiktoken_cuts_it(tokenizer: Tokenizer, text: str) -> None:
    try:
        check_vocabulary(tokenizer)
    except BadVocabulary:
        return
    assert tokenization(text, tokenizer).ids == tokenizer.encode(text)
