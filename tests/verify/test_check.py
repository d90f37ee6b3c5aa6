"""xlgpt check on a workbook in which nothing is wrong, and what it prints."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openpyxl
import pytest
from conftest import run_xlgpt

import xlgpt
from xlgpt.errors import PromptTooLong, UsageError
from xlgpt.verify.compare import compare
from xlgpt.workbook.book import Book
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import CellError

CELLS = Range("S", 4, 3, 2, 2)


@pytest.fixture(scope="module")
def report(tiny_book: Path) -> xlgpt.Report:
    return xlgpt.check(tiny_book, model="tiny")


@pytest.fixture
def small(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A workbook whose every case takes a moment."""
    xlgpt.build(tmp_path / "small.xlsx", model=str(make_checkpoint()), context=6, max_bytes=16, prompt="hello")
    return tmp_path / "small.xlsx"


@pytest.mark.slow
def test_a_good_workbook_passes(report: xlgpt.Report, tiny_book: Path) -> None:
    assert report.passed
    assert report.problems() == []
    lengths = [prompt.tokens for prompt in report.prompts]
    assert lengths[0] == 7  # the file's prompt, and others: none, one token, all there are rows for, too many
    assert {0, 1, 15, 128} < set(lengths)
    assert all(prompt.end_to_end for prompt in report.prompts)
    assert all(prompt.next_token == prompt.expected_token for prompt in report.prompts)
    assert report.prompts[0].next_token == " Wednesday."
    worst = report.worst()
    assert worst
    assert 0 < worst[1].relative < 1e-8


@pytest.mark.slow
def test_every_formula_of_every_sheet_is_read_and_evaluated(report: xlgpt.Report, tiny_book: Path) -> None:
    book = Book(tiny_book)
    there = {sheet: len(book.cells(sheet).formulas) for sheet in book.sheets if sheet not in book.weights.sheets}
    assert {sheet.sheet: sheet.formulas for sheet in report.reading} == there
    first, *others = ({sheet.sheet: sheet.formulas for sheet in prompt.sheets} for prompt in report.prompts)
    assert first == {sheet: count for sheet, count in there.items() if count}
    assert all(0 < sum(other.values()) <= sum(first.values()) for other in others)  # only what another case changes


@pytest.mark.slow
def test_what_is_tried_fills_every_row(report: xlgpt.Report, tiny_book: Path) -> None:
    book = Book(tiny_book)
    texts = [prompt.text for prompt in report.prompts]
    assert {len(character.encode()) for text in texts for character in text} == {1, 2, 3, 4}
    rows = [len(p.text.encode()) for p in report.prompts]
    assert max(rows) == book.max_bytes
    assert max(p.tokens for p in report.prompts if p.tokens <= book.context) == book.context - 1  # and it writes one


@pytest.mark.slow
def test_every_setting_is_changed(report: xlgpt.Report) -> None:
    assert not [gap for gap in report.gaps if "settings" in gap.what]


@pytest.mark.slow
def test_what_no_prompt_takes_is_listed(report: xlgpt.Report) -> None:
    gap = next(gap for gap in report.gaps if "branches" in gap.what)
    assert any(line.startswith("readable: IF(ISERROR(prompt)") for line in gap.details)
    assert not any(line.startswith("next.sought") for line in gap.details)
    assert any("no number follows" in gap.why for gap in report.gaps)


@pytest.mark.slow
def test_every_band_is_held_against_the_reference(report: xlgpt.Report, tiny_book: Path) -> None:
    book = Book(tiny_book)
    checked = {band.name for sheet in report.prompts[0].sheets for band in sheet.bands}
    assert set(book.layout.bands) <= checked


@pytest.mark.slow
def test_several_processes_find_the_same(small: Path) -> None:
    one, two = (xlgpt.check(small, prompts=("One", "Two"), jobs=jobs) for jobs in (1, 2))
    assert one.passed
    for key in ("problems", "formulas_calculated", "gaps"):
        ours, theirs = (getattr(report, key) for report in (one, two))
        assert (ours() if callable(ours) else ours) == (theirs() if callable(theirs) else theirs)


@pytest.mark.slow
def test_a_file_that_was_changed_is_read_again(small: Path, tmp_path: Path) -> None:
    """By processes that have read it before, too."""
    path = Path(shutil.copy(small, tmp_path / "book.xlsx"))
    assert xlgpt.check(path, prompts=("One", "Two"), jobs=2).passed
    broken, cell = openpyxl.load_workbook(path), Book(path).named("next_token")
    broken[cell.sheet][cell.first] = '="Sunday"'
    broken.save(path)
    report = xlgpt.check(path, prompts=("One", "Two"), jobs=2, allow_changed=True)
    assert ("Argmax", "next_token") in [(sheet, band.name) for sheet, band in report.problems()]


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["last", pytest.param(2, marks=pytest.mark.long)])
def test_a_quick_look_says_what_it_left_out(rows: str | int, small: Path) -> None:
    report = xlgpt.check(small, rows=rows)
    assert report.passed
    assert any(f"--rows {rows}" in gap.why for gap in report.gaps)
    assert not any(prompt.end_to_end for prompt in report.prompts)
    assert not any("in the workbook" in sentence for sentence in report.sentences())
    bands = {band.name: band.verdict for sheet in report.prompts[0].sheets for band in sheet.bands}
    assert bands["blocks.0.attn.q"] == "not checked"
    assert bands["logits"] == "ok"
    whole = sum(len(Book(small).cells(sheet.sheet).formulas) for sheet in report.prompts[0].sheets)
    assert 0 < sum(sheet.formulas for sheet in report.prompts[0].sheets) < whole


