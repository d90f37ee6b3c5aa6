"""What any named cells of a workbook show, for any prompt and with anything else filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlgpt.book import Book
from xlgpt.engines import start
from xlgpt.errors import UsageError
from xlgpt.settings import Settings
from xlgpt.worksheet import Values


def read(
    path: str | Path,
    *names: str,
    prompt: str | None = None,
    cells: Mapping[str, Any] | None = None,
    engine: str = "libreoffice",
    start_timeout: float = 60,
) -> dict[str, Values]:
    """Calculate a workbook and read bands by name: [rows, columns] of each.

    prompt: by default the one in the file. cells: what to fill in besides, by the name of the band: a value for all its
    cells, or one for each. Raises UsageError where a name is not there, and what `run` raises.
    """
    book = Book(path)
    settings = _filled_in(book, cells or {})
    missing = next((name for name in names if not book.has(name)), None)
    if missing:
        raise UsageError(f"{path} has no cells of the name {missing!r}.")
    calculating = start(engine, book, start_timeout)
    try:
        calculating.calculate(book.prompt if prompt is None else book.prompt_of(prompt), settings)
        return {name: calculating.read(book.named(name)) for name in names}
    finally:
        calculating.close()


def _filled_in(book: Book, cells: Mapping[str, Any]) -> Settings:
    """What the file has in the cells to fill in, but for these."""
    settings = book.settings
    unknown = next((name for name in cells if name not in settings.cells), None)
    if unknown:
        known = ", ".join(settings.cells) or "none"
        raise UsageError(f"{book.path} has no cell {unknown!r} to fill in; there are {known}.")
    return settings.changed(**{name.replace(".", "__"): value for name, value in cells.items()})
