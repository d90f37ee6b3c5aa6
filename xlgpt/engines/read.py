"""What any named cells of a workbook show, for any prompt and with anything else filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlgpt.engines import Engine, start
from xlgpt.engines.run import DEFAULTS
from xlgpt.errors import UsageError
from xlgpt.workbook.book import Book
from xlgpt.xlsx.worksheet import Values


class OpenWorkbook:
    """A workbook that stands open in an engine, to be read again and again: only what changed is calculated anew.

    The engine starts when something is read. Raises NotAWorkbook, ForeignWorkbook, BrokenWorkbook.
    """

    def __init__(self, path: str | Path, engine: str = "libreoffice", start_timeout: float = 60):
        self._book = Book(path)
        self._name, self._start_timeout = engine, start_timeout
        self._engine: Engine | None = None

    def read(self, *names: str, prompt: str | None = None, settings: Mapping[str, Any] = DEFAULTS) -> dict[str, Values]:
        """Read bands by name: [rows, columns] of each.

        prompt: by default the one in the file. settings: what to fill in besides, by the name of the range: a value for
        all its cells, or one for each; all others are as in the file. Raises UsageError where a name is not there,
        EngineNotFound, and what `run` raises.
        """
        book = self._book
        filled_in = book.settings.changed(settings)
        missing = next((name for name in names if not book.has(name)), None)
        if missing:
            raise UsageError(f"{book.path} has no cells of the name {missing!r}.")
        self._engine = engine = self._engine or start(self._name, book, self._start_timeout)
        engine.calculate(book.prompt if prompt is None else book.prompt_of(prompt), filled_in)
        return {name: engine.read(book.named(name)) for name in names}

    def close(self) -> None:
        """End the engine."""
        if self._engine:
            self._engine.close()

    def __enter__(self) -> "OpenWorkbook":
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()


def read(
    path: str | Path,
    *names: str,
    prompt: str | None = None,
    settings: Mapping[str, Any] = DEFAULTS,
    engine: str = "libreoffice",
    start_timeout: float = 60,
) -> dict[str, Values]:
    """Open a workbook and read it once: see OpenWorkbook."""
    with OpenWorkbook(path, engine, start_timeout) as book:
        return book.read(*names, prompt=prompt, settings=settings)
