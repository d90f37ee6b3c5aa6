"""xlgpt check: calculates a finished workbook from its formulas and holds every band against NumPy."""

import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np

from xlgpt.book import Book, Prompt
from xlgpt.build import peak_memory, silent
from xlgpt.checkpoint import Model, load
from xlgpt.compile import Formula
from xlgpt.engines import NAMES, Engine
from xlgpt.engines.formulas_library import FormulasLibrary
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.errors import BrokenWorkbook, FormulaError, UsageError
from xlgpt.layout import Placed, Range
from xlgpt.report import BandResult, PromptResult, Report, SheetResult
from xlgpt.values import expected, on_sheet
from xlgpt.workbook import Progress
from xlgpt.worksheet import CellError, Cells, Values, overlap, part

TOLERANCE = 1e-6  # absolute, and again relative
LONGEST = 32  # tokens of the longest prompt that is tried unasked
PASSAGE = (
    "The rain had stopped by Monday morning, and the children ran out to see the river. It was higher than before; "
    'two ducks swam where the path had been. "Tomorrow," said the oldest, "we will build a boat." And so they did.'
)


@dataclass(frozen=True)
class _Sheet:
    """A sheet with formulas: its bands, the cells each takes, and the formulas that belong to none."""

    name: str
    bands: tuple[tuple[Placed, Range], ...]
    others: tuple[Range, ...]  # blocks of cells
    formulas: int
    missing: tuple[BandResult, ...]  # bands whose cells are not what they should be, before anything is calculated


def check(
    path: str | Path,
    engine: str = "formulas",
    prompts: tuple[str, ...] = (),
    model: str | None = None,
    chain: bool = False,
    rows: str | int | None = None,
    start_timeout: float = 60,
    progress: Progress = silent,
) -> Report:
    """Calculate a workbook and compare every band with the reference.

    engine: formulas or libreoffice. prompts: what to try; by default the prompt in the file and three more.
    model: a checkpoint that the weights must equal bit for bit. chain: each sheet goes on from what those before it
    calculated, not from the reference. rows: "last" or a number of rows, for a quick look.
    Raises NotAWorkbook, ForeignWorkbook, BrokenWorkbook, PromptTooLong, UsageError, EngineNotFound, EngineFailed.
    """
    start = time.monotonic()
    _refuse(engine, chain, rows)
    book = Book(path)
    chosen = [book.prompt_of(text) for text in prompts] or _usual(book)
    plan = [sheet for name in _stages(book) if (sheet := _planned(book, name)).formulas]
    results: list[PromptResult] = []
    with Checker(book, engine, chain, rows, start_timeout, plan, len(chosen), progress) as checker:
        weights = tuple(_check_weights(book, load(model) if model else None, progress))
        if not any(sheet.problems for sheet in weights if sheet.sheet in book.weights.sheets):
            results = [checker.check(prompt) for prompt in chosen]
    left_out = f"Left out by --rows {rows}: all other rows of tokens; they were given by NumPy." if rows else ""
    return Report(
        Path(path),
        engine,
        weights,
        tuple(results),
        model or "",
        left_out,
        time.monotonic() - start,
        peak_memory(),
        TOLERANCE,
        sum(values is None for name in _stages(book) for values in book.cells(name).saved),
    )


def _stages(book: Book) -> list[str]:
    """The sheets that hold no weights."""
    return [name for name in book.sheets if name not in book.weights.sheets]


def _refuse(engine: str, chain: bool, rows: str | int | None) -> None:
    if engine not in NAMES:
        raise UsageError(f"There is no engine {engine!r}; choose {' or '.join(NAMES)}.")
    if rows is not None and rows != "last" and not (str(rows).isdecimal() and int(rows) > 0):
        raise UsageError(f"--rows {rows}: write last, or a number of rows.")
    if rows is not None and (chain or engine == "libreoffice"):
        raise UsageError("--rows leaves rows out, which only works without --chain and with --engine formulas.")


