"""The model as data: what stands in templates/*.toml. Nothing here or behind it knows GPT-2's arithmetic."""

import math
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from xlgpt.config import GPT2Config
from xlgpt.errors import TemplateError

Dimension = str | int
Format = Literal["number", "signed", "whole", "positive", "plain", "count", "id", "text", "share"]
Matmul = Literal["mmult", "sumproduct"]
Kind = Literal["activation", "input", "answer", "plain"]


@dataclass(frozen=True)
class Band:
    """A named block of cells; templates/README.md explains each key."""

    name: str
    title: str
    about: str
    shape: tuple[Dimension, ...]
    formula: str = ""
    first: str = ""
    start: int | None = None
    per: Literal["row", "head", "cell", "column", "band", "slice", "upright", "filled"] = "row"
    table: str = ""
    column: str = ""
    above: int = 0
    beside: bool = False
    shrinks: bool = False
    apart: bool = False
    varies: bool = False
    format: Format = "number"
    kind: Kind = "activation"
    default: float | str | None = None
    large: float | str | None = None
    list: str | tuple[float | str, ...] = ()
    at: str = ""
    array: bool = False
    scale: bool = False
    shade: str = ""
    tint: float = 0
    guard: bool = True
    optional: str = ""

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
        return self.per not in ("band", "column", "slice")

    @property
    def is_upright(self) -> bool:
        """Whether it has a column for each token, thousands of rows long."""
        return self.per in ("upright", "filled")

    @property
    def is_array(self) -> bool:
        """Whether its formulas are array formulas: where one fills several cells, or where the template says so."""
        return self.array or (
            self.per not in ("cell", "filled") and (len(self.shape) > 1 or self.per in ("band", "slice"))
        )


@dataclass(frozen=True)
class Slice:
    """Some columns of a weight, from one up to another, under a name of their own."""

    name: str
    of: str
    columns: tuple[Dimension, Dimension]


@dataclass(frozen=True)
class Weight:
    """A tensor of the checkpoint and the sheet that holds it."""

    name: str
    sheet: str
    shape: tuple[Dimension, ...]
    about: str
    untied: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart of some bands, each a series.

    at: the cell under its top left corner, or the band whose right neighbour it is; of several there, each stands
    below the one before. categories: a band, or nothing for the titles of the columns. log: powers of ten upwards.
    """

    title: str
    at: str
    type: Literal["bar", "column", "line"]
    values: tuple[str, ...]
    categories: str = ""
    size: tuple[int, int] = (640, 300)
    log: bool = False
    stacked: bool = False


@dataclass(frozen=True)
class Shape:
    """A box with words in it, or without a kind the words alone; `box`: left, top, width and height in pixels.

    It is placed from the cell under the rows that stay in sight; {n_embd} in its words is that number.
    """

    text: str
    box: tuple[int, int, int, int]
    kind: Kind | Literal["weight", "frame", ""] = ""
    font: int = 10


@dataclass(frozen=True)
class Stage:
    """One sheet, or with `layer` one of several: of the forward pass, or, with `optional`, of a look inside.

    switch: the input that must not be 0 for its formulas to be calculated. columns: what stands above the columns,
    instead of numbers; the last of them again and again, with {i} counting from 0. width: of its columns, in letters.
    """

    sheet: str
    title: str
    about: str
    bands: tuple[Band, ...]
    scope: tuple[str, ...]
    slices: tuple[Slice, ...]
    choices: dict[str, dict[str, str]]
    each: dict[str, dict[str, str]]
    texts: dict[str, str]
    charts: tuple[Chart, ...] = ()
    shapes: tuple[Shape, ...] = ()
    optional: str = ""
    switch: str = ""
    width: int = 0
    columns: tuple[str, ...] = ()
    layer: int = 0


def folder() -> Path:
    """Where the templates are: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "templates"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "templates"


@cache
def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise TemplateError(f"{path} cannot be read: {e}.") from e


@cache
def optional_sheets() -> dict[str, str]:
    """The sheets that a workbook may do without, in the order of their tabs: what --sheets calls each, and its tab."""
    return {raw["optional"]: raw["sheet"] for raw in map(_read, _files()) if "optional" in raw}


def stages(config: GPT2Config, sheets: tuple[str, ...]) -> list[Stage]:
    """Every sheet of the forward pass and those of the optional ones that are wanted. Raises TemplateError."""
    wanted = [path for path in _files() if _read(path).get("optional") in (None, *sheets)]
    return [stage for path in wanted for stage in _stages(path, config, sheets)]


def _files() -> list[Path]:
    return sorted(folder().glob("[0-9]*.toml"))


