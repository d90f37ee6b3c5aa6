"""The grammar of .xlsb finds nothing wrong in what Excel wrote, and each mistake that is made in it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from xlsb_grammar import Records, findings
from xlsb_samples import DATA, EXCEL, MORE, Workbook, opened, workbooks

from xlgpt.xlsb import cells


@pytest.mark.parametrize("folder", [DATA, pytest.param(EXCEL, marks=[pytest.mark.shared, pytest.mark.slow]), *MORE])
def test_nothing_is_wrong_in_samples(folder: Path) -> None:
    assert {book.path.name: found for book in workbooks(folder) if (found := findings(book))} == {}


def without(identity: int, which: int = 0) -> Callable[[Records], Records]:
    def edit(records: Records) -> Records:
        at = [i for i, (each, _) in enumerate(records) if each == identity][which]
        return records[:at] + records[at + 1 :]

    return edit


def swapped(a: int, b: int) -> Callable[[Records], Records]:
    """The first of each."""

    def edit(records: Records) -> Records:
        i, j = (next(k for k, (identity, _) in enumerate(records) if identity == each) for each in (a, b))
        records = list(records)
        records[i], records[j] = records[j], records[i]
        return records

    return edit


def changed(identity: int, change: Callable[[bytes], bytes]) -> Callable[[Records], Records]:
    """The first of this id."""

    def edit(records: Records) -> Records:
        at = next(i for i, (each, _) in enumerate(records) if each == identity)
        return [*records[:at], (identity, change(records[at][1])), *records[at + 1 :]]

    return edit


def column_of_shared_text(payload: bytes) -> bytes:
    return replace(cells.SharedText.read(payload), column=500).payload()


MISTAKES = {
    "no end of the cells": ("sheet1", without(146), "order of worksheet"),
    "margins behind the setup": ("sheet1", swapped(476, 478), "order of worksheet"),
    "an array formula in front of its cell": ("sheet1", swapped(426, 9), "order of worksheet"),
    "a rule without its end": ("sheet1", without(464), "order of worksheet"),
    "one rule less than said": (
        "sheet1",
        lambda records: without(463)(without(464)(records)),
        "says 2, and there are 1",
    ),
    "a column behind a later one": ("sheet1", changed(7, column_of_shared_text), "column"),
    "a format that is not there": ("sheet1", changed(7, lambda p: p[:4] + b"\xff\xff\0\0" + p[8:]), "format 65535"),
    "a string that is not there": ("sheet1", changed(7, lambda p: p[:8] + b"\xff\xff\0\0"), "string 65535"),
    "a row twice": ("sheet1", changed(0, lambda p: b"\xff\0\0\0" + p[4:]), "rows do not ascend"),
    "one font less than said": ("styles", without(43), "BeginFonts says"),
    "fills before fonts": ("styles", swapped(603, 611), "order of styles"),
    "no sheets": (
        "workbook",
        lambda records: [each for each in records if each[0] not in (143, 144, 156)],
        "order of workbook",
    ),
    "a name among the references": ("workbook", swapped(39, 362), "order of workbook"),
    "one string less than said": ("sharedStrings", without(19), "BeginStrings says"),
}


def book_for(part: str, mistake: str) -> Workbook:
    if "rule" in mistake:
        return opened(DATA / "apachepoi_WithConditionalFormatting.xlsx.xlsb")
    if "array" in mistake:
        return opened(DATA / "metadata_2019.xlsb")
    if "name among" in mistake:
        return opened(DATA / "apachepoi_testNames.xls.xlsb")
    return opened(
        DATA / "internal_link.xlsb" if "setup" not in mistake else DATA / "apachepoi_RepeatingRowsCols.xlsx.xlsb"
    )


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake: str) -> None:
    name, edit, why = MISTAKES[mistake]
    book = book_for(name, mistake)
    part = next(part for part in book.parts if Path(part).stem == name)
    broken = replace(book, parts=book.parts | {part: edit(book.parts[part])})
    assert not findings(book)
    assert why in " ".join(findings(broken))
