"""What every band shows for a prompt, from the reference: the saved values of a new workbook, the truth of a check."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.layout import Layout, Placed, Sheet
from xlgpt.compiler.matmul import Columns, helper_values
from xlgpt.compiler.settings import Settings
from xlgpt.errors import TemplateError
from xlgpt.model import reference
from xlgpt.model.bpe import Piece, Tokenization, tokenization
from xlgpt.model.checkpoint import Model
from xlgpt.model.edits import Edits
from xlgpt.model.sampling import write
from xlgpt.model.tokenizer import Tokenizer
from xlgpt.oracle.generation import end_of_text, generation, rows_in_use, sampling_of, to_write
from xlgpt.oracle.given import Given, given
from xlgpt.oracle.given import cells as given_cells
from xlgpt.oracle.views import VIEWS, Run
from xlgpt.oracle.views.adapters import chosen_adapter
from xlgpt.oracle.views.circuit import switches
from xlgpt.oracle.views.facts import ablated_neurons
from xlgpt.oracle.views.steering import chosen

Values = NDArray[Any]
TOP = 10


def expected(prompt: str, model: Model, layout: Layout, settings: Settings) -> dict[str, Values]:
    """Every band's values by name: a row for each token in use (of the bands before the model, every row).

    For an empty prompt, and one of more tokens than there are rows for, only those bands that have something to say.
    The prompt has at most as many bytes as there are rows for.
    """
    run = run_with_cache(prompt, model, layout, settings)
    return {**run.shows, **look_inside(run)}


def run_with_cache(prompt: str, model: Model, layout: Layout, settings: Settings) -> Run:
    """The model at work on a prompt, and what all sheets but those that look inside show of it."""
    tokenizer, room = model.tokenizer, layout.room
    way = tokenization(prompt, tokenizer)
    there = given(tokenizer.encode(prompt), tokenizer, layout, settings)
    ids, is_well = list(there.ids), there.status == "ok"
    written = _written(there, model, layout, settings)
    everything, wanted = [*ids, *written], to_write(settings, layout)
    rows = rows_in_use(len(ids), written, wanted)
    values = steps(way, tokenizer, room.max_bytes) | given_cells(there, room.context, model.config.vocab_size)
    values |= {
        **settings.cells,
        "position": _column([i if i < rows else -1 for i in range(room.context)]),
        "to_come": _column([max(0, wanted - max(0, row + 1 - len(ids))) if ids else 0 for row in range(room.context)]),
        "token_ids": _column(everything, room.context, NO_ID),
        "tokens": _column([tokenizer.shown(i) for i in everything]),
    }
    n_tokens, cache = len(ids) if is_well else 0, dict[str, Values]()
    logits = np.zeros((0, model.config.vocab_size))
    if ids:
        changed = edits(settings, layout, len(ids))
        cache = dict(reference.forward(everything[:rows], model.weights, model.config, changed))
        logits = cache["logits"]
        values |= {name: _by_token(name, value) for name, value in cache.items() if name != "logits"}
        products = {product.weight: layout.columns_of(product.weight) for product in layout.products}
        values |= helper_values(layout.products, values, Columns(model.weights, products))
    values |= generation(logits, there, written, tokenizer, layout, settings)
    shown = _shown_row(settings, n_tokens, rows) if is_well else 0
    values["shown_row"] = _column([shown + 1 if is_well else 0])
    if is_well:
        values["ln_final.last"] = cache["ln_final.normalized"][shown][None]
        values |= readout(logits[shown], tokenizer)
    return Run(model, layout, settings, tuple(everything[:rows]), len(ids), n_tokens, shown, cache, prompt, values)


def _written(there: Given, model: Model, layout: Layout, settings: Settings) -> list[int]:
    """The ids that the workbook writes behind those that are given."""
    ids = list(there.ids)
    wanted = min(to_write(settings, layout), there.room) if ids else 0
    follows = reference.what_follows(model.weights, model.config, edits(settings, layout, len(ids)))
    return write(ids, wanted, follows, sampling_of(settings), end_of_text(model.tokenizer)) if wanted else []


def _shown_row(settings: Settings, n_prompt: int, rows: int) -> int:
    """Which row's prediction the sheet LM head shows, counted from 0."""
    position = settings.cells["shown_position"][0, 0]
    is_row = not isinstance(position, str) and position in range(rows)
    return int(position) if is_row else n_prompt - 1


