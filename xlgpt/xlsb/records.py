"""Records: each an id of one or two bytes, a size of seven bits a byte, and a payload ([MS-XLSB] 2.1.4)."""

from collections.abc import Iterator
from functools import cache

from xlgpt.errors import NotAWorkbook

MAX_SIZE_BYTES = 4


def read_records(part: bytes) -> Iterator[tuple[int, bytes]]:
    """The records of a part, each its id and its payload. Raises NotAWorkbook where the part ends inside one."""
    place = 0
    while place < len(part):
        identity, payload, place = read_record(part, place)
        yield identity, payload


def read_record(part: bytes, place: int) -> tuple[int, bytes, int]:
    """A record's number and its payload, and where it ends. Raises NotAWorkbook where the part ends inside it."""
    identity, size, start = head(part, place)
    end = start + size
    if end > len(part):
        raise NotAWorkbook(f"A part of the workbook ends inside a record of {size} bytes: the file is damaged.")
    return identity, part[start:end], end


def head(part: bytes, place: int) -> tuple[int, int, int]:
    """A record's number, its size, and where its payload begins. Raises NotAWorkbook where the head is cut off."""
    identity, place = _seven_bits(part, place, 2)
    return identity, *_seven_bits(part, place, MAX_SIZE_BYTES)


def record(identity: int, payload: bytes = b"") -> bytes:
    """A record as it stands in a part."""
    return record_head(identity, len(payload)) + payload


@cache
def record_head(identity: int, size: int) -> bytes:
    """A record's number, and the size of its payload."""
    id_bytes = bytes([identity]) if identity < 128 else bytes([identity & 127 | 128, identity >> 7])
    size_bytes = bytearray()
    while size > 127:
        size_bytes.append(size & 127 | 128)
        size >>= 7
    return id_bytes + size_bytes + bytes([size])


def _seven_bits(part: bytes, place: int, most: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    number = 0
    for shift in range(0, 7 * most, 7):
        if place == len(part):
            raise NotAWorkbook("A part of the workbook ends inside the head of a record: the file is damaged.")
        byte = part[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            break
    return number, place
