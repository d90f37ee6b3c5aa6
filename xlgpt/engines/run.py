"""xlgpt run: uses a workbook as a model."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.table import Table

from xlgpt.engines import start
from xlgpt.errors import BrokenWorkbook, UsageError
from xlgpt.oracle.generation import NONE_FITS
from xlgpt.oracle.given import as_typed, typed_cells
from xlgpt.workbook.book import Book, Prompt
from xlgpt.xlsx.worksheet import CellError

DEFAULTS: Mapping[str, Any] = {}
NO_PROMPT = Prompt("", ())


@dataclass(frozen=True)
class Candidate:
    """A token that could come next. `token` is its text with spaces made visible, as the workbook shows it."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True)
class Answer:
    """What a workbook says comes after a prompt: the next token, the ten most likely, and what it writes.

    completion: the text of the tokens `written`, none unless they were asked for or the file asks for them.
    seconds: what it took.
    """

    prompt: str
    ids: tuple[int, ...]
    next_token: str
    next_token_id: int
    top: tuple[Candidate, ...]
    completion: str
    written: tuple[int, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)

    def table(self) -> Table:
        """The ten most likely tokens, a line each."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("token")
        table.add_column("probability", justify="right")
        table.add_column("id", justify="right")
        for candidate in self.top:
            table.add_row(candidate.token, f"{candidate.probability:.1%}", str(candidate.id))
        return table


class Session:
    """A workbook that stays loaded: each answer after the first takes only the recalculation."""

    def __init__(self, path: str | Path, engine: str = "libreoffice", start_timeout: float = 60):
        self._book = Book(path)
        self._engine = start(engine, self._book, start_timeout)
        self._in_cell: Prompt | None = None  # what stands in the prompt's cell
        self._before: tuple[int, ...] = ()  # the tokens of the answer before

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *reason: object) -> None:
        self._engine.close()

    def answer(
        self, text: str | None = None, tokens: int | None = None, settings: Mapping[str, Any] = DEFAULTS
    ) -> Answer:
        """Calculate what comes after a text, or after the prompt in the file.

        tokens: how many to write. settings: what to fill in besides, by the name of the range: temperature, top_k,
        top_p, seed, or any other. By default what the file says.
        Raises PromptTooLong, UsageError, EngineFailed.
        """
        began = time.monotonic()
        prompt = self._book.prompt if text is None else self._book.prompt_of(text)
        wanted = {} if tokens is None else {"max_new_tokens": tokens}
        in_cell, typed = self._typed(prompt)
        self._engine.calculate(in_cell, self._book.settings.changed({**typed, **settings, **wanted}))
        for name in ("status", "settings_status"):
            status = str(self._column(name)[0])
            if status != "ok":
                raise UsageError(status)
        columns = (self._column(f"top.{part}") for part in ("token", "id", "probability"))
        top = tuple(Candidate(str(token), int(i), float(share)) for token, i, share in zip(*columns, strict=True))
        token, number = self._column("next_token")[0], self._column("next_token_id")[0]
        written = tuple(int(i) for i in self._column("written.id") if i != "")
        completion = str(self._column("completion")[0])
        if NONE_FITS in self._column("next.id"):
            raise UsageError(str(self._column("generation_status")[0]))
        seconds = time.monotonic() - began
        return Answer(prompt.text, prompt.ids, str(token), int(number), top, completion, written, seconds)

    def _typed(self, prompt: Prompt) -> tuple[Prompt, dict[str, Any]]:
        """What is to stand in the prompt's cell, and in the cells for typed tokens.

        A prompt that begins as the one before is typed token by token where it differs, for then only the rows from
        there on are calculated; another prompt's text makes the program calculate them all.
        """
        before, self._before = self._before, prompt.ids
        if self._in_cell and before[:1] == prompt.ids[:1] and "typed_tokens" in self._book.settings.cells:
            for in_cell in (self._in_cell, NO_PROMPT):
                cells = self._differing(prompt.ids, in_cell.ids)
                if cells is not None:
                    self._in_cell = in_cell
                    return in_cell, {"typed_tokens": cells}
        self._in_cell = prompt
        return prompt, {}

    def _differing(self, ids: tuple[int, ...], there: tuple[int, ...]) -> NDArray[Any] | None:
        """The cells that make some tokens of those that are there; None where no text means one, or some must go."""
        texts: dict[int, str] = {}
        if len(ids) < len(there) or not ids:
            return None
        for row, (i, known) in enumerate(zip_longest(ids, there)):
            if i != known:
                text = as_typed(i, row == 0, self._book.tokenizer)
                if text is None:
                    return None
                texts[row] = text
        return typed_cells(texts, self._book.context)

    def _column(self, name: str) -> list[Any]:
        """What the cells of a name show. Raises BrokenWorkbook where that is an error value."""
        cells = self._book.named(name)
        values: list[Any] = self._engine.read(cells)[:, 0].tolist()
        errors = [value for value in values if isinstance(value, CellError)]
        if errors:
            raise BrokenWorkbook(
                f"{self._book.path}: {name} shows the error {errors[0]}; `xlgpt check` says where it arises."
            )
        return values


def run(
    path: str | Path,
    prompt: str | None = None,
    tokens: int | None = None,
    engine: str = "libreoffice",
    start_timeout: float = 60,
    settings: Mapping[str, Any] = DEFAULTS,
) -> Answer:
    """Calculate what comes after a prompt, in LibreOffice, IronCalc or by the formulas library.

    prompt: by default the one in the file. tokens: how many to write. settings: what to fill in besides, by the name
    of the range: temperature, top_k, top_p, seed, or any other.
    start_timeout: seconds that LibreOffice may take to start.
    Raises NotAWorkbook, ForeignWorkbook, BrokenWorkbook, PromptTooLong, UsageError, FormulaError, EngineNotFound,
    EngineFailed.
    """
    with Session(path, engine, start_timeout) as session:
        return session.answer(prompt, tokens, settings)
