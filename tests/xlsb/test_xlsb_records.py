"""Records of .xlsb: each that we know, read from what Excel wrote and written again, is the same bytes."""

import inspect
from collections import Counter
from pathlib import Path

import pytest
from xlsb_samples import DATA, EXCEL, MORE, Workbook, workbooks

from xlgpt.errors import NotAWorkbook
from xlgpt.xlsb import cells, sheet, styles, workbook
from xlgpt.xlsb.fields import Record
from xlgpt.xlsb.records import read_records, record

UNPROVEN = {"ScalePoint", "ScaleColor"}  # colour scales: no sample has one, [MS-XLSB] 2.4.331 does
UNPROVEN |= {"ShortBlank", "ShortRk", "ShortReal", "ShortSharedText"}  # nor a short cell, see ShortCell
CELL_TABLE = range(19)  # ids that mean something else outside of the table of cells


def known() -> dict[tuple[str, int], type[Record]]:
    """By the kind of part and the id."""
    modules = (("sheet", cells), ("sheet", sheet), ("styles", styles), ("workbook", workbook))
    return {
        (kind, each.identity): each
        for kind, module in modules
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__ and issubclass(each, Record) and "identity" in vars(each)
    }


KNOWN = known()


def kind_of(part: str) -> str:
    name = Path(part).name
    return "sheet" if name.startswith("sheet") else "workbook" if name == "workbook.bin" else "styles"


def equal_records(book: Workbook) -> Counter[str]:
    """How many of each kind are the same bytes. Fails at one that is not."""
    equal: Counter[str] = Counter()
    for part, records in book.parts.items():
        in_table = kind_of(part) != "sheet"
        for identity, payload in records:
            in_table = identity == cells.BEGIN or (in_table and identity != cells.END)
            form = KNOWN.get((kind_of(part), identity))
            if form and (in_table or identity not in CELL_TABLE):
                assert form.read(payload).payload() == payload, f"{book.path.name} {part} {form.__name__}"
                equal[form.__name__] += 1
    return equal


def all_equal(folder: Path) -> Counter[str]:
    return sum(map(equal_records, workbooks(folder)), Counter())


def test_records_of_excel() -> None:
    assert {each.__name__ for each in KNOWN.values()} - set(all_equal(DATA)) == UNPROVEN


@pytest.mark.slow
@pytest.mark.shared
def test_records_of_excel_in_all_samples() -> None:
    assert all_equal(EXCEL).total() == 716_220


@pytest.mark.parametrize("folder", MORE)
def test_records_of_excel_in_further_samples(folder: Path) -> None:
    assert all_equal(folder)


@pytest.mark.parametrize("folder", [DATA, pytest.param(EXCEL, marks=pytest.mark.shared)])
def test_parts_are_framed_again(folder: Path) -> None:
    for book in workbooks(folder):
        for records in book.parts.values():
            part = b"".join(record(identity, payload) for identity, payload in records)
            assert list(read_records(part)) == records


def test_a_part_that_is_cut_off() -> None:
    whole = record(156, bytes(300))
    for end in (1, 2, 3, len(whole) - 1):
        with pytest.raises(NotAWorkbook, match="damaged"):
            list(read_records(whole[:end]))


def test_a_record_that_is_cut_off_or_too_long() -> None:
    payload = workbook.Sheet(0, 1, "rId1", "Home").payload()
    for end in range(len(payload)):
        with pytest.raises(NotAWorkbook, match="cut off"):
            workbook.Sheet.read(payload[:end])
    with pytest.raises(NotAWorkbook, match="1 bytes that xlgpt does not know"):
        workbook.Sheet.read(payload + b"\0")


def test_sizes_of_one_to_four_bytes() -> None:
    for size in (0, 127, 128, 16_383, 16_384, 2_097_152):
        assert [*read_records(record(462, bytes(size)))] == [(462, bytes(size))]
    assert record(0, b"\7") == b"\0\1\7"
    assert record(426, bytes(128))[:4] == b"\xaa\3\x80\1"  # [MS-XLSB] 2.1.4


@pytest.mark.parametrize("folder", [DATA, pytest.param(EXCEL, marks=pytest.mark.shared)])
def test_sizes_of_conditional_formulas(folder: Path) -> None:
    """As Excel has them in a rule: the size of the tokens, and 2 more for each cell."""
    sizes: list[int] = []
    for book in workbooks(folder):
        for records in book.parts.values():
            for rule in (sheet.BeginRule.read(payload) for identity, payload in records if identity == 463):
                assert [size for size in rule.sizes if size] == [*map(sheet.formula_size, rule.formulas)]
                sizes += rule.sizes
    assert any(sizes)