def _usual(book: Book) -> list[Prompt]:
    """The prompt in the file, and three that differ in length: one token, some, as many as there are rows for."""
    longest = min(book.context, LONGEST)
    texts = [_beginning(book, count) for count in (1, (longest + 1) // 2, longest)]
    found = {prompt.ids: prompt for prompt in [book.prompt, *(book.prompt_of(text) for text in texts)]}
    return [prompt for prompt in found.values() if prompt.ids]


def _beginning(book: Book, count: int) -> str:
    """The longest beginning of the passage that has at most so many tokens."""
    length = 1
    while length < min(len(PASSAGE), book.max_bytes) and len(book.tokenizer.encode(PASSAGE[: length + 1])) <= count:
        length += 1
    return PASSAGE[:length]


def _check_weights(book: Book, model: Model | None, progress: Progress) -> Iterator[SheetResult]:
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
    cells, (row, column) = book.named(name), (int(i) for i in differs[0])
    cell = cells.rows(row, row + 1).columns(column, column + 1).absolute
    return BandResult(name, size, problem=f"{len(differs):,} weights differ from {model.name}, the first at {cell}.")


def _check_facts(book: Book, model: Model) -> Iterator[SheetResult]:
    """The configuration and the vocabulary, against the checkpoint's."""
    facts = zip(vars(model.config), astuple(book.config), astuple(model.config), strict=True)
    bands = [
        BandResult(key, 1, problem="" if ours == theirs else f"It is {ours!r}; in {model.name} it is {theirs!r}.")
        for key, ours, theirs in facts
    ]
    home = book.named("n_layer").sheet
    yield SheetResult(home, tuple(bands), 0, 0.0)
    same = book.tokenizer.tokens == model.tokenizer.tokens and book.tokenizer.merges == model.tokenizer.merges
    problem = "" if same else f"The tokens or the merges are not those of {model.name}."
    yield SheetResult(book.named("vocabulary").sheet, (BandResult("vocabulary", problem=problem),), 0, 0.0)


def _planned(book: Book, name: str) -> _Sheet:
    """What is to be checked on a sheet, and what is wrong with it at first sight."""
    formulas = book.cells(name).formulas
    bands, missing = [], []
    for placed in book.layout.bands.values():
        cells = book.named(placed.band.name)
        if cells.sheet != name:
            continue
        problem = _misplaced(placed, cells) or _uncovered(placed, cells, book.cells(name))
        if problem:
            missing.append(BandResult(placed.band.name, problem=problem))
        if not _misplaced(placed, cells):
            bands.append((placed, cells))
    inside = {
        i
        for _, cells in bands
        for i in book.cells(name).over(cells)
        if overlap(formulas[i].cells, cells) == formulas[i].cells
    }
    others = [formula.cells for i, formula in enumerate(formulas) if i not in inside]
    return _Sheet(name, tuple(bands), tuple(_blocks(others)), len(formulas), tuple(missing))


def _misplaced(placed: Placed, cells: Range) -> str:
    wanted = placed.cells
    if (cells.height, cells.width) == (wanted.height, wanted.width):
        return ""
    return (
        f"Its name stands for {cells.height} × {cells.width} cells; the model needs {wanted.height} × {wanted.width}."
    )


def _uncovered(placed: Placed, cells: Range, there: Cells) -> str:
    """Whether each cell that should hold a formula does."""
    if not placed.band.formula:
        return ""
    covered = ~_filled(placed)
    for i in there.over(cells):
        common = overlap(there.formulas[i].cells, cells)
        if common:
            part(covered, cells, common)[:] = True
    if covered.all():
        return ""
    row, column = (int(i) for i in np.argwhere(~covered)[0])
    cell = cells.rows(row, row + 1).columns(column, column + 1)
    return f"{cell.absolute} holds no formula, so nothing there is calculated."


def _filled(placed: Placed) -> Values:
    """Which cells of a band there are: with a column per key, up to the row's own token; or one fewer each row."""
    tokens, keys = placed.dims[0], placed.dims[-1]
    until = np.arange(tokens) if placed.band.shape[-1] == "key" else np.full(tokens, keys)
    until = keys - 1 - np.arange(tokens) if placed.band.shrinks else until
    there = np.arange(keys) <= until.reshape(-1, *[1] * (len(placed.dims) - 1))
    return np.broadcast_to(there, placed.dims).reshape(placed.cells.height, placed.cells.width)


def _blocks(cells: list[Range]) -> list[Range]:
    """The same cells in fewer blocks: neighbours below each other, then side by side, become one."""
    below: list[Range] = []
    for one in sorted(cells, key=lambda c: (c.column, c.width, c.row)):
        last = below[-1] if below else None
        if last and (last.column, last.width, last.row + last.height) == (one.column, one.width, one.row):
            below[-1] = last.rows(0, last.height + one.height)
        else:
            below.append(one)
    blocks: list[Range] = []
    for one in sorted(below, key=lambda c: (c.row, c.height, c.column)):
        last = blocks[-1] if blocks else None
        if last and (last.row, last.height, last.column + last.width) == (one.row, one.height, one.column):
            blocks[-1] = last.columns(0, last.width + one.width)
        else:
            blocks.append(one)
    return blocks


def expected_cells(values: dict[str, Values], placed: Placed) -> Values | None:
    """What every cell of a band must show: "" where there is no token. None where that is not known."""
    if placed.band.name not in values:
        return (
            None
            if values.get("logits") is not None
            else np.full((placed.cells.height, placed.cells.width), "", dtype=object)
        )
    known = on_sheet(values[placed.band.name], placed)
    cells = np.full((placed.cells.height, placed.cells.width), "", dtype=object)
    cells[: len(known)] = known
    cells[~_filled(placed)] = ""
    cells[np.equal(cells, cells, dtype=object) == False] = ""  # noqa: E712 - NaN: a key that no token has
    return cells


class Checker:
    """Checks one prompt after the other with one engine."""

    def __init__(
        self,
        book: Book,
        engine: str,
        chain: bool,
        rows: str | int | None,
        start_timeout: float,
        plan: list[_Sheet],
        prompts: int,
        progress: Progress,
    ):
        self._book, self._plan, self._progress = book, plan, progress
        self._rows = 1 if rows == "last" else int(rows) if rows else 0
        self._done, self._total = 0, prompts * sum(sheet.formulas for sheet in plan)
        self._library = FormulasLibrary(book, self._tick) if engine == "formulas" else None
        self._chain = chain
        self._engine: Engine = self._library if self._library else LibreOffice(book, start_timeout)

    def __enter__(self) -> "Checker":
        return self

    def __exit__(self, *reason: object) -> None:
        self._engine.close()

    def _tick(self, count: int = 1) -> None:
        self._done = min(self._done + count, self._total)
        if count > 1 or self._done % 50 == 0:
            self._progress("Calculating", self._done, self._total)

    def check(self, prompt: Prompt) -> PromptResult:
        """Every sheet for one prompt."""
        self._progress("Calculating", self._done, self._total)
        values = expected(prompt.text, self._book.model, self._book.context, self._book.max_bytes)
        truth = {placed.band.name: expected_cells(values, placed) for sheet in self._plan for placed, _ in sheet.bands}
        self._engine.calculate(prompt)
        rows = range(max(0, len(prompt.ids) - self._rows), len(prompt.ids)) if self._rows else None
        if self._library and not self._chain:
            self._feed(self._library, truth, rows)
        sheets = [self._check_sheet(sheet, truth, prompt, rows) for sheet in self._order()]
        wanted = str(values["next_token"][0]) if "next_token" in values else ""
        return PromptResult(prompt.text, len(prompt.ids), tuple(sheets), self._next_token(), wanted)

    def _order(self) -> list[_Sheet]:
        """The sheets with bands first, then those that only show what they say."""
        return sorted(self._plan, key=lambda sheet: not sheet.bands)

    def _feed(self, library: FormulasLibrary, truth: dict[str, Values | None], rows: range | None) -> None:
        bands = [(placed, cells) for sheet in self._plan for placed, cells in sheet.bands]
        of_tokens = [cells for placed, cells in bands if placed.band.rows == "token"]

        def left_out(formula: Formula) -> bool:
            if rows is None:
                return False
            band = next((cells for cells in of_tokens if overlap(formula.cells, cells)), None)
            return band is not None and formula.cells.row - band.row not in rows

        given = {cells: known for placed, cells in bands if (known := truth[placed.band.name]) is not None}
        library.feed(given, left_out)

    def _next_token(self) -> str:
        try:
            return str(self._engine.read(self._book.named("next_token"))[0, 0])
        except FormulaError:
            return ""

    def _check_sheet(
        self, sheet: _Sheet, truth: dict[str, Values | None], prompt: Prompt, rows: range | None
    ) -> SheetResult:
        start = time.monotonic()
        saved = self._book.cells(sheet.name) if prompt.ids == self._book.prompt.ids else None
        results = []
        for placed, cells in sheet.bands:
            wanted = truth[placed.band.name]
            if rows is not None and placed.band.rows == "token":
                cells = cells.rows(rows.start, rows.stop)
                wanted = None if wanted is None else wanted[rows.start : rows.stop]
            truths = (None, None) if placed.band.varies else (wanted, saved)
            results.append(self._check_cells(placed.band.name, cells, *truths))
        others = [self._check_cells("", block, None, saved) for block in sheet.others]
        known = {band.name for band in sheet.missing}
        bands = [*sheet.missing, *(band for band in results if band.name not in known), *_as_one(others)]
        if not self._library:
            self._tick(sheet.formulas)
        evaluated = self._library.evaluated.get(sheet.name, 0) if self._library else sheet.formulas
        return SheetResult(sheet.name, tuple(bands), evaluated, time.monotonic() - start)

    def _check_cells(self, name: str, cells: Range, wanted: Values | None, saved: Cells | None) -> BandResult:
        try:
            shown = self._engine.read(cells)
        except (FormulaError, BrokenWorkbook) as e:
            return BandResult(name, cells.height * cells.width, problem=f"It was not evaluated: {e}")
        found = compare(name, cells, shown, shown if wanted is None else wanted)
        return found if found.problem or saved is None else _stale(found, cells, shown, saved) or found


def _stale(found: BandResult, cells: Range, shown: Values, saved: Cells) -> BandResult | None:
    """The same band, where a saved value is not the calculated one."""
    for i in saved.over(cells):
        block, values = saved.formulas[i].cells, saved.saved[i]
        if values is None:  # never calculated, so nothing is claimed
            continue
        common = overlap(block, cells) or block
        stale = compare(found.name, common, part(values, block, common), part(shown, cells, common))
        if stale.problem:
            return replace(found, worst=stale.worst, problem=f"The saved value is stale: {stale.problem}")
    return None


def _as_one(others: list[BandResult]) -> list[BandResult]:
    """All formulas that belong to no band, as one result."""
    if not others:
        return []
    first = next((band for band in others if band.problem), others[0])
    return [BandResult("", sum(band.cells for band in others), worst=first.worst, problem=first.problem)]


def compare(name: str, cells: Range, shown: Values, wanted: Values) -> BandResult:
    """Hold what a block of cells shows against what it must show."""
    ours, theirs = _numbers(shown), _numbers(wanted)
    both = np.isfinite(ours) & np.isfinite(theirs)
    gap = np.where(both, np.abs(np.where(both, ours - theirs, 0)), 0)
    size = np.where(both, np.abs(theirs), 0)
    relative = np.divide(gap, size, out=np.zeros_like(gap), where=size > 0)
    excess = np.where(both, gap - TOLERANCE * size, _unlike(shown, wanted, both))
    row, column = (int(i) for i in np.unravel_index(int(excess.argmax()), excess.shape))
    cell = cells.rows(row, row + 1).columns(column, column + 1).absolute
    problem = ""
    errors = (
        [place for place, value in np.ndenumerate(shown) if isinstance(value, CellError)]
        if shown.dtype == object
        else []
    )
    if errors:
        row, column = errors[0]
        cell = cells.rows(row, row + 1).columns(column, column + 1).absolute
        problem = f"{cell} shows the error {shown[row, column]}."
    elif excess[row, column] > TOLERANCE:
        problem = f"{cell} shows {_said(shown[row, column])}; it must be {_said(wanted[row, column])}."
    return BandResult(
        name, int(excess.size), float(gap.max()), float(relative.max()), cell if both.any() or problem else "", problem
    )


def _numbers(values: Values) -> Values:
    """The numbers among some values; NaN for all else."""
    if values.dtype != object:
        return np.asarray(values, dtype=np.float64)
    flat = [
        float(v) if isinstance(v, int | float | np.number) and not isinstance(v, bool) else np.nan for v in values.flat
    ]
    return np.array(flat, dtype=np.float64).reshape(values.shape)


def _unlike(shown: Values, wanted: Values, both: Values) -> Values:
    """Infinity where at least one of two values is no number and they are not the same."""
    if both.all():
        return np.zeros(both.shape)
    differs = np.asarray(shown, dtype=object) != np.asarray(wanted, dtype=object)
    return np.where(differs & ~both, np.inf, 0.0)


def _said(value: object) -> str:
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return f"{float(value):.9g}"
    return repr(str(value)) if value != "" else "nothing"
