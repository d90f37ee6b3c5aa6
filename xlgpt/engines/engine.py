"""What an engine is, and which cells a person fills in."""

from typing import Protocol

import numpy as np

from xlgpt.book import Book, Prompt
from xlgpt.layout import Range
from xlgpt.settings import Settings
from xlgpt.worksheet import Values


class Engine(Protocol):
    """Something that calculates the formulas of one workbook."""

    def calculate(self, prompt: Prompt, settings: Settings | None = None) -> None:
        """Set the prompt, and the other cells to fill in (by default as the file has them), and calculate.

        Raises FormulaError, EngineFailed.
        """

    def read(self, cells: Range) -> Values:
        """What the cells show now: [rows, columns]."""

    def close(self) -> None:
        """End whatever was started. May be called twice."""


def inputs(book: Book, prompt: Prompt, settings: Settings | None = None) -> dict[Range, Values]:
    """The cells that a person fills in, and what is to stand there: all else is calculated from them."""
    cells = (settings or book.settings).cells
    filled = {book.named(name): values for name, values in cells.items()}
    return filled | {book.named("prompt"): np.array([[prompt.text]], dtype=object)}
