"""Workbooks that were damaged, changed by hand, or made to fill the memory: one sentence, exit code 1, and soon."""

import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import run_xlgpt
from test_bad_input import one_sentence

import xlgpt
from xlgpt.errors import BrokenWorkbook, XlgptError
from xlgpt.workbook import fill
from xlgpt.workbook.book import Book

Change = Callable[[bytes], bytes]
STRINGS, SHEET = "xl/sharedStrings.xml", "xl/worksheets/sheet6.xml"
SMALL = "random:n_layer=2,n_embd=16,n_head=2,vocab_size=1280"
MEMORY = 300 << 20  # bytes that a command may take to refuse a workbook


@pytest.fixture(scope="module")
def small_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workbook that is quickly checked."""
    path = tmp_path_factory.mktemp("small") / "small.xlsx"
    xlgpt.build(path, SMALL, "One day", context=4, max_bytes=16, generate=1, sheets="circuit")
    return path


def damaged(book: Path, path: Path, part: str, change: Callable[[bytearray, int, int], None]) -> Path:
    """A copy in which some of a part's packed bytes, from one place up to another, are others."""
    content = bytearray(book.read_bytes())
    with zipfile.ZipFile(book) as archive:
        entry = archive.getinfo(part)
    name, extra = struct.unpack_from("<26xHH", content, entry.header_offset)
    start = entry.header_offset + 30 + name + extra
    change(content, start, start + entry.compress_size)
    path.write_bytes(content)
    return path


def zeros(content: bytearray, start: int, end: int) -> None:
    middle = (start + end) // 2
    content[middle : middle + 32] = bytes(min(32, end - middle))


def one_bit(content: bytearray, start: int, end: int) -> None:
    content[(start + end) // 2] ^= 1


def from_the_start(content: bytearray, start: int, end: int) -> None:
    content[start:end] = b"\xff" * (end - start)


@pytest.mark.quick(4)
@pytest.mark.parametrize("change", [zeros, one_bit, from_the_start])
@pytest.mark.parametrize("part", ["xl/workbook.xml", "xl/_rels/workbook.xml.rels", STRINGS, SHEET])
def test_a_damaged_part(small_book: Path, tmp_path: Path, part: str, change: Callable[..., None]) -> None:
    path = damaged(small_book, tmp_path / "damaged.xlsx", part, change)
    done = run_xlgpt("check", path)
    assert (done.returncode, done.stdout) == (1, "")
    sentence = one_sentence(done.stderr)
    assert str(path) in sentence
    seen_first = part == SHEET and re.search(r"row \d+ of the sheet 'Block 1' cannot be read", sentence)
    assert f"the part {part} is damaged" in sentence or seen_first


def test_every_command_says_so(small_book: Path, tmp_path: Path) -> None:
    path = damaged(small_book, tmp_path / "damaged.xlsx", STRINGS, one_bit)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("One day\t,\n")
    for command in (["check", path], ["run", path, "--engine", "formulas"], ["circuit", path, "--prompts", prompts]):
        done = run_xlgpt(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"the part {STRINGS} is damaged" in one_sentence(done.stderr)
    with pytest.raises(BrokenWorkbook, match="is damaged"):
        xlgpt.read(path, "next_token", engine="formulas")


@pytest.mark.parametrize("change", [zeros, one_bit])
def test_no_copy_of_a_damaged_sheet(small_book: Path, tmp_path: Path, change: Callable[..., None]) -> None:
    book = Book(small_book)
    path = damaged(small_book, tmp_path / "damaged.xlsx", book.part("Circuit"), change)
    with pytest.raises(BrokenWorkbook, match="is damaged"):
        fill.fill(path, tmp_path / "out.xlsx", {"circuit.mlps": 0})
    assert not (tmp_path / "out.xlsx").exists()


@pytest.mark.slow
def test_bytes_anywhere(small_book: Path, tmp_path: Path) -> None:
    """Wherever a byte is another, the archive's own directory included, a command fails in a sentence or not at all."""
    import random

    whole = small_book.read_bytes()
    directory = whole.rindex(b"PK\x01\x02" + b"\x14\x00") - 4000
    random_ = random.Random(0)
    for _ in range(12):
        content = bytearray(whole)
        content[random_.choice((random_.randrange(len(whole)), random_.randrange(directory, len(whole))))] ^= 0x41
        path = tmp_path / "book.xlsx"
        path.write_bytes(content)
        try:
            book = Book(path)
            assert book.layout
            for sheet in book.sheets:
                book.cells(sheet)
            fill.fill(path, tmp_path / "out.xlsx", {"circuit.mlps": 0})
        except XlgptError:
            continue  # any other fails the test


# Cells that were changed by hand.


def rewritten(book: Path, path: Path, part: str, change: Change) -> Path:
    """A copy with another content in one part, and all sums right."""
    with zipfile.ZipFile(book) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name == part else content)
    assert path.read_bytes() != book.read_bytes()
    return path


def with_cell(book: Path, path: Path, name: str, row: int, value: bytes) -> tuple[Path, str]:
    """A copy in which one cell of a name holds something else, and where that cell is."""
    cell = Book(book).named(name).cell(row, 0)

    def change(xml: bytes) -> bytes:
        changed, count = re.subn(rb'(<c r="%b"[^>]*?)(?: t="s")?>.*?</c>' % cell.first.encode(), rb"\1" + value, xml)
        assert count == 1
        return changed

    return rewritten(book, path, Book(book).part(cell.sheet), change), cell.absolute


@pytest.mark.quick(4)
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b' t="inlineStr"><is><t>a word</t></is></c>', "'a word'"),
        (b' t="b"><v>1</v></c>', "True"),
        (b' t="e"><v>#N/A</v></c>', "'#N/A'"),
        (b"><v>1.5</v></c>", "1.5"),
        (b"><v>NaN</v></c>", "nan"),
        (b"><v>1e999</v></c>", "inf"),
        (b"><v>-3</v></c>", "-3.0"),
        (b"><v>4294967295</v></c>", "4294967295.0"),
        (b"/>", "nothing"),
    ],
    ids=["text", "boolean", "error", "fraction", "NaN", "infinite", "negative", "out of range", "empty"],
)
@pytest.mark.parametrize("name", ["merges.key", "merges.id", "merges.rank"])
def test_a_cell_of_the_merges(small_book: Path, tmp_path: Path, name: str, value: bytes, shown: str) -> None:
    path, cell = with_cell(small_book, tmp_path / "changed.xlsx", name, 3, value)
    with pytest.raises(BrokenWorkbook, match=re.escape(f"{cell} holds {shown}, which is no merge of two tokens")):
        xlgpt.check(path)


