"""Engines calculate a workbook. Each is one small module; `check` and `run` know only what stands here."""

from xlgpt.book import Book
from xlgpt.engines.engine import Engine
from xlgpt.engines.formulas_library import FormulasLibrary
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.errors import UsageError

__all__ = ["NAMES", "Engine", "FormulasLibrary", "LibreOffice", "start"]
NAMES = ("formulas", "libreoffice")


def start(name: str, book: Book, start_timeout: float) -> Engine:
    """The engine of that name. Raises UsageError, EngineNotFound, EngineFailed."""
    match name:
        case "formulas":
            return FormulasLibrary(book)
        case "libreoffice":
            return LibreOffice(book, start_timeout)
    raise UsageError(f"There is no engine {name!r}; choose {' or '.join(NAMES)}.")
