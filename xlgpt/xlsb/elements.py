"""Elements of a part in XML (ECMA-376 18), whose attributes and children are all taken or refused.

What a translation to records does not know must not be lost in silence.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xlgpt.xlsb.fields import Block, Color
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import a1_range

Attributes = Mapping[str, str]
AUTOMATIC = Color(1, 0, 0, 0, 0, 0, 0)
FRONT, BACK = Color(3, 64, 0, 0, 0, 0, 255), Color(3, 65, 0, 255, 255, 255, 255)  # of the system, as Excel has them


def local(element: Any) -> str:
    """An element's name without its name space."""
    return str(element.tag).rpartition("}")[2]


def attributes(element: Any, *known: str) -> Attributes:
    """Its attributes by their names without name spaces. Raises NotImplementedError at one that is not known."""
    given = {str(name).rpartition("}")[2]: str(value) for name, value in element.attrib.items()}
    if unknown := given.keys() - set(known):
        raise NotImplementedError(f"{local(element)} with {', '.join(sorted(unknown))} as records")
    return given


def children(element: Any, *known: str) -> dict[str, Any]:
    """Its children by their names. Raises NotImplementedError at one that is not known."""
    given = {local(child): child for child in element}
    if unknown := given.keys() - set(known):
        raise NotImplementedError(f"{local(element)} with {', '.join(sorted(unknown))} as records")
    return given


def number(given: Attributes, name: str, default: int = 0) -> int:
    """A whole number."""
    return int(given.get(name, default))


def is_on(given: Attributes, name: str, default: bool = False) -> bool:
    """A truth value."""
    return given.get(name, "1" if default else "0") in ("1", "true")


def flags(given: Attributes, bits: Mapping[str, int]) -> int:
    """The bits of those truth values that are on."""
    return sum(bit for name, bit in bits.items() if is_on(given, name))


def color(element: Any) -> Color:
    """A colour: red, green and blue, one of the palette, or the theme's text."""
    given = attributes(element, "rgb", "indexed", "theme")
    if "rgb" in given:
        alpha, red, green, blue = bytes.fromhex(given["rgb"])
        return Color(5, 255, 0, red, green, blue, alpha)
    if given.get("indexed") == "64":
        return FRONT
    if given.get("theme") == "1":
        return Color(7, 1, 0, 0, 0, 0, 255)
    raise NotImplementedError(f"the colour {dict(given)} as a record")


def block(reference: str) -> Block:
    """The cells of a reference such as B2:C3."""
    cells = a1_range("", reference)
    if cells is None:
        raise NotImplementedError(f"the reference {reference} as a record")
    return block_of(cells)


def block_of(cells: Range) -> Block:
    """The same cells by their corners."""
    return Block(cells.row, cells.row + cells.height - 1, cells.column, cells.column + cells.width - 1)


def blocks(references: str) -> tuple[Block, ...]:
    """The cells of references between which there are spaces."""
    return tuple(map(block, references.split()))


def each(element: Any, name: str, make: Callable[[Any], bytes]) -> Iterable[bytes]:
    """What becomes of each child, all of which have that name."""
    children(element, name)
    return map(make, element)
