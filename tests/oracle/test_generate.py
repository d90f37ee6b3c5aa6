"""Writing on: the workbook's own generation, greedy and sampled, against NumPy and tiktoken's decoder."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from conftest import run_xlgpt

import xlgpt
from xlgpt.engines import FormulasLibrary
from xlgpt.engines.engine import Engine
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.engines.run import Session
from xlgpt.errors import UsageError
from xlgpt.model.checkpoint import Model, load
from xlgpt.model.reference import softmax, what_follows
from xlgpt.model.sampling import BEST, Sampling, choose, random_numbers, write
from xlgpt.oracle.generation import shown_text
from xlgpt.workbook.book import Book

PROMPTS = (
    "If today is Tuesday, tomorrow is",
    "Mike pulls out his",
    "Once upon a",
    "The cow says",
    "A",
    "The capital of France is",
    "He moves",
    "Michael Jordan plays",
    "One day,",
    "The dog",
)
SAMPLINGS = (
    Sampling(),
    Sampling(temperature=1, seed=3),
    Sampling(temperature=1.5, top_k=5, seed=123456789),
    Sampling(temperature=0.7, top_p=0.8, seed=2**31 - 1),
    Sampling(temperature=2, top_k=50, top_p=0.5, seed=0),
)


@pytest.fixture(scope="module")
def small_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workbook that calculates quickly, with rows for 8 new tokens."""
    path = tmp_path_factory.mktemp("small") / "small.xlsx"
    xlgpt.build(path, "tiny", context=16, max_bytes=48, generate=8, sheets="none")
    return path


@pytest.fixture(scope="module")
def office(small_book: Path) -> Iterator[LibreOffice]:
    engine = LibreOffice(Book(small_book))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def typewriter(small_book: Path) -> Iterator[LibreOffice]:
    """For tests that write over formulas."""
    engine = LibreOffice(Book(small_book))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def tiny() -> Model:
    return load("tiny")


def wanted(model: Model, text: str, n: int, sampling: Sampling) -> list[int]:
    """What NumPy writes: it stops at <|endoftext|>, and where 16 tokens are there."""
    ids = model.tokenizer.encode(text)
    stop = next(iter(model.tokenizer.special))
    return write(ids, min(n, 16 - len(ids)), what_follows(model.weights, model.config), sampling, stop)


def assert_writes(engine: Engine, book: Book, model: Model, text: str, n: int, sampling: Sampling) -> None:
    settings = book.settings.changed({"max_new_tokens": n, **vars(sampling)})
    engine.calculate(book.prompt_of(text), settings)
    written = [int(i) for i in engine.read(book.named("written.id"))[:, 0] if i != ""]
    truth = wanted(model, text, n, sampling)
    assert written == truth, (text, sampling)
    assert engine.read(book.named("completion"))[0, 0] == model.tokenizer.decode(truth)
    assert engine.read(book.named("n_written"))[0, 0] == len(truth)


@pytest.mark.slow
@pytest.mark.libreoffice
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_libreoffice_writes_what_numpy_writes(
    office: LibreOffice, small_book: Path, tiny: Model, sampling: Sampling
) -> None:
    for i, text in enumerate(PROMPTS):
        assert_writes(office, Book(small_book), tiny, text, (8, 3, 1)[i % 3], sampling)


def test_the_formulas_library_writes_what_numpy_writes(small_book: Path, tiny: Model) -> None:
    book = Book(small_book)
    engine = FormulasLibrary(book)
    for text, sampling in zip(PROMPTS, SAMPLINGS, strict=False):
        assert_writes(engine, book, tiny, text, 3, sampling)


