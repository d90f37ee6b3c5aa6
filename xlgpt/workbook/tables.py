"""Long tables of constants: the vocabulary, the merges, the kinds of characters, and the labels beside the logits."""

from collections.abc import Sequence
from dataclasses import dataclass

from xlgpt.compiler.layout import Layout
from xlgpt.model.tokenizer import Tokenizer
from xlgpt.model.unicode import RANGES

Constant = int | str


@dataclass(frozen=True)
class Table:
    """Columns, from A on, none longer than the first; they begin in `row`."""

    row: int
    columns: tuple[Sequence[Constant], ...]

    @property
    def height(self) -> int:
        """How many rows it has."""
        return len(self.columns[0])


def tables(layout: Layout, tokenizer: Tokenizer) -> dict[str, Table]:
    """Every long table by its sheet."""
    ids = range(len(tokenizer.tokens))
    shown = [tokenizer.shown(i) for i in ids]
    exact = [tokenizer.text(i) for i in ids]
    hexes = [token.hex(" ") for token in tokenizer.tokens]
    found = {
        "Vocabulary": Table(layout.names["vocabulary"].row, (ids, exact, shown, hexes)),
        layout.names["logits"].sheet: Table(layout.names["logits"].row, (ids, shown)),
    }
    if tokenizer.merges:
        keys, left, right, merged, ranks = zip(*tokenizer.pairs(), strict=True)
        words = [[shown[i] for i in column] for column in (left, right, merged)]
        by_rank = [i for _, _, i in tokenizer.merges]
        found["Merges"] = Table(layout.names["merges.key"].row, (keys, merged, ranks, *words, by_rank))
    else:  # a row that no pair equals, for MATCH to find
        found["Merges"] = Table(layout.names["merges.key"].row, ([-1], [-1], [-1], [""], [""], [""], [-1]))
    found["Unicode"] = Table(layout.names["unicode.first"].row, _unicode(tokenizer))
    return found


def _unicode(tokenizer: Tokenizer) -> tuple[Sequence[Constant], ...]:
    """The kinds of characters, and beside them the token of each byte."""
    firsts, kinds = zip(*RANGES, strict=True)
    return firsts, kinds, range(256), tokenizer.byte_ids
