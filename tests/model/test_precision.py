"""Weights with fewer digits: rounded as Python's own formatting rounds, in the file, and in what check expects."""

import re
from pathlib import Path

import numpy as np
import orjson
import pytest

import xlgpt
from xlgpt.errors import UsageError, WorkbookTooLarge
from xlgpt.model.checkpoint import load
from xlgpt.model.precision import rounded, shortest, significant
from xlgpt.progress import silent
from xlgpt.verify.check_weights import Given, check_weights
from xlgpt.workbook.book import Book
from xlgpt.xlsx.worksheet import rows


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
    found = [text.partition(b"e")[0] for line in lines for text in re.findall(rb"<v>([^<]+)</v>", line)]
    assert len(found) == place.height * place.width
    assert max(len(text.lstrip(b"-").replace(b".", b"").strip(b"0")) for text in found) == 3


@pytest.mark.slow
def test_check_expects_the_rounded_weights(coarse_book: Path, tiny_book: Path) -> None:
    assert coarse_book.stat().st_size < 0.9 * tiny_book.stat().st_size
    for digits, is_right in ((3, True), (2, False), (4, False), (0, False)):
        found = check_weights(Book(coarse_book), Given(rounded(load("tiny"), digits)), silent)
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


def test_the_reference_sees_the_decimals_that_stand_in_the_cells() -> None:
    """As orjson prints them, to the last bit but one, and each reads back to its float32."""
    random = np.random.default_rng(0)
    numbers = random.normal(0, 0.02, 100_000).astype(np.float32)
    numbers[:1000] = numbers[:1000].round(3)
    numbers[1000:1100] = 0
    numbers[2000:3000] *= np.float32(1e-9)
    numbers[3000:4000] *= np.float32(1e12)
    numbers[4000:4100] = np.float32(2.0) ** random.integers(-60, 60, 100)
    printed = np.array(orjson.loads(orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)))
    decimals = shortest(numbers)
    assert (decimals.astype(np.float32) == numbers).all()
    assert np.abs(decimals - printed).max(initial=0, where=numbers == 0) == 0
    assert (np.abs(decimals - printed) <= 4e-16 * np.abs(printed)).all()
    assert (decimals != numbers).mean() > 0.9  # the float32 themselves are others
