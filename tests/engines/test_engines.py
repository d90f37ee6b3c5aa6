"""The engines: what the formulas library gets wrong, and LibreOffice as it is, with its hangs and crashes."""

import os
import signal
import subprocess
import sys
import time
import timeit
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import formulas
import numpy as np
import pytest
from formulas.functions.operators import OPERATORS

import xlgpt
from xlgpt.engines import gaps
from xlgpt.engines.formulas_library import FormulasLibrary
from xlgpt.engines.libreoffice import LibreOffice, find_python, find_soffice
from xlgpt.engines.tree import EMPTY, Call, Constant, take_apart
from xlgpt.errors import EngineFailed, EngineNotFound, FormulaError
from xlgpt.workbook.book import Book
from xlgpt.xlsx.formula import Formula
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import Cells

BLOCK = np.arange(1.0, 13.0).reshape(3, 4)
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and scripts as on Linux and macOS")


class Sheet:
    """As much of a book as one sheet of formulas needs: A1:D3 holds 1 to 12, A5 a text, B5 is empty."""

    sheets = ("S",)

    class weights:
        sheets: dict[str, list[str]] = {}  # noqa: RUF012
        are_large = False

    def __init__(self, *texts: str, is_array: bool = False, cells: str = "F1"):
        constants: dict[tuple[int, int], Any] = {(i, j): BLOCK[i, j] for i in range(3) for j in range(4)}
        constants[4, 0] = "He"
        where = [Range("S", i, 5, 3 if is_array else 1, 4 if is_array else 1) for i in range(len(texts))]
        self._cells = Cells(constants, [Formula(c, text, is_array) for c, text in zip(where, texts, strict=True)])

    def cells(self, sheet: str) -> Cells:
        return self._cells

    def has(self, name: str) -> bool:
        return name == "block"

    def named(self, name: str) -> Range:
        return Range("S", 0, 0, 3, 4)


def value(text: str, **options: Any) -> Any:
    sheet: Any = Sheet(text, **options)
    shown = FormulasLibrary(sheet).read(sheet.cells("S").formulas[0].cells)
    return shown if options else shown[0, 0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1+2*3^2/-3", -5.0),
        ("A1+D3", 13.0),
        ('IF(A5="he","same","not")', "same"),
        ('IF(B5="","empty",1/0)', "empty"),
        ("IF(A1>2,1)", False),
        ("SUM(block)", 78.0),
        ("SUM(S!A1:B2,'S'!$D$3)", 26.0),
        ("VARP(A1:D1)", 1.25),
        ("INDEX(block,2,3)", 7.0),
        ("INDEX(A1:A3,2)", 5.0),
        ("SUM(INDEX(block,2,0))", 26.0),
        ("SUM(INDEX(block,0,4))", 24.0),
        ("SUM(INDEX(block,2,2):INDEX(block,3,4))", 54.0),
        ("SUM(INDEX(block,2,0):INDEX(block,3,0))", 68.0),
        ("SUM(A1:INDEX(block,2,2))", 14.0),
        ("ROW(B3)+COLUMN(D1)*10", 43.0),
        ("ROWS(block)*100+COLUMNS(block)", 304.0),
        ("ROW()", 1.0),
        ("MATCH(MAX(block),A3:D3,0)-1", 3.0),
        ("LARGE(block,2)", 11.0),
        ("SMALL(IF(block>5,block),2)", 7.0),
        ("SUM(IF(block>10,1,0))", 2.0),
        ("COUNT(A1:D5)", 12.0),
        ("SUMPRODUCT(A1:A3,B1:B3)", 1 * 2 + 5 * 6 + 9 * 10),
        ('LEN("say ""A1""")&"A1"', "8A1"),
        ("TRUE", True),
        ("A5", "He"),
        ("B5", 0.0),
        ("SUM(EXP(block*1000))", "#NUM!"),
        ("1/0", "#DIV/0!"),
        ("#N/A", "#N/A"),
    ],
)
def test_formulas(text: str, wanted: Any) -> None:
    assert value(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("MMULT(A1:C3,A1:D3)", BLOCK[:, :3] @ BLOCK),
        ("INT(block*10^2-block)+EXP(-block)", np.floor(BLOCK * 99) + np.exp(-BLOCK)),
        ("A1:D3-A1:A3", BLOCK - BLOCK[:, :1]),
        ("INDEX(block,3,0)", np.repeat(BLOCK[2:], 3, axis=0)),
        ("EXP(block-MAX(block))/SUM(EXP(block-MAX(block)))", np.exp(BLOCK - 12) / np.exp(BLOCK - 12).sum()),
        ("TRANSPOSE(A1:C3)", np.column_stack([BLOCK[:, :3].T, ["#N/A"] * 3]).astype(object)),
    ],
)
def test_array_formulas(text: str, wanted: Any) -> None:
    shown = value(text, is_array=True)
    assert shown.shape == (3, 4)
    if wanted.dtype == object:
        assert shown[:, 3].tolist() == ["#N/A"] * 3
        np.testing.assert_array_equal(shown[:, :3].astype(float), BLOCK[:, :3].T)
    else:
        np.testing.assert_allclose(shown, wanted, rtol=1e-15)


