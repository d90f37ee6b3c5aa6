"""xlgpt check: reads a finished workbook, calculates it from its formulas, and holds every cell against NumPy."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from uuid import uuid4

from xlgpt.engines import FormulasLibrary, Traits, start
from xlgpt.errors import UsageError
from xlgpt.memory import peak_memory, uncollected
from xlgpt.model.checkpoint import load
from xlgpt.model.precision import rounded
from xlgpt.parallel import Workers, check_jobs, kept, that_fit, workers
from xlgpt.progress import Progress, silent
from xlgpt.verify.again import plan_again
from xlgpt.verify.branches import Taken, merged, never_taken
from xlgpt.verify.cases import Case, rows_in_use, unchanged, usual
from xlgpt.verify.check_weights import Given, Source, check_weights, check_what_it_holds, largest_first
from xlgpt.verify.compare import TOLERANCE
from xlgpt.verify.outside import outside
from xlgpt.verify.proofread import Proof, proofread
from xlgpt.verify.report import BandResult, Gap, PromptResult, Report, SheetResult
from xlgpt.verify.sheets_to_check import CheckedSheet, plan_of
from xlgpt.verify.trial import Trial
from xlgpt.workbook.book import KEPT, Book
from xlgpt.workbook.options import paths

IN_PYTHON = "formulas"  # the engine that runs in this process, and so in several
BASE, A_CELL = 900_000_000, 100  # bytes that a process takes of itself, and for each cell of a formula (measured)
MOST = 4_000_000_000  # bytes that they take together, unless told how many there are to be
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
    cluster: str = "",
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
    jobs: how many processes calculate, with the engine formulas; by default one for each core, as far as the memory
    goes. cluster: the address of a Dask scheduler, tcp://…, whose workers calculate instead.
    The report is the same whatever calculates, but for the time and the memory.
    Raises NotAWorkbook, ForeignWorkbook, BrokenWorkbook, PromptTooLong, UsageError, EngineNotFound, EngineFailed, and
    what xlgpt.parallel does.
    """
    began = time.monotonic()
    check_jobs(jobs, cluster)
    if cluster and engine != IN_PYTHON:
        raise UsageError(f"--cluster spreads what is calculated in Python, so it only works with --engine {IN_PYTHON}.")
    book = Book(path)
    book.check_sizes()
    last_rows = _last_rows(engine, rows)
    with peak_memory() as peak, uncollected(), ThreadPoolExecutor(1) as aside, closing(book.weights):
        reading = aside.submit(_sheets, book)  # while LibreOffice starts and loads
        proofreading = aside.submit(proofread, book)  # while others calculate
        with closing(start(engine, book, start_timeout)) as calculating:
            own = [[Case(book.prompt_of(text), book.settings)] for text in prompts]
            traits = calculating.traits
            groups = own or usual(book, not traits.is_open or last_rows is not None, traits.sorts)
            if not traits.is_open:
                groups = [[case for group in groups for case in group]]
            held = rounded(load(model), book.precision, book.notation) if model else None
            source = Source(held.name, held.weights) if held else None
            files = (*book.weights.files(), *(source.weights.files() if source else ()))
            task = _Task(book.path.absolute(), book.weights.folder, source, last_rows, uuid4().hex)
            count = 1 if cluster else _jobs(book, traits, jobs, sum(map(len, groups)))
            with workers("calculated", count, cluster, files) as others:
                about = check_what_it_holds(book, Given(held, steering, sae, paths(adapter))) if held else ()
                weights = (*about, *_weights(task, book, others, progress))
                proof, sheets, tried = NOTHING_READ, list[CheckedSheet](), list[_Tried]()
                if not any(sheet.problems for sheet in weights if sheet.sheet in book.weights.sheets):

                    @cache
                    def here() -> Trial:
                        return Trial(book, calculating, reading.result(), last_rows)

                    tried = _trying(task, book, groups, others, lambda group: _tried(here(), group, aside), progress)
                    sheets = reading.result()
                    proof = proofreading.result()
                calculated_by = str(others)
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
        calculated_by,
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


