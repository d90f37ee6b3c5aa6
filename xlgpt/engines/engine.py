"""What an engine is, and which cells a prompt sets."""

from typing import Protocol

import numpy as np

from xlgpt.book import Book, Prompt
from xlgpt.layout import Range
from xlgpt.worksheet import Values


class Engine(Protocol):
    """Something that calculates the formulas of one workbook."""

    def calculate(self, prompt: Prompt) -> None:
        """Set the prompt and calculate all that depends on it. Raises FormulaError, EngineFailed."""

    def read(self, cells: Range) -> Values:
        """What the cells show now: [rows, columns]."""

    def close(self) -> None:
        """End whatever was started. May be called twice."""


def inputs(book: Book, prompt: Prompt) -> dict[Range, Values]:
    """The cells that a prompt sets: all else is calculated from it."""
    return {book.named("prompt"): np.array([[prompt.text]], dtype=object)}
