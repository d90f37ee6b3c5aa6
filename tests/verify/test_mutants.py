"""Faults that are generated, in every band and in every kind of formula: reading finds all, values nearly all."""

import random
import sys
from pathlib import Path

import pytest
from conftest import write_checkpoint

import xlgpt
from xlgpt.verify.tokens_of import tokens_of
from xlgpt.workbook.book import Book

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from mutants import KINDS, Mutant, Outcome, by_value, mutants, name_mutants, written

WHOLE = 2  # that are written into files, and given to check


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    folder = tmp_path_factory.mktemp("mutants")
    model = write_checkpoint(folder / "model", n_layer=1)
    xlgpt.build(folder / "book.xlsx", str(model), "hello world", context=6, max_bytes=16, generate=3)
    return Book(folder / "book.xlsx")


@pytest.fixture(scope="module")
def made(book: Book) -> list[Mutant]:
    return [*mutants(book, seed=1), *name_mutants(book)]


@pytest.fixture(scope="module")
def some(made: list[Mutant]) -> list[Mutant]:
    """Every second one; all of them are tried in bench/mutants.py."""
    return made[::2]


@pytest.fixture(scope="module")
def outcome(book: Book, some: list[Mutant]) -> Outcome:
    return by_value(book, some)


def test_there_is_one_for_every_band(book: Book, made: list[Mutant]) -> None:
    there = {name for name, placed in book.layout.bands.items() if placed.band.formula}
    assert there <= {mutant.band for mutant in made}
    assert {mutant.kind for mutant in made} == {*KINDS, "name"}
    assert any(mutant.original.cells.sheet == "Home" for mutant in made)


def test_whoever_reads_sees_them_all(made: list[Mutant]) -> None:
    for mutant in made:
        sheet = mutant.original.cells.sheet
        assert tokens_of(mutant.text, sheet) != tokens_of(mutant.original.text, sheet), mutant


@pytest.mark.slow
def test_values_betray_most(some: list[Mutant], outcome: Outcome) -> None:
    """The others stand in a branch that is said not to be taken, or show the same whatever is tried."""
    assert len(outcome.found) + len(outcome.untaken) + len(outcome.alike) == len(some)
    assert len(outcome.found) > 0.7 * len(some)
    branches = [mutant for mutant in outcome.alike if mutant.kind == "branch"]
    assert not branches, list(map(str, branches))


@pytest.mark.slow
def test_check_finds_what_their_values_betray(book: Book, outcome: Outcome, tmp_path: Path) -> None:
    whole = [mutant for mutant in outcome.found if mutant.kind != "name"]
    for mutant in random.Random(2).sample(whole, WHOLE):
        report = xlgpt.check(written(book, mutant, tmp_path / "mutant.xlsx"), allow_changed=True)
        assert not report.passed, mutant
        assert report.changed or mutant.kind == "frozen", mutant
