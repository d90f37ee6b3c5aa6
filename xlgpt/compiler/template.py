"""The model as data: what stands in templates/. Nothing here or behind it knows GPT-2's arithmetic."""

import math
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from xlgpt.compiler.band import DIMENSIONS, Band, Dimension, Kind, check_place, check_words, reach, wrong
from xlgpt.compiler.patches import Patch, patched
from xlgpt.compiler.records import record
from xlgpt.compiler.references import Slip, Tables
from xlgpt.errors import TemplateError
from xlgpt.model.adapter import MODULES
from xlgpt.model.config import GPT2Config, weight_shapes
from xlgpt.model.sampling import BEST

Matmul = Literal["mmult", "sumproduct"]
Adapted = tuple[tuple[str, int], ...]  # matrices that adapters change, and how many ranks there are for each

KINDS = ("choice", "each", "text", "say")  # of tables of texts that formulas name
TABLES = ("band", "slice", "chart", "shape", "patch", *KINDS)  # of a file, below its head


@dataclass(frozen=True)
class Slice:
    """Some columns of a weight, from one up to another, under a name of their own.

    rows: of a band with rows for a matrix in every block, only those of a block; then there is a name for each.
    """

    name: str
    of: str
    columns: tuple[Dimension, ...] = ()
    rows: Literal["", "layer"] = ""


@dataclass(frozen=True)
class Weight:
    """A tensor of the checkpoint and the sheet that holds it."""

    name: str
    sheet: str
    about: str
    shape: tuple[int, ...] = field(default=(), metadata={"derived": True})


@dataclass(frozen=True)
class Chart:
    """A chart of some bands, each a series.

    at: the band whose right neighbour it is; of several, each stands below the one before, or `beside` it.
    categories: a band, or nothing for the titles of the columns. log: powers of ten upwards.
    """

    title: str
    at: str
    type: Literal["bar", "column", "line"]
    values: tuple[str, ...]
    categories: str = ""
    size: tuple[int, int] = (640, 300)
    log: bool = False
    stacked: bool = False
    beside: bool = False


@dataclass(frozen=True)
class Shape:
    """A box with words in it, or without a kind the words alone; `box`: left, top, width and height in pixels.

    It is placed from the cell under the rows that stay in sight; {n_embd} in its words is that number.
    """

    text: str
    box: tuple[int, int, int, int]
    kind: Kind | Literal["frame", ""] = ""
    font: int = 10


@dataclass(frozen=True)
class Head:
    """What a file says above its bands.

    scope: prefixes of names that may be left out. repeat: a sheet for each. uses: files of `shared` beside it.
    """

    sheet: str
    title: str
    about: str
    scope: tuple[str, ...] = ()
    repeat: Literal["", "layer"] = ""
    forward: bool = False
    uses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One sheet, or with `layer` one of several: of the forward pass, or, with `optional`, of a look inside.

    switch: the input that must not be 0 for its formulas to be calculated. acts: whether it switches a change of the
    model, by a patch that names it; then no formula may wait for the last token.
    file: the template.
    """

    sheet: str
    title: str
    about: str
    bands: tuple[Band, ...]
    scope: tuple[str, ...]
    slices: tuple[Slice, ...]
    tables: Tables
    charts: tuple[Chart, ...] = ()
    shapes: tuple[Shape, ...] = ()
    optional: str = ""
    switch: str = ""
    acts: bool = False
    layer: int | None = None
    file: str = ""


def folder() -> Path:
    """Where the templates are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


