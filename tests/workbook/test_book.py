"""A workbook read back: as xlgpt wrote it, and as other programs save it again."""

import pickle
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from conftest import run_xlgpt

import xlgpt
from xlgpt.errors import BrokenWorkbook, ForeignWorkbook, NotAWorkbook, PromptTooLong
from xlgpt.model.checkpoint import load
from xlgpt.workbook.book import Book
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import CellError, a1_range, numbers, read_cells

Change = Callable[[bytes], bytes]
HEAD = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
TAIL = b"</sheetData></worksheet>"


def rewritten(book: Path, out: Path, changes: dict[str, Change], dropped: str = "") -> Path:
    """A copy in which some parts are changed and one is missing; fails where a change changes nothing."""
    with zipfile.ZipFile(book) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            content = old.read(part)
            if part in changes:
                assert changes[part](content) != content
                content = changes[part](content)
            if part != dropped:
                new.writestr(part, content)
    return out


def sheet_of(tmp_path: Path, rows: bytes, head: bytes = HEAD, tail: bytes = TAIL) -> Path:
    path = tmp_path / "sheet.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sheet.xml", head + rows + tail)
    return path


def test_the_whole_model_stands_in_the_file(tiny_book: Path) -> None:
    book, model = Book(tiny_book), load("tiny")
    assert book.config == model.config
    assert book.context == 16
    assert book.tokenizer == model.tokenizer
    assert book.weights.shapes() == model.weights.shapes()
    for name in model.weights.shapes():
        ours, theirs = book.weights.tensor(name), model.weights.tensor(name)
        assert ours.dtype == np.float64
        assert book.weights.missing(name) is None
        np.testing.assert_array_equal(ours.astype(np.float32).view(np.uint32), theirs.view(np.uint32))


def test_formulas_and_the_prompt_are_found(tiny_book: Path) -> None:
    book = Book(tiny_book)
    first = next(
        f for f in book.cells("Block 0").formulas if f.cells.row == book.named("blocks.0.resid_pre").row and f.is_array
    )
    assert first.cells == book.named("blocks.0.resid_pre").rows(0, 1)
    assert first.text.startswith("IF($A8")
    assert book.prompt.ids == tuple(book.tokenizer.encode(book.prompt.text))
    assert len(book.prompt.ids) == 7
    with pytest.raises(PromptTooLong, match="rows for 16"):
        book.prompt_of("one two three " * 9)
    with pytest.raises(PromptTooLong, match="rows for 128"):
        book.prompt_of("one two three " * 20)


def test_names_are_found_whatever_their_capitals(tiny_book: Path) -> None:
    assert Book(tiny_book).named("BLOCKS.0.attn.w_q") == Book(tiny_book).named("blocks.0.attn.W_Q")


