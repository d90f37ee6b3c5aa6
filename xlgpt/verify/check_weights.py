"""Whether all of a model's weights are in the file, and, where a checkpoint is given, whether they are its own."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.interp import sae
from xlgpt.interp.adapters import adapter_cells, find_adapters
from xlgpt.interp.mean_activations import usual_means
from xlgpt.interp.traces import ToTrace, trace_cells
from xlgpt.interp.tracing import KINDS
from xlgpt.interp.vectors_and_features import Asked, Directions, find_directions
from xlgpt.model.adapter import MODULES, Adapter
from xlgpt.model.checkpoint import Model, Weights
from xlgpt.model.reference import forward, softmax
from xlgpt.verify.report import BandResult, SheetResult
from xlgpt.workbook.book import Book

SAME = 1e-14  # relative: a cell that is no weight has 15 to 17 digits
PLAIN = 1e-3  # the same of a probability, which the cells' decimals and the checkpoint's float32 move a little


@dataclass(frozen=True)
class Given:
    """A checkpoint, and where vectors, an autoencoder and adapters come from, if they are not bundled with it."""

    model: Model
    steering: str | Path | None = None
    sae: str | Path | None = None
    adapters: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Source:
    """Whose weights the cells must hold: little to hand to another process, which reads them itself."""

    name: str
    weights: Weights


def check_what_it_holds(book: Book, given: Given) -> Iterator[SheetResult]:
    """Whether the model's facts, and what else comes from the checkpoint besides its weights, are its own."""
    yield from _check_facts(book, given.model)
    yield from _check_directions(book, given)
    yield from _check_adapters(book, given)
    yield from _check_traces(book, given.model)
    yield from _check_means(book, given.model)


def check_weights(book: Book, sheet: str, source: Source | None) -> SheetResult:
    """A weight sheet: whether all numbers are there, and equal to the checkpoint's."""
    start = time.monotonic()
    bands = tuple(_check_tensor(book, name, source) for name in book.weights.sheets[sheet])
    return SheetResult(sheet, bands, 0, time.monotonic() - start)


def largest_first(book: Book) -> list[str]:
    """The sheets of weights in the order in which they are best read by several."""
    shapes, sheets = book.weights.shapes(), book.weights.sheets
    return sorted(sheets, key=lambda sheet: -sum(math.prod(shapes[name]) for name in sheets[sheet]))


def _check_tensor(book: Book, name: str, source: Source | None) -> BandResult:
    cells = book.weights.cells(name)
    size, hole = cells.size, book.weights.missing(name)
    if hole:
        return BandResult(name, size, problem=f"{hole.absolute} holds no number; the sheet was cut short or changed.")
    if source is None:
        return BandResult(name, size, gap="no --model was named")
    if name not in source.weights.shapes():
        return BandResult(name, size, problem=f"{source.name} has no such tensor.")
    theirs, ours = source.weights.tensor(name), book.weights.tensor(name).astype(np.float32)
    if ours.shape != theirs.shape:
        return BandResult(name, size, problem=f"It has the shape {ours.shape}; in {source.name} it has {theirs.shape}.")
    differs = np.argwhere((ours.view(np.uint32) != theirs.view(np.uint32)).reshape(cells.shape))
    if not len(differs):
        return BandResult(name, size)
    row, column = (int(i) for i in differs[0])
    cell = book.named(name).cell(row, column).absolute
    return BandResult(name, size, problem=f"{len(differs):,} weights differ from {source.name}, the first at {cell}.")


def _check_facts(book: Book, model: Model) -> Iterator[SheetResult]:
    """The configuration, the vocabulary and the merges, against the checkpoint's."""
    facts = zip(vars(model.config), astuple(book.config), astuple(model.config), strict=True)
    bands = [
        BandResult(key, problem="" if ours == theirs else f"It is {ours!r}; in {model.name} it is {theirs!r}.")
        for key, ours, theirs in facts
    ]
    home = book.named("n_layer").sheet
    yield SheetResult(home, tuple(bands), 0, 0.0)
    for name, ours, theirs in (
        ("vocabulary", book.tokenizer.tokens, model.tokenizer.tokens),
        ("merges.key", book.tokenizer.merges, model.tokenizer.merges),
    ):
        problem = "" if ours == theirs else f"They are not those of {model.name}."
        yield SheetResult(book.named(name).sheet, (BandResult(name, len(theirs), problem=problem),), 0, 0.0)


def _check_directions(book: Book, given: Given) -> Iterator[SheetResult]:
    """The vectors of the sheet Steering, and what the sheet Features holds of an autoencoder."""
    cells = book.settings.cells
    has_sae = given.sae is not None or given.model.companions.sae is not None
    features = tuple(int(i) for i in cells["features.number"][:, 0]) if "features.number" in cells and has_sae else ()
    asked = Asked(Path(given.steering) if given.steering else None, Path(given.sae) if given.sae else None, features)
    found = find_directions(given.model, list(book.prompt.ids), asked, book.room.sheets)
    if "steering.names" in cells:
        yield SheetResult(book.named("steering.names").sheet, tuple(_vectors(book, found)), 0, 0.0)
    if "features.number" in cells:
        yield SheetResult(book.named("features.number").sheet, tuple(_autoencoder(book, found)), 0, 0.0)


