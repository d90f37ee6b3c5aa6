"""Every cell is read: what differs is named, and a file that a program has saved again reads the same."""

import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import openpyxl
import pytest
from conftest import SOFFICE, write_checkpoint

import xlgpt
from xlgpt.verify.proofread import Proof, proofread
from xlgpt.verify.tokens_of import tokens_of
from xlgpt.workbook.book import Book


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proofread")
    model = write_checkpoint(folder / "model", n_layer=1)
    xlgpt.build(folder / "book.xlsx", str(model), "hello world", context=4, max_bytes=16)
    return folder / "book.xlsx"


def changed(path: Path, part: str, change: Callable[[str], str], out: Path) -> Path:
    """A copy in which one part is changed; fails where nothing is."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == part:
                text = change(content.decode())
                assert text != content.decode(), "nothing was changed"
                content = text.encode()
            new.writestr(name, content)
    return out


def problems(proof: Proof) -> list[str]:
    return [f"{sheet.sheet} ▸ {band.name}: {band.problem}" for sheet in proof.sheets for band in sheet.bands]


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: re.sub(old, new, text, count=1)


CHANGES: dict[str, tuple[str, Callable[[str], str], str]] = {
    "the answer is a text": (
        "Home",
        replaced(r"<f>next_token</f>", "<f>&quot;Sunday&quot;</f>"),
        'holds ="Sunday"; it must hold =next_token',
    ),
    "a row's label": ("Block 0", replaced(r"<f>(Tokens!\$A\$)17</f>", r"<f>\g<1>18</f>"), "it must hold =Tokens!$A$17"),
    "a column's number": ("Block 0", replaced(r'(<c r="E4"[^>]*><v>)1<', r"\g<1>7<"), "holds 7; it must hold 1"),
    "a token's text": ("Vocabulary", replaced(r'(<c r="B70"[^>]*t="s"[^>]*><v>)\d+', r"\g<1>0"), "it must hold '"),
    "a merge's turn": ("Merges", replaced(r'(<c r="G6"[^>]*><v>)\d+', r"\g<1>5"), "holds 5; it must hold"),
    "a kind of character": ("Unicode", replaced(r'(<c r="A9"[^>]*><v>)\d+', r"\g<1>57"), "holds 57; it must hold"),
    "a list's source": (
        "Attention",
        replaced(r"(<formula1>INDEX\(position,1\):INDEX\(position,MAX\()1", r"\g<1>2"),
        "of the lists in cells, this one says",
    ),
    "when a cell is coloured": (
        "Attention",
        replaced(r"(<formula>N\([A-Z]+\d+\)&gt;=)0\.95", r"\g<1>0.05"),
        "conditional formats",
    ),
    "a colour for other cells": (
        "Home",
        replaced(r'(<conditionalFormatting sqref=")B8', r"\g<1>B9"),
        "conditional formats",
    ),
    "a formula that none should be": (
        "Home",
        replaced(r'(<row r="2"[^>]*>)', r'\1<c r="A2"><f>1+1</f><v>2</v></c>'),
        "it must hold no formula but nothing",
    ),
}


@pytest.mark.parametrize(("sheet", "change", "says"), CHANGES.values(), ids=list(CHANGES))
def test_a_change_is_named(sheet: str, change: Callable[[str], str], says: str, good: Path, tmp_path: Path) -> None:
    book = Book(changed(good, Book(good).part(sheet), change, tmp_path / "changed.xlsx"))
    found = problems(proofread(book))
    assert len(found) == 1, found
    assert found[0].startswith(f"{sheet} ▸ ")
    assert says in found[0]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (r'(name="next_token">Argmax!\$C\$)(\d+)', r"\g<1>99", "The name next_token stands for Argmax!$C$99; it must"),
        (r'<definedName name="n_words">[^<]*</definedName>', "", "The name n_words stands for nothing; it must"),
        (r"(<definedNames>)", r'\1<definedName name="n_bytes" localSheetId="0">1</definedName>', "something else on"),
    ],
)
def test_a_name_is_read(old: str, new: str, says: str, good: Path, tmp_path: Path) -> None:
    path = changed(good, "xl/workbook.xml", replaced(old, new), tmp_path / "changed.xlsx")
    assert any(says in problem for problem in problems(proofread(Book(path))))


def test_a_chart_is_read(good: Path, tmp_path: Path) -> None:
    path = changed(
        good, "xl/charts/chart1.xml", replaced(r"(<c:f>Home!\$D\$)\d+", r"\g<1>1"), tmp_path / "changed.xlsx"
    )
    assert [problem for problem in problems(proofread(Book(path))) if "No chart draws" in problem]


def saved_again(good: Path, out: Path) -> Iterator[tuple[str, Path]]:
    """The same workbook as openpyxl and LibreOffice save it."""
    openpyxl.load_workbook(good).save(out / "openpyxl.xlsx")
    yield "openpyxl", out / "openpyxl.xlsx"
    if SOFFICE:
        profile = f"-env:UserInstallation=file://{out / 'profile'}"
        command = [SOFFICE, profile, "--headless", "--convert-to", "xlsx", "--outdir", str(out / "office"), str(good)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        yield "LibreOffice", out / "office" / good.name


@pytest.mark.slow
def test_a_file_that_was_saved_again_reads_the_same(good: Path, tmp_path: Path) -> None:
    for program, path in saved_again(good, tmp_path):
        proof = proofread(Book(path))
        assert problems(proof) == [], program
        assert [gap.what for gap in proof.gaps] == [gap.what for gap in proofread(Book(good)).gaps], program


def test_what_a_program_dropped_is_not_checked(good: Path, tmp_path: Path) -> None:
    path, book = tmp_path / "0.xlsx", Book(good)
    shutil.copy(good, path)
    drop = re.compile(r"<conditionalFormatting.*</conditionalFormatting>", re.DOTALL)
    for i, sheet in enumerate(book.sheets, 1):
        with zipfile.ZipFile(path) as archive:
            has = drop.search(archive.read(book.part(sheet)).decode())
        if has:
            path = changed(path, book.part(sheet), lambda xml: drop.sub("", xml), tmp_path / f"{i}.xlsx")
    proof = proofread(Book(path))
    assert problems(proof) == []
    assert "conditional formats" in [gap.what for gap in proof.gaps]


def test_check_says_so_and_may_be_told_that_it_is_wanted(good: Path, tmp_path: Path) -> None:
    sheet, change, says = CHANGES["the answer is a text"]
    path = changed(good, Book(good).part(sheet), change, tmp_path / "changed.xlsx")
    report = xlgpt.check(path, prompts=("hello",))
    assert not report.passed
    assert says in next(report.sentences())
    allowed = xlgpt.check(path, prompts=("hello",), allow_changed=True)
    assert says in allowed.changed[0]
    assert not allowed.passed  # its value is not the next token either
    assert [band.problem[:27] for _, band in allowed.problems()] == ["Home!$B$11 shows 'Sunday'; "]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A1+B2", " a1 + $B$2 ", True),
        ("SUM('S'!A1,s!B1)", "SUM(A1,B1)", True),
        ("SUM('T'!A1)", "SUM(T!A1)", True),
        ("1E-9*x", "0.000000001*X", True),
        ("_xlfn.UNICODE(A1)", "UNICODE(A1)", True),
        ("TRUE()", "TRUE", True),
        ("(+A1)", "(A1)", True),
        ('"a b"', '"ab"', False),
        ('"A"', '"a"', False),
        ("A1+B2", "A1-B2", False),
        ("A1:B2", "A1:B3", False),
        ("T!A1", "A1", False),
        ("A1+1", "A1+1.000000001", False),
        ("IF(TRUE,A1)", "IF(TRUE(),A1)", True),
    ],
)
def test_formulas_that_mean_the_same(one: str, other: str, same: bool) -> None:
    assert (tokens_of(one, "S") == tokens_of(other, "S")) == same