@pytest.mark.slow
def test_a_workbook_saved_by_openpyxl_is_the_same_model(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint()
    xlgpt.build(tmp_path / "book.xlsx", model=str(folder), context=5, prompt="hello")
    openpyxl.load_workbook(tmp_path / "book.xlsx").save(tmp_path / "again.xlsx")
    before, after = Book(tmp_path / "book.xlsx"), Book(tmp_path / "again.xlsx")
    assert after.config == before.config
    assert after.tokenizer == before.tokenizer
    for name in before.weights.shapes():
        np.testing.assert_array_equal(before.weights.tensor(name), after.weights.tensor(name))
    for sheet in ("Tokens", "Block 1", "Argmax"):
        assert {(f.cells, f.text) for f in after.cells(sheet).formulas} == {
            (f.cells, f.text) for f in before.cells(sheet).formulas
        }
    assert xlgpt.check(tmp_path / "again.xlsx", model=str(folder), prompts=("hello",)).passed


@pytest.mark.slow
@pytest.mark.libreoffice
def test_a_workbook_saved_by_libreoffice_is_the_same_model(
    tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    from xlgpt.engines.libreoffice import find_soffice

    folder = make_checkpoint()
    xlgpt.build(tmp_path / "book.xlsx", model=str(folder), context=5, prompt="hello")
    profile = f"-env:UserInstallation=file://{tmp_path}/profile"
    command = [
        find_soffice(),
        profile,
        "--headless",
        "--convert-to",
        "xlsx",
        "--outdir",
        tmp_path / "out",
        tmp_path / "book.xlsx",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    report = xlgpt.check(tmp_path / "out" / "book.xlsx", model=str(folder), prompts=("hello",))
    assert report.passed, list(report.sentences())


def test_the_weights_of_a_large_model_stand_in_files(
    tmp_path: Path, tiny_book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers, which others that know the folder do not read again; at the end none is left."""
    whole = Book(tiny_book)
    monkeypatch.setattr("xlgpt.workbook.book.KEPT", 1)
    monkeypatch.setattr("xlgpt.workbook.book.SMALL", 1000)
    path = tmp_path / "book.xlsx"
    shutil.copy(tiny_book, path)
    large = Book(path)
    for name in whole.weights.shapes():
        np.testing.assert_array_equal(large.weights.tensor(name), whole.weights.tensor(name), strict=True)
    assert large.weights.folder
    assert large.weights.folder.parent == tmp_path
    held = sum(tensor.nbytes for tensor in large.weights._kept.values())
    assert held < sum(file.stat().st_size for file in large.weights.folder.iterdir()) / 50
    other: Book = pickle.loads(pickle.dumps(large))
    monkeypatch.setattr(other.weights, "_read", None)
    np.testing.assert_array_equal(other.weights.tensor("wte.weight"), whole.weights.tensor("wte.weight"))
    other.weights.close()
    assert large.weights.folder.is_dir()
    large.weights.close()
    assert list(tmp_path.iterdir()) == [path]


def test_threads_read_the_weights_of_a_large_model_once(
    tmp_path: Path, tiny_book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a check does, one of whose threads calculates NumPy's numbers while the other holds the weights."""
    monkeypatch.setattr("xlgpt.workbook.book.KEPT", 1)
    path = tmp_path / "book.xlsx"
    shutil.copy(tiny_book, path)
    weights, read = Book(path).weights, list[str]()
    reading = weights._read
    monkeypatch.setattr(weights, "_read", lambda sheet: (read.append(sheet), time.sleep(0.2), reading(sheet))[-1])
    with closing(weights), ThreadPoolExecutor(4) as threads:
        shapes = threads.map(lambda name: weights.tensor(name).shape, ["h.1.mlp.c_fc.weight"] * 4)
        assert set(shapes) == {(96, 384)}
        assert len(read) == 1
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == [path]


LEAVE = """
import sys, psutil
from xlgpt.workbook import book
book.KEPT = 1
held = book.Book(sys.argv[1])
print(held.weights.tensor("wpe.weight").size, flush=True)
if sys.argv[2:]:
    psutil.Process().kill()
"""


@pytest.mark.slow
@pytest.mark.parametrize("killed", [[], ["killed"]])
def test_no_weights_are_left_on_the_disk(tmp_path: Path, tiny_book: Path, killed: list[str]) -> None:
    path = tmp_path / "book.xlsx"
    shutil.copy(tiny_book, path)
    done = subprocess.run([sys.executable, "-c", LEAVE, path, *killed], stdout=subprocess.PIPE, timeout=60)
    assert (done.returncode == 0) is not bool(killed)
    assert int(done.stdout)
    until = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) > 1 and time.monotonic() < until:
        time.sleep(0.1)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("D8", (7, 3, 1, 1)),
        ("$D$8:$E$10", (7, 3, 3, 2)),
        ("B2:A1", (0, 0, 2, 2)),
        ("XFD1048576", (1048575, 16383, 1, 1)),
    ],
)
def test_references(text: str, cells: tuple[int, int, int, int]) -> None:
    assert a1_range("S", text) == Range("S", *cells)
    assert a1_range("S", f"{text}!") is None


def test_every_kind_of_cell(tmp_path: Path) -> None:
    rows = (
        b'<row r="2"><c r="B2"><v>1.5</v></c><c><v>2</v></c><c r="F2" t="s"><v>1</v></c><c t="b"><v>1</v></c></row>'
        b'<row r="3"/><row><c t="e"><v>#DIV/0!</v></c>'
        b'<c t="inlineStr"><is><r><t>a&amp;</t></r><r><t>b</t></r></is></c></row>'
        b'<row><c t="str"><f>"x"&amp;"y"</f><v>_x000D_&#65;&lt;</v></c><c s="3"/><c><v>-1E-3</v></c></row>'
    )
    cells = read_cells(sheet_of(tmp_path, rows), "S", "sheet.xml", ["no", "yes"])
    assert cells.constants == {
        (1, 1): 1.5, (1, 2): 2.0, (1, 5): "yes", (1, 6): True, (3, 0): "#DIV/0!", (3, 1): "a&b", (4, 2): -0.001
    }  # fmt: skip
    assert isinstance(cells.constants[3, 0], CellError)
    assert [(f.cells.first, f.text) for f in cells.formulas] == [("A5", '"x"&"y"')]
    assert cells.saved[0].tolist() == [["\rA<"]]


def test_shared_and_array_formulas(tmp_path: Path) -> None:
    rows = (
        b'<row r="1"><c r="A1"><f t="shared" ref="A1:A3" si="0">B1+$C$1</f><v>1</v></c>'
        b'<c r="D1"><f t="array" ref="D1:E2">F1:G2*2</f><v>1</v></c><c r="E1"><v>2</v></c></row>'
        b'<row r="2"><c r="A2"><f t="shared" si="0"/><v>2</v></c><c r="D2"><v>3</v></c><c r="E2"><v>4</v></c></row>'
    )
    cells = read_cells(sheet_of(tmp_path, rows), "S", "sheet.xml", [])
    assert [(f.cells.a1, f.text, f.is_array) for f in cells.formulas] == [
        ("A1", "B1+$C$1", False), ("D1:E2", "F1:G2*2", True), ("A2", "B2+$C$1", False)
    ]  # fmt: skip
    assert [saved.tolist() for saved in cells.saved] == [[[1.0]], [[1.0, 2.0], [3.0, 4.0]], [[2.0]]]
    assert cells.constants == {}


def test_a_sheet_with_prefixed_names(tmp_path: Path) -> None:
    rows = (
        b'<x:row r="1"><x:c r="A1"><x:v>7</x:v></x:c></x:row>'
        b'<x:row r="2"><x:c r="B2"><x:f>A1</x:f><x:v>7</x:v></x:c></x:row>'
    )
    path = sheet_of(tmp_path, rows, b'<x:worksheet xmlns:x="a"><x:sheetData>', b"</x:sheetData></x:worksheet>")
    cells = read_cells(path, "S", "sheet.xml", [])
    assert cells.constants == {(0, 0): 7.0}
    assert cells.formulas[0].text == "A1"


def test_rows_of_plain_numbers_are_read_quickly_and_others_left_alone() -> None:
    assert numbers(b"<c><v>1</v></c><c><v>-2.5E-7</v></c>") == [1, -2.5e-7]
    assert numbers(b'<c r="A9"><v>1</v></c><c r="B9" s="4" t="n"><v>-2</v></c>') == [1, -2]
    assert numbers(b'<c r="B9"><v>1</v></c>') is None
    assert numbers(b'<c r="A9"><v>1</v></c><c r="C9"><v>2</v></c>') is None
    assert numbers(b'<c r="A9"><v>1</v></c><c><v>2</v></c>') is None
    assert numbers(b'<c r="A9" t="s"><v>1</v></c>') is None
    assert numbers(b"<c><v>true</v></c>") is None
    assert numbers(b'<c r="A9"><v>null</v></c>') is None
    assert numbers(b'<c><v>1</v></c><c t="str"><v>a</v></c>') is None


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (None, NotAWorkbook, "There is no file"),
        (b"PK nonsense", NotAWorkbook, "is no .xlsx or .xlsb workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", NotAWorkbook, "password"),
    ],
)
def test_what_is_no_workbook(content: bytes | None, error: type[Exception], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=sentence):
        Book(path)


