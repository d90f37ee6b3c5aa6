"""What any named cells of a workbook show, for any prompt and with anything else filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlgpt.engines import start
from xlgpt.engines.run import DEFAULTS
from xlgpt.errors import UsageError
from xlgpt.workbook.book import Book
from xlgpt.xlsx.worksheet import Values


def read(
    path: str | Path,
    *names: str,
    prompt: str | None = None,
    settings: Mapping[str, Any] = DEFAULTS,
    engine: str = "libreoffice",
    start_timeout: float = 60,
) -> dict[str, Values]:
    """Calculate a workbook and read bands by name: [rows, columns] of each.

    prompt: by default the one in the file. settings: what to fill in besides, by the name of the range: a value for
    all its cells, or one for each. Raises UsageError where a name is not there, and what `run` raises.
    """
    book = Book(path)
    filled_in = book.settings.changed(settings)
    missing = next((name for name in names if not book.has(name)), None)
    if missing:
        raise UsageError(f"{path} has no cells of the name {missing!r}.")
    calculating = start(engine, book, start_timeout)
    try:
        calculating.calculate(book.prompt if prompt is None else book.prompt_of(prompt), filled_in)
        return {name: calculating.read(book.named(name)) for name in names}
    finally:
        calculating.close()