def test_only_the_branch_that_is_taken_is_calculated(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise AssertionError("MMULT was calculated for an empty row")

    monkeypatch.setitem(gaps.WORKAROUNDS, "MMULT", fails)
    assert value('IF(B5="","",MMULT(A1:C3,A1:D3))') == ""


def test_formulas_that_differ_in_references_and_numbers_share_a_tree() -> None:
    one = take_apart('IF($A8="","",MMULT(D8:K8,h.0.mlp.c_fc.weight)*2)')
    other = take_apart('IF($A9="","",MMULT(\'Block 0\'!D9:K9,h.1.mlp.c_fc.weight)*1.5E-3)')
    assert one.root is other.root
    assert other.arguments == ("$A9", "'Block 0'!D9:K9", "h.1.mlp.c_fc.weight", 0.0015)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("NOSUCH(1)", "S!\\$F\\$1 cannot be evaluated: the formulas library does not know the function NOSUCH"),
        ("nosuch+1", "S!\\$F\\$1 refers to nosuch, which no cell has as its name"),
        ("Gone!A1", "refers to the sheet 'Gone', which is not there"),
        ("(1+2", "cannot read"),
        ("F1+1", "S!\\$F\\$1 depends on itself"),
    ],
)
def test_what_cannot_be_evaluated_is_named(text: str, sentence: str) -> None:
    with pytest.raises(FormulaError, match=sentence):
        value(text)


def test_a_circle_of_two() -> None:
    sheet: Any = Sheet("F2+1", "F1+1")
    with pytest.raises(FormulaError, match="depends on itself"):
        FormulasLibrary(sheet).read(Range("S", 0, 5))


def test_a_long_chain_needs_no_deep_stack() -> None:
    sheet: Any = Sheet("1", *(f"F{i}+1" for i in range(1, 5000)))
    assert FormulasLibrary(sheet).read(Range("S", 4999, 5))[0, 0] == 5000


class TestTheLibraryIsAsTheWorkaroundsSay:
    """Each of these fails when the library is mended: then drop the workaround and its note in gaps.py."""

    def compiled(self, text: str) -> Any:
        return formulas.Parser().ast(text)[1].compile()

    def test_index_of_a_whole_row_repeats_its_first_cell(self) -> None:
        row = np.asarray(self.compiled("=INDEX(A1:D3,2,0)")(BLOCK.astype(object)))
        assert "INDEX" in gaps.NOTES
        assert np.unique(row.astype(float)).tolist() != [5.0, 6.0, 7.0, 8.0]

    def test_index_makes_an_object_for_every_cell_of_a_range(self) -> None:
        side = 300
        whole = formulas.ranges.Ranges().push("A1:KN300", np.ones((side, side), dtype=object))
        index = formulas.get_functions()["INDEX"]["function"]
        made = 0
        init = formulas.ranges.Ranges.__init__

        def counting(*arguments: Any, **keywords: Any) -> None:
            nonlocal made
            made += 1
            init(*arguments, **keywords)

        formulas.ranges.Ranges.__init__ = counting
        try:
            index(False, whole, 1, 1)
        finally:
            formulas.ranges.Ranges.__init__ = init
        assert "INDEX:INDEX" in gaps.NOTES
        assert made >= side * side

    def test_mmult_looks_at_every_number(self) -> None:
        looked = 0

        class Counted(np.ndarray):  # type: ignore[type-arg]
            def ravel(self, *arguments: Any) -> Any:
                nonlocal looked
                looked += self.size
                return super().ravel(*arguments)

        formulas.get_functions()["MMULT"](BLOCK.T.copy().view(Counted), BLOCK.copy().view(Counted))
        assert "MMULT" in gaps.NOTES
        assert looked >= 2 * BLOCK.size

    def test_sumproduct_compares_numbers_as_objects(self) -> None:
        numbers = np.ones((4000, 1))
        slow, fast = (
            min(timeit.repeat(lambda f=f: f(numbers, numbers), number=5, repeat=3))
            for f in (formulas.get_functions()["SUMPRODUCT"], np.vdot)
        )
        assert "SUMPRODUCT" in gaps.NOTES
        assert slow > 5 * fast

    def test_sum_takes_numbers_one_by_one(self) -> None:
        numbers = np.ones((4000, 1))
        slow, fast = (
            min(timeit.repeat(lambda f=f: f(numbers), number=5, repeat=3))
            for f in (formulas.get_functions()["SUM"], np.sum)
        )
        assert "SUM" in gaps.NOTES
        assert slow > 20 * fast

    def test_arithmetic_of_blocks_makes_an_object_of_every_number(self) -> None:
        added = OPERATORS["+"](BLOCK, BLOCK)
        assert "+" in gaps.NOTES
        assert added.dtype == object  # NumPy's own stay float64

    def test_if_calculates_both_branches(self) -> None:
        calculated = []
        formulas.get_functions()["XLGPTSPY"] = lambda x: calculated.append(x) or x
        try:
            self.compiled("=IF(A1=0,1,XLGPTSPY(B1))")(np.array([[0]], object), np.array([[7]], object))
        finally:
            del formulas.get_functions()["XLGPTSPY"]
        assert "IF" in gaps.NOTES
        assert calculated


