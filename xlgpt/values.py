"""What every band shows for a prompt, from the reference: the saved values of a new workbook, the truth of a check."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt import reference
from xlgpt.bpe import Piece, Tokenization, tokenization
from xlgpt.checkpoint import Model
from xlgpt.layout import Layout, Placed
from xlgpt.matmul import Columns, helper_values
from xlgpt.tokenizer import Tokenizer

Values = NDArray[Any]
TOP = 10


def expected(prompt: str, model: Model, layout: Layout) -> dict[str, Values]:
    """Every band's values by name: a row for each token in use (of the bands before the model, every row).

    For an empty prompt, only those bands that have something to say.
    """
    tokenizer = model.tokenizer
    ids = tokenizer.encode(prompt)
    values = steps(tokenization(prompt, tokenizer), tokenizer, layout.max_bytes) | {
        "n_tokens": _column([len(ids)]),
        "status": _column(["ok" if ids else "There is no token: type a text into the prompt."]),
        "position": _column([i if i < len(ids) else -1 for i in range(layout.context)]),
    }
    if not ids:
        return values
    seen: dict[str, Values] = dict(reference.forward(ids, model.weights, model.config))
    logits = seen.pop("logits")[-1]
    values |= {name: _by_token(name, value) for name, value in seen.items()}
    values |= {
        "token_ids": np.array(ids),
        "tokens": _column([tokenizer.shown(i) for i in ids]),
        "ln_final.last": seen["ln_final.normalized"][-1:],
    }
    weights = Columns(model.weights, {product.weight: layout.columns_of(product.weight) for product in layout.products})
    return values | readout(logits, tokenizer) | helper_values(layout.products, values, weights)


def readout(logits: NDArray[np.float64], tokenizer: Tokenizer) -> dict[str, Values]:
    """What the LM head and argmax sheets make of the logits [V]."""
    best = np.argsort(-logits, kind="stable")[:TOP]
    probabilities = reference.softmax(logits)
    return {
        "logits": logits,
        "probabilities": probabilities,
        "next_token_id": best[:1],
        "next_token": np.array([tokenizer.text(int(best[0]))], dtype=object),
        "top.logit": logits[best],
        "top.probability": probabilities[best],
        "top.id": best,
        "top.token": np.array([tokenizer.shown(int(i)) for i in best], dtype=object),
    }


def _by_token(name: str, value: Values) -> Values:
    """Attention's [head, token, key] turned to a row per token, as it stands on the sheet."""
    return value.swapaxes(0, 1) if name.endswith((".attn_scores", ".pattern")) else value


def on_sheet(values: Values, placed: Placed) -> Values:
    """A band's values as they stand in its cells: [rows in use, columns]. Cells without a number hold NaN."""
    by_token = len(placed.dims) > 1 and placed.band.shape[-1] in ("key", "token")
    missing = placed.dims[-1] - values.shape[-1] if by_token else 0
    if missing:  # a column per key or token, and fewer tokens than the context has rows
        edges = [(0, 0)] * (values.ndim - 1)
        values = np.pad(values, (*edges, (0, missing)), constant_values=np.nan)
    return values.reshape(len(values), -1)


NO_MERGE, WORD_ENDS = 2**26, 2**26 + 1  # in place of a pair's turn


