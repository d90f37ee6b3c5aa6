"""Text that spreadsheets and XML trip over, in the prompt and in the vocabulary, read back from whole files."""

import csv
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import SOFFICE, Tensors, write_checkpoint, write_vocabulary
from openpyxl import Workbook, load_workbook

from xlgpt import build

Make = Callable[..., Path]
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
SPACE = "{http://www.w3.org/XML/1998/namespace}space"
PROMPTS = {
    "formula": "=1+1",
    "command": "=CMD|' /C calc'!A0",
    "link": '=HYPERLINK("http://a.bc","d")',
    "array": "{=1+1}",
    "plus": "+1",
    "minus": "-1",
    "at": "@SUM(A1)",
    "apostrophe": "'hello",
    "number": "1e5",
    "truth": "TRUE",
    "error": "#N/A",
    "date": "2026-05-21",
    "address": "http://example.com/?a=b&c=d",
    "quotes": "say \"hello\", 'world'",
    "markup": "<b>&amp;</b>]]>",
    "escape": "_x0041_",
    "escapes": "_x0041_x0042_",
    "escaped escape": "_x005F_x0041_",
    "emoji": "👩‍👧 😀",
    "spaces": "  hello  world  ",
    "lines": "hello\nthe\tworld\n",
    "return": "hello\r\nworld\r",
    "control": "\x01\x08\x0b\x1f\x7f\x85",
    "longest": "a" * 128,
    "longest in UTF-16": "a" * 124 + "😀",
}
TOKENS = {
    "control": "\x01",
    "delete": "\x7f",
    "tab": "\t",
    "line": "\n",
    "return": "\r",
    "spaces": "  ",
    "formula": "=1+1",
    "escape": "_x0041_",
    "escapes": "_x0041_x0042_",
    "escaped escape": "_x005F_",
    "markup": "</v>&lt;",
    "quotes": "\"'",
    "emoji": "😀",
    "no character": "\uffff",
    "nor this": "\ufffe",
}


def decoded(text: str) -> str:
    """What a cell shows for the text in its XML (ECMA-376 22.9.2.19, ST_Xstring)."""
    return re.sub(r"_x([0-9A-Fa-f]{4})_", lambda found: chr(int(found[1], 16)), text)


def texts(path: Path, sheet: int) -> dict[str, str]:
    """Every text on a sheet by its cell, as the standard has it read."""
    with zipfile.ZipFile(path) as archive:
        strings = ElementTree.fromstring(archive.read("xl/sharedStrings.xml")).findall(f"{MAIN}si/{MAIN}t")
        cells = ElementTree.fromstring(archive.read(f"xl/worksheets/sheet{sheet}.xml")).iter(f"{MAIN}c")
    found = {}
    for cell in cells:
        value, kind = cell.findtext(f"{MAIN}v") or "", cell.get("t")
        if kind in ("s", "inlineStr"):
            string = strings[int(value)] if kind == "s" else cell.find(f"{MAIN}is/{MAIN}t")
            assert string is not None
            value = string.text or ""
            assert value == value.strip() or string.get(SPACE) == "preserve", "Excel would cut the spaces off"
        if kind in ("s", "inlineStr", "str"):
            found[cell.get("r", "")] = decoded(value)
    return found


def place(book: Workbook, name: str) -> tuple[int, str]:
    """The number of a sheet and the cell on it that a defined name begins with."""
    ((sheet, cells),) = book.defined_names[name].destinations
    return 1 + book.sheetnames.index(sheet), cells.replace("$", "").partition(":")[0]


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workbook for each of PROMPTS."""
    folder = tmp_path_factory.mktemp("books")
    model = write_checkpoint(folder / "model", n_layer=1)
    for name, prompt in PROMPTS.items():
        build(
            folder / f"{name}.xlsx",
            str(model),
            prompt,
            max_bytes=max(1, len(prompt.encode())),
            sheets="none",
        )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMPTS)
def test_the_prompt_stands_in_its_cell_letter_by_letter(books: Path, name: str) -> None:
    prompt, path = PROMPTS[name], books / f"{name}.xlsx"
    book = load_workbook(path)
    sheet, place_ = place(book, "prompt")
    assert texts(path, sheet)[place_] == prompt
    cell = book.worksheets[sheet - 1][place_]
    assert cell.data_type == "s"
    assert cell.hyperlink is None
    if not re.search(r"[\x00-\x08\x0b-\x1f]|x005F_", prompt):  # openpyxl leaves these escapes, or drops them
        assert cell.value == prompt


@pytest.mark.slow
@pytest.mark.libreoffice
def test_libreoffice_shows_every_prompt(books: Path, tmp_path: Path) -> None:
    first_sheet = "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,true,false,false,false,false,1"
    command = [SOFFICE, "--headless", f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}"]
    command += ["--convert-to", first_sheet, "--outdir", tmp_path, *books.glob("*.xlsx")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    shown = {}
    for name in PROMPTS:
        (file,) = tmp_path.glob(f"{name}[-.]*csv")
        with file.open(encoding="utf-8", newline="") as lines:
            shown[name] = list(csv.reader(lines))[6][1]
    assert shown == {name: re.sub("\r\n?", "\n", prompt) for name, prompt in PROMPTS.items()}


LONG = tuple(word for word in TOKENS.values() if len(word.encode()) > 1)  # the others are bytes


def unprintable_last(byte: int) -> tuple[bool, int]:
    return not chr(byte).isprintable() or byte == 32, byte


def model_that_says(make_checkpoint: Make, word: str) -> Path:
    """A checkpoint whose vocabulary holds TOKENS, and whose next token is always the word."""
    letters = [bytes([byte]).decode(errors="replace") for byte in sorted(range(256), key=unprintable_last)]
    token = [*letters, *LONG].index(word)

    def edit(tensors: Tensors) -> None:
        tensors["ln_f.weight"][:] = 0
        tensors["ln_f.bias"][:] = np.eye(8)[0]
        tensors["wte.weight"][token, 0] = 100

    folder = make_checkpoint(edit, n_layer=1, vocab_size=400)
    write_vocabulary(folder, [], LONG)
    return folder


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", TOKENS)
def test_the_next_token_is_shown_as_it_is(make_checkpoint: Make, tmp_path: Path, name: str) -> None:
    path, word = tmp_path / "book.xlsx", TOKENS[name]
    build(path, str(model_that_says(make_checkpoint, word)), "hello", context=8, generate=1, sheets="none")
    book = load_workbook(path)
    sheet, cell = place(book, "next_token")
    assert texts(path, sheet)[cell] == word
    (answer,) = (cell for row in book["Home"] for cell in row if cell.value == "=next_token")
    assert texts(path, 1)[answer.coordinate] == word


def test_the_vocabulary_stands_in_its_sheet(make_checkpoint: Make, tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    build(path, str(model_that_says(make_checkpoint, "h")), "hello", context=8)
    sheet, cell = place(load_workbook(path), "vocabulary")
    shown = texts(path, sheet)
    first = int(cell[1:])
    for row in range(first, first + 256 + len(LONG)):
        token = bytes.fromhex(shown[f"D{row}"])
        assert shown[f"B{row}"] == token.decode("utf-8", errors="replace"), token
    assert set(TOKENS.values()) <= set(shown.values())
