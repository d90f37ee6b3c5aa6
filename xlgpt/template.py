"""The model as data: what stands in templates/*.toml. Nothing here or behind it knows GPT-2's arithmetic."""

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from xlgpt.config import GPT2Config
from xlgpt.errors import TemplateError

Dimension = str | int
Kind = Literal["activation", "input", "answer"]


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
    per: Literal["row", "head", "cell", "band", "slice", "column", "filled"] = "row"
    table: str = ""
    column: str = ""
    beside: bool = False
    shrinks: bool = False
    apart: bool = False
    varies: bool = False
    format: Literal["number", "whole", "id", "text", "share"] = "number"
    kind: Kind = "activation"
    array: bool = False
    scale: bool = False
    guard: bool = True

    @property
    def rows(self) -> Dimension:
        """What the band has a row for."""
        return self.shape[0]

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
class Stage:
    """One sheet, or with `layer` one of several, of the forward pass."""

    sheet: str
    title: str
    about: str
    bands: tuple[Band, ...]
    scope: tuple[str, ...]
    slices: tuple[Slice, ...]
    choices: dict[str, dict[str, str]]
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


def stages(config: GPT2Config) -> list[Stage]:
    """Every sheet of the forward pass, in order. Raises TemplateError."""
    return [stage for path in sorted(folder().glob("[0-9]*.toml")) for stage in _stages(path, config)]


def _stages(path: Path, config: GPT2Config) -> Iterator[Stage]:
    raw = _read(path)
    for layer in range(config.n_layer if raw.get("each") == "layer" else 1):
        fill = _filler(layer, config)
        yield Stage(
            sheet=fill(raw["sheet"]),
            title=fill(raw["title"]),
            about=fill(raw["about"]),
            bands=tuple(_record(Band, band, fill, path) for band in raw["band"]),
            scope=tuple(fill(prefix) for prefix in raw["scope"]),
            slices=tuple(_record(Slice, part, fill, path) for part in raw.get("slice", [])),
            choices=raw.get("choice", {}),
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


OF_BYTES = ("char", "byte", "word", "step")  # what a text of so many bytes has at most


def size(dimension: Dimension, config: GPT2Config, context: int = 0, max_bytes: int = 0) -> int:
    """How many rows or columns a dimension stands for. Raises TemplateError."""
    if isinstance(dimension, int):
        return dimension
    factor, _, name = dimension.rpartition("*")
    known = {"token": context, "key": context, "d_head": config.d_head} | dict.fromkeys(OF_BYTES, max_bytes)
    value = known.get(name, getattr(config, name, None))
    if not isinstance(value, int):
        raise TemplateError(f"A template has the dimension {dimension!r}, which no configuration gives.")
    return int(factor or 1) * value


Record = TypeVar("Record", Band, Slice, Weight)


def _record(kind: type[Record], raw: dict[str, Any], fill: Callable[[str], str], path: Path) -> Record:
    unknown = set(raw) - {field.name for field in fields(kind)}
    if unknown:
        raise TemplateError(f"{path}: {kind.__name__.lower()} {raw.get('name')} has the unknown key {unknown.pop()!r}.")
    filled = {k: tuple(v) if isinstance(v, list) else fill(v) if isinstance(v, str) else v for k, v in raw.items()}
    return kind(**filled)  # type: ignore[arg-type]  # a wrong type shows when the template is compiled
