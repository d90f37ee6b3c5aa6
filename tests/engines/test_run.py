"""xlgpt run: a workbook used as a model."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import run_xlgpt

import xlgpt
from xlgpt.engines.run import Session
from xlgpt.errors import PromptTooLong, UsageError
from xlgpt.model.checkpoint import load
from xlgpt.model.reference import forward, softmax
from xlgpt.workbook.book import Book

PROMPT = "If today is Monday, tomorrow is"
ENGINES = ["formulas", pytest.param("libreoffice", marks=pytest.mark.libreoffice)]


@pytest.mark.quick(1)
@pytest.mark.parametrize("engine", ENGINES[::-1])
def test_an_answer_is_the_reference_s(engine: str, tiny_book: Path) -> None:
    answer = xlgpt.run(tiny_book, PROMPT, engine=engine)
    model = load("tiny")
    shares = softmax(forward(model.tokenizer.encode(PROMPT), model.weights, model.config)["logits"][-1])
    best = np.argsort(-shares)[:10]
    assert answer.next_token == " Tuesday"
    assert list(answer.ids) == model.tokenizer.encode(PROMPT)
    assert [candidate.id for candidate in answer.top] == best.tolist()
    np.testing.assert_allclose([candidate.probability for candidate in answer.top], shares[best], rtol=1e-6)
    assert answer.top[0].token == "␣Tuesday"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_prompt_in_the_file_is_the_default(engine: str, tiny_book: Path) -> None:
    answer = xlgpt.run(tiny_book, engine=engine)
    assert (answer.prompt, answer.next_token) == ("If today is Tuesday, tomorrow is", " Wednesday")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_one_session_answers_many_prompts(engine: str, tiny_book: Path) -> None:
    model = load("tiny")
    with Session(tiny_book, engine) as session:
        for text in (PROMPT, "If", PROMPT, "One day, ", f"{PROMPT} Tuesday", "If today is Friday, tomorrow is"):
            logits = forward(model.tokenizer.encode(text), model.weights, model.config)["logits"][-1]
            assert session.answer(text).next_token_id == logits.argmax()
        with pytest.raises(PromptTooLong):
            session.answer("one two three " * 9)
        with pytest.raises(UsageError, match="no token"):
            session.answer("")
        assert session.answer(PROMPT).next_token == " Tuesday"


@pytest.mark.slow
def test_the_command_prints_the_next_token_and_ten_candidates(tiny_book: Path) -> None:
    result = run_xlgpt("run", tiny_book, "--prompt", PROMPT, "--engine", "formulas")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == f"{PROMPT} Tuesday."
    assert sum("%" in line for line in lines) == 10


@pytest.mark.slow
def test_json(tiny_book: Path) -> None:
    result = run_xlgpt("run", tiny_book, "--prompt", PROMPT, "--engine", "formulas", "--json")
    answer = json.loads(result.stdout)
    assert answer["next_token"] == " Tuesday"
    assert len(answer["top"]) == 10


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_interactive_answers_line_by_line_and_survives_a_bad_one(engine: str, tiny_book: Path) -> None:
    lines = [PROMPT, "one two three " * 9, "", "If today is Friday, tomorrow is"]
    command = [sys.executable, "-m", "xlgpt", "run", str(tiny_book), "--interactive", "--json", "--engine", engine]
    result = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, timeout=120, check=True)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["next_token"] for answer in answers] == [" Tuesday", " Saturday"]
    assert result.stderr.count("xlgpt: ") == 2


@pytest.mark.parametrize("arguments", [["nowhere.xlsx"], [__file__]])
def test_what_is_no_workbook(arguments: list[str]) -> None:
    for command in ("run", "check"):
        result = run_xlgpt(command, *arguments)
        assert result.returncode == 1
        assert result.stderr.startswith("xlgpt: ")
        assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_without_libreoffice_the_message_says_so(tiny_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["run"], ["check", "--engine", "libreoffice"]):
        result = run_xlgpt(*command, tiny_book, env={"PATH": "/nowhere", "XLGPT_SOFFICE": ""})
        if "apt-get" not in result.stderr:
            pytest.skip("LibreOffice stands in its usual place")
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_text_that_needs_care(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    xlgpt.build(tmp_path / "book.xlsx", model=str(make_checkpoint()), context=12, prompt="hello")
    book = Book(tmp_path / "book.xlsx")
    with Session(tmp_path / "book.xlsx", "formulas") as session:
        for text in ("=1+1", "  ", "a\nb\tc", "_x0041_", "<&>", "héé", "😀"):
            assert session.answer(text).ids == tuple(book.tokenizer.encode(text))
