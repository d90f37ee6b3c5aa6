"""Engines calculate a workbook. Each is one small module; `check` and `run` know only what stands here."""

from xlgpt.engines.engine import Engine, Traits
from xlgpt.engines.formulas_library import FormulasLibrary
from xlgpt.engines.ironcalc import IronCalc
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.errors import UsageError
from xlgpt.workbook.book import Book

__all__ = ["NAMES", "Engine", "FormulasLibrary", "IronCalc", "LibreOffice", "Traits", "start"]
NAMES = ("formulas", "libreoffice", "ironcalc")


def start(name: str, book: Book, start_timeout: float) -> Engine:
    """The engine of that name. Raises UsageError, BrokenWorkbook, EngineNotFound, EngineFailed."""
    book.check_sizes()
    match name:
        case "formulas":
            return FormulasLibrary(book)
        case "libreoffice":
            return LibreOffice(book, start_timeout)
        case "ironcalc":
            return IronCalc(book)
    raise UsageError(f"There is no engine {name!r}; choose {' or '.join(NAMES)}.")
