"""xlgpt tokenize: the steps from a text to token ids, as the sheets Tokens and BPE merges show them."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from xlgpt.model.bpe import Tokenization, tokenization
from xlgpt.model.checkpoint import load
from xlgpt.model.tokenizer import VISIBLE, Tokenizer, check_text

KINDS = {"L": "letter", "N": "number", "S": "white space", "O": "other"}


@dataclass(frozen=True)
class Steps:
    """Every step from a text to its token ids, and the tokenizer whose tokens they are."""

    way: Tokenization
    tokenizer: Tokenizer

    @property
    def ids(self) -> list[int]:
        """The token ids."""
        return self.way.ids

    @property
    def tokens(self) -> list[str]:
        """The text of each, with spaces made visible."""
        return [self.tokenizer.shown(i) for i in self.ids]


def tokenize(text: str, model: str = "gpt2") -> Steps:
    """Cut a text into tokens and remember every step.

    model: whose vocabulary, named as for `build`. Raises ModelNotFound, BadVocabulary, UsageError.
    """
    check_text(text)
    tokenizer = load(model).tokenizer
    return Steps(tokenization(text, tokenizer), tokenizer)


def tables(steps: Steps) -> Iterator[Table]:
    """Characters and their bytes, words, merges, tokens."""
    way, shown = steps.way, steps.tokenizer.shown
    yield _table(
        "Characters",
        ("character", "code point", "kind", "bytes", "word"),
        [
            (c.text.translate(VISIBLE), f"U+{c.code:04X}", KINDS[c.kind], c.bytes.hex(" "), str(c.word))
            for c in way.characters
        ],
    )
    yield _table("Words", ("word", "text"), [(str(i), w.translate(VISIBLE)) for i, w in enumerate(way.words, 1)])
    yield _table(
        "Merges",
        ("word", "left", "right", "becomes", "id", "rank"),
        [(str(m.word), shown(m.left), shown(m.right), shown(m.id), str(m.id), str(m.rank)) for m in way.merges],
    )
    yield _table(
        "Tokens",
        ("position", "token", "id"),
        [(str(i), token, str(number)) for i, (token, number) in enumerate(zip(steps.tokens, steps.ids, strict=True))],
    )


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