ONE, TEXT, NONE = np.array([[2.0]]), np.array([["He"]], dtype=object), np.array([[EMPTY]], dtype=object)
LINE = np.array([[1.0], [2.0], [2.0], [5.5]])
SINGLES = [2.0, 5.5, "he", "", ONE, TEXT, NONE]


@pytest.mark.parametrize(
    ("text", "given"),
    [
        *((f"A1{sign}A2", [a, b]) for sign in ("=", "<>", "<", ">=") for a in SINGLES for b in SINGLES),
        *((f"{name}(A1,A2)", [LINE, k]) for name in ("LARGE", "SMALL") for k in (1.0, 2.0, 4.0, 5.0)),
        *((f"MATCH(A1,A2,{kind})", [v, LINE]) for kind in (0, 1) for v in (0.5, 1.0, 2.0, 3.0, 5.5, 9.0)),
        *(("MOD(A1,A2)", [a, b]) for a in (7.0, -7.0, 0.0) for b in (3.0, -3.0, 2.5)),
        *(("N(A1)", [a]) for a in SINGLES),
        *(("INDEX(A1,A2)", [block, k]) for block in (LINE, LINE.T) for k in (1.0, 3.0)),
        *((f"{name}(A1)", [np.arange(4).reshape(2, 2)]) for name in ("MIN", "MAX", "SUM", "AVERAGE")),
        ('A1=""', [BLOCK]),
        ('A1<>""', [BLOCK]),
    ],
)
def test_a_workaround_gives_what_the_library_does(text: str, given: list[Any]) -> None:
    root = take_apart(text).root
    assert isinstance(root, Call)
    given += [argument for argument in take_apart(text).arguments if isinstance(argument, float)]
    given += [argument.value for argument in root.arguments if isinstance(argument, Constant)]
    assert root.name in gaps.WORKAROUNDS
    ours, theirs = (np.asarray(by(root, given), object).ravel() for by in (gaps.WORKAROUNDS[root.name], gaps.plain))
    assert ours.tolist() == theirs.tolist()


@pytest.fixture
def fake_soffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for LibreOffice's program, whose script a test writes."""
    path = tmp_path / "soffice"
    monkeypatch.setenv("XLGPT_SOFFICE", str(path))
    find_soffice.cache_clear()
    yield path
    find_soffice.cache_clear()


