"""The engine IronCalc: every formula as NumPy computes it, every text as tiktoken cuts it, and what it refuses."""

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import texts
from conftest import run_xlgpt

import xlgpt
from xlgpt.engines import IronCalc, start
from xlgpt.engines.run import Session
from xlgpt.errors import EngineFailed, EngineNotFound, UsageError
from xlgpt.model.checkpoint import TINY
from xlgpt.workbook.book import Book
from xlgpt.xlsx.worksheet import CellError

LOOKALIKES = [
    "=1+1",
    "1e5",
    "'quoted",
    "TRUE",
    "50%",
    "1/2/2020",
    " lead",
    "  ",
    "#VALUE!",
    "12",
    "-x",
    "+1",
    "@a",
    '"',
]
SMALL = "random:n_layer=1,n_head=1,n_embd=4,n_positions=16"
TEXTS = 150  # of the thousand that LibreOffice is tried with


@pytest.mark.slow
def test_it_calculates_every_formula_as_numpy_does(tiny_book: Path) -> None:
    report = xlgpt.check(tiny_book, engine="ironcalc")
    assert report.passed, list(report.sentences())
    assert len(report.prompts) == 3


@pytest.mark.long
def test_every_text_becomes_tiktoken_s_ids(tmp_path: Path) -> None:
    book = Book(texts.build(tmp_path, TINY, 1280, 128))
    engine = IronCalc(book)
    switches = {sheet.stage.switch: 0 for sheet in book.layout.sheets if sheet.stage.switch}
    settings = book.settings.changed({"max_new_tokens": 0, **switches})  # to cut a text is enough
    tried = [*LOOKALIKES, "", *random.Random(3).sample(texts.texts(book.tokenizer, 128), TEXTS), "a"]
    wrong = []
    for text in tried:
        engine.calculate(book.prompt_of(text), settings)
        assert engine.read(book.named("prompt"))[0, 0] == text
        found = [int(i) for i in engine.read(book.named("token_ids"))[:, 0] if i >= 0]
        status = engine.read(book.named("status"))[0, 0]
        if found != book.tokenizer.encode(text) or (status == "ok") != bool(text):
            wrong.append((text, found, status))
    assert not wrong, (len(wrong), wrong[:5])


@pytest.mark.slow
def test_it_answers_as_numpy_does_and_again_after_other_settings(tiny_book: Path) -> None:
    with Session(tiny_book, "ironcalc") as ours, Session(tiny_book, "formulas") as theirs:
        for text, tokens, sampling in (
            ("The cow says", 0, {}),
            ("Mike is a Jedi. He pulls out his", 2, {"temperature": 1, "seed": 5}),
            ("The cow says", 0, {}),
        ):
            answer, wanted = (session.answer(text, tokens, sampling) for session in (ours, theirs))
            assert (answer.next_token, answer.completion) == (wanted.next_token, wanted.completion)
            assert answer.written == wanted.written
            assert [c.id for c in answer.top] == [c.id for c in wanted.top]
            assert [c.probability for c in answer.top] == pytest.approx([c.probability for c in wanted.top], abs=1e-9)


@pytest.mark.slow
def test_the_command_line_goes_on_line_after_line(tiny_book: Path) -> None:
    done = run_xlgpt(
        "run", tiny_book, "--engine", "ironcalc", "--interactive", "--tokens", "1", input="=1+1\nThe cow says\n"
    )
    assert done.returncode == 0, done.stderr
    assert "The cow says moo\n" in done.stdout
    assert done.stdout.startswith("=1+1 is")


@pytest.mark.slow
def test_an_error_value_is_no_text_and_a_text_is_no_error_value(tiny_book: Path) -> None:
    book = Book(tiny_book)
    engine = IronCalc(book)
    engine._model.set_user_input(0, 7, 2, "=1/0")
    engine._model.evaluate()
    assert isinstance(engine.read(book.named("prompt"))[0, 0], CellError)
    engine.calculate(book.prompt_of("#DIV/0!"))
    assert type(engine.read(book.named("prompt"))[0, 0]) is str


def test_without_ironcalc_the_message_says_how_to_get_it(tiny_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ironcalc", None)
    with pytest.raises(EngineNotFound, match=r"pip install 'xlgpt\[ironcalc\]'"):
        start("ironcalc", Book(tiny_book), 60)


@pytest.mark.slow
def test_what_it_cannot_sort_is_refused(tiny_book: Path) -> None:
    with Session(tiny_book, "ironcalc") as session:
        for sampling in ({"top_k": 3}, {"top_p": 0.5}):
            with pytest.raises(UsageError, match=r"LARGE for one rank only.*leave out top k and top p"):
                session.answer("The cow says", 2, {"temperature": 1, **sampling})
        assert session.answer("The cow says", 1, {"top_k": 3}).completion == " moo"  # no sampling, nothing to sort


def test_a_large_workbook_is_refused_before_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlgpt.workbook.plan.BARE_FROM", 0)
    path = xlgpt.build(tmp_path / "large.xlsx", SMALL, "a", context=4, max_bytes=8, sheets="none").path
    with pytest.raises(EngineFailed, match="IronCalc reads no cells that do not say where they stand"):
        IronCalc(Book(path))


def test_dot_products_are_refused(tmp_path: Path) -> None:
    path = xlgpt.build(tmp_path / "dots.xlsx", SMALL, "a", context=4, max_bytes=8, matmul="sumproduct").path
    with pytest.raises(EngineFailed, match="MATCH in a single cell"):
        IronCalc(Book(path))


def test_room_for_a_single_new_token_is_refused(tmp_path: Path) -> None:
    path = xlgpt.build(tmp_path / "one.xlsx", SMALL, "a", context=4, max_bytes=8, sheets="none", generate=1).path
    with pytest.raises(EngineFailed, match="INDEX of a single cell"):
        IronCalc(Book(path))


def test_gelu_is_refused(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    model = make_checkpoint(activation_function="gelu")
    path = xlgpt.build(tmp_path / "gelu.xlsx", str(model), "a", context=4, max_bytes=8, sheets="none").path
    with pytest.raises(EngineFailed, match="NORMSDIST of one number only"):
        IronCalc(Book(path))


def test_a_damaged_workbook_is_said_in_a_sentence(tiny_book: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.xlsx"
    shutil.copy(tiny_book, path)
    book = Book(path)
    assert book.config.n_layer
    path.write_bytes(path.read_bytes().replace(b"xl/styles.xml", b"xl/stylez.xml"))
    with pytest.raises(xlgpt.XlgptError, match=r"damaged\.xlsx"):
        IronCalc(book)
