"""xlgpt check: reads a finished workbook, calculates it from its formulas, and holds every cell against NumPy."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from threadpoolctl import threadpool_limits

from xlgpt.engines import FormulasLibrary, Traits, start
from xlgpt.errors import UsageError
from xlgpt.memory import peak_memory, uncollected
from xlgpt.model.checkpoint import load
from xlgpt.model.precision import rounded
from xlgpt.progress import Progress, silent
from xlgpt.verify.again import plan_again
from xlgpt.verify.branches import Taken, merged, never_taken
from xlgpt.verify.cases import Case, unchanged, usual
from xlgpt.verify.check_weights import Given, check_weights
from xlgpt.verify.compare import TOLERANCE
from xlgpt.verify.outside import outside
from xlgpt.verify.proofread import Proof, proofread
from xlgpt.verify.report import BandResult, Gap, PromptResult, Report, SheetResult
from xlgpt.verify.sheets_to_check import CheckedSheet, plan_of
from xlgpt.verify.trial import Trial
from xlgpt.workbook.book import Book
from xlgpt.workbook.options import paths

IN_PYTHON = "formulas"  # the engine that runs in this process, and so in several
WORTH_IT = 4_000_000  # cells to calculate; below, starting a process takes longer than the work

NOTHING_READ = Proof((), (Gap("all formulas", "something is wrong with the weights"),))


def check(
    path: str | Path,
    engine: str = IN_PYTHON,
    prompts: tuple[str, ...] = (),
    model: str | None = None,
    steering: str | Path | None = None,
    sae: str | Path | None = None,
    adapter: str | Path | Sequence[str | Path] = (),
    rows: str | int | None = None,
    allow_changed: bool = False,
    jobs: int | None = None,
    start_timeout: float = 60,
    progress: Progress = silent,
) -> Report:
    """Read every formula of a workbook, calculate it from end to end, and compare every band with the reference.

    engine: formulas, libreoffice or ironcalc. prompts: what to try; by default the prompt in the file, and some that
    fill every row and change every setting. model: a checkpoint that weights, vocabulary, vectors, autoencoder and
    means must equal, or, in a workbook of fewer digits, once it is rounded alike. steering, sae, adapter: where the
    vectors, features and adapters come from, where these are not bundled. rows: "last" or a number of rows, for a
    quick look.
    allow_changed: a cell that is not as the templates make it is listed, and does not fail.
    jobs: how many processes calculate, with the engine formulas; by default one for each core.
    Raises NotAWorkbook, ForeignWorkbook, BrokenWorkbook, PromptTooLong, UsageError, EngineNotFound, EngineFailed.
    """
    began = time.monotonic()
    book = Book(path)
    book.check_sizes()
    last_rows = _last_rows(engine, rows)
    with peak_memory() as peak, uncollected(), ThreadPoolExecutor(1) as aside:
        reading = aside.submit(_sheets, book)  # while LibreOffice starts and loads
        proofreading = aside.submit(proofread, book)  # while others calculate
        with closing(start(engine, book, start_timeout)) as calculating:
            own = [[Case(book.prompt_of(text), book.settings)] for text in prompts]
            traits = calculating.traits
            groups = own or usual(book, not traits.is_open or last_rows is not None, traits.sorts)
            adapters = paths(adapter)
            held = rounded(load(model), book.precision, book.notation) if model else None
            given = Given(held, steering, sae, adapters) if held else None
            weights = tuple(check_weights(book, given, progress))
            proof, sheets, tried = NOTHING_READ, list[CheckedSheet](), list[_Tried]()
            if not any(sheet.problems for sheet in weights if sheet.sheet in book.weights.sheets):
                count = _jobs(traits, jobs, _formulas(book) * sum(map(len, groups)))
                task = _Task(Path(path), last_rows, uuid4().hex)

                def here() -> Trial:
                    return Trial(book, calculating, reading.result(), last_rows)

                tried = list(_shown(_trying(task, groups, count, here, aside), len(groups), progress))
                sheets = reading.result()
                proof = proofreading.result()
    read, changed = _allowed(proof) if allow_changed else (proof.sheets, ())
    results = tuple(result for each in tried for result in each.results)
    gaps = [*_gaps(book, groups, rows, bool(prompts)), *_weight_gaps(weights, bool(model)), *proof.gaps]
    return Report(
        Path(path),
        engine,
        read,
        weights,
        results,
        (*_branch_gaps(book, tried, engine, sheets), *gaps),
        changed,
        model or "",
        time.monotonic() - began,
        peak.bytes,
        TOLERANCE,
        sum(values is None for sheet in sheets for values in book.cells(sheet.name).saved),
    )


def _formulas(book: Book) -> int:
    """How many cells hold formulas in the bands, without reading them."""
    return sum(p.cells.height * p.cells.width for p in book.layout.bands.values() if p.band.formula)


def _sheets(book: Book) -> list[CheckedSheet]:
    """The sheets with formulas."""
    places = outside(plan_again(book))
    names = (name for name in book.sheets if name not in book.weights.sheets)
    return [sheet for name in names if (sheet := plan_of(book, name, places)).formulas]


def _last_rows(engine: str, rows: str | int | None) -> int | None:
    """How many of the last rows are to be calculated; None for all."""
    if rows is None:
        return None
    if rows != "last" and not (str(rows).isdecimal() and int(rows) > 0):
        raise UsageError(f"--rows {rows}: write last, or a number of rows.")
    if engine != IN_PYTHON:
        raise UsageError(f"--rows leaves rows out, which only works with --engine {IN_PYTHON}.")
    return 1 if rows == "last" else int(rows)


def _jobs(traits: Traits, wanted: int | None, formulas: int) -> int:
    """How many processes calculate."""
    if wanted is not None and wanted < 1:
        raise UsageError(f"--jobs {wanted}: give at least 1.")
    if not traits.is_open or (wanted is None and formulas < WORTH_IT):
        return 1
    return wanted or os.cpu_count() or 1


@dataclass(frozen=True)
class _Tried:
    """What came of a group of cases, and the branches that were taken."""

    results: tuple[PromptResult, ...]
    taken: Taken


@dataclass(frozen=True)
class _Task:
    """What another process needs to try a group of cases."""

    path: Path
    last_rows: int | None
    check: str  # which check asks: a process may have served another, of the same path, before the file was changed

    def tried(self, group: list[Case]) -> _Tried:
        """Try a group there."""
        with uncollected(), ThreadPoolExecutor(1) as aside:
            return _tried(_prepared(self), group, aside)


@lru_cache(maxsize=1)
def _prepared(task: _Task) -> Trial:
    """The workbook and its engine, read once in each process."""
    book = Book(task.path)
    return Trial(book, FormulasLibrary(book), _sheets(book), task.last_rows)


def _tried(trial: Trial, group: list[Case], aside: ThreadPoolExecutor) -> _Tried:
    trial.engine.forget()  # so that a group's results are the same in whichever process
    return _Tried(tuple(trial.results(group, aside)), trial.engine.taken_branches())


def _trying(
    task: _Task, groups: list[list[Case]], jobs: int, here: Callable[[], Trial], aside: ThreadPoolExecutor
) -> Iterator[_Tried]:
    """Every group's results, in order: the last by this process, where others take those before it."""
    if jobs == 1 or len(groups) == 1:
        trial = here()
        yield from (_tried(trial, group, aside) for group in groups)
        return
    parallel = Parallel(n_jobs=jobs, return_as="generator")
    away = parallel(delayed(task.tried)(group) for group in groups[:-1])  # they begin at once
    try:
        with threadpool_limits(1):  # as joblib has it in the others: NumPy's threads would wait for each other
            last = _tried(here(), groups[-1], aside)
        yield from away
        yield last
    finally:  # they would stay for minutes, and keep what they hold
        get_reusable_executor(reuse=True).shutdown(kill_workers=True)


