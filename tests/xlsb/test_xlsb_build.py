"""A workbook as records is the same as in XML: for readers that we did not write, and by the grammar of the format."""

import re
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import SOFFICE
from python_calamine import CalamineWorkbook
from readers import are_alike, by_calamine, by_pyxlsb, by_sheetjs, part
from xlsb_grammar import findings
from xlsb_samples import opened

from xlgpt.verify.tokens_of import tokens_of
from xlgpt.workbook.book import Book
from xlgpt.xlsb.book_part import Book as BookPart
from xlgpt.xlsb.elements import attributes, children
from xlgpt.xlsb.sheet_data import number_rows
from xlgpt.xlsx.formula import with_cells
from xlgpt.xlsx.ranges import Range

RECALCULATED = 1e-4  # LibreOffice calculates anew, and a proof compares what has 24 bits


@pytest.fixture
def path(twins: tuple[Path, Path]) -> Path:
    return twins[0]


@pytest.fixture
def as_xml(twins: tuple[Path, Path]) -> Path:
    return twins[1]


def test_its_grammar(path: Path) -> None:
    assert findings(opened(path)) == []


def test_what_it_refers_to_is_there(path: Path) -> None:
    """Every part has a type, and every relation leads to a part."""
    with zipfile.ZipFile(path) as archive:
        types = archive.read("[Content_Types].xml").decode()
        named = set(archive.namelist())
        book = archive.read("xl/_rels/workbook.bin.rels").decode()
    assert {part for part in named if part.endswith(".xml") and "Types" not in part} <= set(archive.namelist())
    assert all(f'PartName="/{part}"' in types for part in named if part.endswith(".bin"))
    targets = {f"xl/{target.partition(chr(34))[0]}" for target in book.split('Target="')[1:]}
    assert targets <= named
    assert not any(part.endswith("sheet1.xml") or part == "xl/workbook.xml" for part in named)


def test_calamine_reads_every_cell_to_the_same(path: Path, as_xml: Path) -> None:
    ours, theirs = (CalamineWorkbook.from_path(each) for each in (path, as_xml))
    assert ours.sheet_names == theirs.sheet_names
    for name in ours.sheet_names:
        pairs = zip(*(book.get_sheet_by_name(name).to_python() for book in (ours, theirs)), strict=True)
        for row, (here, there) in enumerate(pairs):
            assert len(here) == len(there)
            for a, b in zip(here, there, strict=True):
                assert are_alike(name, a, b), (name, row)


@pytest.mark.slow
def test_pyxlsb_reads_what_calamine_reads(path: Path) -> None:
    theirs = by_calamine(path)
    for name, grid in by_pyxlsb(path).items():
        assert (grid == part(theirs[name], Range(name, 0, 0, *grid.shape))).all(), name
        assert (theirs[name] != "").sum() == (grid != "").sum(), name


@pytest.mark.slow
@pytest.mark.node
def test_sheetjs_reads_what_calamine_reads(path: Path, sheetjs: Path) -> None:
    theirs = by_calamine(path)
    for name, grid in by_sheetjs(path, sheetjs).items():
        assert (grid == part(theirs[name], Range(name, 0, 0, *grid.shape))).all(), name
        assert (theirs[name] != "").sum() == (grid != "").sum(), name


def test_weights_are_float32_exactly() -> None:
    numbers = np.random.default_rng(0).normal(size=(3, 1500)).astype(np.float32)
    rows = b"".join(number_rows(numbers, 7))
    value = np.frombuffer(rows[-18:], np.dtype("<u1,<u1,<u4,<u4,<f8"))[0]
    assert value.tolist() == (5, 16, 1499, 0, float(numbers[-1, -1]))
    assert rows[:11] == bytes((0, 33, 7, 0, 0, 0, 0, 0, 0, 0, 0x2C))  # a header with two spans


def test_what_is_not_known_is_no_record() -> None:
    from lxml import etree

    element = etree.fromstring('<col min="1" phonetic="1"><new/></col>')
    with pytest.raises(NotImplementedError, match="col with phonetic"):
        attributes(element, "min")
    with pytest.raises(NotImplementedError, match="col with new"):
        children(element, "old")


@pytest.fixture(scope="module")
def converted(twins: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What LibreOffice saves of the .xlsb as .xlsx."""
    folder = tmp_path_factory.mktemp("converted")
    profile = f"-env:UserInstallation={(folder / 'profile').as_uri()}"
    command = [str(SOFFICE), profile, "--headless", "--convert-to", "xlsx", "--outdir", str(folder), str(twins[0])]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder / "tiny.xlsx"


@pytest.mark.slow
@pytest.mark.libreoffice
def test_libreoffice_drops_colour_scales_alone(as_xml: Path, converted: Path) -> None:
    """README says so; where this fails, a newer LibreOffice may read them."""
    ours, theirs = map(_rules_and_charts, (as_xml, converted))
    assert ours.pop("colorScale") > 0
    assert theirs == ours


def _rules_and_charts(path: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.startswith("xl/worksheets/sheet"):
                text = archive.read(name).decode()
                found.update(re.findall(r'<cfRule [^>]*?\btype="(\w+)"', text))
                found["lists"] += text.count("<dataValidation ")
            found["charts"] += name.startswith("xl/charts/chart")
    return found


@pytest.mark.slow
@pytest.mark.libreoffice
def test_libreoffice_makes_an_xlsx_of_it_that_is_ours(as_xml: Path, converted: Path) -> None:
    """Every formula, with cells for names, and every value, which it calculates anew."""
    with zipfile.ZipFile(as_xml) as archive:
        names = BookPart(archive.read("xl/workbook.xml")).cells
    book, theirs = Book(as_xml), _without_names(converted)
    for sheet in book.sheets:
        if sheet in book.weights.sheets:
            continue
        ours, found = book.cells(sheet), theirs(sheet)
        wanted = {(f.cells, f.is_array, tokens_of(with_cells(f.text, names), sheet)) for f in ours.formulas}
        assert {(f.cells, f.is_array, tokens_of(f.text, sheet)) for f in found.formulas} == wanted
        values, others = ({f.cells: v for f, v in zip(c.formulas, c.saved, strict=True)} for c in (ours, found))
        for cells, shown in values.items():
            for a, b in zip(np.ravel(shown), np.ravel(others[cells]), strict=True):
                assert a == b or abs(a - b) <= RECALCULATED * max(1, abs(a)), cells.absolute


def _without_names(path: Path):
    from xlgpt.workbook.book import _shared_strings
    from xlgpt.xlsx.archive import Archive, sheet_names
    from xlgpt.xlsx.worksheet import read_cells

    archive = Archive(path)
    parts = {name: part for part, name in sheet_names(archive).items()}
    strings = _shared_strings(path, archive)
    return lambda sheet: read_cells(path, sheet, parts[sheet], strings)
