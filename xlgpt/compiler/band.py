"""A band: what a template says of it, and what follows from that."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from xlgpt.compiler.references import NAMED, PLACES, Slip
from xlgpt.errors import TemplateError

Dimension = str | int
Format = Literal["number", "signed", "whole", "positive", "plain", "count", "id", "text", "share"]
Kind = Literal["activation", "input", "answer", "plain", "weight"]
Per = Literal["row", "head", "cell", "band", "slice", "transposed", "dot"]
AT = re.compile(r"(?:(below|beside)(?: |$))?([A-Z]{1,3})?|(\w+![A-Z]{1,3}\d+)")
DERIVED = {"derived": True}  # no key of a template
DIMENSIONS = {"layer": "n_layer", "head": "n_head", "slice": "n_slices"}  # by the word for a place along it


@dataclass(frozen=True)
class Band:
    """A named block of cells; templates/README.md explains each key. What comes after `views` only the compiler writes.

    per: how far one formula reaches: a row, what belongs to a head in a row, a cell, the band, a slice of the
    vocabulary; or a token's column, at once (transposed) or a cell at a time (dot). patches: files that add to it.
    """

    name: str
    title: str
    about: str
    shape: tuple[Dimension, ...]
    formula: str = ""
    first: str | int | None = None
    array: bool | Literal["band"] = False
    table: str = ""
    at: str = ""
    format: Format = "number"
    kind: Kind = "activation"
    colour: str | float = ""
    default: float | str | None = None
    large: float | str | None = None
    list: str | tuple[float | str, ...] = ()
    varies: tuple[float, ...] = ()
    guard: bool = True
    forward: bool = False
    views: tuple[str, ...] = ()
    per: Per = field(default="row", metadata=DERIVED)
    patches: tuple[str, ...] = field(default=(), metadata=DERIVED)

    @property
    def rows(self) -> Dimension:
        """What the band has a row for."""
        return self.shape[0]

    @property
    def is_input(self) -> bool:
        """Whether a person fills it in."""
        return not self.formula

    @property
    def goes_by_row(self) -> bool:
        """Whether each of its formulas fills cells of one row only."""
        return self.per not in ("band", "slice")

    @property
    def is_transposed(self) -> bool:
        """Whether it has a column for each token, thousands of rows long."""
        return self.per in ("transposed", "dot")

    @property
    def is_array(self) -> bool:
        """Whether its formulas are array formulas: where one fills several cells, or where the template says so."""
        several = len(self.shape) > 1 or self.per in ("band", "slice")
        return bool(self.array) or (self.per not in ("cell", "dot") and several)

    @property
    def shrinks(self) -> bool:
        """Whether each row has a cell fewer than the one above."""
        return self.shape[-1] == "piece"

    @property
    def start(self) -> int | None:
        """The number above the first row, if formulas there find one."""
        return self.first if isinstance(self.first, int) else None

    @property
    def scale(self) -> bool:
        """Whether cells are coloured by their value, from 0 to 1."""
        return self.colour == "share"

    @property
    def tint(self) -> float:
        """How far from 0 a cell has its full colour; 0 where it is not coloured so."""
        return 0 if isinstance(self.colour, str) else self.colour

    @property
    def alarm(self) -> bool:
        """Whether a cell is red where its text begins with NOT."""
        return self.colour == "verdict"

    @property
    def shade(self) -> str:
        """The band whose cells colour those of this one, from 0 to 1."""
        return self.colour if isinstance(self.colour, str) and self.colour not in ("share", "verdict") else ""

    @property
    def side(self) -> str:
        """Below or beside the band before, where the template says so."""
        return self._place[0]

    @property
    def column(self) -> str:
        """Where its first column stands, if the template says so."""
        return self._place[1]

    @property
    def cell(self) -> str:
        """The cell on another sheet where it stands."""
        return self._place[2]

    @property
    def _place(self) -> tuple[str, str, str]:
        found = AT.fullmatch(self.at)
        return (found[1] or "", found[2] or "", found[3] or "") if found else ("", "", "")


def axes(band: Band) -> dict[str, int]:
    """By each word for a place in a band: whether it counts rows (0), columns (1) or parts of a column (2)."""
    words = dict(zip(PLACES, range(len(band.shape)), strict=False))
    if band.per in ("transposed", "dot"):
        words["column"] = 0  # each of its formulas is a token's, which is the row too
    return words | {word: band.shape.index(name) for word, name in DIMENSIONS.items() if name in band.shape}


def wrong(file: str, band: Band, key: str, what: object) -> TemplateError:
    """The failure that names a file, a band and a key. what: the end of the sentence."""
    added = f", with what {' and '.join(band.patches)} adds," if band.patches else ""
    return TemplateError(f"{file}: the {key} of {band.name}{added} {what}.")


def check_place(band: Band, path: Path) -> None:
    """Whether it says plainly where it stands. Raises TemplateError."""
    if not AT.fullmatch(band.at):
        said = "below or beside, a column such as C, both, or a cell such as Home!G13"
        raise TemplateError(f"{path}: band {band.name}: the at {band.at!r} is none; it is {said}.")


def check_words(band: Band, words: set[str], is_each: bool) -> None:
    """Whether the band has the dimensions that its formula names. Raises Slip."""
    known = {*axes(band), *(["layer"] if is_each else []), *(["slice"] if band.rows == "vocab_size" else [])}
    for word in (*PLACES, *NAMED):
        if word in words and word not in known:
            shape = ", ".join(map(str, band.shape))
            raise Slip(f"names {{{word}}}, of which there is none: its shape is {shape}")


def reach(band: Band, words: set[str]) -> Per:
    """How far a formula reaches: as far as what it names stays the same."""
    if band.array == "band":
        return "band"
    if "slice" in words and band.rows == "vocab_size":
        return "slice"
    last = max((axis for word, axis in axes(band).items() if word in words), default=0)
    if last and last == len(band.shape) - 1:
        return "cell"
    return "head" if last else "row"
