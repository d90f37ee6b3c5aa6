"""The way from a text to token ids, step by step, as the sheets Tokens and BPE merges go it: GPT-2's byte-level BPE.

tiktoken gives the ids at once (tokenizer.py); this is for those who want to watch. Both must agree.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from xlgpt.errors import BadVocabulary
from xlgpt.model.tokenizer import Tokenizer
from xlgpt.model.unicode import kind_of

# The pattern of tokenizer.py for a text in which every character is the plainest of its kind.
PLAIN = re.compile(r"""'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?0+| ?[!']+|[ \t]+(?![^ \t])|[ \t]+""")
PLAINEST = {"L": "A", "N": "0", "S": "\t", "O": "!"}
KEPT = frozenset("'stremvd l")  # what the pattern names


@dataclass(frozen=True)
class Character:
    """A character: its code point, its kind (L, N, S or O), the number of its word, and its bytes."""

    text: str
    code: int
    kind: str
    word: int
    bytes: bytes


@dataclass(frozen=True)
class Piece:
    """A token on the way: its id, and the number of the word that it is a part of."""

    id: int
    word: int


@dataclass(frozen=True)
class Merge:
    """Two neighbours that become one. place: of the left one among all pieces, from 0."""

    place: int
    left: int
    right: int
    id: int
    rank: int
    word: int


@dataclass(frozen=True)
class Tokenization:
    """Every step from a text to its ids. Words, like everything, are counted from 1 as on the sheets."""

    text: str
    words: tuple[str, ...]
    characters: tuple[Character, ...]
    bytes: tuple[Piece, ...]  # the token of each single byte
    merges: tuple[Merge, ...]
    tokens: tuple[Piece, ...]

    @property
    def ids(self) -> list[int]:
        """The token ids."""
        return [piece.id for piece in self.tokens]

    def states(self) -> Iterator[list[Piece]]:
        """All pieces at first, and after each merge."""
        pieces = list(self.bytes)
        yield list(pieces)
        for merge in self.merges:
            pieces[merge.place : merge.place + 2] = [Piece(merge.id, merge.word)]
            yield list(pieces)


@dataclass(frozen=True)
class Ranks:
    """What each pair of ids becomes, and when."""

    tokenizer: Tokenizer

    @cached_property
    def of_pair(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Rank and new id."""
        return {(left, right): (rank, new) for rank, (left, right, new) in enumerate(self.tokenizer.merges)}

    @cached_property
    def of_byte(self) -> dict[int, int]:
        """The id of each single byte."""
        return dict(enumerate(self.tokenizer.byte_ids))


def tokenization(text: str, tokenizer: Tokenizer) -> Tokenization:
    """Go the whole way."""
    ranks = Ranks(tokenizer)
    words = cut(text)
    characters = tuple(
        Character(c, ord(c), kind_of(ord(c)), i, c.encode()) for i, word in enumerate(words, 1) for c in word
    )
    single = tuple(Piece(ranks.of_byte[byte], c.word) for c in characters for byte in c.bytes)
    merges: list[Merge] = []
    tokens: list[Piece] = []
    for number in range(1, len(words) + 1):
        ids = [piece.id for piece in single if piece.word == number]
        merges += _merged(ids, number, len(tokens), ranks)
        tokens += [Piece(i, number) for i in ids]
    return Tokenization(text, tuple(words), characters, single, tuple(merges), tuple(tokens))


def cut(text: str) -> list[str]:
    """The words of a text."""
    plain = "".join(c if c in KEPT else PLAINEST[kind_of(ord(c))] for c in text)
    return [text[found.start() : found.end()] for found in PLAIN.finditer(plain)]


def _merged(ids: list[int], word: int, before: int, ranks: Ranks) -> Iterator[Merge]:
    """Merge a word's pieces in place: the pair of lowest rank first, of equal ones the leftmost."""
    while True:
        neighbours = enumerate(pairwise(ids))
        pairs = [(*ranks.of_pair[pair], i) for i, pair in neighbours if pair in ranks.of_pair]
        if not pairs:
            return
        rank, new, i = min(pairs)
        yield Merge(before + i, ids[i], ids[i + 1], new, rank, word)
        ids[i : i + 2] = [new]


def check_vocabulary(tokenizer: Tokenizer) -> None:
    """Refuse merges that tiktoken would not make as merges.txt says.

    tiktoken knows no pairs: it joins any two neighbours whose bytes are a token, that of lowest rank first. That is the
    same if each token is made of older ones and no merge reaches across the border between its two parts: then those
    very two are left before they become it. Raises BadVocabulary.
    """
    of_pair = Ranks(tokenizer).of_pair
    made = {new: (left, right, rank) for (left, right), (rank, new) in of_pair.items()}
    for token, (left, right, rank) in made.items():
        if any(part in made and made[part][2] >= rank for part in (left, right)):
            raise BadVocabulary(f"The token {tokenizer.shown(token)!r} is made of one that is merged later.")
        for inner, inner_end in _edge(left, 1, rank, made):
            for outer, outer_end in _edge(right, 0, rank, made):
                across = of_pair.get((inner, outer), (rank, 0))[0]
                if across < inner_end and across <= outer_end and across < rank:
                    raise BadVocabulary(
                        f"The token {tokenizer.shown(token)!r} is never made as merges.txt says: "
                        f"{tokenizer.shown(inner)!r} and {tokenizer.shown(outer)!r} become one before. "
                        "tiktoken and the workbook's formulas would not agree on such a vocabulary."
                    )


def _edge(token: int, side: int, end: int, made: dict[int, tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """The pieces that stand at one side of a token while it grows, and the rank with which each of them ends."""
    while True:
        yield token, end
        if token not in made:
            return
        *parts, end = made[token]
        token = parts[side]
