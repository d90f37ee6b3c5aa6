"""Weights with fewer digits: rounded as Python's own formatting rounds, in the file, and in what check expects."""

from pathlib import Path

import numpy as np
import pytest

import xlgpt
from xlgpt.book import Book
from xlgpt.check_weights import check_weights
from xlgpt.checkpoint import load
from xlgpt.errors import UsageError, WorkbookTooLarge
from xlgpt.precision import rounded, significant
from xlgpt.worksheet import rows


@pytest.mark.parametrize("digits", range(1, 10))
def test_rounds_as_python_prints(digits: int) -> None:
    rng = np.random.default_rng(digits)
    numbers = (rng.normal(size=20_000) * 10 ** rng.uniform(-9, 0, 20_000)).astype(np.float32)
    numbers[:6] = 0, 1, -1, 0.1, 9.9999999, 0.00099999999
    wanted = np.array([f"{float(number):.{digits - 1}e}" for number in numbers], dtype=np.float32)
    assert np.array_equal(significant(numbers, digits), wanted)


def test_the_largest_float32_stays_finite() -> None:
    assert np.isfinite(significant(np.array([np.finfo(np.float32).max], dtype=np.float32), 2)).all()


@pytest.fixture(scope="module")
def coarse_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("precision") / "coarse.xlsx"
    xlgpt.build(path, model="tiny", context=8, precision=3)
    return path


def test_no_cell_has_more_digits(coarse_book: Path) -> None:
    book = Book(coarse_book)
    assert book.precision == 3
    place = book.named("h.0.mlp.c_fc.weight")
    lines = [line for row, line in rows(book.path, book.part("h.0")) if place.row <= row < place.row + place.height]
    texts = b"".join(lines).replace(b"</c>", b"").replace(b"<c>", b"").split(b"</v>")
    found = [text.removeprefix(b"<v>").partition(b"e")[0] for text in texts if text]
    assert len(found) == place.height * place.width
    assert max(len(text.lstrip(b"-").replace(b".", b"").strip(b"0")) for text in found) == 3


def test_check_expects_the_rounded_weights(coarse_book: Path, tiny_book: Path) -> None:
    assert coarse_book.stat().st_size < 0.9 * tiny_book.stat().st_size
    for digits, is_right in ((3, True), (2, False), (4, False), (0, False)):
        found = check_weights(Book(coarse_book), rounded(load("tiny"), digits), lambda phase, done, total: None)
        assert is_right != any(sheet.problems for sheet in found)
    assert xlgpt.check(coarse_book, model="tiny", prompts=("T",), rows="last").passed


def test_a_senseless_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--precision 10: give 1 to 9 significant digits"):
        xlgpt.build(tmp_path / "book.xlsx", model="tiny", precision=10)
    assert rounded(load("tiny"), None).precision == 0


def test_what_is_too_large_may_fit_with_fewer_digits(tmp_path: Path) -> None:
    with pytest.raises(WorkbookTooLarge, match=r"4\.7 GB.*or give --precision 6\."):
        xlgpt.build(tmp_path / "book.xlsx", model="random:gpt2-large")
    assert not list(tmp_path.iterdir())