@cache
def read(path: Path) -> dict[str, Any]:
    """A TOML file. Raises TemplateError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise TemplateError(f"{path} cannot be read: {e}.") from e


def _listed(path: Path) -> list[str]:
    """The templates that sheets.toml names. Raises TemplateError."""
    listed = read(path).get("sheets")
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise TemplateError(f"{path} needs a list of sheets, each a text such as 'model/tokens'.")
    return listed


@cache
def optional_sheets() -> dict[str, str]:
    """The sheets that a workbook may do without, in the order of their tabs: what --sheets calls each, and its tab."""
    return {view: read(path).get("sheet", "") for path in _files() if (view := _view(path))}


def stages(config: GPT2Config, sheets: tuple[str, ...], adapted: Adapted = ()) -> list[Stage]:
    """Every sheet of the forward pass and those of the optional ones that are wanted. Raises TemplateError."""
    wanted = [path for path in _files() if _view(path) in ("", *sheets)]
    patches = [_patch(raw, path) for path in wanted for raw in read(path).get("patch", [])]
    _check_patches(patches)
    _check_views(wanted)
    return [stage for path in wanted for stage in _stages(path, config, sheets, patches, adapted)]


def _patch(raw: dict[str, str], path: Path) -> Patch:
    return replace(record(Patch, raw, str, path), file=str(path))


def _check_patches(patches: list[Patch]) -> None:
    """Whether each has a band to add to. Raises TemplateError."""
    there = {band.get("name") for path in _files() for band in read(path).get("band", []) if band.get("formula")}
    for patch in patches:
        if patch.band not in there:
            raise TemplateError(
                f"{patch.file}: a patch adds to the formula of the band {patch.band}, which no template has."
            )


def _check_views(paths: list[Path]) -> None:
    """Whether there is every view that a band needs. Raises TemplateError."""
    for path in paths:
        for band in read(path).get("band", []):
            for view in band.get("views", []):
                if view not in optional_sheets():
                    known = ", ".join(optional_sheets())
                    raise TemplateError(
                        f"{path}: the views of {band.get('name')} has {view!r}, which is none of {known}."
                    )


def _with_patches(band: Band, name: str, patches: list[Patch]) -> Band:
    """A band with what is added to it, in the order of the files. name: as its template has it."""
    for patch in patches:
        if patch.band == name:
            about, files = f"{band.about} {patch.about}".rstrip(), (*band.patches, Path(patch.file).name)
            band = replace(band, formula=patched(band.formula, patch), about=about, patches=files)
    return band


def _files() -> list[Path]:
    """The templates, in the order of their tabs."""
    return [folder() / f"{name}.toml" for name in _listed(folder() / "sheets.toml")]


def _view(path: Path) -> str:
    """What --sheets calls the sheet of this template; nothing where it is a stage of the model."""
    return path.stem if path.parent.name == "views" else ""


def _stages(
    path: Path, config: GPT2Config, sheets: tuple[str, ...], patches: list[Patch], adapted: Adapted
) -> Iterator[Stage]:
    raw = read(path)
    head = record(Head, {key: value for key, value in raw.items() if key not in TABLES}, str, path)
    texts, view = tables(path), _view(path)
    scope = head.scope or ((f"{view}.",) if view else ())
    if not raw.get("band"):
        raise TemplateError(f"{path} has no [[band]]; a sheet needs at least one.")
    there = [band for band in raw["band"] if _is_there(band, sheets, adapted)]
    for layer in range(config.n_layer) if head.repeat else [None]:
        fill = _filler(layer)
        fitting = [patch for patch in patches if not patch.needs or fill(patch.needs) in dict(adapted)]
        bands = tuple(_band(band, head, fill, path, texts, fitting) for band in there)
        switch = f"{scope[0]}on" if scope else ""
        yield Stage(
            sheet=fill(head.sheet),
            title=fill(head.title),
            about=fill(head.about),
            bands=bands,
            scope=tuple(map(fill, scope)),
            slices=tuple(record(Slice, part, fill, path) for part in raw.get("slice", [])),
            tables=texts,
            charts=tuple(record(Chart, chart, fill, path) for chart in raw.get("chart", [])),
            shapes=tuple(record(Shape, shape, fill, path) for shape in raw.get("shape", [])),
            optional=view,
            switch=switch if any(band.name == switch for band in bands) else "",
            acts=any(switch in patch["add"] for patch in raw.get("patch", [])),
            layer=layer,
            file=str(path),
        )


def _is_there(band: dict[str, Any], sheets: tuple[str, ...], adapted: Adapted) -> bool:
    """Whether a workbook has the band: with one of its views, and, of ranks, where an adapter has some."""
    if band.get("views") and not set(band["views"]) & set(sheets):
        return False
    rows = str(band["shape"][0]) if band.get("shape") else ""
    return not rows.endswith(RANKS) or ranks(adapted)[rows] > 0


def ranks(adapted: Adapted) -> dict[str, int]:
    """How many ranks there are for each kind of matrix, by the name of the dimension: mlp.c_fc.ranks."""
    return {f"{module}{RANKS}": sum(n for name, n in adapted if name.endswith(f".{module}")) for module in MODULES}


@cache
def tables(path: Path) -> Tables:
    """The texts that a file's formulas may name: its own, and those of the files that it uses. Raises TemplateError."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    files = (path, *_used(path))
    for file in files:
        _check_texts(file)
        for kind, texts in found.items():
            more = read(file).get(kind, {})
            if twice := texts.keys() & more.keys():
                raise TemplateError(f"{path}: [{kind}] has {min(twice)}, which {file}, that it uses, has too.")
            texts.update(more)
    for file in files:
        for key in read(file).get("say", {}):
            if not any(f"{{say.{key}}}" in str(read(other)) for other in files):
                raise TemplateError(f"{file}: [say] has {key}, which no formula of {path.name} names.")
    return Tables(found["choice"], found["each"], found["text"], found["say"])


