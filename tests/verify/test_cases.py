"""What check tries of a workbook where a case takes long: three cases in which everything happens at least once."""

from dataclasses import replace
from pathlib import Path

import pytest

from xlgpt.model.tokenizer import Tokenizer
from xlgpt.verify.again import plan_again
from xlgpt.verify.cases import Case, unchanged, usual
from xlgpt.workbook.book import Book


@pytest.fixture(scope="module")
def book(tiny_book: Path) -> Book:
    return Book(tiny_book)


@pytest.fixture(scope="module")
def filled(book: Book) -> Case:
    """The one of the three that fills the rows."""
    return max((case for group in usual(book, brief=True) for case in group), key=lambda case: len(case.prompt.ids))


def test_every_row_is_filled_and_the_last_one_is_written(book: Book, filled: Case) -> None:
    values = replace(plan_again(book), prompt=filled.prompt.text, given=filled.settings).values
    assert values["position"].tolist() == list(range(book.context))
    assert len(filled.prompt.ids) == book.context - 2  # one token is typed behind them, and one is written


def test_a_token_is_typed_over_and_one_behind(book: Book, filled: Case) -> None:
    tokenizer: Tokenizer = book.tokenizer
    shown = tokenizer.encode(filled.prompt.text)
    typed = [row for row, cell in enumerate(filled.settings.cells["typed_tokens"][:, 0]) if cell != ""]
    assert len(typed) == 2
    assert typed[0] < len(shown) == typed[1] == book.context - 2


def test_its_prompt_has_characters_of_one_to_four_bytes(filled: Case) -> None:
    assert {len(c.encode()) for c in filled.prompt.text} == {1, 2, 3, 4}


def test_every_setting_is_changed(book: Book) -> None:
    cases = [case for group in usual(book, brief=True) for case in group]
    assert len(cases) == 3
    assert unchanged(book, cases) == []
