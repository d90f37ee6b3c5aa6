"""What a person fills in besides the prompt: the cells of the input bands."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.band import Band
from xlgpt.compiler.layout import Layout, Placed
from xlgpt.compiler.template import numbers
from xlgpt.errors import UsageError
from xlgpt.model.tokenizer import check_text

Cells = NDArray[Any]


@dataclass(frozen=True)
class Settings:
    """The input bands' cells, [rows, columns], by name: a number, a text, or "" where a cell is empty."""

    cells: Mapping[str, Cells]

    def number(self, name: str) -> float:
        """What a formula takes the one cell of a band for, where it wants a number: an empty one counts as 0.

        Raises UsageError.
        """
        value = self.cells[name][0, 0]
        if isinstance(value, str) and value:
            raise UsageError(f"The cell {name} holds the text {value!r}; put a number there.")
        return float(value) if value != "" else 0.0

    def is_number(self, name: str) -> bool:
        """Whether a number stands in the one cell of a band."""
        return isinstance(self.cells[name][0, 0], int | float)

    def is_text(self, name: str) -> bool:
        """Whether a text stands in the one cell of a band, and not an empty one."""
        return not self.is_number(name) and self.cells[name][0, 0] != ""

    def counted(self, name: str) -> float:
        """What N() makes of the one cell of a band: a text counts as 0."""
        return self.number(name) if self.is_number(name) else 0.0

    def text(self, name: str) -> str:
        """What a formula takes the one cell of a band for, where it wants a text."""
        value = self.cells[name][0, 0]
        return f"{value:.10g}" if isinstance(value, int | float) else str(value)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """What N() makes of the cells of a band, [rows, columns]: an empty one or a text counts as 0."""
        cells = self.cells[name]
        return np.array([0.0 if isinstance(cell, str) else cell for cell in cells.flat]).reshape(cells.shape)

    def changed(self, cells: Mapping[str, float | str | Cells]) -> "Settings":
        """With other cells in some bands: by name, a value for all of them or one for each. Raises UsageError."""
        return replace(self, cells={**self.cells, **{name: self._spread(name, value) for name, value in cells.items()}})

    def beyond(self, base: "Settings") -> "Settings":
        """Only the bands in which something else stands than in others of the same bands."""
        return Settings({name: cells for name, cells in self.cells.items() if (cells != base.cells[name]).any()})

    def _spread(self, name: str, value: float | str | Cells) -> Cells:
        """A value for all cells of a band, or one for each."""
        if name not in self.cells:
            close = get_close_matches(name, self.cells, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise UsageError(f"There is no setting {name!r}.{hint} The workbook has {', '.join(self.cells) or 'none'}.")
        array, shape = np.array(value, dtype=object), self.cells[name].shape
        for text in array.flat:
            if isinstance(text, str):
                check_text(text)
        try:
            return np.broadcast_to(array, shape)
        except ValueError as e:
            raise UsageError(
                f"{name} has {shape[0]} × {shape[1]} cells, and values of shape {array.shape} do not fit."
            ) from e


def input_bands(layout: Layout) -> Iterator[Placed]:
    """The bands that a person fills in."""
    return (placed for placed in layout.bands.values() if placed.band.is_input)


def defaults(layout: Layout, is_large: bool) -> Settings:
    """What a new workbook has in them; in a large one, which takes long to calculate, every look inside is off."""
    switches = {sheet.stage.switch for sheet in layout.sheets}
    cells = {}
    for placed in input_bands(layout):
        default = _default(placed.band, layout, switches, is_large)
        cells[placed.band.name] = np.full((placed.cells.height, placed.cells.width), default, dtype=object)
    return Settings(cells)


def _default(band: Band, layout: Layout, switches: set[str], is_large: bool) -> float | str:
    if is_large and band.name in switches:
        return 0
    default = band.large if is_large and band.large is not None else band.default
    if isinstance(default, str) and default.startswith("{"):
        return numbers(layout.config, layout.room)[default[1:-1]]
    return "" if default is None else default
