"""Weights with fewer digits: rounded as Python's own formatting rounds, in the file, and in what check expects."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

import xlgpt
from xlgpt.errors import UsageError, WorkbookTooLarge
from xlgpt.model.checkpoint import Model, load
from xlgpt.model.notation import BINARY, bits, cut, shortest, significant
from xlgpt.model.precision import rounded
from xlgpt.verify.check_weights import Source, check_weights
from xlgpt.workbook.book import Book
from xlgpt.xlsx.worksheet import rows

Rounding = Callable[[Any, int], Any]


@pytest.mark.parametrize("digits", range(1, 10))
def test_rounds_as_python_prints(digits: int) -> None:
    rng = np.random.default_rng(digits)
    numbers = (rng.normal(size=20_000) * 10 ** rng.uniform(-9, 0, 20_000)).astype(np.float32)
    numbers[:6] = 0, 1, -1, 0.1, 9.9999999, 0.00099999999
    wanted = np.array([f"{float(number):.{digits - 1}e}" for number in numbers], dtype=np.float32)
    assert np.array_equal(significant(numbers, digits), wanted)


@pytest.mark.parametrize("digits", range(1, 10))
def test_in_binary_it_rounds_to_the_nearest_and_finer_than_the_digits(digits: int) -> None:
    """As NumPy's rint rounds mantissas; up to 5 digits are the upper 30 bits of a double."""
    rng = np.random.default_rng(digits)
    numbers = (rng.normal(size=20_000) * 10 ** rng.uniform(-9, 9, 20_000)).astype(np.float32)
    numbers[:4] = 0, 1, -1, 1 + 2**-18 * 0.5  # the last is as near to 1 as to the number above
    found = cut(numbers, digits)
    mantissa, exponent = np.frexp(numbers.astype(float))
    kept = 2.0 ** (bits(digits) + 1)
    assert np.array_equal(found, np.ldexp(np.rint(mantissa * kept) / kept, exponent).astype(np.float32))
    assert (np.abs(found - numbers) <= np.abs(significant(numbers, digits) - numbers).max()).all()
    assert (np.abs(found - numbers.astype(float)) <= 0.5 * 10.0**-digits * np.abs(numbers)).all()
    if digits <= 5:
        assert not (found.astype(float).view(np.uint64) & ((1 << 34) - 1)).any()


@pytest.mark.parametrize("rounded_to", [significant, cut])
@pytest.mark.parametrize("digits", range(1, 10))
def test_the_largest_float32_stays_finite(rounded_to: Rounding, digits: int) -> None:
    largest = np.finfo(np.float32).max
    found = rounded_to(np.array([largest, -largest], dtype=np.float32), digits)
    assert np.isfinite(found).all()
    assert found[0] == -found[1] > 0.85 * largest


@pytest.fixture(scope="module")
def coarse_xlsb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("precision") / "coarse.xlsb"
    return xlgpt.build(path, model="tiny", context=4, max_bytes=12, prompt="T", sheets="none", precision=3).path


def holds(book: Book, model: Model) -> bool:
    """Whether the weights are the model's."""
    source = Source(model.name, model.weights)
    return not any(check_weights(book, sheet, source).problems for sheet in book.weights.sheets)


def test_check_knows_how_binary_weights_are_rounded(coarse_xlsb: Path) -> None:
    for digits, is_right in ((3, True), (2, False), (4, False), (0, False)):
        assert is_right == holds(Book(coarse_xlsb), rounded(load("tiny"), digits, BINARY))


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
        assert is_right == holds(Book(coarse_book), rounded(load("tiny"), digits))
    assert xlgpt.check(coarse_book, model="tiny", prompts=("T",), rows="last").passed


def test_a_senseless_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--precision 10: give 1 to 9 significant digits"):
        xlgpt.build(tmp_path / "book.xlsx", model="tiny", precision=10)
    assert rounded(load("tiny"), None).precision == 0


@pytest.mark.parametrize(
    ("model", "file", "precision", "sentence"),
    [
        ("large", "book.xlsx", None, r"about 4\.7 GB.* model, or give --precision 6, or write an \.xlsb\."),
        (
            "xl",
            "book.xlsx",
            None,
            r"1,557,611,200 param.* at 6\.1 bytes each .*9\.5 GB.*an \.xlsb with --precision 2\.",
        ),
        ("xl", "book.xlsx", 3, r"at 3\.3 bytes each .*about 5\.1 GB.* model, or write an \.xlsb with --precision 2\."),
        ("xl", "book.xlsb", None, r"at 4\.8 bytes each .*about 7\.5 GB.* model, or give --precision 2\."),
        ("xl", "book.xlsb", 3, r"at 2\.8 bytes each .*about 4\.4 GB"),
    ],
)
def test_what_is_too_large_may_fit_with_fewer_digits(
    model: str, file: str, precision: int | None, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(WorkbookTooLarge, match=sentence):
        xlgpt.build(tmp_path / file, model=f"random:gpt2-{model}", precision=precision)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "precision", "each"),
    [
        ("book.xlsb", 2, 2.4),
        pytest.param("book.xlsb", 3, 2.8, marks=pytest.mark.long),
        pytest.param("book.xlsx", 3, 3.3, marks=pytest.mark.long),
    ],
)
def test_a_weight_of_xl_takes_as_many_bytes_as_the_refusal_says(
    file: str, precision: int, each: float, tmp_path: Path
) -> None:
    """One block of GPT-2 XL's width: what it has more than no block."""
    size = "random:n_layer={},n_embd=1600,n_head=25,vocab_size=1280"
    sizes = [
        xlgpt.build(tmp_path / file, size.format(n), context=4, sheets="none", precision=precision).size for n in (1, 2)
    ]
    assert (sizes[1] - sizes[0]) / 30_740_800 == pytest.approx(each, abs=0.1)


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
