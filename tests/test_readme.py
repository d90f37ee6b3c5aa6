"""The README's commands and code, run as they stand."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from xlgpt.cli import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NEEDS_NETWORK = (
    "xlgpt build gpt2.xlsx",
    "xlgpt build gpt2.xlsb",
    "xlgpt build other.xlsx",
)  # the Hub; test_checkpoint.py covers the code
CHECK = "xlgpt check tiny.xlsx"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if part.startswith("xlgpt") and not part.startswith(NEEDS_NETWORK)]


def test_there_are_commands() -> None:
    assert any("--model tiny" in command for command in commands())


@pytest.mark.slow
@pytest.mark.libreoffice
def test_commands(tmp_path: Path) -> None:
    """In the order of the README, in one empty folder; and check prints what stands there."""
    shutil.copy(ROOT / "examples" / "weekdays.txt", tmp_path)
    printed = {}
    for command in commands():
        start = [sys.executable, "-m", *shlex.split(command)]
        done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, (command, done.stderr)
        printed[command] = done.stdout
    assert len(_facts(printed[CHECK])) > 30
    assert _facts(blocks("text")[0]) == _facts(printed[CHECK])


def _facts(text: str) -> set[str]:
    """Of what check prints each sheet's ranges and formulas, and all sentences but the worst place and the times."""
    sheets = re.findall(r"^\S.*? {2,}\d+ +[\d,]+ ", text, re.MULTILINE)
    sentences = re.findall(r"^(?:['\"]|    and|Not checked).*", text, re.MULTILINE)
    return {" ".join(found.split()) for found in (*sheets, *sentences)}


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"))
def test_code(code: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_files_and_pictures_that_it_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_command_is_described() -> None:
    for name in cli.commands:
        assert f"xlgpt {name}" in README, name


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help(name: str) -> None:
    shown = CliRunner().invoke(cli, [name, "--help"])
    assert shown.exit_code == 0
    assert all(option.help for option in cli.commands[name].params if isinstance(option, click.Option)), name