def test_merges_that_do_not_belong_to_the_vocabulary(small_book: Path, tmp_path: Path) -> None:
    path, cell = with_cell(small_book, tmp_path / "changed.xlsx", "merges.id", 3, b"><v>5</v></c>")
    done = run_xlgpt("check", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{cell.replace('$B', '$A')} holds " in one_sentence(done.stderr)


@pytest.mark.quick(1)
@pytest.mark.parametrize("value", [b"><v>seven</v></c>", b' t="s"><v>99999999</v></c>', b' t="s"><v>-</v></c>'])
def test_a_value_that_no_program_writes(small_book: Path, tmp_path: Path, value: bytes) -> None:
    path, _ = with_cell(small_book, tmp_path / "changed.xlsx", "merges.key", 3, value)
    done = run_xlgpt("check", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "row 8 of the sheet 'Merges' cannot be read" in one_sentence(done.stderr)


@pytest.mark.quick(1)
@pytest.mark.parametrize("value", [b"<v>seven</v>", b"<v>1e999</v>", b"<v>NaN</v>"])
def test_a_weight_that_is_no_number(small_book: Path, tmp_path: Path, value: bytes) -> None:
    part = Book(small_book).part("ln_f")

    def change(xml: bytes) -> bytes:
        return re.sub(rb'(<c r="B3">)<v>[^<]*</v>', rb"\1" + value, xml, count=1)

    path = rewritten(small_book, tmp_path / "changed.xlsx", part, change)
    done = run_xlgpt("check", path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "ln_f" in done.stderr + done.stdout


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["n_layer", "vocab_size"])
def test_facts_of_a_model_that_would_never_end(small_book: Path, tmp_path: Path, name: str) -> None:
    path, _ = with_cell(small_book, tmp_path / "changed.xlsx", name, 0, b"><v>1000000000</v></c>")
    done = run_xlgpt("check", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no GPT-2 is like that" in one_sentence(done.stderr)


# Parts that would fill the memory.


def bomb(book: Path, path: Path, part: str, size: int, pattern: bytes, declared: int | None = None) -> Path:
    """A copy in which a part unpacks to so many bytes of a pattern.

    declared: what the archive says of its size instead of the truth.
    """
    with zipfile.ZipFile(book) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for name in old.namelist():
            if name != part:
                new.writestr(name, old.read(name))
        block = pattern * (len(pattern) and (1 << 20) // len(pattern))
        head, _, tail = old.read(part).partition(b"</sheetData>")
        with new.open(part, "w", force_zip64=False) as file:
            file.write(head)
            for _ in range(size // len(block)):
                file.write(block)
            file.write(b"</sheetData>" + tail if tail else b"")
    if declared is not None:
        content = bytearray(path.read_bytes())
        directory = content.rindex(b"PK\x01\x02")
        assert content[directory + 46 :].startswith(part.encode())
        struct.pack_into("<I", content, directory + 24, declared)
        path.write_bytes(content)
    return path


def peak(*command: str | Path, folder: Path | None = None) -> tuple[subprocess.CompletedProcess[str], int]:
    """A command, and the memory that it took at its peak, in bytes."""
    measured = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    line = [sys.executable, "-c", measured, sys.executable, "-m", "xlgpt", *map(str, command)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=folder)
    return done, int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


TOO_LARGE, TOO_MANY = "would unpack to 4", "is damaged"
COMMANDS = {
    "check": ["check"],
    "run": ["run"],
    "run by formulas": ["run", "--engine", "formulas"],
    "circuit": ["circuit", "--prompts", "prompts.txt", "--out", "out.xlsx"],
}


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("command", "part", "pattern", "declared", "words"),
    [
        *((command, STRINGS, b" ", None, TOO_LARGE) for command in COMMANDS),
        *((command, STRINGS, b" ", 1000, TOO_MANY) for command in ("check", "circuit")),
        ("check", "xl/workbook.xml", b" ", None, TOO_LARGE),
        ("check", "xl/styles.xml", b" ", None, TOO_LARGE),
        ("check", SHEET, b" ", None, TOO_LARGE),
        ("run", SHEET, b"<row/>", None, TOO_LARGE),
        ("circuit", "wte", b"<row><c><v>1</v></c></row>", None, TOO_LARGE),
        ("check", SHEET, b"<row><c><v>1</v></c></row>", 1000, TOO_MANY),
    ],
)
def test_a_bomb(
    small_book: Path, tmp_path: Path, command: str, part: str, pattern: bytes, declared: int | None, words: str
) -> None:
    part = part if "/" in part else Book(small_book).part(part)
    path = bomb(small_book, tmp_path / "bomb.xlsx", part, 400 << 20, pattern, declared)
    assert path.stat().st_size < 10 << 20
    (tmp_path / "prompts.txt").write_text("One day\t,\n")
    verb, *options = COMMANDS[command]
    done, memory = peak(verb, path, *options, folder=tmp_path)
    assert done.returncode == 1, done.stdout
    assert f"the part {part} {words}" in one_sentence(done.stderr)
    assert memory < MEMORY
    assert not (tmp_path / "out.xlsx").exists()


def test_a_sheet_may_be_as_large_as_its_cells(tiny_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What xlgpt writes is not refused, even if a sheet of no known cells might have only 1 MB."""
    monkeypatch.setattr("xlgpt.workbook.book.PLAIN", 1 << 20)
    Book(tiny_book).check_sizes()
    monkeypatch.setattr("xlgpt.workbook.book.A_NUMBER", 10)
    with pytest.raises(BrokenWorkbook, match="would unpack to"):
        Book(tiny_book).weights.tensor("wte.weight")


@pytest.mark.slow
def test_a_row_without_an_end(small_book: Path, tmp_path: Path) -> None:
    """Within what a sheet may have, but all of it one row."""
    path = bomb(small_book, tmp_path / "bomb.xlsx", SHEET, 30 << 20, b" ")
    done, memory = peak("check", path)
    assert done.returncode == 1
    assert f"the part {SHEET} is damaged below row" in one_sentence(done.stderr)
    assert memory < MEMORY


@pytest.mark.slow
def test_other_ways_of_packing(small_book: Path, tmp_path: Path) -> None:
    """Excel knows deflated and stored parts; a bzip2 of gigabytes has a few hundred bytes."""
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_BZIP2):
        path = tmp_path / f"{method}.xlsx"
        with zipfile.ZipFile(small_book) as old, zipfile.ZipFile(path, "w", method) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
    assert Book(tmp_path / f"{zipfile.ZIP_STORED}.xlsx").model.config == Book(small_book).model.config
    with pytest.raises(BrokenWorkbook, match="is damaged"):
        Book(tmp_path / f"{zipfile.ZIP_BZIP2}.xlsx")
