"""openpyxl, python-calamine and SheetJS read every kind of workbook of ours to the same values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from openpyxl.worksheet.formula import ArrayFormula
from readers import Grid, by_calamine, by_openpyxl, by_sheetjs, part, problems

import xlgpt
from xlgpt.model.checkpoint import load
from xlgpt.model.precision import rounded
from xlgpt.workbook.book import Book

RANDOM = "random:n_layer=2,n_head=2,n_embd=8,n_inner=24,n_positions=16,vocab_size=1300"
ROOM = {"prompt": "hello world", "context": 8, "max_bytes": 16}
KINDS: dict[str, dict[str, Any]] = {
    "mmult": {"model": RANDOM, **ROOM},
    "tiny": {"model": "tiny", "context": 4, "prompt": "The cow says", "max_bytes": 16, "sheets": "none"},
    "sumproduct": {"model": RANDOM, **ROOM, "matmul": "sumproduct"},
    "sumproduct that writes one token": {"model": RANDOM, **ROOM, "matmul": "sumproduct", "generate": 1},
    "few digits": {"model": RANDOM, **ROOM, "precision": 4},
    "large": {"model": RANDOM, **ROOM},  # in which a weight does not say where it stands
}

Reader = Callable[[Path], dict[str, Grid]]


@pytest.fixture(scope="module", params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        if request.param == "large":
            patched.setattr("xlgpt.workbook.plan.BARE_FROM", 0)
        return xlgpt.build(tmp_path_factory.mktemp("book") / f"{request.param}.xlsx", **KINDS[request.param]).path


def hold(path: Path, read: dict[str, Grid]) -> None:
    """Every band, every weight and every token as they must be."""
    book = Book(path)
    kind = KINDS[path.stem]
    model = rounded(load(kind["model"]), kind.get("precision"))
    for name, shape in model.weights.shapes().items():
        cells = book.named(name)
        shown = part(read[cells.sheet], cells).astype(np.float32).reshape(shape)
        assert (shown == model.weights.tensor(name)).all(), name
    formulas = {name: grid for name, grid in read.items() if name not in book.weights.sheets}
    assert not problems(book, formulas, book.prompt, book.settings)
    shown = part(read["Vocabulary"], book.named("vocabulary.shown"))[:, 0]
    assert shown.tolist() == [book.tokenizer.shown(i) for i in range(len(shown))]


@pytest.mark.quick(1)
def test_openpyxl_reads_the_values(path: Path) -> None:
    hold(path, by_openpyxl(path))


@pytest.mark.quick(1)
def test_calamine_reads_the_values(path: Path) -> None:
    hold(path, by_calamine(path))


@pytest.mark.quick(1)
@pytest.mark.node
def test_sheetjs_reads_the_values(path: Path, sheetjs: Path) -> None:
    hold(path, by_sheetjs(path, sheetjs))


@pytest.mark.quick(1)
def test_openpyxl_reads_the_formulas(path: Path) -> None:
    book, theirs = Book(path), openpyxl.load_workbook(path)
    for name in book.sheets:
        if name in book.weights.sheets:
            continue
        for formula in book.cells(name).formulas:
            cell = theirs[name].cell(formula.cells.row + 1, formula.cells.column + 1).value
            found = cell.text if isinstance(cell, ArrayFormula) else cell
            assert str(found).removeprefix("=") == formula.text
            assert isinstance(cell, ArrayFormula) == formula.is_array
