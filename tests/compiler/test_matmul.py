"""Matrix products as MMULTs and as dot products: the same numbers, in other cells."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

import xlgpt
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.errors import UsageError
from xlgpt.oracle.values import expected
from xlgpt.workbook.book import Book

MODEL = "random:n_layer=2,n_head=2,n_embd=8,n_inner=24,n_positions=16,vocab_size=1300"
PROMPTS = ("hello world", "a")


def build(folder: Path, matmul: str) -> Path:
    return xlgpt.build(folder / f"{matmul}.xlsx", MODEL, "hello", context=6, max_bytes=16, matmul=matmul).path


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("matmul")
    return {matmul: build(folder, matmul) for matmul in ("mmult", "sumproduct")}


def test_the_choice_is_a_named_cell(books: dict[str, Path]) -> None:
    assert {choice: Book(path).matmul for choice, path in books.items()} == {c: c for c in books}


def test_a_small_model_is_written_with_mmult(tmp_path: Path) -> None:
    assert Book(build(tmp_path, "auto")).matmul == "mmult"


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--matmul fast: write auto, mmult or sumproduct"):
        build(tmp_path, "fast")


def test_templates_are_the_same_and_formulas_are_not(books: dict[str, Path]) -> None:
    def formula(choice: str, name: str, row: int = 0) -> str:
        book = Book(books[choice])
        cell = book.named(name).cell(row, 0)
        there = book.cells(cell.sheet)
        return there.formulas[next(there.over(cell))].text

    weight = "h.1.mlp.c_proj.weight"
    assert f"{weight})+h.1.mlp.c_proj.bias" in formula("mmult", "blocks.1.mlp_out")
    assert re.search(r"TRANSPOSE\(\w+:\w+\)\+h.1.mlp.c_proj.bias", formula("sumproduct", "blocks.1.mlp_out"))
    first, later = (formula("sumproduct", "blocks.1.mlp_out.product", row) for row in (0, 5))
    number = re.search(rf"SUMPRODUCT\(\w+\$\d+:\w+\$\d+,INDEX\({weight},0,\$C(\d+)\)\)", first)
    assert number
    assert later == first.replace(f"$C{number[1]})", f"$C{int(number[1]) + 5})")
    assert "TRANSPOSE" in formula("sumproduct", "blocks.1.mlp.post.column")


def test_the_lm_head_is_sliced(books: dict[str, Path]) -> None:
    heights = {}
    for choice, path in books.items():
        book = Book(path)
        cells = book.named("logits")
        there = book.cells(cells.sheet)
        heights[choice] = [there.formulas[i].cells.height for i in there.over(cells)]
    assert heights == {"mmult": [650, 650], "sumproduct": [650, 650]}


def test_saved_values_are_the_products(books: dict[str, Path]) -> None:
    book = Book(books["sumproduct"])
    values = expected("hello", book.model, book.layout, book.settings)
    x, w = values["blocks.0.ln2.normalized"], book.weights.tensor("h.0.mlp.c_fc.weight")
    cells = book.named("blocks.0.mlp.pre.product")
    there = book.cells(cells.sheet)
    saved = [[there.saved[next(there.over(cells.cell(i, t)))] for t in range(len(x))] for i in range(cells.height)]
    assert np.allclose(np.array(saved, dtype=float).reshape(cells.height, -1), (x @ w).T, atol=1e-6)
    assert np.array_equal(values["blocks.0.ln2.normalized.column"], x.T)


@pytest.mark.quick(1)
@pytest.mark.parametrize("choice", ["mmult", "sumproduct"])
@pytest.mark.parametrize("engine", ["formulas", pytest.param("libreoffice", marks=pytest.mark.libreoffice)])
def test_check_passes(books: dict[str, Path], choice: str, engine: str) -> None:
    report = xlgpt.check(books[choice], engine=engine, prompts=PROMPTS)
    assert report.passed, report.sentences()


def test_check_finds_a_wrong_dot_product(books: dict[str, Path], tmp_path: Path) -> None:
    good = Book(books["sumproduct"])
    part, out = good.part("Block 1"), tmp_path / "bad.xlsx"
    with zipfile.ZipFile(good.path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == part:
                changed = content.replace(b"INDEX(h.1.mlp.c_fc.weight,0,$C", b"INDEX(h.1.mlp.c_fc.weight,0,1+0*$C", 1)
                assert changed != content
                content = changed
            new.writestr(name, content)
    report = xlgpt.check(out, prompts=("hello",))
    assert not report.passed
    assert any("Block 1" in line for line in report.sentences())


@pytest.mark.slow
@pytest.mark.libreoffice
def test_a_row_may_wait_for_the_token_above_it(tmp_path: Path) -> None:
    """In LibreOffice's threads it may not; the model is large enough for them."""
    options = {"context": 10, "generate": 4, "sheets": "none", "matmul": "sumproduct"}
    xlgpt.build(tmp_path / "tiny.xlsx", "tiny", "Mike pulls out", **options)
    report = xlgpt.check(tmp_path / "tiny.xlsx", engine="libreoffice", prompts=("Mike pulls out",))
    assert report.passed, list(report.sentences())
    assert report.prompts[0].next_token == " his phone."


@pytest.mark.libreoffice
def test_only_the_last_row_changes_with_the_last_token(books: dict[str, Path]) -> None:
    book = Book(books["sumproduct"])
    engine = LibreOffice(book)
    try:
        prompt = book.prompt_of("hello")
        engine.calculate(prompt)
        cells, last = book.named("blocks.1.mlp_out.product"), len(prompt.ids) - 1
        before = engine.read(cells)
        engine.write(book.named("token_ids").cell(last, 0), 7.0)
        same = (engine.read(cells) == before).all(axis=0)
        assert same.tolist() == [token != last for token in range(6)]
    finally:
        engine.close()