def steps(way: Tokenization, tokenizer: Tokenizer, max_bytes: int) -> dict[str, Values]:
    """What the sheets Tokens and Pieces make of a prompt, in a program that counts 😀 as one character."""
    shown = tokenizer.shown
    pairs = Pairs(tokenizer)
    sizes = [len(c.bytes) for c in way.characters]
    left = [size - 1 - i for size in sizes for i in range(size)]
    states = list(way.states()) if way.bytes else []
    turns = [[pairs.turn(*pair) for pair in neighbours(state)] for state in states]
    columns: dict[str, list[Any]] = {
        "char.pos": list(range(1, len(sizes) + 1)),
        "char.unit": [c.code for c in way.characters],
        "char.code": [c.code for c in way.characters],
        "char.next": list(range(2, len(sizes) + 2)),
        "char.char": [c.text.replace(" ", "␣") for c in way.characters],
        "char.kind": [c.kind for c in way.characters],
        "char.short": [n for word in way.words for n in _contraction(word)],
        "char.begins": [int(i == 0) for word in way.words for i in range(len(word))],
        "char.word": [c.word for c in way.characters],
        "char.bytes": sizes,
        "byte.char": [i for i, size in enumerate(sizes, 1) for _ in range(size)],
        "byte.left": left,
        "byte.byte": [byte for c in way.characters for byte in c.bytes],
        "byte.word": [piece.word for piece in way.bytes],
        "byte.id": [piece.id for piece in way.bytes],
        "byte.text": [shown(piece.id) for piece in way.bytes],
        "byte.pair": [pairs.row(*pair) for pair in neighbours(way.bytes)],
        "byte.turn": [pairs.turn(*pair) for pair in neighbours(way.bytes)],
        "word.first": list(accumulate(map(len, way.words), initial=1))[:-1],
        "word.text": [word.replace(" ", "␣") for word in way.words],
        "merge.left": [shown(merge.left) for merge in way.merges],
        "merge.right": [shown(merge.right) for merge in way.merges],
        "merge.text": [shown(merge.id) for merge in way.merges],
        "step.turn": [min(line) for line in turns],
        "step.place": [merge.place + 1 for merge in way.merges],
        "step.before": [],
        "step.before_pair": [],
        "step.before_turn": [],
        "step.behind": [],
        "step.behind_pair": [],
        "step.behind_turn": [],
    }
    for name, key in (("word", "word"), ("rank", "rank"), ("new", "id")):
        columns[f"step.{name}"] = columns[f"merge.{key}"] = [getattr(merge, key) for merge in way.merges]
    for merge, after in zip(way.merges, states[1:], strict=True):
        for side, pair in pairs.around(merge.place, after).items():
            columns[f"step.{side}"].append("" if pair is None else pair[side == "behind"].id)
            columns[f"step.{side}_pair"].append("" if pair is None else pairs.row(*pair))
            columns[f"step.{side}_turn"].append(WORD_ENDS if pair is None else pairs.turn(*pair))
    values = {name: _column(column, max_bytes) for name, column in columns.items()}
    values["pieces.ids"] = _triangle([[piece.id for piece in state] for state in states], max_bytes)
    values["pieces.turns"] = _triangle(turns, max_bytes)
    numbers = {"n_bytes": len(way.bytes), "n_words": len(way.words), "n_merges": len(way.merges)}
    numbers |= {"prompt_length": len(way.text), "wide_units": 1, "tab_code": 9}
    numbers |= {"no_merge": NO_MERGE, "word_ends": WORD_ENDS}
    return values | {name: _column([n]) for name, n in numbers.items()} | {"readable": _column(["ok"])}


def neighbours(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, Piece | None]]:
    """Each piece with the one behind it."""
    return zip(pieces, [*pieces[1:], None], strict=False)  # of none, none


@dataclass(frozen=True)
class Pairs:
    """Pairs of neighbours as the sheet Merges knows them."""

    tokenizer: Tokenizer

    @cached_property
    def _keys(self) -> list[int]:
        return [key for key, *_ in self.tokenizer.pairs()]

    @cached_property
    def _ranks(self) -> dict[int, int]:
        return {key: rank for key, *_, rank in self.tokenizer.pairs()}

    def row(self, left: Piece, right: Piece | None) -> int | str:
        """The last row that does not stand behind the pair's own; nothing where a word ends."""
        if right is None or left.word != right.word:
            return ""
        return max(1, bisect_right(self._keys, 65536 * left.id + right.id))

    def turn(self, left: Piece, right: Piece | None) -> int:
        """When the two become one."""
        if right is None or left.word != right.word:
            return WORD_ENDS
        rank = self._ranks.get(65536 * left.id + right.id)
        return NO_MERGE if rank is None else 65536 * left.word + rank

    @staticmethod
    def around(place: int, pieces: list[Piece]) -> dict[str, tuple[Piece, Piece] | None]:
        """The pairs that a new token is part of; None where its word begins or ends."""
        pairs = {"before": pieces[place - 1 : place + 1] if place else [], "behind": pieces[place : place + 2]}
        together = {side: len(pair) == 2 and pair[0].word == pair[1].word for side, pair in pairs.items()}
        return {side: (pair[0], pair[1]) if together[side] else None for side, pair in pairs.items()}


def _contraction(word: str) -> list[int]:
    """How many characters of a contraction are to come, at each of a word's."""
    is_one = len(word) in (2, 3) and word[0] == "'" and word[1:] in ("s", "t", "m", "d", "re", "ve", "ll")
    return list(range(len(word), 0, -1)) if is_one else [0] * len(word)


def _column(values: list[Any], height: int = 0) -> Values:
    """Values of any kind, and nothing in the rows below them."""
    return np.array([*values, *[""] * (height - len(values))], dtype=object)


def _triangle(lines: list[list[int]], size: int) -> Values:
    """Each line a cell shorter than the one above; nothing below the last and beside the others."""
    values = np.full((size, size), "", dtype=object)
    for row, line in zip(values, lines, strict=False):
        row[: len(line)] = line
    return values