def _jobs(book: Book, traits: Traits, wanted: int | None, cases: int) -> int:
    """How many processes calculate: unless told, as many as there are cores, and as the memory holds."""
    if not traits.is_open or (wanted is None and _formulas(book) * cases < WORTH_IT):
        return 1
    return wanted or that_fit(_needed(book), MOST)


def _needed(book: Book) -> int:
    """Bytes that a process takes, about: for the weights, where they are few, and for all else."""
    return min(8 * book.model.parameters, KEPT) + A_CELL * _formulas(book) + BASE


@dataclass(frozen=True)
class _Tried:
    """What came of a group of cases, and the branches that were taken."""

    results: tuple[PromptResult, ...]
    taken: Taken


@dataclass(frozen=True)
class _Task:
    """What another process needs to check some of a workbook."""

    path: Path
    folder: Path | None  # of the weights that were read
    source: Source | None
    last_rows: int | None
    check: str  # which check asks: a worker may have served another, of the same path, before the file was changed

    def weights(self, sheet: str) -> SheetResult:
        """Read a sheet of weights there."""
        with uncollected():
            return check_weights(self._there.book, sheet, self.source)

    def tried(self, group: list[Case]) -> _Tried:
        """Try a group there, whose settings are only those that differ from the file's."""
        with uncollected(), ThreadPoolExecutor(1) as aside:
            return _tried(self._there.trial, group, aside)

    @property
    def _there(self) -> "_There":
        return kept(self.check, partial(_There, self))


class _There:
    """The workbook and its engine, each opened once in each process."""

    def __init__(self, task: _Task):
        self.book, self._last_rows = Book(task.path, task.folder), task.last_rows

    @cached_property
    def trial(self) -> Trial:
        """What tries cases."""
        return Trial(self.book, FormulasLibrary(self.book), _sheets(self.book), self._last_rows)


def _weights(task: _Task, book: Book, others: Workers, progress: Progress) -> list[SheetResult]:
    """Every sheet of weights, in the order of the file; few weights are read here and by each process for itself."""
    if not book.weights.are_large:
        return [check_weights(book, name, task.source) for name in book.weights.sheets]
    names = largest_first(book)
    found: dict[str, SheetResult] = {}
    progress("Reading the weights", 0, len(names))
    for number, result in others.shared(task.weights, names, lambda name: check_weights(book, name, task.source)):
        found[names[number]] = result
        progress("Reading the weights", len(found), len(names))
    return [found[name] for name in book.weights.sheets]


def _tried(trial: Trial, group: list[Case], aside: ThreadPoolExecutor) -> _Tried:
    trial.engine.forget()  # so that a group's results are the same in whichever process
    settings = trial.book.settings
    cases = [replace(case, settings=settings.changed(case.settings.cells)) for case in group]
    return _Tried(tuple(trial.results(cases, aside)), trial.engine.taken_branches())


def _little(case: Case, book: Book) -> Case:
    """What another process needs of a case: it has the file, and so all settings but those that differ."""
    return replace(case, settings=case.settings.beyond(book.settings))


def _trying(
    task: _Task,
    book: Book,
    groups: list[list[Case]],
    others: Workers,
    here: Callable[[list[Case]], _Tried],
    progress: Progress,
) -> list[_Tried]:
    """Every group's results, in order; begun with those that take longest."""
    order = sorted(range(len(groups)), key=lambda i: -rows_in_use(groups[i]))
    items = [[_little(case, book) for case in groups[i]] for i in order]
    found: dict[int, _Tried] = {}
    progress("Calculating", 0, len(groups))
    for number, tried in others.shared(task.tried, items, here):
        found[order[number]] = tried
        progress("Calculating", len(found), len(groups))
    return [found[i] for i in range(len(groups))]


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
