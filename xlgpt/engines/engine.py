"""What an engine is, and which cells a person fills in."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from xlgpt.compiler.settings import Settings
from xlgpt.workbook.book import Book, Prompt
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import Values

Place = tuple[str, int]  # a formula: its sheet, and its number there


@dataclass(frozen=True)
class Traits:
    """What can be asked of an engine.

    is_open: it runs in any process of ours, calculates as few rows as are wanted, and sees which branches of formulas
    are taken. sorts: it can choose a token among the most likely ones.
    """

    is_open: bool = False
    sorts: bool = True


class Engine(Protocol):
    """Something that calculates the formulas of one workbook."""

    traits: Traits = Traits()

    def calculate(self, prompt: Prompt, settings: Settings | None = None) -> None:
        """Set the prompt, and the other cells to fill in (by default as the file has them), and calculate.

        Raises FormulaError, EngineFailed.
        """

    def read(self, cells: Range) -> Values:
        """What the cells show now: [rows, columns]."""

    def forget(self) -> None:
        """Calculate everything the next time, whatever is known by now."""
        return

    def read_ahead(self, sheet: str) -> None:
        """Get ready to read much of a sheet, until something changes."""
        return

    def calculated(self, sheet: str) -> int | None:
        """How many formulas of a sheet were calculated the last time; None: all."""
        return None

    def taken_branches(self) -> dict[Place, tuple[int, int]]:
        """Of each formula that was calculated: how many branches it has, and those taken so far, a bit each."""
        return {}

    def close(self) -> None:
        """End whatever was started. May be called twice."""


def inputs(book: Book, prompt: Prompt, settings: Settings | None = None) -> dict[Range, Values]:
    """The cells that a person fills in, and what is to stand there: all else is calculated from them."""
    cells = (settings or book.settings).cells
    filled = {book.named(name): values for name, values in cells.items()}
    return filled | {book.named("prompt"): np.array([[prompt.text]], dtype=object)}