def test_a_folder_an_archive_and_a_foreign_workbook(tmp_path: Path) -> None:
    with pytest.raises(NotAWorkbook, match="cannot be read"):
        Book(tmp_path)
    with pytest.raises(NotAWorkbook, match="is an archive"):
        Book(sheet_of(tmp_path, b""))
    openpyxl.Workbook().save(tmp_path / "foreign.xlsx")
    with pytest.raises(ForeignWorkbook, match="not built by xlgpt"):
        Book(tmp_path / "foreign.xlsx")


def test_a_file_cut_short(tiny_book: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.xlsx"
    path.write_bytes(tiny_book.read_bytes()[:-5000])
    result = run_xlgpt("check", path)
    assert result.returncode == 1
    assert result.stderr.startswith("xlgpt: ")
    assert result.stderr.count("\n") == 1


def test_a_damaged_part(tiny_book: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.xlsx"
    shutil.copy(tiny_book, path)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(Book(tiny_book).part("h.1"))
    content = bytearray(path.read_bytes())
    middle = entry.header_offset + entry.compress_size // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(bytes(content))
    with pytest.raises(BrokenWorkbook, match="is damaged"):
        Book(path).weights.tensor("h.1.mlp.c_fc.weight")


def rename(xml: bytes) -> bytes:
    return xml.replace(b'<sheet name="Embeddings"', b'<sheet name="Vectors"')


def delete_name(xml: bytes) -> bytes:
    return re.sub(rb'<definedName name="h.2.attn.c_proj.weight">[^<]*</definedName>', b"", xml)


def delete_cells(xml: bytes) -> bytes:
    return re.sub(rb'(<definedName name="n_head">)[^<]*', rb"\1Home!#REF!", xml)


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (rename, "the sheet 'Embeddings', which holds .*, is not there: was it renamed or deleted"),
        (delete_name, "the name h.2.attn.c_proj.weight is gone"),
        (delete_cells, "the name n_head refers to Home!#REF!"),
    ],
)
def test_sheets_and_names_that_a_user_changed(change: Change, sentence: str, tiny_book: Path, tmp_path: Path) -> None:
    path = rewritten(tiny_book, tmp_path / "changed.xlsx", {"xl/workbook.xml": change})
    with pytest.raises(BrokenWorkbook, match=sentence):
        xlgpt.check(path)


def test_a_fact_that_is_no_number(tiny_book: Path, tmp_path: Path) -> None:
    book = Book(tiny_book)
    cell = book.named("n_layer").first.encode()

    def to_text(xml: bytes) -> bytes:
        return re.sub(rb'(<c r="%b"[^>]*)><v>4</v>' % cell, rb'\1 t="str"><v>four</v>', xml)

    path = rewritten(tiny_book, tmp_path / "changed.xlsx", {book.part("Home"): to_text})
    with pytest.raises(BrokenWorkbook, match="which says n_layer, holds 'four'"):
        xlgpt.check(path)


def test_a_missing_part(tiny_book: Path, tmp_path: Path) -> None:
    path = rewritten(tiny_book, tmp_path / "lacking.xlsx", {}, dropped=Book(tiny_book).part("h.3"))
    with pytest.raises(BrokenWorkbook, match="lacks the part"):
        xlgpt.check(path)
