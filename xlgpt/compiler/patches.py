"""What a sheet that looks inside changes in the model: each patch adds to the formula of a band of another file."""

import re
from dataclasses import dataclass, field

HIDDEN = re.compile(r'"[^"]*"|\{[^{}]*\}|\([^()]*\)')  # what a sign may stand in and not be the formula's own
OPERATORS = re.compile(r"[-+&=<>]")  # those that bind less than * and /


@dataclass(frozen=True)
class Patch:
    """What is put behind a band's formula, and the sentence behind the one about it.

    needs: the matrix that an adapter must change, in the band's own block; nothing where it is always there.
    """

    band: str
    add: str
    about: str = ""
    needs: str = ""
    file: str = field(default="", metadata={"derived": True})


def patched(formula: str, patch: Patch) -> str:
    """The formula with what is added; a sum that is multiplied stands in parentheses."""
    multiplied = patch.add.startswith(("*", "/", "^"))
    return f"({formula}){patch.add}" if multiplied and _is_sum(formula) else formula + patch.add


def _is_sum(formula: str) -> bool:
    """Whether an operator that binds less than * stands outside of all parentheses; unknown texts may hold one."""
    if "{choice." in formula or "{text." in formula:
        return True
    while (shorter := HIDDEN.sub("", formula)) != formula:
        formula = shorter
    return OPERATORS.search(formula) is not None