def _stages(path: Path, config: GPT2Config, sheets: tuple[str, ...]) -> Iterator[Stage]:
    raw = _read(path)
    bands = [band for band in raw["band"] if band.get("optional") in (None, *sheets)]
    for layer in range(config.n_layer if raw.get("each") == "layer" else 1):
        fill = _filler(layer, config)
        yield Stage(
            sheet=fill(raw["sheet"]),
            title=fill(raw["title"]),
            about=fill(raw["about"]),
            bands=tuple(_record(Band, band, fill, path) for band in bands),
            scope=tuple(fill(prefix) for prefix in raw["scope"]),
            slices=tuple(_record(Slice, part, fill, path) for part in raw.get("slice", [])),
            choices=raw.get("choice", {}),
            each=raw.get("each", {}),
            texts=raw.get("text", {}),
            charts=tuple(_record(Chart, chart, fill, path) for chart in raw.get("chart", [])),
            shapes=tuple(_record(Shape, shape, fill, path) for shape in raw.get("shape", [])),
            optional=raw.get("optional", ""),
            switch=raw.get("switch", ""),
            width=raw.get("width", 0),
            columns=tuple(raw.get("columns", [])),
            layer=layer,
        )


def _filler(layer: int, config: GPT2Config) -> Callable[[str], str]:
    """What puts the number of the block, and of the last one, into a template's words."""
    return lambda text: text.replace("{layer}", str(layer)).replace("{last}", str(config.n_layer - 1))


@cache
def weights(config: GPT2Config) -> tuple[Weight, ...]:
    """Every tensor of a checkpoint of this configuration, block by block, in the order of their sheets."""
    path = folder() / "weights.toml"
    found: dict[str, list[Weight]] = {}
    for raw in _read(path)["weight"]:
        for layer in range(config.n_layer if "{layer}" in raw["name"] else 1):
            weight = _record(Weight, raw, _filler(layer, config), path)
            if not (weight.untied and config.tie_word_embeddings):
                found.setdefault(weight.sheet, []).append(weight)
    return tuple(weight for sheet in found.values() for weight in sheet)


def weight_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a checkpoint of this configuration has."""
    return {w.name: tuple(size(d, config) for d in w.shape) for w in weights(config)}


@dataclass(frozen=True)
class Room:
    """What a workbook has rows for, and which optional sheets it has."""

    context: int  # tokens
    max_bytes: int  # of a prompt
    new_tokens: int  # that it can write
    sheets: tuple[str, ...] = ()
    matmul: Matmul = "mmult"  # how matrix products become cells


SLICE = 1024  # tokens of the vocabulary that are scored at a time
BEST = 50  # of a slice are kept, so that top_k can be as large
SAMPLE = 128  # neurons at most, of which a sheet shows how they stand to each other
BYTES_A_TOKEN = 16  # more than all but a few of GPT-2's have


@cache
def numbers(config: GPT2Config, room: Room | None = None) -> dict[str, int]:
    """What stands for a number in a template, beside the keys of config.json."""
    n_slices = math.ceil(config.vocab_size / SLICE)
    slice_size = math.ceil(config.vocab_size / n_slices)
    known = {"d_head": config.d_head, "n_slices": n_slices, "slice_size": slice_size, "n_best": BEST}
    known["sample"] = min(SAMPLE, config.n_inner)
    if room:
        known |= {"context": room.context, "max_bytes": room.max_bytes}
        known |= {"new_tokens": room.new_tokens, "new_bytes": BYTES_A_TOKEN * room.new_tokens}
    return known


ROWS_OF = {"token": "context", "key": "context", "new_token": "new_tokens", "new_byte": "new_bytes"}
STEPS = ("char", "byte", "word", "step")  # what a text of so many bytes has at most
ROWS_OF |= dict.fromkeys(STEPS, "max_bytes")


def size(dimension: Dimension, config: GPT2Config, room: Room | None = None) -> int:
    """How many rows or columns a dimension stands for. Raises TemplateError."""
    if isinstance(dimension, int):
        return dimension
    factor, _, name = dimension.removesuffix("+1").rpartition("*")
    value = numbers(config, room).get(ROWS_OF.get(name, name), getattr(config, name, None))
    if not isinstance(value, int):
        raise TemplateError(f"A template has the dimension {dimension!r}, which no configuration gives.")
    return int(factor or 1) * value + dimension.endswith("+1")


Record = TypeVar("Record", Band, Chart, Shape, Slice, Weight)


def _record(kind: type[Record], raw: dict[str, Any], fill: Callable[[str], str], path: Path) -> Record:
    unknown = set(raw) - {field.name for field in fields(kind)}
    if unknown:
        raise TemplateError(f"{path}: {kind.__name__.lower()} {raw.get('name')} has the unknown key {unknown.pop()!r}.")
    filled = {k: tuple(v) if isinstance(v, list) else fill(v) if isinstance(v, str) else v for k, v in raw.items()}
    return kind(**filled)  # type: ignore[arg-type]  # a wrong type shows when the template is compiled
