"""xlgpt check: calculates a finished workbook from its formulas and holds every band against NumPy."""

import time
from dataclasses import dataclass
from pathlib import Path

from xlgpt.book import Book, Prompt
from xlgpt.build import peak_memory, silent
from xlgpt.check_weights import check_weights
from xlgpt.checkpoint import load
from xlgpt.compare import TOLERANCE, compare, expected_cells, stale
from xlgpt.compile import Formula
from xlgpt.engines import Engine, FormulasLibrary, LibreOffice, start
from xlgpt.errors import BrokenWorkbook, FormulaError, UsageError
from xlgpt.inventory import CheckedSheet, plan_of
from xlgpt.layout import Range
from xlgpt.precision import rounded
from xlgpt.report import BandResult, PromptResult, Report, SheetResult
from xlgpt.settings import Settings
from xlgpt.values import expected
from xlgpt.workbook import Progress
from xlgpt.worksheet import Cells, Values, overlap

WRITTEN = 4  # tokens are written where the text is not what is checked
LONGEST = 16  # tokens of the longest prompt that is tried unasked
PASSAGE = (
    "The rain had stopped by Monday morning, and the children ran out to see the river. It was higher than before; "
    'two ducks swam where the path had been. "Tomorrow," said the oldest, "we will build a boat." And so they did.'
)


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
    model: a checkpoint that the weights must equal bit for bit, or, in a workbook of fewer digits, once it is rounded
    alike. chain: each sheet goes on from what those before it calculated, not from the reference.
    rows: "last" or a number of rows, for a quick look.
    Raises NotAWorkbook, ForeignWorkbook, BrokenWorkbook, PromptTooLong, UsageError, EngineNotFound, EngineFailed.
    """
    began = time.monotonic()
    book = Book(path)
    last_rows = _last_rows(engine, chain, rows)
    results: list[PromptResult] = []
    calculating = start(engine, book, start_timeout)
    try:  # LibreOffice loads the workbook while the next lines read it
        chosen = [Case(book.prompt_of(text), book.settings) for text in prompts] or _usual(book)
        plan = [sheet for name in _stages(book) if (sheet := plan_of(book, name)).formulas]
        weights = tuple(check_weights(book, rounded(load(model), book.precision) if model else None, progress))
        if not any(sheet.problems for sheet in weights if sheet.sheet in book.weights.sheets):
            checker = Checker(book, calculating, chain, last_rows, plan, progress)
            results = [checker.check(case, share=(i, len(chosen))) for i, case in enumerate(chosen)]
    finally:
        calculating.close()
    left_out = f"Left out by --rows {rows}: all other rows of tokens; they were given by NumPy." if rows else ""
    return Report(
        Path(path),
        engine,
        weights,
        tuple(results),
        model or "",
        left_out,
        time.monotonic() - began,
        peak_memory(),
        TOLERANCE,
        sum(values is None for name in _stages(book) for values in book.cells(name).saved),
    )


def _stages(book: Book) -> list[str]:
    """The sheets that hold no weights."""
    return [name for name in book.sheets if name not in book.weights.sheets]


def _last_rows(engine: str, chain: bool, rows: str | int | None) -> int | None:
    """How many of the last rows are to be calculated; None for all."""
    if rows is None:
        return None
    if rows != "last" and not (str(rows).isdecimal() and int(rows) > 0):
        raise UsageError(f"--rows {rows}: write last, or a number of rows.")
    if chain or engine == "libreoffice":
        raise UsageError("--rows leaves rows out, which only works without --chain and with --engine formulas.")
    return 1 if rows == "last" else int(rows)


@dataclass(frozen=True)
class Case:
    """What is calculated and compared: a prompt, and what stands in the other cells that a person fills in."""

    prompt: Prompt
    settings: Settings
    about: str = ""


def _usual(book: Book) -> list[Case]:
    """The prompt in the file as it is, and three others: one token, some, as many as there are rows for.

    With the second of them, dice are thrown and every look inside is switched on; with the first, all are off.
    """
    longest = min(book.context, LONGEST)
    texts = [_beginning(book, count) for count in (1, (longest + 1) // 2, longest)]
    settings = book.settings
    briefly = settings.changed(max_new_tokens=min(WRITTEN, int(settings.number("max_new_tokens"))))
    dice = settings.changed(max_new_tokens=min(WRITTEN, book.new_tokens), temperature=1, top_k=20, top_p=0.9, seed=7)
    switches = {sheet.stage.switch for sheet in book.layout.sheets if sheet.stage.switch}
    off, on = ({name.replace(".", "__"): state for name in switches} for state in (0, 1))
    one, some, many = (book.prompt_of(text) for text in texts)
    cases = [
        Case(book.prompt, settings),
        Case(one, briefly.changed(**off), "with all switched off" if switches else ""),
        Case(some, dice.changed(**on), "with dice, and all switched on" if switches else "with dice"),
        Case(many, briefly),
    ]
    found = {(case.prompt.ids, case.about): case for case in reversed(cases)}
    return [case for case in reversed(found.values()) if case.prompt.ids]


def _beginning(book: Book, count: int) -> str:
    """The longest beginning of the passage that has at most so many tokens."""
    length = 1
    while length < min(len(PASSAGE), book.max_bytes) and len(book.tokenizer.encode(PASSAGE[: length + 1])) <= count:
        length += 1
    return PASSAGE[:length]


class Checker:
    """Checks one prompt after the other with one engine."""

    def __init__(
        self,
        book: Book,
        engine: Engine,
        chain: bool,
        last_rows: int | None,
        plan: list[CheckedSheet],
        progress: Progress,
    ):
        self._book, self._engine, self._plan, self._progress = book, engine, plan, progress
        self._chain, self._last_rows = chain, last_rows
        self._done, self._total = 0, sum(sheet.formulas for sheet in plan)
        self._library = engine if isinstance(engine, FormulasLibrary) else None
        self._office = engine if isinstance(engine, LibreOffice) else None
        if self._library:
            self._library.tick = self._tick

    def _tick(self, count: int = 1) -> None:
        self._done += count
        if count > 1 or self._done % 50 == 0:
            self._progress("Calculating", self._done, self._total)

    def check(self, case: Case, share: tuple[int, int] = (0, 1)) -> PromptResult:
        """Every sheet for one case. share: which of how many it is, for the progress bar."""
        number, prompts = share
        prompt = case.prompt
        formulas = sum(sheet.formulas for sheet in self._plan)
        self._done, self._total = number * formulas, prompts * formulas
        values = expected(prompt.text, self._book.model, self._book.layout, case.settings)
        truth = {placed.band.name: expected_cells(values, placed) for sheet in self._plan for placed, _ in sheet.bands}
        self._engine.calculate(prompt, case.settings)
        tokens = len(prompt.ids)
        rows = None if self._last_rows is None else range(max(0, tokens - self._last_rows), tokens)
        if self._library and not self._chain:
            self._feed(self._library, truth, rows)
        sheets = [self._check_sheet(sheet, truth, case, rows) for sheet in self._order()]
        wanted = {name: str(values[name][0]) for name in ("next_token", "completion") if name in values}
        texts = (self._shown("next_token"), wanted.get("next_token", ""))
        if wanted.get("completion"):
            texts = (self._shown("completion"), wanted["completion"])
        return PromptResult(prompt.text, tokens, tuple(sheets), *texts, case.about)

    def _order(self) -> list[CheckedSheet]:
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

    def _shown(self, name: str) -> str:
        """The text in the one cell of a band."""
        try:
            return str(self._engine.read(self._book.named(name))[0, 0])
        except FormulaError:
            return ""

    def _check_sheet(
        self, sheet: CheckedSheet, truth: dict[str, Values | None], case: Case, rows: range | None
    ) -> SheetResult:
        began = time.monotonic()
        as_saved = case.prompt.ids == self._book.prompt.ids and case.settings is self._book.settings
        saved = self._book.cells(sheet.name) if as_saved else None
        if self._office:
            self._office.read_ahead(sheet.name)
        results = []
        for placed, cells in sheet.bands:
            wanted = truth[placed.band.name]
            if rows is not None and placed.band.rows == "token":
                cells = cells.rows(rows.start, rows.stop)
                wanted = None if wanted is None else wanted[rows.start : rows.stop]
            truths = (None, None) if placed.band.varies else (wanted, saved)
            results.append(self._check_cells(placed.band.name, cells, *truths))
        others = [self._check_cells("", block, None, saved) for block in sheet.others]
        missing = {band.name for band in sheet.missing}
        bands = [*sheet.missing, *(band for band in results if band.name not in missing), *_as_one(others)]
        if not self._library:
            self._tick(sheet.formulas)
        evaluated = self._library.evaluated.get(sheet.name, 0) if self._library else sheet.formulas
        return SheetResult(sheet.name, tuple(bands), evaluated, time.monotonic() - began)

    def _check_cells(self, name: str, cells: Range, wanted: Values | None, saved: Cells | None) -> BandResult:
        try:
            shown = self._engine.read(cells)
        except (FormulaError, BrokenWorkbook) as e:
            return BandResult(name, cells.height * cells.width, problem=f"It was not evaluated: {e}")
        found = compare(name, cells, shown, shown if wanted is None else wanted)
        return found if found.problem or saved is None else stale(found, cells, shown, saved) or found


def _as_one(others: list[BandResult]) -> list[BandResult]:
    """All formulas that belong to no band, as one result."""
    if not others:
        return []
    first = next((band for band in others if band.problem), others[0])
    return [BandResult("", sum(band.cells for band in others), worst=first.worst, problem=first.problem)]