def _vectors(book: Book, found: Directions) -> Iterator[BandResult]:
    cells, known = book.settings.cells, {vector.name: vector for vector in found.vectors}
    for i, name in enumerate(map(str, cells["steering.names"][:, 0])):
        if name not in known:
            yield BandResult(f"vector {name}", gap="it is no bundled one; name its file with --steering, or --sae")
            continue
        vector = known[name]
        wanted = [*vector.values, vector.block, vector.coefficient]
        ours = [*cells["steering.vectors"][i], cells["steering.blocks"][i, 0], cells["steering.coefficients"][i, 0]]
        yield _held(f"vector {name}", ours, wanted)


def _autoencoder(book: Book, found: Directions) -> Iterator[BandResult]:
    from_file = found.autoencoder
    if from_file is None:
        yield BandResult("the autoencoder", gap="none is bundled with this model; name its folder with --sae")
        return
    for name, wanted in sae.cells(from_file, list(found.features)).items():
        yield _held(name, book.settings.cells[name], wanted)


def _check_adapters(book: Book, given: Given) -> Iterator[SheetResult]:
    """The numbers of the adapters, and what the sheet Adapters says of the plain model."""
    if "adapter.names" not in book.settings.cells:
        return
    known = {adapter.name: adapter for adapter in find_adapters(given.model, given.adapters, book.room.sheets)}
    bands = [_adapter(book, name, known.get(name)) for name in map(str, book.settings.cells["adapter.names"][:, 0])]
    bands.append(_plain_answers(book, given.model))
    yield SheetResult(book.named("adapter.names").sheet, tuple(bands), 0, 0.0)


def _adapter(book: Book, name: str, adapter: Adapter | None) -> BandResult:
    if adapter is None:
        return BandResult(f"adapter {name}", gap="it is no bundled one; name its folder with --adapter")
    wanted = _numbers_of(name, adapter_cells([adapter], book.config.n_layer))
    return _held(f"adapter {name}", _numbers_of(name, book.settings.cells), wanted)


def _numbers_of(adapter: str, cells: Mapping[str, Any]) -> list[Any]:
    """All numbers that some cells hold of an adapter, rank by rank."""
    return [
        number
        for module in MODULES
        for row, of in enumerate(cells.get(f"{module}.of", ()))
        if str(of[0]) == adapter
        for part in ("scaling", "lora_A", "lora_B")
        for number in cells[f"{module}.{part}"][row]
    ]


def _plain_answers(book: Book, model: Model) -> BandResult:
    """How likely the ten most likely tokens are without an adapter, for the prompts that are kept."""
    cells = book.settings.cells
    prompts = [model.tokenizer.encode(str(text)) for text in cells["plain.prompts"][:, 0]]
    logits = [forward(ids, model.weights, model.config)["logits"][-1] for ids in prompts if ids]
    wanted = [np.sort(softmax(found))[:-11:-1] for found in logits]
    ours = [row for row, ids in zip(cells["plain.probabilities"], prompts, strict=True) if ids]
    return _held("plain.probabilities", ours, wanted, PLAIN)


def _check_traces(book: Book, model: Model) -> Iterator[SheetResult]:
    """What came back of the answers, for the prompts that are kept."""
    cells = book.settings.cells
    if "kept.prompts" not in cells:
        return
    rows = zip(cells["kept.prompts"][:, 0], cells["kept.about"][:, 0], strict=True)
    wanted = trace_cells(model, [ToTrace(str(prompt), str(subject)) for prompt, subject in rows])
    bands = [
        _held(name, _likely(cells[name]), _likely(wanted[name]), PLAIN, least=0.01)
        for name in (f"kept.{part}" for part in ("likely", *KINDS))
    ]
    yield SheetResult(book.named("kept.prompts").sheet, tuple(bands), 0, 0.0)


def _likely(cells: NDArray[Any]) -> list[float]:
    """The probabilities in some cells, of which others are empty."""
    return [value for value in cells.flat if not isinstance(value, str)]


def _check_means(book: Book, model: Model) -> Iterator[SheetResult]:
    """What the sheet Circuit puts in place of a part that is ablated."""
    cells = book.settings.cells
    if "circuit.heads" not in cells:
        return
    bands = [_held(name, cells[name], wanted) for name, wanted in usual_means(model).cells().items()]
    if any((cells[name] != 1).any() for name in ("circuit.heads", "circuit.mlps")):
        why = "switches are off, so they may be those that xlgpt circuit took over other prompts"
        bands = [BandResult(band.name, band.cells, gap=why) if band.problem else band for band in bands]
    yield SheetResult(book.named("circuit.heads").sheet, tuple(bands), 0, 0.0)


def _held(name: str, cells: Any, wanted: Any, enough: float = SAME, least: float = 0) -> BandResult:
    """Hold some cells against the numbers that they were made from.

    enough: how near they must be, relatively; numbers below `least` are taken for that large.
    """
    ours = np.array([v if isinstance(v, int | float) else np.nan for v in np.ravel(np.asarray(cells, dtype=object))])
    theirs = np.ravel(np.asarray(wanted)).astype(np.float64)
    if ours.shape != theirs.shape:
        return BandResult(name, ours.size, problem=f"It has {ours.size:,} numbers; it must have {theirs.size:,}.")
    wrong = np.flatnonzero(~(np.abs(ours - theirs) <= enough * np.maximum(np.abs(theirs), least)))
    if not len(wrong):
        return BandResult(name, ours.size)
    i = int(wrong[0])
    first = f"number {i + 1} is {ours[i]:.9g}, not {theirs[i]:.9g}"
    return BandResult(name, ours.size, problem=f"{len(wrong):,} numbers are not those that it was made from: {first}.")
