"""xlgpt run: uses a workbook as a model."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from xlgpt.book import Book
from xlgpt.engines import start
from xlgpt.errors import BrokenWorkbook, UsageError
from xlgpt.worksheet import CellError
from xlgpt.writing import NONE_FITS


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

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *reason: object) -> None:
        self._engine.close()

    def answer(self, text: str | None = None, tokens: int | None = None, **sampling: float) -> Answer:
        """Calculate what comes after a text, or after the prompt in the file.

        tokens: how many to write; sampling: temperature, top_k, top_p and seed. By default what the file says.
        Raises PromptTooLong, UsageError, EngineFailed.
        """
        began = time.monotonic()
        prompt = self._book.prompt if text is None else self._book.prompt_of(text)
        settings = self._book.settings.changed(**sampling)
        if tokens is not None:
            settings = settings.changed(max_new_tokens=tokens)
        self._engine.calculate(prompt, settings)
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
    **sampling: float,
) -> Answer:
    """Calculate what comes after a prompt, in LibreOffice or by the formulas library.

    prompt: by default the one in the file. tokens: how many to write. sampling: temperature, top_k, top_p and seed.
    start_timeout: seconds that LibreOffice may take to start.
    Raises NotAWorkbook, ForeignWorkbook, BrokenWorkbook, PromptTooLong, UsageError, FormulaError, EngineNotFound,
    EngineFailed.
    """
    with Session(path, engine, start_timeout) as session:
        return session.answer(prompt, tokens, **sampling)
