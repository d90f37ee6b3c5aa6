"""A record's payload as the fields of a dataclass: read from bytes, and written as the same bytes."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, NamedTuple, Self

from xlgpt.errors import NotAWorkbook
from xlgpt.xlsb.records import record
from xlgpt.xlsb.tokens import Compiled


class Form(NamedTuple):
    """How a field stands in a payload: read at a place, it says where the next begins."""

    read: Callable[[bytes, int], tuple[Any, int]]
    write: Callable[[Any], bytes]


class Block(NamedTuple):
    """Cells from corner to corner (UncheckedRfX, [MS-XLSB] 2.5.153). Rows and columns count from 0."""

    first_row: int
    last_row: int
    first_column: int
    last_column: int


class Color(NamedTuple):
    """BrtColor ([MS-XLSB] 2.4.325): `kind` is 2 × type + 1 where red to alpha are valid.

    The types: 0 automatic, 1 that number of the palette, 2 red, green, blue and alpha, 3 that number of the theme.
    """

    kind: int
    number: int
    tint: int
    red: int
    green: int
    blue: int
    alpha: int


def struct_form(form: str, make: Callable[..., Any] | None = None) -> Form:
    """Numbers as `struct` has them; several make a tuple, or what `make` makes of them."""
    packed = struct.Struct("<" + form)
    several = len(packed.unpack(bytes(packed.size))) > 1

    def read(payload: bytes, at: int) -> tuple[Any, int]:
        values = packed.unpack_from(payload, at)
        return (make(*values) if make else values if several else values[0]), at + packed.size

    return Form(read, (lambda value: packed.pack(*value)) if several else packed.pack)


def counted(form: str, make: Callable[..., Any]) -> Form:
    """How many there are (4 bytes), and each."""
    one = struct_form(form, make)

    def read(payload: bytes, at: int) -> tuple[tuple[Any, ...], int]:
        (count,) = struct.unpack_from("<I", payload, at)
        values, at = [], at + 4
        for _ in range(count):
            value, at = one.read(payload, at)
            values.append(value)
        return tuple(values), at

    return Form(read, lambda values: struct.pack("<I", len(values)) + b"".join(map(one.write, values)))


def _read_text(payload: bytes, at: int) -> tuple[str | None, int]:
    (length,) = struct.unpack_from("<I", payload, at)
    if length == 0xFFFFFFFF:
        return None, at + 4
    end = at + 4 + 2 * length
    if end > len(payload):
        raise struct.error("a text is cut off")
    return payload[at + 4 : end].decode("utf-16-le", "surrogatepass"), end


def _write_text(text: str | None) -> bytes:
    if text is None:
        return b"\xff\xff\xff\xff"
    data = text.encode("utf-16-le", "surrogatepass")
    return struct.pack("<I", len(data) // 2) + data


def _read_formula(payload: bytes, at: int) -> tuple[Compiled, int]:
    parts = []
    for _ in range(2):
        (length,) = struct.unpack_from("<I", payload, at)
        parts.append(payload[at + 4 : at + 4 + length])
        at += 4 + length
    if at > len(payload):
        raise struct.error("a formula is cut off")
    return Compiled(*parts), at


def _write_formula(formula: Compiled) -> bytes:
    tokens, extra = formula
    return struct.pack("<I", len(tokens)) + tokens + struct.pack("<I", len(extra)) + extra


def _all_texts(payload: bytes, at: int) -> tuple[tuple[str | None, ...], int]:
    texts = []
    while at < len(payload):
        text, at = _read_text(payload, at)
        texts.append(text)
    return tuple(texts), at


BYTE, SHORT, INT, DOUBLE = struct_form("B"), struct_form("H"), struct_form("I"), struct_form("d")
SIGNED, THREE_BYTES = struct_form("i"), struct_form("3s")
SIGNED_SHORT = struct_form("h")
BLOCK, BLOCKS, COLOR = struct_form("4I", Block), counted("4I", Block), struct_form("BBh4B", Color)
TEXT = Form(_read_text, _write_text)  # XLWideString, XLNullableWideString ([MS-XLSB] 2.5.168, 2.5.166): None is no text
TEXTS = Form(_all_texts, lambda texts: b"".join(map(_write_text, texts)))  # up to the end of the record
FORMULA = Form(_read_formula, _write_formula)
REST = Form(lambda payload, at: (payload[at:], len(payload)), bytes)


def item(form: Form) -> Any:
    """A field in this form."""
    return field(metadata={"form": form})


@cache
def _writers(kind: type["Record"]) -> list[tuple[str, Callable[[Any], bytes]]]:
    return [(each.name, each.metadata["form"].write) for each in fields(kind)]


@dataclass(frozen=True)
class Record:
    """A record with fields in their order. `identity`: its number."""

    identity: ClassVar[int]

    @classmethod
    def read(cls, payload: bytes) -> Self:
        """Its fields. Raises NotAWorkbook where they do not fill the payload exactly."""
        values, at = [], 0
        try:
            for each in fields(cls):
                value, at = each.metadata["form"].read(payload, at)
                values.append(value)
        except (struct.error, UnicodeDecodeError) as e:
            raise NotAWorkbook(f"A record {cls.__name__} is cut off: the file is damaged.") from e
        if at != len(payload):
            raise NotAWorkbook(f"A record {cls.__name__} has {len(payload) - at} bytes that xlgpt does not know.")
        return cls(*values)

    def payload(self) -> bytes:
        """Its bytes."""
        writers = _writers(type(self))  # type: ignore[arg-type]  # mypy takes the class's hash for its instances'
        return b"".join([write(getattr(self, name)) for name, write in writers])

    def record(self) -> bytes:
        """It as it stands in a part."""
        return record(self.identity, self.payload())