def _used(path: Path) -> Iterator[Path]:
    """The files of texts that a file uses. Raises TemplateError."""
    folder = path.parent / "shared"
    for name in read(path).get("uses", []):
        file = folder / f"{name}.toml"
        if not file.is_file():
            there = ", ".join(sorted(one.stem for one in folder.glob("*.toml"))) or "none"
            raise TemplateError(f"{path}: the uses {name!r} is no file of {folder}; there is {there}.")
        if unknown := set(read(file)) - set(KINDS):
            raise TemplateError(f"{file} has the unknown key {min(unknown)!r}; it may have {', '.join(KINDS)}.")
        yield file


def _check_texts(path: Path) -> None:
    """Whether the tables of a file hold what they should. Raises TemplateError."""
    choices, every, texts, says = (read(path).get(kind, {}) for kind in KINDS)
    for kind, keyed in (("choice", choices), ("each", every), ("text", {"": texts}), ("say", {"": says})):
        for key, named in keyed.items():
            if not all(isinstance(text, str) for text in named.values()):
                raise TemplateError(f"{path}: [{kind}{key and '.'}{key}] may hold nothing but texts.")
    for key, each in every.items():
        if set(each) != {"text", "of"} or each["of"] not in DIMENSIONS.values():
            known = ", ".join(DIMENSIONS.values())
            raise TemplateError(f"{path}: [each.{key}] needs a text, and of, which is one of {known}; nothing else.")


def _band(
    raw: dict[str, Any], head: Head, fill: Callable[[str], str], path: Path, texts: Tables, patches: list[Patch]
) -> Band:
    """A band with what is added to it, and how far each of its formulas reaches. Raises TemplateError."""
    band = record(Band, {"forward": head.forward} | raw, fill, path)
    formulas = {key: raw[key] for key in ("formula", "first") if isinstance(raw.get(key), str)}
    band = _with_patches(replace(band, **formulas), raw["name"], patches)
    words: set[str] = set()
    for key in formulas:
        try:
            words |= texts.words(getattr(band, key))
            check_words(band, words, bool(head.repeat))
        except Slip as slip:
            raise wrong(str(path), band, key, slip) from slip
    check_place(band, path)
    return replace(band, per=reach(band, words))


def _filler(layer: int | None) -> Callable[[str], str]:
    """What puts the number of the block into a template's words; nothing, where there is none."""
    return str if layer is None else lambda text: text.replace("{layer}", str(layer))


@cache
def weights(config: GPT2Config) -> tuple[Weight, ...]:
    """Every tensor of a checkpoint of this configuration, block by block, in the order of their sheets.

    Raises TemplateError where one has no place.
    """
    path, shapes = folder() / "model" / "weights.toml", weight_shapes(config)
    found: dict[str, list[Weight]] = {}
    for raw in read(path)["weight"]:
        for layer in range(config.n_layer) if "{layer}" in raw["name"] else [None]:
            weight = record(Weight, raw, _filler(layer), path)
            if weight.name in shapes:  # but lm_head.weight, where it is the token embeddings themselves
                found.setdefault(weight.sheet, []).append(replace(weight, shape=shapes.pop(weight.name)))
    if shapes:
        raise TemplateError(f"{path} has no sheet for the tensor {next(iter(shapes))}.")
    return tuple(weight for sheet in found.values() for weight in sheet)


