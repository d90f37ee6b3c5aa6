"""Texts that no cell can hold, settings that are not there, templates with a slip: one sentence, and soon."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import run_xlgpt
from test_bad_input import one_sentence

import xlgpt
from xlgpt import cli
from xlgpt.compiler import template
from xlgpt.engines.run import Session
from xlgpt.errors import UsageError
from xlgpt.interp.steering import steer
from xlgpt.model.checkpoint import load
from xlgpt.model.tokenizer import check_text

LATIN = b"caf\xe9"  # not UTF-8: the system hands it on as U+DCE9, half a surrogate pair
HALF = "half a pair: \ud83d"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "book.xlsx"
    xlgpt.build(path, model="tiny", context=8, max_bytes=64, generate=1, sheets="circuit", prompt="One day")
    return path


# Texts.


def xlgpt_bytes(*arguments: bytes | str | Path, typed: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """The command line with arguments that are no UTF-8."""
    command = [os.fsencode(a) for a in (sys.executable, "-m", "xlgpt", *arguments)]
    environment = os.environ | {"PYTHONUTF8": "1"}
    return subprocess.run(command, capture_output=True, env=environment, input=typed, timeout=120)


@pytest.mark.quick(2)
@pytest.mark.skipif(os.name == "nt", reason="arguments are UTF-16 there")
@pytest.mark.parametrize("command", ["build", "tokenize", "run", "check", "circuit", "steer"])
def test_an_argument_that_is_no_text(book: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "prompts.txt").write_text("One day\n")
    arguments: dict[str, list[Any]] = {
        "build": [tmp_path / "out.xlsx", "--model", "tiny", "--prompt", LATIN],
        "tokenize": [LATIN, "--model", "tiny"],
        "run": [book, "--engine", "formulas", "--prompt", LATIN],
        "check": [book, "--prompt", LATIN],
        "circuit": [book, "--prompts", tmp_path / "prompts.txt", "--target", LATIN],
        "steer": ["--model", "tiny", "--positive", LATIN, "--negative", "a", "--block", "1", "--out", tmp_path / "v"],
    }
    arguments["steer"][-1] = tmp_path / "vectors.safetensors"
    done = xlgpt_bytes(command, *arguments[command])
    assert (done.returncode, done.stdout) == (2, b"")
    assert "holds the character U+DCE9, which no cell can hold; leave it out." in one_sentence(done.stderr.decode())
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


@pytest.mark.slow
def test_a_typed_line_that_is_no_text(book: Path) -> None:
    """The lines before and after it are answered."""
    typed = b"One day\n" + LATIN + b"\nOne day\n"
    done = xlgpt_bytes("run", book, "--engine", "formulas", "--interactive", "--json", typed=typed)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
    assert "U+DCE9" in one_sentence(done.stderr.decode())


@pytest.mark.quick(1)
@pytest.mark.parametrize("text", [HALF, "\0", "\ufffe", "\uffff"])
def test_the_api_says_the_same(book: Path, text: str) -> None:
    words = rf"U\+{ord(text[-1]):04X}, which no cell can hold"
    model = load("tiny")
    calls = [
        lambda: xlgpt.tokenize(text, "tiny"),
        lambda: xlgpt.run(book, text, engine="formulas"),
        lambda: xlgpt.read(book, "next_token", prompt=text, engine="formulas"),
        lambda: xlgpt.read(book, "next_token", settings={"circuit.ablate": text}, engine="formulas"),
        lambda: xlgpt.check(book, prompts=(text,)),
        lambda: steer(model, ["a", text], ["b", "c"], 1),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=words):
            call()


def test_whole_pairs_and_control_characters_are_texts() -> None:
    check_text("\U0001f600 \t\n\x01 \ud7ff\ue000\ufffd")


# Settings.


def test_a_setting_that_is_not_there(book: Path) -> None:
    words = r"There is no setting 'temprature'\. Did you mean temperature\? The workbook has .*top_k, top_p, seed"
    with pytest.raises(UsageError, match=words):
        xlgpt.run(book, engine="formulas", settings={"temprature": 1})
    with pytest.raises(UsageError, match=words), Session(book, "formulas") as session:
        session.answer("One day", settings={"temprature": 1})
    with pytest.raises(UsageError, match=r"no setting 'xyzzy'\. The workbook has"):
        xlgpt.read(book, "next_token", settings={"xyzzy": 1}, engine="formulas")


def test_values_that_do_not_fit(book: Path) -> None:
    with pytest.raises(UsageError, match=r"circuit\.heads has 4 × 4 cells, and values of shape \(3,\) do not fit"):
        xlgpt.read(book, "next_token", settings={"circuit.heads": [1, 1, 0]}, engine="formulas")


# Templates.


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("{", "has a brace that no other belongs to, at '{'"),
        ("A1}", "has a brace that no other belongs to, at 'A1}'"),
        ("{resid_pre", "has a brace that no other belongs to, at '{resid_pre'"),
        ("{{n_embd}", "has a brace that no other belongs to, at '{{n_embd}'"),
        ("{text.none}", "names {text.none}, which no table [text] of its file has"),
        ("{each.none}", "names {each.none}, which no table [each] of its file has"),
        ("{text.a}", "never ends: {text.a} stands in what it stands for"),
        ("{text.b}", "never ends: {text.b} stands in what it stands for"),
        ("{text.many}", "never ends: {text.many} stands in what it stands for"),
    ],
)
@pytest.mark.parametrize("matmul", ["mmult", "sumproduct"])
def test_a_slip_in_a_template(
    tmp_path: Path, monkeypatch: Any, capfd: Any, formula: str, words: str, matmul: str
) -> None:
    shutil.copytree(template.folder(), tmp_path / "templates")
    file = tmp_path / "templates" / "model" / "block.toml"
    source = file.read_text(encoding="utf-8")
    texts = 'a = "{text.a}+1"\nb = "{text.c}"\nc = "{text.b}"\nmany = "{text.many}{text.many}{text.many}"\n'
    head, band, rest = source.partition("[[band]]")
    rest = rest.replace("formula = ", f"formula = '{formula}' #", 1)
    file.write_text(head + f"[text]\n{texts}" + band + rest, encoding="utf-8")
    monkeypatch.setattr(template, "folder", lambda: tmp_path / "templates")
    arguments = [
        "build",
        str(tmp_path / "out.xlsx"),
        "--model",
        "random:n_layer=1,n_embd=48,n_head=2",
        "--context",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", ["xlgpt", *arguments, "--matmul", matmul])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    sentence = one_sentence(capfd.readouterr().err)
    assert stopped.value.code == 1
    assert sentence.startswith(f"{file}: the formula of blocks.0.")
    assert words in sentence
    assert not (tmp_path / "out.xlsx").exists()


def test_the_command_line_knows_no_such_option(book: Path) -> None:
    done = run_xlgpt("run", book, "--temprature", "1")
    assert done.returncode == 2
    assert "--temperature" in done.stderr
