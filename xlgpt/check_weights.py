"""Whether all of a model's weights are in the file, and, where a checkpoint is given, whether they are its own."""

import time
from collections.abc import Iterator
from dataclasses import astuple

import numpy as np

from xlgpt.book import Book
from xlgpt.checkpoint import Model
from xlgpt.report import BandResult, SheetResult
from xlgpt.workbook import Progress


def check_weights(book: Book, model: Model | None, progress: Progress) -> Iterator[SheetResult]:
    """Every weight sheet: whether all numbers are there, and equal to the checkpoint's."""
    if model:
        yield from _check_facts(book, model)
    total = len(book.weights.shapes())
    done = 0
    for sheet, names in book.weights.sheets.items():
        start = time.monotonic()
        bands = []
        for name in names:
            progress("Reading the weights", done, total)
            bands.append(_check_tensor(book, name, model))
            done += 1
        yield SheetResult(sheet, tuple(bands), 0, time.monotonic() - start)
    progress("Reading the weights", total, total)


def _check_tensor(book: Book, name: str, model: Model | None) -> BandResult:
    size, gap = book.weights.cells(name).size, book.weights.missing(name)
    if gap:
        return BandResult(name, size, problem=f"{gap.absolute} holds no number; the sheet was cut short or changed.")
    if model is None or name not in model.weights.shapes():
        return BandResult(name, size, problem=f"{model.name} has no such tensor." if model else "")
    theirs, ours = model.weights.tensor(name), book.weights.tensor(name).astype(np.float32)
    if ours.shape != theirs.shape:
        return BandResult(name, size, problem=f"It has the shape {ours.shape}; in {model.name} it has {theirs.shape}.")
    differs = np.argwhere((ours.view(np.uint32) != theirs.view(np.uint32)).reshape(book.weights.cells(name).shape))
    if not len(differs):
        return BandResult(name, size)
    row, column = (int(i) for i in differs[0])
    cell = book.named(name).cell(row, column).absolute
    return BandResult(name, size, problem=f"{len(differs):,} weights differ from {model.name}, the first at {cell}.")


def _check_facts(book: Book, model: Model) -> Iterator[SheetResult]:
    """The configuration and the vocabulary, against the checkpoint's."""
    facts = zip(vars(model.config), astuple(book.config), astuple(model.config), strict=True)
    bands = [
        BandResult(key, problem="" if ours == theirs else f"It is {ours!r}; in {model.name} it is {theirs!r}.")
        for key, ours, theirs in facts
    ]
    home = book.named("n_layer").sheet
    yield SheetResult(home, tuple(bands), 0, 0.0)
    same = book.tokenizer.tokens == model.tokenizer.tokens and book.tokenizer.merges == model.tokenizer.merges
    problem = "" if same else f"The tokens or the merges are not those of {model.name}."
    yield SheetResult(book.named("vocabulary").sheet, (BandResult("vocabulary", problem=problem),), 0, 0.0)