@cache
def forward(config: GPT2Config) -> tuple[Band, ...]:
    """The bands of numbers that the forward pass calculates, in its order."""
    bands = (band for stage in stages(config, ()) for band in stage.bands if band.forward)
    return tuple(band for band in bands if band.formula and band.format != "text")


@dataclass(frozen=True)
class Room:
    """What a workbook has rows for, and which optional sheets it has."""

    context: int  # tokens
    max_bytes: int  # of a prompt
    new_tokens: int  # that it can write
    sheets: tuple[str, ...] = ()
    matmul: Matmul = "mmult"  # how matrix products become cells
    vectors: int = 0  # that it can be steered by
    features: int = 0  # of a sparse autoencoder
    proven: int = 0  # tokens of the prompt that it is built with, whose forward pass the sheet Proof knows
    adapters: int = 0  # to choose from
    adapted: Adapted = ()
    known_prompts: int = 0  # whose answer without an adapter stands in the workbook
    traced: int = 0  # prompts whose causal trace stands in the workbook
    traced_tokens: int = 0  # of the longest of them


SLICE = 1024  # tokens of the vocabulary that are scored at a time
SAMPLE = 128  # neurons at most, of which a sheet shows how they stand to each other
RANKS = ".ranks"  # of a kind of matrix: the rows of what adapters add to those of all blocks
BYTES_A_TOKEN = 16  # more than all but a few of GPT-2's have


@cache
def numbers(config: GPT2Config, room: Room | None = None) -> dict[str, int]:
    """What stands for a number in a template, beside the keys of config.json."""
    n_slices = math.ceil(config.vocab_size / SLICE)
    slice_size = math.ceil(config.vocab_size / n_slices)
    known = {"d_head": config.d_head, "n_slices": n_slices, "slice_size": slice_size, "n_best": BEST}
    known["sample"] = min(SAMPLE, config.n_inner)
    known |= {"last": config.n_layer - 1, "last_head": config.n_head - 1, "last_neuron": config.n_inner - 1}
    known |= {"n_ranges": len(forward(config)), "n_weights": len(weights(config))}
    known["n_parameters"] = sum(math.prod(shape) for shape in weight_shapes(config).values())
    if room:
        known |= {"context": room.context, "max_bytes": room.max_bytes}
        known |= {"new_tokens": room.new_tokens, "new_bytes": BYTES_A_TOKEN * room.new_tokens}
        known |= {"n_vectors": room.vectors, "n_features": room.features, "n_proven": room.proven}
        known |= {"n_adapters": room.adapters, "n_adapted": len(room.adapted), "n_known_prompts": room.known_prompts}
        known |= {"n_traced": room.traced, "n_traced_tokens": room.traced_tokens}
        known["n_traced_map"] = room.traced_tokens * config.n_layer
        known |= ranks(room.adapted)
    return known


ROWS_OF = {"token": "context", "key": "context", "new_token": "new_tokens", "new_byte": "new_bytes"}
STEPS = ("char", "byte", "word", "step", "piece")  # what a text of so many bytes has at most
ROWS_OF |= dict.fromkeys(STEPS, "max_bytes")


def size(dimension: Dimension, config: GPT2Config, room: Room | None = None) -> int:
    """How many rows or columns a dimension stands for. Raises TemplateError."""
    if isinstance(dimension, int):
        return dimension
    if dimension == "widest":
        return max(math.prod(size(d, config, room) for d in band.shape[1:]) for band in forward(config))
    factor, _, name = dimension.removesuffix("+1").rpartition("*")
    value = numbers(config, room).get(ROWS_OF.get(name, name), getattr(config, name, None))
    if not isinstance(value, int):
        raise TemplateError(f"A template has the dimension {dimension!r}, which no configuration gives.")
    return int(factor or 1) * value + dimension.endswith("+1")
