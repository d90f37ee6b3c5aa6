"""Gnumeric calculates every formula of the bundled model's workbook as NumPy does.

Each time for another prompt, or other settings, than those in the file, so that a saved value that is merely passed on
is seen.
"""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from readers import Grid, by_openpyxl, problems

import xlgpt
from xlgpt.workbook.book import Book
from xlgpt.workbook.fill import fill

pytestmark = pytest.mark.gnumeric
PROMPT = "The capital of France is"
ROOM = {"model": "tiny", "context": 12, "generate": 4, "max_bytes": 24, "features": "0,1,2,3"}
SETTINGS: dict[str, Any] = {
    "max_new_tokens": 3,
    "temperature": 1,
    "top_k": 20,
    "top_p": 0.9,
    "seed": 7,
    "steering.on": 1,
    "adapter.on": 1,
    "adapter.scale": 0.5,
    "facts.strongest": 5,
    "circuit.ablate": "zero",
    "attention.token": 2,
    "lens.chosen": 1,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return xlgpt.build(tmp_path_factory.mktemp("gnumeric") / "tiny.xlsx", **ROOM).path


def calculated(path: Path, cells: dict[str, Any], folder: Path) -> dict[str, Grid]:
    """What Gnumeric makes of a copy with other values in some cells: the sheets with formulas."""
    book = Book(path)
    fill(path, folder / "filled.xlsx", cells)
    command = ["ssconvert", "--recalc", folder / "filled.xlsx", folder / "calculated.xlsx"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    formulas = [name for name in book.sheets if name not in book.weights.sheets and book.cells(name).formulas]
    return by_openpyxl(folder / "calculated.xlsx", formulas)


@pytest.mark.long
def test_another_prompt(path: Path, tmp_path: Path) -> None:
    book = Book(path)
    read = calculated(path, {"prompt": PROMPT}, tmp_path)
    assert sum(len(book.cells(sheet).formulas) for sheet in read) > 10_000
    assert not problems(book, read, book.prompt_of(PROMPT), book.settings)


@pytest.mark.long
def test_sampling_and_every_view(path: Path, tmp_path: Path) -> None:
    book = Book(path)
    prompt = book.prompt_of("Mike pulls out his")
    settings = book.settings.changed(SETTINGS)
    read = calculated(path, SETTINGS | {"prompt": prompt.text}, tmp_path)
    assert not problems(book, read, prompt, settings)