def edits(settings: Settings, layout: Layout, n_tokens: int) -> Edits:
    """What the sheets change in the model while it runs on a prompt of so many tokens."""
    made = switches(settings) if "circuit.heads" in settings.cells else Edits()
    made = replace(made, neurons=ablated_neurons(settings) if "facts.block" in settings.cells else None)
    if "steering.on" in settings.cells and settings.counted("steering.on"):
        steer = chosen(settings, layout, n_tokens)
        made = replace(made, block=steer.block, vector=steer.vector, at=steer.at)
    if "adapter.on" in settings.cells and settings.counted("adapter.on"):
        made = replace(made, adapter=chosen_adapter(settings, layout))
    return made


def look_inside(run: Run) -> dict[str, Values]:
    """What the optional sheets show; nothing where they are switched off, or have a switch and no token to look at.

    Raises TemplateError where nothing computes what a view shows.
    """
    found: dict[str, Values] = {}
    for sheet in run.layout.sheets:
        is_needed = run.n_tokens or sheet.stage.acts  # what changes the model must not wait for its last row
        if sheet.stage.switch and not (is_needed and run.settings.number(sheet.stage.switch)):
            found |= _switched_off(sheet)
        elif sheet.stage.optional:
            found |= _view(sheet)(run)
    return found


def _view(sheet: Sheet) -> Callable[[Run], dict[str, Values]]:
    """What computes a sheet's bands in NumPy. Raises TemplateError."""
    name = sheet.stage.optional
    if name not in VIEWS:
        raise TemplateError(
            f"{sheet.stage.file}: nothing computes in NumPy what this view shows; name a function for {name} in VIEWS "
            "(xlgpt/oracle/views)."
        )
    return VIEWS[name]


def _switched_off(sheet: Sheet) -> dict[str, Values]:
    """Its empty cells."""
    bands = (placed for placed in sheet.bands if not placed.band.is_input)
    return {placed.band.name: np.full(placed.dims, "", dtype=object) for placed in bands}


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
        values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)], constant_values=np.nan)
    return values.reshape(len(values), math.prod(values.shape[1:]))


NO_MERGE, WORD_ENDS = 2**26, 2**26 + 1  # in place of a pair's turn
NO_ID = -1  # in place of an id or a rank: the format hides it, and it is no empty text, which LibreOffice loads as 0
WITH_IDS = ("byte.id", "merge.id", "merge.rank", "step.rank", "step.new", "step.before", "step.behind")


def steps(way: Tokenization, tokenizer: Tokenizer, max_bytes: int) -> dict[str, Values]:
    """What the sheets Tokens and BPE merges make of a prompt, in a program that counts 😀 as one character."""
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
            columns[f"step.{side}"].append(NO_ID if pair is None else pair[side == "behind"].id)
            columns[f"step.{side}_pair"].append("" if pair is None else pairs.row(*pair))
            columns[f"step.{side}_turn"].append(WORD_ENDS if pair is None else pairs.turn(*pair))
    values = {name: _column(column, max_bytes, NO_ID if name in WITH_IDS else "") for name, column in columns.items()}
    values["pieces.ids"] = _triangle([[piece.id for piece in state] for state in states], max_bytes, NO_ID)
    values["pieces.turns"] = _triangle(turns, max_bytes, "")
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


def _column(values: list[Any], height: int = 0, nothing: str | int = "") -> Values:
    """Values of any kind, and in the rows below them what stands for nothing."""
    return np.array([*values, *[nothing] * (height - len(values))], dtype=object)


def _triangle(lines: list[list[int]], size: int, nothing: str | int) -> Values:
    """Each line a cell shorter than the one above; below the last and beside the others what stands for nothing."""
    values = np.full((size, size), nothing, dtype=object)
    for row, line in zip(values, lines, strict=False):
        row[: len(line)] = line
    return values
