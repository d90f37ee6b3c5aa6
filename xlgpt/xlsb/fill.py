"""Parts of an .xlsb with other values in some cells, or calculated when they are opened; all else as it is."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from xlgpt.xlsb.cells import Real, RowHeader, Text
from xlgpt.xlsb.place import Place
from xlgpt.xlsb.records import read_records, record
from xlgpt.xlsb.workbook import Calculation

FULL, SHORT = range(1, 12), range(12, 19)  # cells that say in which column they stand, and cells that do not
CONSTANTS = range(1, 8)  # of the former, those that hold no formula: blank, RK, error, boolean, real, texts
ON_LOADING = 1


def filled(part: bytes, values: Mapping[Place, Any]) -> tuple[bytes, list[Place]]:
    """A sheet's part with these values in cells that are there, each in its style; and those that are not there.

    Raises NotAWorkbook where the part is cut off.
    """
    left = dict(values)
    return b"".join(_filled(part, left)), list(left)


def _filled(part: bytes, left: dict[Place, Any]) -> Iterator[bytes]:
    row = column = -1
    for identity, payload in read_records(part):
        if identity == RowHeader.identity:
            (row,), column = struct.unpack_from("<I", payload), -1
        elif identity in FULL:
            (column,) = struct.unpack_from("<I", payload)
        elif identity in SHORT:
            column += 1
        if identity in CONSTANTS or identity in SHORT:
            (style,) = struct.unpack_from("<I", payload, 0 if identity in SHORT else 4)
            place = Place(row, column)
            if place in left:
                yield _cell(column, style, left.pop(place))
                continue
        yield record(identity, payload)


def _cell(column: int, style: int, value: Any) -> bytes:
    if isinstance(value, str):
        return Text(column, style, value).record()
    return Real(column, style, float(value)).record()


def calculated_on_loading(part: bytes) -> tuple[bytes, bool]:
    """The workbook's own part, and whether it calculates only when asked to; then it stays as it is.

    Raises NotAWorkbook where the part is cut off.
    """
    records = list(read_records(part))
    calculations = [Calculation.read(payload) for identity, payload in records if identity == Calculation.identity]
    if any(calculation.mode == 0 for calculation in calculations):
        return part, True
    changed = [replace(each, flags=each.flags | ON_LOADING).record() for each in calculations]
    return b"".join(changed.pop() if i == Calculation.identity else record(i, payload) for i, payload in records), False