def write_script(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def running(marker: str) -> list[int]:
    """The processes whose command line holds a text; those that have ended and wait to be reaped do not count."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [int(row[0]) for row in rows if len(row) == 3 and marker in row[2] and not row[1].startswith("Z")]


def gone(marker: str) -> bool:
    """Whether no such process is left, after a moment."""
    end = time.monotonic() + 10
    while running(marker) and time.monotonic() < end:
        time.sleep(0.1)
    return not running(marker)


def test_without_libreoffice_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("XLGPT_SOFFICE", raising=False)
    monkeypatch.setattr("xlgpt.engines.libreoffice.PLACES", ())
    find_soffice.cache_clear()
    with pytest.raises(EngineNotFound) as e:
        find_soffice()
    find_soffice.cache_clear()
    for way in ("apt-get install libreoffice-calc python3-uno", "brew install", "winget install"):
        assert way in str(e.value)


@pytest.mark.libreoffice
@POSIX
def test_a_start_that_hangs_is_given_up(fake_soffice: Path, tiny_book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = find_python(real_soffice())
    monkeypatch.setattr("xlgpt.engines.libreoffice.find_python", lambda soffice: python)
    write_script(fake_soffice, "exec sleep 4242")
    start = time.monotonic()
    with pytest.raises(EngineFailed, match=r"did not answer within 1 seconds.*--start-timeout"):
        LibreOffice(Book(tiny_book), start_timeout=1)
    assert time.monotonic() - start < 10
    assert gone("sleep 4242")


@pytest.mark.libreoffice
@POSIX
def test_a_program_that_ends_at_once_is_said_to(
    fake_soffice: Path, tiny_book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = find_python(real_soffice())
    monkeypatch.setattr("xlgpt.engines.libreoffice.find_python", lambda soffice: python)
    write_script(fake_soffice, "exit 77")
    with pytest.raises(EngineFailed, match="it ended at once, with exit code 77"):
        LibreOffice(Book(tiny_book), start_timeout=20)


def real_soffice() -> str:
    hidden = os.environ.pop("XLGPT_SOFFICE", None)
    find_soffice.cache_clear()
    found = find_soffice()
    find_soffice.cache_clear()
    if hidden:
        os.environ["XLGPT_SOFFICE"] = hidden
    return found


@pytest.mark.slow
@pytest.mark.libreoffice
@POSIX
def test_two_at_once_and_a_crash_of_one(tiny_book: Path) -> None:
    book = Book(tiny_book)
    first, second = LibreOffice(book), LibreOffice(book)
    profiles = first._profile, second._profile
    try:
        for engine in (first, second):
            engine.calculate(book.prompt)
            assert engine.read(book.named("next_token"))[0, 0] == " Wednesday"
        for process in running(f"{profiles[0]} ") or running(str(profiles[0])):
            if process != first._process.pid:  # type: ignore[union-attr]
                os.kill(process, signal.SIGKILL)
        with pytest.raises(EngineFailed, match=r"LibreOffice crashed or was ended while \w+ .*tiny.xlsx\.$"):
            first.read(book.named("next_token"))
        second.calculate(book.prompt_of("If today is Monday, tomorrow is"))
        assert second.read(book.named("next_token"))[0, 0] == " Tuesday"
    finally:
        first.close()
        second.close()
    for profile in profiles:
        assert gone(str(profile))
        assert not profile.exists()
    assert not list(tiny_book.parent.glob(".~lock*"))


@pytest.mark.slow
@pytest.mark.libreoffice
@POSIX
@pytest.mark.parametrize(("way", "exit_code"), [("SIGINT", 130), ("SIGKILL", -9)])
def test_ctrl_c_and_kill_end_libreoffice(way: str, exit_code: int, tiny_book: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "xlgpt", "run", str(tiny_book), "--interactive", "--json"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"If today is Monday, tomorrow is\n")
    process.stdin.flush()
    assert b" Tuesday" in process.stdout.readline()
    assert running(str(tmp_path))
    process.send_signal(getattr(signal, way))
    assert process.wait(30) == exit_code
    assert gone(f"{tmp_path}/xlgpt-")
    assert not list(tmp_path.glob("xlgpt-*"))


@pytest.mark.libreoffice
def test_a_file_that_libreoffice_cannot_load(tiny_book: Path) -> None:
    book = Book(tiny_book)
    assert book.settings.cells  # read before the file is gone
    book.path = tiny_book.with_name("gone.xlsx")
    with pytest.raises(EngineFailed, match="LibreOffice failed while loading"):
        LibreOffice(book).read(Range("Home", 0, 0))


@pytest.mark.slow
@pytest.mark.libreoffice
def test_prompts_that_look_like_formulas_are_text(tiny_book: Path) -> None:
    book = Book(tiny_book)
    engine = LibreOffice(book)
    try:
        for text in ("=1+1", "+1", "'a", "  b ", "1"):
            engine.calculate(book.prompt_of(text))
            assert engine.read(book.named("prompt"))[0, 0] == text
            assert engine.read(book.named("n_tokens"))[0, 0] == len(book.prompt_of(text).ids)
    finally:
        engine.close()


@pytest.mark.slow
def test_every_engine_has_its_name(tiny_book: Path) -> None:
    with pytest.raises(xlgpt.XlgptError, match="There is no engine 'excel'; choose formulas or libreoffice"):
        xlgpt.check(tiny_book, engine="excel")
