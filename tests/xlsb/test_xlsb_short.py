"""Short cells, which no specification has: as SheetJS writes them, and read by all that say they do."""

import json
import struct
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from readers import Grid, by_calamine, by_pyxlsb, by_sheetjs, part

import xlgpt
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.model.checkpoint import load
from xlgpt.model.notation import BINARY
from xlgpt.model.precision import rounded
from xlgpt.workbook.book import Book
from xlgpt.xlsb.cells import Real, RowHeader, ShortBlank, ShortReal
from xlgpt.xlsb.fill import filled
from xlgpt.xlsb.place import Place
from xlgpt.xlsb.read import number, number_runs
from xlgpt.xlsb.records import read_records, record
from xlgpt.xlsb.sheet_data import number_rows

MODEL = "random:n_layer=2,n_head=2,n_embd=8,n_inner=24,n_positions=16,vocab_size=1300"
PARTS = {False: None, True: 5}  # how many digits, by whether cells hold RkNumbers


@pytest.fixture(scope="module", params=PARTS, ids=["doubles", "RkNumbers"])
def book(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Book:
    """A workbook as of a large model."""
    path = tmp_path_factory.mktemp("short") / "large.xlsb"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("xlgpt.workbook.plan.BARE_FROM", 0)
        options = {"prompt": "hello world", "context": 8, "max_bytes": 16, "sheets": "none"}
        xlgpt.build(path, MODEL, precision=PARTS[request.param], **options)
    return Book(path)


def weights(book: Book) -> Iterator[tuple[str, np.ndarray]]:
    model = rounded(load(MODEL), book.precision, BINARY)
    for name in model.weights.shapes():
        cells = book.named(name)
        yield name, model.weights.tensor(name).astype(float).reshape(cells.height, cells.width)


def cells_of(rows: bytes) -> list[tuple[int, bytes]]:
    return [each for each in read_records(rows) if each[0] in range(1, 19)]


@pytest.mark.node
def test_sheetjs_writes_the_same_cells(sheetjs: Path, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(20, 300)).astype(np.float32)
    numbers[:, ::7] *= np.float32(1e-30)
    by_sheetjs = tmp_path / "rows.xlsb"
    rows = json.dumps(numbers.astype(float).tolist())
    subprocess.run(["node", sheetjs.parent / "write.js", by_sheetjs], input=rows, text=True, check=True, timeout=120)
    with zipfile.ZipFile(by_sheetjs) as archive:
        theirs = cells_of(archive.read("xl/worksheets/sheet1.bin"))
    assert cells_of(b"".join(number_rows(numbers, is_short=True))) == theirs
    assert {identity for identity, _ in theirs} == {5, 16}


def test_the_upper_30_bits_of_a_double() -> None:
    """As a cell's RkNumber is read, each is what it was where its lower bits are 0."""
    numbers = BINARY.rounded(np.random.default_rng(1).normal(size=(3, 50)).astype(np.float32), 5)
    found = cells_of(b"".join(number_rows(numbers, as_rk=True, is_short=True)))
    values = [number(struct.unpack("<I", payload[-4:])[0]) for _, payload in found]
    assert values == numbers.ravel().tolist()
    assert [identity for identity, _ in found] == [2, *[13] * 49] * 3
    assert {len(payload) for _, payload in found} == {12, 8}


@pytest.mark.node
def test_sheetjs_reads_the_weights(book: Book, sheetjs: Path) -> None:
    read = by_sheetjs(book.path, sheetjs)
    for name, wanted in weights(book):
        cells = book.named(name)
        assert (part(read[cells.sheet], cells).astype(float) == wanted).all(), name


@pytest.mark.libreoffice
def test_libreoffice_reads_the_weights(book: Book) -> None:
    engine = LibreOffice(book)
    try:
        for name, wanted in weights(book):
            assert (engine.read(book.named(name)) == wanted).all(), name
    finally:
        engine.close()


def test_we_read_the_weights(book: Book) -> None:
    for name, wanted in weights(book):
        assert (book.weights.cells(name) == wanted).all(), name


@pytest.mark.parametrize("reader", [by_calamine, by_pyxlsb])
def test_others_lose_them(book: Book, reader: Callable[[Path], dict[str, Grid]]) -> None:
    """What README says of them; should they ever read short cells, that sentence can go."""
    cells = book.named("h.0.mlp.c_fc.weight")
    shown = part(reader(book.path)[cells.sheet], cells)
    assert (shown[:, 0] != "").all()
    assert (shown[:, 1:] == "").all()


def test_one_of_them_is_filled() -> None:
    """In its style, as a full cell; the cells behind it stay where they are."""
    row = RowHeader(3, 0, 300, bytes(3), ()).record()
    cells = [Real(2, 7, 2.0).record(), ShortReal(8, 3.0).record(), ShortBlank(9).record(), ShortReal(8, 5.0).record()]
    part, left = filled(row + b"".join(cells), {Place(3, 4): 4.5, Place(3, 9): 1.0})
    assert part == row + b"".join([*cells[:2], Real(4, 9, 4.5).record(), cells[3]])
    assert left == [Place(3, 9)]


def test_columns_are_counted_from_whatever_cell_stands_before(tmp_path: Path) -> None:
    """Full and short cells, with and without numbers, in one row."""
    path = tmp_path / "mixed.xlsb"
    row = RowHeader(3, 0, 300, bytes(3), ()).record()
    real, short = (lambda v: struct.pack("<IId", v, 0, v)), (lambda v: struct.pack("<Id", 0, v))
    cells = [(5, real(2)), (16, short(3)), (18, bytes(8)), (16, short(5)), (1, struct.pack("<II", 8, 0))]
    cells += [(16, short(9)), (12, bytes(4)), (13, struct.pack("<II", 0, 11 << 2 | 2)), (16, short(12)), (5, real(20))]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows", record(145) + row + b"".join(record(*each) for each in cells) + record(146))
    found = [(run.row, int(c), v) for run in number_runs(path, "rows") for c, v in zip(*run[1:], strict=True)]
    assert found == [(3, column, float(column)) for column in (2, 3, 5, 9, 11, 12, 20)]