@pytest.mark.slow
@pytest.mark.libreoffice
def test_libreoffice_agrees(tiny_book: Path) -> None:
    report = xlgpt.check(tiny_book, engine="libreoffice")
    assert report.passed, list(report.sentences())
    assert [prompt.next_token for prompt in report.prompts] == [prompt.expected_token for prompt in report.prompts]


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_other_configurations(activation: str, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_checkpoint(
        activation_function=activation,
        n_inner=12,
        layer_norm_epsilon=1e-3,
        scale_attn_weights=activation == "gelu",
        scale_attn_by_inverse_layer_idx=True,
    )
    xlgpt.build(tmp_path / "book.xlsx", model=str(folder), context=4, prompt="hello")
    assert xlgpt.check(tmp_path / "book.xlsx", model=str(folder), prompts=("hello", "the he")).passed


@pytest.mark.slow
def test_a_workbook_without_a_prompt(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    xlgpt.build(tmp_path / "book.xlsx", model=str(make_checkpoint()), context=1, prompt="")
    report = xlgpt.check(tmp_path / "book.xlsx")
    assert report.passed
    assert {prompt.tokens for prompt in report.prompts} >= {0, 1}
    assert xlgpt.check(tmp_path / "book.xlsx", prompts=("",)).passed


@pytest.mark.slow
def test_the_table_has_a_line_a_sheet(tiny_book: Path) -> None:
    result = run_xlgpt("check", tiny_book, "--prompt", "If today is", env={"COLUMNS": "120"})
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    for sheet in ("Tokens", "Block 0", "Block 3", "LM head", "Argmax", "Home"):
        assert any(line.startswith(sheet) and line.rstrip().endswith("ok") for line in lines)
    assert lines[-1].startswith("Passed: ")
    assert "blocks.0.attn.q" not in result.stdout


@pytest.mark.slow
def test_verbose_has_a_line_a_band(small: Path) -> None:
    result = run_xlgpt("check", small, "--prompt", "hello", "-v", env={"COLUMNS": "120"})
    assert "  blocks.1.mlp.post" in result.stdout
    assert "    readable: IF(ISERROR(prompt)" in result.stdout
    assert "  labels and the like" in result.stdout


@pytest.mark.slow
def test_json_and_junit(small: Path, tmp_path: Path) -> None:
    result = run_xlgpt("check", small, "--prompt", "hello", "--json", "--junit", tmp_path / "junit.xml")
    found = json.loads(result.stdout)
    assert found["passed"] is True
    assert found["prompts"][0]["sheets"][0]["bands"]
    suites = ElementTree.parse(tmp_path / "junit.xml").getroot()
    names = {case.get("name") for case in suites.iter("testcase")}
    assert {"blocks.0.attn.pattern", "h.0.attn.c_attn.weight"} <= names
    assert not list(suites.iter("failure"))
    skipped = {case.get("name") for case in suites.iter("testcase") if case.find("skipped") is not None}
    assert "h.0.attn.c_attn.weight" in skipped  # no --model was named
    assert "blocks.0.attn.pattern" not in skipped


def test_a_failure_is_in_every_output(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    xlgpt.build(tmp_path / "book.xlsx", model=str(make_checkpoint()), context=3, prompt="hello")
    other = make_checkpoint(lambda tensors: tensors["ln_f.bias"].__iadd__(1), folder="other")
    result = run_xlgpt("check", tmp_path / "book.xlsx", "--model", other, "--junit", tmp_path / "junit.xml")
    assert result.returncode == 1
    assert "ln_f ▸ ln_f.bias: 8 weights differ from other" in result.stdout.replace("\n", " ")
    assert "FAILED" in result.stdout
    failures = list(ElementTree.parse(tmp_path / "junit.xml").getroot().iter("failure"))
    assert len(failures) == 1
    assert not xlgpt.check(tmp_path / "book.xlsx", model=str(other)).as_dict()["passed"]


@pytest.mark.slow
def test_what_cannot_be_asked(tiny_book: Path) -> None:
    with pytest.raises(PromptTooLong, match="rows for 16"):
        xlgpt.check(tiny_book, prompts=("one two three " * 9,))
    for options in (
        {"rows": "first"},
        {"rows": 0},
        {"rows": 1, "engine": "libreoffice"},
    ):
        with pytest.raises(UsageError, match="--rows"):
            xlgpt.check(tiny_book, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shown", "wanted", "problem"),
    [
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]], ""),
        ([[1, 2], [3, 4 + 1e-7]], [[1, 2], [3, 4]], ""),
        ([[1, 2], [3, 4 + 1e-4]], [[1, 2], [3, 4]], "S!$E$6 shows 4.0001; it must be 4."),
        ([[1e9, 2], [3, 4]], [[1e9 + 100, 2], [3, 4]], ""),
        ([[1, 2], ["", 4]], [[1, 2], [3, 4]], "S!$D$6 shows nothing; it must be 3."),
        ([[1, 2], [3, 4]], [[1, 2], [3, ""]], "S!$E$6 shows 4; it must be nothing."),
        ([["a", 2], [3, 4]], [["b", 2], [3, 4]], "S!$D$5 shows 'a'; it must be 'b'."),
        ([[1, CellError("#N/A")], [3, 4]], [[1, 2], [3, 4]], "S!$E$5 shows the error #N/A."),
    ],
)
def test_compare(shown: list[list[object]], wanted: list[list[object]], problem: str) -> None:
    ours, theirs = (np.array(values, dtype=object) for values in (shown, wanted))
    assert compare("band", CELLS, ours, theirs).problem == problem


def test_compare_says_how_far_apart() -> None:
    found = compare("band", CELLS, np.array([[1, 2.5], [3, 4]]), np.array([[1, 2], [3, 4.1]]))
    assert (found.absolute, found.worst) == (0.5, "S!$E$5")
    assert found.relative == 0.25
