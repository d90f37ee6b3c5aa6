"""What views add to the model: in their own files, in a fixed order, and gone where they are left out."""

import shutil
from pathlib import Path

import pytest

import xlgpt
from xlgpt.compiler import template
from xlgpt.compiler.patches import Patch, patched
from xlgpt.errors import TemplateError
from xlgpt.model.config import GPT2Config
from xlgpt.workbook.book import Book

MODEL = "random:n_layer=1,n_embd=8,n_head=2"
CONFIG = GPT2Config(n_layer=2, n_embd=8, n_head=2, n_positions=16, vocab_size=300, n_inner=32)
BIAS = "h.0.mlp.c_proj.bias"


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the templates that may be changed."""
    folder = tmp_path / "templates"
    shutil.copytree(template.folder(), folder)
    monkeypatch.setattr(template, "folder", lambda: folder)
    return folder


def formula(folder: Path, sheets: str, name: str) -> str:
    path = folder / f"{sheets}.xlsx"
    book = Book(xlgpt.build(path, MODEL, "a", context=3, max_bytes=8, generate=1, sheets=sheets).path)
    cells = book.cells(book.named(name).sheet)
    return cells.formulas[next(cells.over(book.named(name).cell(0, 0)))].text


def test_without_views_the_block_is_gpt2(tmp_path: Path) -> None:
    found = formula(tmp_path, "none", "blocks.0.mlp_out")
    assert found.endswith(f",h.0.mlp.c_proj.weight)+{BIAS})")
    assert found.count("MMULT") == 1
    words = [path.read_text(encoding="utf-8").lower() for path in (template.folder() / "model").glob("*.toml")]
    for view in template.optional_sheets():
        assert not any(f"{view}." in text or f"choice.{view}" in text for text in words), view


def test_patches_stand_in_the_order_of_the_sheets(tmp_path: Path) -> None:
    """Facts takes out what neurons wrote, and Circuit scales what is left: never the other way round."""
    found = formula(tmp_path, "circuit,facts", "blocks.0.mlp_out")
    assert f"+{BIAS}-IF((N(facts.block)=0)*" in found
    assert "h.0.mlp.c_proj.weight),0))*N(" in found
    assert found.index("facts.block") < found.index("circuit.ablate")
    assert ",(MMULT(" in found  # the sum stands in parentheses before it is multiplied


@pytest.mark.parametrize(
    ("formula", "add", "whole"),
    [
        ("MMULT({a},{b})", "*2", "MMULT({a},{b})*2"),
        ("MMULT({a},{b})+{c}", "*2", "(MMULT({a},{b})+{c})*2"),
        ("MMULT({a},{b})+{c}", "-{d}", "MMULT({a},{b})+{c}-{d}"),
        ("SUM({a}+1)*3", "/2", "SUM({a}+1)*3/2"),
        ("{a[-1]}", "*2", "{a[-1]}*2"),
        ('IF({a}="x+y",1,2)', "*2", 'IF({a}="x+y",1,2)*2'),
        ("{choice.layer}", "*2", "({choice.layer})*2"),
        ("{a}&{b}", "*2", "({a}&{b})*2"),
    ],
)
def test_a_sum_is_enclosed_before_it_is_multiplied(formula: str, add: str, whole: str) -> None:
    assert patched(formula, Patch("x", add)) == whole


def test_a_new_view_changes_the_model_from_its_own_file(templates: Path, tmp_path: Path) -> None:
    view = templates / "views" / "halved.toml"
    patch = '[[patch]]\nband = "blocks.{layer}.attn_out"\nadd = "/2"\nabout = "Halved."\n'
    head = 'sheet = "Halved"\ntitle = "Halved"\nabout = "Nothing."\nscope = [""]\n'
    band = '[[band]]\nname = "halved.by"\ntitle = "by"\nabout = "So much."\nshape = [1]\nformula = "2"\n'
    view.write_text(head + patch + band)
    sheets = templates / "sheets.toml"
    sheets.write_text(sheets.read_text().replace('    "views/proof",\n', '    "views/proof",\n    "views/halved",\n'))
    template.read.cache_clear()
    template.optional_sheets.cache_clear()
    try:
        stages = template.stages(CONFIG, ("halved",))
    finally:
        template.optional_sheets.cache_clear()
    bands = {band.name: band for stage in stages for band in stage.bands}
    assert [bands[f"blocks.{i}.attn_out"].formula[-2:] for i in range(2)] == ["/2"] * 2
    assert bands["blocks.1.attn_out"].about.endswith("residual stream. Halved.")


def test_a_patch_of_nothing_is_refused(templates: Path) -> None:
    view = templates / "views" / "facts.toml"
    view.write_text(view.read_text(encoding="utf-8").replace('"blocks.{layer}.mlp_out"', '"blocks.{layer}.mlp"'))
    with pytest.raises(
        TemplateError, match=r"facts\.toml: a patch adds to the formula of the band blocks\.\{layer\}\.mlp, "
    ):
        template.stages(CONFIG, ("facts",))
