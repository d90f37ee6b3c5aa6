"""GPT-2's byte-level BPE, by tiktoken, from a checkpoint's own vocab.json and merges.txt."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tiktoken

from xlgpt.errors import BadVocabulary, UsageError

# Radford et al. 2019; the same text stands in openai/gpt-2's encoder.py and in tiktoken.
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
MOST_IDS = 65_536  # a pair is looked up as one number, 65,536 × left + right

# Spaces and control characters, made visible.
VISIBLE = {ord(" "): "␣", 0x7F: "␡", 0xA0: "⍽"} | {code: chr(0x2400 + code) for code in range(32)}


def byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in vocab.json (openai/gpt-2, encoder.py, bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


def check_text(text: str) -> None:
    """Refuse what no cell can hold: half a surrogate pair, NUL, U+FFFE and U+FFFF (XML 1.0, 2.2). Raises UsageError."""
    for character in text:
        if character in "\0\ufffe\uffff" or "\ud800" <= character <= "\udfff":
            raise UsageError(
                f"{text[:40]!r} holds the character U+{ord(character):04X}, which no cell can hold; leave it out."
            )


@dataclass(frozen=True)
class Tokenizer:
    """Text to token ids and back.

    tokens: the bytes of each id, in order; empty bytes for an id without a token.
    merges: pairs of ids that become one, in order of their rank, each with the id it becomes.
    special: the ids of tokens that no text produces, such as <|endoftext|>.
    """

    tokens: tuple[bytes, ...]
    merges: tuple[tuple[int, int, int], ...]
    special: frozenset[int]

    @cached_property
    def _ids(self) -> tuple[int, ...]:
        """The id of each rank: the 256 bytes, then the merges."""
        of_byte = {token: i for i, token in reversed(list(enumerate(self.tokens))) if len(token) == 1}
        return tuple(of_byte[bytes([b])] for b in range(256)) + tuple(merged for _, _, merged in self.merges)

    @property
    def byte_ids(self) -> tuple[int, ...]:
        """The id of the token that stands for each of the 256 bytes."""
        return self._ids[:256]

    @cached_property
    def _encoding(self) -> tiktoken.Encoding:
        ranks = {self.tokens[i]: rank for rank, i in enumerate(self._ids)}
        return tiktoken.Encoding("xlgpt", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})

    def encode(self, text: str) -> list[int]:
        """The ids of a text, as tiktoken's encode_ordinary gives them: special tokens are plain text."""
        ids = self._ids
        return [ids[rank] for rank in self._encoding.encode_ordinary(text)]

    def pairs(self) -> list[tuple[int, int, int, int, int]]:
        """Every merge as (65536 left + right, left, right, merged, rank), sorted, as the workbook looks them up."""
        return sorted(
            (65536 * left + right, left, right, merged, rank) for rank, (left, right, merged) in enumerate(self.merges)
        )

    def decode(self, ids: list[int]) -> str:
        """The text of some ids; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.tokens[i] for i in ids).decode("utf-8", errors="replace")

    @cached_property
    def ids_shown(self) -> dict[str, int]:
        """The first token of each text, as it is shown."""
        found: dict[str, int] = {}
        for i in range(len(self.tokens)):
            found.setdefault(self.shown(i), i)
        return found

    def shown(self, i: int) -> str:
        """One token with its spaces visible, and bytes that are only part of a character as \\xe2."""
        if not self.tokens[i]:
            return self.text(i)
        return self.tokens[i].decode("utf-8", errors="backslashreplace").translate(VISIBLE)

    def text(self, i: int) -> str:
        """The text of one token, as it goes into a sentence; an id without a token shows its number."""
        return self.tokens[i].decode("utf-8", errors="replace") if self.tokens[i] else f"<unused {i}>"


def read_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """Read vocab.json and merges.txt, and fill up to vocab_size with ids that stand for nothing.

    Raises BadVocabulary.
    """
    vocab = _read_vocab(folder / "vocab.json", vocab_size)
    letters = byte_letters()
    merged_names = set()
    merges = []
    for number, line in enumerate(_read_lines(folder / "merges.txt"), 1):
        if not line or line.startswith("#version"):
            continue
        pair = line.split(" ")
        name = "".join(pair)
        missing = [part for part in (*pair, name) if part not in vocab]
        if len(pair) != 2 or missing:
            raise BadVocabulary(
                f"{folder / 'merges.txt'}, line {number}: {line!r} does not merge two tokens of vocab.json to a third."
            )
        if name in merged_names:
            raise BadVocabulary(f"{folder / 'merges.txt'}, line {number}: {name!r} was merged before.")
        merged_names.add(name)
        merges.append((vocab[pair[0]], vocab[pair[1]], vocab[name]))
    missing_bytes = [letter for letter in letters if letter not in vocab]
    if missing_bytes:
        raise BadVocabulary(f"{folder / 'vocab.json'} lacks the byte {missing_bytes[0]!r}; GPT-2's has all 256.")
    tokens = [b""] * vocab_size
    special = set()
    for name, i in vocab.items():
        if name in letters or name in merged_names:
            tokens[i] = bytes(letters[letter] for letter in name)
        else:
            tokens[i] = name.encode("utf-8")
            special.add(i)
    return Tokenizer(tuple(tokens), tuple(merges), frozenset(special))


def _read_vocab(path: Path, vocab_size: int) -> dict[str, int]:
    try:
        vocab = json.loads("\n".join(_read_lines(path)))
    except ValueError as e:
        raise BadVocabulary(f"{path} is not valid JSON: {e}.") from e
    if not isinstance(vocab, dict) or not all(isinstance(i, int) for i in vocab.values()):
        raise BadVocabulary(f"{path} does not map tokens to ids.")
    if len(set(vocab.values())) < len(vocab):
        raise BadVocabulary(f"{path} gives one id to two tokens.")
    if vocab_size > MOST_IDS:
        raise BadVocabulary(f"The model has {vocab_size:,} tokens; a workbook can tell at most {MOST_IDS:,} apart.")
    outside = [(name, i) for name, i in vocab.items() if not 0 <= i < vocab_size]
    if outside:
        name, i = max(outside, key=lambda item: item[1])
        raise BadVocabulary(
            f"{path} gives {name!r} the id {i}, but the model's embedding has only {vocab_size} rows. "
            "The vocabulary belongs to another model."
        )
    return vocab


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except OSError as e:
        raise BadVocabulary(f"{path} cannot be read: {e.strerror}. xlgpt needs vocab.json and merges.txt.") from e
    except UnicodeDecodeError as e:
        raise BadVocabulary(f"{path} is not UTF-8 text: {e.reason}.") from e
