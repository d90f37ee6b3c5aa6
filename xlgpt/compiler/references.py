"""What stands between braces in a template's formula, parsed once.

`{name}`, `{name[rows, columns, parts]}`, `{name @ name}`, `{row-1}` and `{choice.key}`: templates/README.md says what
each becomes. Parsing knows no band and no weight: names are looked up where a formula is compiled.
"""

import re
from dataclasses import dataclass
from functools import cache

PLACES = ("row", "column", "part")  # a formula's place in its band, each counted from 1
NAMED = ("layer", "head", "slice")  # along a dimension that has a name, counted from 0, as GPT-2's parts are
HELPERS = ("number", "label")  # cells beside a dot product: matmul.py's own
TABLES = ("choice", "text", "each", "say")
PLACE = re.compile(rf"({'|'.join((*PLACES, *NAMED))})([+-]\d+)?")
FIRST_SO_MANY = re.compile(r":(\d+)")


class Slip(Exception):
    """What is wrong with a formula, as the end of a sentence that names its file, band and key."""


@dataclass(frozen=True)
class Coordinate:
    """A place along one dimension: `row-1`, `head`; with `upto` all up to it: `:row`, `:128`, and `:` for all."""

    word: str = ""  # of PLACES or NAMED, or `range`; or nothing, and the number says all
    number: int = 0
    upto: bool = False

    @property
    def is_all(self) -> bool:
        """Whether it leaves nothing out."""
        return self.upto and not self.word and not self.number


@dataclass(frozen=True)
class Reference:
    """A band, a weight, a key of config.json or a cell's name; `index`: rows, columns, and parts of a column."""

    name: "Text"
    index: tuple[Coordinate, ...]
    written: str


@dataclass(frozen=True)
class Product:
    """A matrix product."""

    left: Reference
    right: Reference
    written: str


@dataclass(frozen=True)
class Entry:
    """A text from one of the file's tables."""

    table: str
    key: str
    written: str


Part = str | Coordinate | Reference | Product | Entry
Text = tuple[Part, ...]


@cache
def parse(text: str) -> Text:
    """A formula as what is taken as it stands and what braces hold. Raises Slip."""
    parts: list[Part] = []
    at = 0
    while (opening := text.find("{", at)) >= 0:
        closing = _closing(text, opening)
        parts += [_plain(text, at, opening), _inside(text[opening + 1 : closing])]
        at = closing + 1
    parts.append(_plain(text, at, len(text)))
    return tuple(part for part in parts if part != "")


def _plain(text: str, start: int, end: int) -> str:
    """What stands outside of braces."""
    lone = text.find("}", start, end)
    if lone >= 0:
        raise _lone(text, lone)
    return text[start:end]


def _closing(text: str, opening: int) -> int:
    """Where the brace that opens here is closed."""
    depth = 0
    for at in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return at
    raise _lone(text, opening)


def _lone(text: str, at: int) -> Slip:
    return Slip(f"has a brace that no other belongs to, at {text[max(0, at - 20) : at + 20]!r}")


def _inside(written: str) -> Part:
    """What stands between a pair of braces."""
    place = PLACE.fullmatch(written)
    if place:
        return Coordinate(place[1], int(place[2] or 0))
    if written in HELPERS:
        return Coordinate(written)
    table, _, key = written.partition(".")
    if table in TABLES and "{" not in written:
        return Entry(table, key, written)
    if "@" not in written:
        return _reference(written)
    left, _, right = written.partition("@")
    return Product(_reference(left.strip()), _reference(right.strip()), written)


def _reference(written: str) -> Reference:
    name, bracket, index = written.partition("[")
    if bracket and not index.endswith("]"):
        raise Slip(f"has a bracket that is not closed, in {{{written}}}")
    if not name or "@" in written:
        raise Slip(f"holds {{{written}}}, which names nothing")
    coordinates = tuple(_coordinate(one.strip(), written) for one in index[:-1].split(",")) if bracket else ()
    if len(coordinates) > len(PLACES):
        raise Slip(f"holds {{{written}}}; there are rows, columns and parts of a column, and no more")
    return Reference(parse(name), coordinates, written)


def _coordinate(written: str, whole: str) -> Coordinate:
    if written == ":":
        return Coordinate(upto=True)
    if written == "range":
        return Coordinate("range")
    many, place = FIRST_SO_MANY.fullmatch(written), PLACE.fullmatch(written.removeprefix(":"))
    if many:
        return Coordinate("", int(many[1]), upto=True)
    if place:
        return Coordinate(place[1], int(place[2] or 0), written.startswith(":"))
    raise Slip(f"picks [{written}] in {{{whole}}}; pick with {', '.join((*PLACES, *NAMED))}, each ± a number, or :")


@dataclass(frozen=True)
class Tables:
    """The texts that formulas of a file may name."""

    choices: dict[str, dict[str, str]]
    each: dict[str, dict[str, str]]
    texts: dict[str, str]
    says: dict[str, str]  # sentences: what stands outside of their braces is words, not a formula

    def texts_of(self, entry: Entry) -> list[str]:
        """What it may stand for. Raises Slip."""
        if entry.table == "choice" and entry.key in self.choices:
            return [text for value, text in self.choices[entry.key].items() if value != "of"]
        if entry.table == "each" and entry.key in self.each:
            return [self.each[entry.key]["text"]]
        named = {"text": self.texts, "say": self.says}.get(entry.table, {})
        if entry.key in named:
            return [named[entry.key]]
        raise Slip(f"names {{{entry.written}}}, which no table [{entry.table}] of its file has")

    def words(self, text: str, above: tuple[Entry, ...] = ()) -> frozenset[str]:
        """Every word for a place that a text depends on, in the texts that it names too. Raises Slip."""
        return frozenset(word for part in parse(text) for word in self.words_of(part, above))

    def words_of(self, part: Part, above: tuple[Entry, ...] = ()) -> frozenset[str]:
        """The same for a part of a text. Raises Slip."""
        match part:
            case Coordinate():
                return frozenset((part.word,))
            case Reference():
                inside = (word for piece in part.name for word in self.words_of(piece, above))
                return frozenset((*inside, *(one.word for one in part.index)))
            case Product():
                return self.words_of(part.left, above) | self.words_of(part.right, above)
            case Entry():
                return self._words_of_entry(part, above)
        return frozenset()

    def _words_of_entry(self, entry: Entry, above: tuple[Entry, ...]) -> frozenset[str]:
        if entry in above:
            raise Slip(f"never ends: {{{entry.written}}} stands in what it stands for")
        words = {word for text in self.texts_of(entry) for word in self.words(text, (*above, entry))}
        if entry.table == "each":
            return frozenset(words - {counted(self.each[entry.key])})
        if entry.table == "choice":
            words.add(self.choices[entry.key].get("of", entry.key))
        return frozenset(words)


def counted(each: dict[str, str]) -> str:
    """The word that takes every number in turn in the text of an [each] table."""
    return {"n_layer": "layer", "n_head": "head", "n_slices": "slice"}.get(each["of"], "")