def _shown(trying: Iterator[_Tried], total: int, progress: Progress) -> Iterator[_Tried]:
    progress("Calculating", 0, total)
    for i, tried in enumerate(trying, 1):
        progress("Calculating", i, total)
        yield tried


def _allowed(proof: Proof) -> tuple[tuple[SheetResult, ...], tuple[str, ...]]:
    """What was read with its differences taken for wanted, and the list of these."""
    changed = tuple(band.problem for sheet in proof.sheets for band in sheet.problems)
    return tuple(replace(sheet, bands=_without_problems(sheet.bands)) for sheet in proof.sheets), changed


def _without_problems(bands: tuple[BandResult, ...]) -> tuple[BandResult, ...]:
    return tuple(band for band in bands if not band.problem)


def _weight_gaps(weights: tuple[SheetResult, ...], has_model: bool) -> Iterator[Gap]:
    """What was held against no checkpoint."""
    if not has_model:
        yield Gap("whose the weights, the vocabulary, the vectors and the means are", "no --model was named")
        return
    yield from (Gap(band.name, band.gap) for sheet in weights for band in sheet.bands if band.gap)


def _gaps(book: Book, groups: list[list[Case]], rows: str | int | None, has_prompts: bool) -> Iterator[Gap]:
    """What was left out by what was asked for."""
    if rows:
        yield Gap("all other rows of tokens", f"--rows {rows}; they were given by NumPy")
    same = unchanged(book, [case for group in groups for case in group])
    if same:
        why = "with --prompt the file's settings are kept" if has_prompts else "no other choice was tried"
        names = ", ".join(same) if len(same) <= 3 else f"{len(same)} settings"
        yield Gap(f"{names}, other than as in the file", why, tuple(same))


def _branch_gaps(book: Book, tried: list[_Tried], engine: str, sheets: list[CheckedSheet]) -> Iterator[Gap]:
    if engine != IN_PYTHON:
        yield Gap("which branches of formulas were taken", f"only --engine {IN_PYTHON} sees them, and tries more")
        return
    if not tried:
        return
    found = never_taken(merged(each.taken for each in tried), book, sheets)
    if found.missing:
        yield Gap(
            f"{found.missing:,} of {found.count:,} branches in cells, and {len(found.nowhere):,} of them in no row",
            "no prompt and no setting that was tried took them",
            found.nowhere,
        )
