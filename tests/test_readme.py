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

import xlgpt
from xlgpt.cli import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NEEDS_NETWORK = (
    "xlgpt build gpt2.xlsx",
    "xlgpt build gpt2.xlsb",
    "xlgpt build other.xlsx",
)  # the Hub; test_checkpoint.py covers the code


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
    """In the order of the README, in one empty folder."""
    shutil.copy(ROOT / "examples" / "weekdays.txt", tmp_path)
    for command in commands():
        start = [sys.executable, "-m", *shlex.split(command)]
        done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, (command, done.stderr)


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


@pytest.mark.slow
def test_the_table_is_what_check_prints(tmp_path: Path) -> None:
    """Sheets, bands, formulas and what follows; the seconds differ from run to run."""
    xlgpt.build(tmp_path / "tiny.xlsx", model="tiny")
    report = xlgpt.check(tmp_path / "tiny.xlsx")
    shown = re.findall(r"^(\S.*?) {2,}(\d+) +([\d,]+) ", blocks("text")[0], re.MULTILINE)
    sheets = [sheet for prompt in report.prompts for sheet in prompt.sheets]
    read = {sheet.sheet: sheet.formulas for sheet in report.reading}
    for name, bands, formulas in shown:
        found = [sheet for sheet in sheets if sheet.sheet == name]
        assert {len([band for band in sheet.bands if band.name]) for sheet in found} <= {int(bands)}, name
        assert read[name] == int(formulas.replace(",", "")), name
    assert len(shown) >= 9
    said = blocks("text")[0]
    assert all(sentence in said for sentence in report.sentences() if sentence.startswith(("Not checked", "'")))
