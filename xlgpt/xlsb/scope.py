"""What a formula's tokens depend on: where it stands, and the sheets and names that they have by number."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property


class Kind(Enum):
    """Where a formula stands: by it go the classes of its tokens, and how it writes cells that move with it."""

    CELL = "cell"
    ARRAY = "array"
    SHARED = "shared"
    NAME = "name"
    VALIDATION = "validation"
    LIST = "list"  # the cells that a validation offers
    CONDITION = "condition"

    @property
    def relative(self) -> bool:
        """Whether cells without $ are written by their distance from the formula's own."""
        return self in (Kind.SHARED, Kind.VALIDATION, Kind.LIST, Kind.CONDITION)


@dataclass(frozen=True)
class Scope:
    """What formulas of a workbook refer to by number.

    sheets: the references to sheets (BrtExternSheet) in their order: a sheet's name, or First:Last; None where it is
        of another workbook, or gone.
    names: the defined names (BrtName) in their order, each with the sheet that it is of, if it is of one.
    """

    sheets: tuple[str | None, ...] = ()
    names: tuple[tuple[str, str | None], ...] = ()

    @cached_property
    def sheet_numbers(self) -> Mapping[str, int]:
        """The number of the first reference to each sheet, from 0; in lower case, as Excel does not tell them apart."""
        return {sheet.lower(): i for i, sheet in reversed(list(enumerate(self.sheets))) if sheet}

    @cached_property
    def name_numbers(self) -> Mapping[tuple[str, str | None], int]:
        """The number of each name, from 1, in lower case."""
        return {(name.lower(), sheet and sheet.lower()): i for i, (name, sheet) in enumerate(self.names, 1)}