@pytest.mark.long
@pytest.mark.libreoffice
def test_over_2000_seeds_the_first_token_is_distributed_as_softmax_says(
    tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    """Pearson's chi-squared over all tokens that are expected at least 5 times, the others as one."""
    prompt, folder = "a", make_checkpoint(n_layer=1)
    model = load(str(folder))
    xlgpt.build(tmp_path / "sampled.xlsx", str(folder), prompt=prompt, context=2, max_bytes=2, sheets="none")
    book = Book(tmp_path / "sampled.xlsx")
    office = LibreOffice(book)
    chosen: Counter[int] = Counter()
    try:
        for seed in range(2000):
            office.calculate(book.prompt, book.settings.changed({"max_new_tokens": 1, "temperature": 1, "seed": seed}))
            chosen[int(office.read(book.named("next.id"))[0, 0])] += 1
    finally:
        office.close()
    shares = softmax(what_follows(model.weights, model.config)(model.tokenizer.encode(prompt)))
    assert_distributed(chosen, shares, 2000)


def assert_distributed(chosen: Counter[int], shares: np.ndarray, total: int) -> None:
    seen = np.array([chosen[i] for i in range(len(shares))], dtype=float)
    often = shares * total >= 5
    observed = np.append(seen[often], seen[~often].sum())
    expected = np.append(shares[often], shares[~often].sum()) * total
    observed, expected = observed[expected > 0], expected[expected > 0]
    degrees = len(expected) - 1
    statistic = float(((observed - expected) ** 2 / expected).sum())
    # Wilson and Hilferty 1931: its cube root is nearly normal; 1 in 1,000 would be further out.
    z = ((statistic / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / np.sqrt(2 / (9 * degrees))
    assert degrees >= 3
    assert z < 3.1, (statistic, degrees)


@pytest.mark.parametrize(
    "sampling", [Sampling(0.5), Sampling(1, 7), Sampling(1, 0, 0.9), Sampling(2, 30, 0.6)], ids=str
)
def test_sampling_follows_temperature_top_k_and_top_p(sampling: Sampling) -> None:
    """Against the textbook: sort, cut off, divide (Holtzman et al. 2020), which `choose` does not do that way."""
    logits = np.random.default_rng(5).normal(0, 3, 300)
    shares = softmax(logits / sampling.temperature)
    order = sorted(range(300), key=lambda i: -shares[i])
    if sampling.top_k:
        order = order[: sampling.top_k]
    together, nucleus = sum(shares[i] for i in order), []
    for i in order:
        if sum(shares[j] for j in nucleus) < sampling.top_p * together:
            nucleus.append(i)
    kept = np.zeros(300)
    kept[nucleus] = shares[nucleus] / shares[nucleus].sum()
    draws = (next(random_numbers(seed)).number for seed in range(4000))
    assert_distributed(Counter(choose(logits, draw, sampling) for draw in draws), kept, 4000)


@pytest.mark.parametrize("which", [0, 1, 7])
def test_the_random_numbers_are_uniform(which: int) -> None:
    """Uniform over seeds, and neither neighbouring seeds nor neighbouring numbers have to do with each other."""
    pairs = [[t.number for t in islice(random_numbers(seed), which, which + 2)] for seed in range(20_000)]
    draws, nexts = np.array(pairs).T
    for one, other in ((draws, nexts), (draws[:-1], draws[1:]), (draws[:-2], draws[2:])):
        cells, _, _ = np.histogram2d(one, other, bins=10, range=[[0, 1], [0, 1]])
        assert_distributed(Counter(dict(enumerate(cells.ravel().astype(int)))), np.full(100, 0.01), len(one))
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.02


@pytest.mark.libreoffice
def test_the_states_of_the_random_generators_in_cells(office: LibreOffice, small_book: Path) -> None:
    book = Book(small_book)
    settings = book.settings.changed({"max_new_tokens": 3, "temperature": 1, "seed": 987654321})
    office.calculate(book.prompt_of("A"), settings)
    cells = [office.read(book.named(f"next.{name}"))[:3, 0].tolist() for name in ("state_1", "state_2", "draw")]
    truth = list(islice(random_numbers(987654321), 3))
    assert cells == [
        [t.first for t in truth],
        [t.second for t in truth],
        pytest.approx([t.number for t in truth], abs=1e-15),
    ]


@pytest.mark.quick(1)
@pytest.mark.libreoffice
@pytest.mark.parametrize(
    "data",
    [
        "🙂éÿ".encode(),
        b"\xf0\x9f\x99",  # cut short at the end
        b"\xf0\x9f\x41\x42",  # cut short by a letter
        b"\x80\xbf\xc0\xc1\xf5\xff",
        b"\xe0\x80\x80\xed\xa0\x80",  # too long a form, a surrogate
        b"\xf4\x90\x80\xc3\xa9\n\t",
        b"\xf0\x80\xe2\x82\xac",
        b"a\xe2\x82a\xe2\x82",
    ],
)
def test_bytes_become_text_as_tiktoken_decodes_them(
    typewriter: LibreOffice, small_book: Path, tiny: Model, data: bytes
) -> None:
    """Each byte is typed as a token of its own over the cells of what was written."""
    book, office = Book(small_book), typewriter
    office.calculate(book.prompt_of("A"), book.settings.changed({"max_new_tokens": len(data)}))
    ids = [tiny.tokenizer.byte_ids[byte] for byte in data]
    for i, number in enumerate(ids, 1):
        office.write(book.named("token_ids").cell(i, 0), float(number))
    assert office.read(book.named("completion"))[0, 0] == tiny.tokenizer.decode(ids)


def test_what_no_cell_can_hold_becomes_a_sign() -> None:
    assert shown_text(b"a\x00b\xef\xbf\xbe") == "a\ufffdb\ufffd"


@pytest.mark.libreoffice
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_new_tokens": 9}, "Tokens to write: a whole number from 0 to 8."),
        ({"max_new_tokens": "two"}, "Tokens to write: a whole number from 0 to 8."),
        ({"temperature": -1}, "Temperature: 0 or more."),
        ({"top_k": BEST + 1}, "Top k: a whole number from 0 (no limit) to 50."),
        ({"top_k": 1.5}, "Top k: a whole number from 0 (no limit) to 50."),
        ({"top_p": 0}, "Top p: more than 0, and at most 1 (no limit)."),
        ({"seed": 2**31}, "Seed: a whole number from 0 to 2147483647."),
        ({"max_new_tokens": ""}, "Nothing is to be written: set the number of tokens to write."),
        ({"temperature": 90, "top_p": 0.999}, "The 50 most likely tokens together do not reach the share top p"),
    ],
)
def test_settings_that_cannot_be(
    office: LibreOffice, small_book: Path, settings: dict[str, float | str], words: str
) -> None:
    book = Book(small_book)
    office.calculate(book.prompt_of("If today is Monday, tomorrow is"), book.settings.changed(settings))
    assert str(office.read(book.named("generation_status"))[0, 0]).startswith(words)
    assert office.read(book.named("completion"))[0, 0] == ""
    assert office.read(book.named("next_token"))[0, 0] == " Tuesday"


@pytest.mark.libreoffice
def test_it_stops_at_the_end_of_the_text_and_of_the_rows(office: LibreOffice, small_book: Path, tiny: Model) -> None:
    book = Book(small_book)
    office.calculate(book.prompt_of("If today is Tuesday, tomorrow is"), book.settings.changed({"max_new_tokens": 8}))
    assert office.read(book.named("completion"))[0, 0] == " Wednesday."
    assert "chose the end" in str(office.read(book.named("generation_status"))[0, 0])
    long = "Once upon a time there was a small dog in the"
    assert len(tiny.tokenizer.encode(long)) > 8
    office.calculate(book.prompt_of(long), book.settings.changed({"max_new_tokens": 8}))
    assert "all 16 rows" in str(office.read(book.named("generation_status"))[0, 0])


@pytest.mark.libreoffice
def test_the_lm_head_shows_any_position(office: LibreOffice, small_book: Path, tiny: Model) -> None:
    book, text = Book(small_book), "If today is Tuesday, tomorrow is"
    ids = tiny.tokenizer.encode(text)
    for position, row in ((3, 3), (0, 0), ("", len(ids) - 1), (40, len(ids) - 1), (-1, len(ids) - 1)):
        settings = book.settings.changed({"max_new_tokens": 0, "shown_position": position})
        office.calculate(book.prompt_of(text), settings)
        logits = what_follows(tiny.weights, tiny.config)(ids[: row + 1])
        np.testing.assert_allclose(office.read(book.named("logits"))[:, 0].astype(float), logits, atol=1e-6)
        assert office.read(book.named("next_token_id"))[0, 0] == logits.argmax()


@pytest.mark.slow
def test_the_command_prints_the_text(small_book: Path) -> None:
    arguments = ("--prompt", "If today is Monday, tomorrow is", "--engine", "formulas", "--tokens", "8")
    result = run_xlgpt("run", small_book, *arguments)
    assert result.stdout.startswith("If today is Monday, tomorrow is Tuesday.\n"), result.stderr
    result = run_xlgpt("run", small_book, *arguments, "--temperature", "-1")
    assert (result.returncode, result.stderr) == (2, "xlgpt: Temperature: 0 or more.\n")


@pytest.mark.slow
def test_python_can_ask_for_tokens_too(small_book: Path) -> None:
    with Session(small_book, "formulas") as session:
        assert session.answer("The capital of France is", 2).completion == " Paris."
        with pytest.raises(UsageError, match="Tokens to write"):
            session.answer(tokens=9)


def test_a_workbook_needs_rows_for_what_it_writes(tmp_path: Path) -> None:
    for generate in (0, 16):
        with pytest.raises(UsageError, match="make room for 1 to 15"):
            xlgpt.build(tmp_path / "no.xlsx", "tiny", context=16, generate=generate)
    assert not list(tmp_path.iterdir())
