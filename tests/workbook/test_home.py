"""The home sheet is a template: what it says there stands in the workbook, where it says."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import xlgpt
from xlgpt.compiler import template
from xlgpt.errors import TemplateError
from xlgpt.workbook.book import Book
from xlgpt.xlsx.ranges import Range

MODEL = "random:n_layer=1,n_embd=8,n_head=2"
Change = Callable[[str, str], Path]


@pytest.fixture
def change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Change:
    """Replaces some text in a copy of the page's template, once."""
    folder = tmp_path / "templates"
    shutil.copytree(template.folder(), folder)
    monkeypatch.setattr(template, "folder", lambda: folder)
    monkeypatch.setattr("xlgpt.compiler.page.folder", lambda: folder)

    def changed(old: str, new: str) -> Path:
        path = folder / "home.toml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        template.read.cache_clear()
        return path

    return changed


def build(folder: Path, prompt: str = "a b") -> Path:
    return xlgpt.build(folder / "a.xlsx", MODEL, prompt, context=4, max_bytes=8, generate=1, sheets="none").path


def test_the_prompt_stands_where_the_template_says(change: Change, tmp_path: Path) -> None:
    """And check, which knows the template, finds nothing wrong."""
    change('at     = "B7:O7"', 'at     = "C5:H5"')
    path = build(tmp_path)
    book = Book(path)
    assert book.named("prompt") == Range("Home", 4, 2)
    assert book.prompt.text == "a b"
    report = xlgpt.check(path, prompts=("b",))
    assert report.passed, report.sentences()


@pytest.mark.parametrize("prompt", ["", "{model} =1", "=1+1"])
def test_a_prompt_is_a_text_whatever_stands_in_it(tmp_path: Path, prompt: str) -> None:
    path = xlgpt.build(tmp_path / "a.xlsx", MODEL, prompt, context=16, max_bytes=16, generate=1, sheets="none").path
    assert Book(path).prompt.text == prompt


def test_what_the_template_says_is_shown(change: Change, tmp_path: Path) -> None:
    change("GENERATED TEXT", "WHAT FOLLOWS")
    change('n_layer                         = "blocks"', 'n_layer = "layers"')
    change('formula = "{next_token}"', 'formula = "{next_token}&{next_token_id}"')
    book = Book(build(tmp_path))
    cells = book.cells("Home")
    assert cells.constants[9, 6] == "WHAT FOLLOWS"
    assert "layers" in cells.constants.values()
    assert any(formula.text == "next_token&next_token_id" for formula in cells.formulas)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'style  = "prompt"',
            'stile  = "prompt"',
            "cell prompt has the unknown key 'stile'; it may have at, text",
        ),
        ('style  = "prompt"', 'style  = "promt"', "the style 'promt' of the cell B7:O7 is none of"),
        ('at     = "B7:O7"', 'at     = "7B"', "the at '7B' is none; it is a cell such as B7"),
        ('name   = "prompt"\n', "", "needs a cell with the name 'prompt'."),
        ("{next_token}", "{next_tokens}", "the formula of the cell B11:E11 names {next_tokens}, which is no band"),
        ("{next_token}", "{next_token", "the formula of the cell B11:E11 has a brace that no other belongs to"),
        ('shows   = "usage"', 'shows   = "use"', "the shows 'use' of B12 is none of pieces, changed, written, usage."),
        ("{model}: a", "{modell}: a", "names {modell}, which is not known."),
        ("auto   = ", "other  = ", "names {choice.calculates}, which is not known."),
        (
            'font_color = "muted" }\nprompt',
            'font_color = "grey" }\nprompt',
            "style lead: the font_color 'grey' is none",
        ),
        ("n_embd  ", "n_embed ", "the fact 'n_embed' is none of the model's."),
        ('series     = "probability"\n', "", "drawn How likely each token is to come next lacks the key 'series'."),
        ('views   = ["proof"]', 'views   = ["prof"]', "the views of the cell B15:L15 has 'prof', which is no view."),
        ("[map.kinds]", "[map.kind]", "has the unknown key 'kind'"),
    ],
)
def test_a_slip_is_said(change: Change, tmp_path: Path, old: str, new: str, words: str) -> None:
    path = change(old, new)
    with pytest.raises(TemplateError, match=re.escape(words)) as raised:
        build(tmp_path)
    assert str(path) in str(raised.value)
    assert not (tmp_path / "a.xlsx").exists()
