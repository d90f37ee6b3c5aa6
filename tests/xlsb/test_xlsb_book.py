"""A workbook as records, read back: the same as in XML; and what is changed in it is found."""

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import run_xlgpt
from readers import are_alike
from xlsb_grammar import findings
from xlsb_samples import DATA, opened

import xlgpt
from xlgpt.errors import BrokenWorkbook, EngineFailed, ForeignWorkbook, UsageError, XlgptError
from xlgpt.verify.proofread import proofread
from xlgpt.view.convert import convert
from xlgpt.workbook.book import Book
from xlgpt.workbook.fill import fill
from xlgpt.xlsb import read
from xlgpt.xlsb.book_part import Book as BookPart
from xlgpt.xlsb.cells import Real, Rk, RowHeader
from xlgpt.xlsb.records import read_records, record
from xlgpt.xlsb.workbook import Calculation
from xlgpt.xlsx.formula import with_cells
from xlgpt.xlsx.package import Package

Edit = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = {"context": 4, "max_bytes": 12, "generate": 1, "prompt": "Monday", "sheets": "circuit"}
    return xlgpt.build(tmp_path_factory.mktemp("xlsb") / "small.xlsb", model="tiny", **few).path


def edited(path: Path, out: Path, parts: dict[str, Edit]) -> Path:
    """A copy with some parts changed: sheets by their names, others by their files'."""
    book = Book(path)
    edits = {book.part(name) if name in book.sheets else f"xl/{name}.bin": edit for name, edit in parts.items()}
    with zipfile.ZipFile(path) as archive, out.open("wb") as file, Package(file) as package:
        for name in archive.namelist():
            whole = archive.read(name)
            package.add(name, [edits.pop(name)(whole) if name in edits else whole])
    assert not edits
    return out


def changing(identity: int, change: Callable[[bytes], bytes], which: int = 0) -> Edit:
    """One of the records with that number changed."""

    def edit(part: bytes) -> bytes:
        records = list(read_records(part))
        at = [i for i, (number, _) in enumerate(records) if number == identity][which]
        records[at] = identity, change(records[at][1])
        return b"".join(record(*each) for each in records)

    return edit


def test_it_is_read_as_the_other(twins: tuple[Path, Path]) -> None:
    ours, theirs = map(Book, twins)
    with zipfile.ZipFile(twins[1]) as archive:
        names = BookPart(archive.read("xl/workbook.xml")).cells
    assert (ours.sheets, ours.config, ours.prompt) == (theirs.sheets, theirs.config, theirs.prompt)
    assert all(ours.named(name) == theirs.named(name) for name in theirs.layout.names)
    for sheet in ours.sheets:
        if sheet in ours.weights.sheets:
            continue
        a, b = ours.cells(sheet), theirs.cells(sheet)
        assert a.constants.keys() == b.constants.keys()
        alike = partial(are_alike, sheet)
        assert all(map(alike, a.constants.values(), (b.constants[place] for place in a.constants)))
        assert [(f.cells, f.is_array) for f in a.formulas] == [(f.cells, f.is_array) for f in b.formulas]
        assert [f.text for f in a.formulas] == [with_cells(f.text, names) for f in b.formulas]
        for f, x, y in zip(a.formulas, a.saved, b.saved, strict=True):
            assert all(map(alike, np.ravel(x), np.ravel(y))), f
    for name in theirs.weights.shapes():
        exact = theirs.weights.tensor(name).astype(np.float32)
        assert (ours.weights.tensor(name) == exact).all()


def test_nothing_differs_from_the_templates(small: Path) -> None:
    proof = proofread(Book(small))
    assert not any(sheet.problems for sheet in proof.sheets)
    assert [gap.what for gap in proof.gaps] == [
        "colours, links, drawings, and what stands on the sheets of weights besides the weights"
    ]


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda payload: payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]


MISTAKES: dict[str, tuple[dict[str, Edit], str]] = {
    "a cell of a formula": (
        {"Block 0": changing(426, lambda p: p.replace(b"\x0f\0\0\0", b"\x0e\0\0\0", 1))},
        "it must hold",
    ),
    "a list": ({"Circuit": changing(64, flipped(-14))}, "of the lists in cells"),
    "a condition": ({"Home": changing(463, flipped(16), 0)}, "of the conditional formats"),
    "a point of a scale": ({"Circuit": changing(471, flipped(10))}, "of the conditional formats"),
    "a name": ({"workbook": changing(39, flipped(-10), 9)}, "it must stand for"),
    "a label": ({"Block 0": changing(7, flipped(8))}, "it must hold"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(small: Path, tmp_path: Path, mistake: str) -> None:
    parts, words = MISTAKES[mistake]
    proof = proofread(Book(edited(small, tmp_path / "changed.xlsb", parts)))
    problems = [band.problem for sheet in proof.sheets for band in sheet.problems]
    assert problems
    assert words in problems[0]


def test_a_weight_that_is_not_the_models_is_found(small: Path, tmp_path: Path) -> None:
    changed = edited(small, tmp_path / "changed.xlsb", {"wpe": changing(5, flipped(13), 700)})
    book, was = Book(changed), Book(small)
    differ = [name for name in book.weights.shapes() if (book.weights.cells(name) != was.weights.cells(name)).any()]
    assert len(differ) == 1


@pytest.mark.parametrize(
    ("parts", "kind", "words"),
    [
        ({"wpe": lambda part: part[:5000]}, BrokenWorkbook, "ends in the middle of its rows"),
        ({"Block 0": lambda part: part[:-5000]}, BrokenWorkbook, "cannot be read"),
        ({"workbook": lambda part: part[:900]}, BrokenWorkbook, "the list of its sheets is damaged"),
        ({"workbook": changing(39, lambda _: b"\1")}, BrokenWorkbook, "the list of its sheets is damaged"),
        ({"sharedStrings": lambda part: part[:900]}, BrokenWorkbook, "sharedStrings.bin is damaged"),
        ({"Block 0": changing(426, lambda p: p[:-12] + b"\x7f" * 8 + p[-4:])}, BrokenWorkbook, "a formula in row"),
    ],
)
def test_a_damaged_one(small: Path, tmp_path: Path, parts: dict[str, Edit], kind: type[XlgptError], words: str) -> None:
    changed = edited(small, tmp_path / "changed.xlsb", parts)
    with pytest.raises(kind, match=words):
        read_all(changed)


def read_all(path: Path) -> None:
    book = Book(path)
    proofread(book)
    for name in book.weights.shapes():
        book.weights.tensor(name)


def test_a_foreign_one() -> None:
    with pytest.raises(ForeignWorkbook, match="was not built by xlgpt"):
        Book(DATA / "apachepoi_WithChart.xlsx.xlsb")


def test_runs_of_numbers_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of all lengths, with numbers of both kinds, cut at any byte."""
    random = np.random.default_rng(0)
    wanted, pieces = {}, []
    for row in range(60):
        pieces.append(RowHeader(row, 0, 300, bytes(3), ()).record())
        for column in range(int(random.integers(0, 50))):
            if random.random() < 0.2:
                pieces.append(Rk(column, 0, 7 << 2 | 2).record())
                wanted[row, column] = 7.0
            else:
                wanted[row, column] = value = float(random.normal())
                pieces.append(Real(column, 0, value).record())
    part = b"".join([record(129), record(145), *pieces, record(146), record(130)])
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", part)
    monkeypatch.setattr(read, "AHEAD", 60)
    cuts = [part[i : i + 97] for i in range(0, len(part), 97)]
    monkeypatch.setattr(read.Archive, "pieces", lambda *_: iter(cuts))
    found = {}
    for run in read.number_runs(tmp_path / "a.zip", "a"):
        found |= {(run.row, int(c)): float(v) for c, v in zip(run.columns, run.values, strict=True)}
    assert found == wanted


@pytest.mark.parametrize(
    ("rk", "value"), [(0x3FF00000, 1.0), (0x3FF00001, 0.01), (123456 << 2 | 3, 1234.56), (0xFFFFFFFE, -1.0)]
)
def test_numbers_of_30_bits(rk: int, value: float) -> None:
    """The last three are [MS-XLSB]'s and [MS-XLS]'s own examples of what their two lowest bits mean."""
    assert read.number(rk) == value
    assert read._numbers(np.array([rk], np.uint32))[0] == value


def test_a_copy_with_other_values(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.xlsb"
    filled = fill(small, out, {"circuit.heads": 0, "prompt": "Fri\x00 \U0001f600"})
    assert filled.cells == 17
    book = Book(out)
    assert (book.constant("prompt"), book.settings.cells["circuit.heads"].tolist()) == (
        "Fri\x00 \U0001f600",
        [[0.0] * 4] * 4,
    )
    assert findings(opened(out)) == []
    with zipfile.ZipFile(out) as after, zipfile.ZipFile(small) as before:
        records = dict(read_records(after.read("xl/workbook.bin")))
        assert Calculation.read(records[Calculation.identity]).flags & 1
        assert after.read("xl/worksheets/sheet5.bin") == before.read("xl/worksheets/sheet5.bin")
    with pytest.raises(UsageError, match="let it end in"):
        fill(small, tmp_path / "new.xlsx", {"circuit.heads": 0})


def test_ironcalc_does_not_read_it(small: Path) -> None:
    with pytest.raises(EngineFailed, match="IronCalc reads no"):
        convert(small)
    pytest.importorskip("ironcalc")
    with pytest.raises(EngineFailed, match="IronCalc reads no"):
        xlgpt.read(small, "next_token", engine="ironcalc")


@pytest.mark.slow
@pytest.mark.libreoffice
@pytest.mark.parametrize(("engine", "digits"), [("formulas", None), ("libreoffice", None), ("libreoffice", 5)])
def test_check_passes(tmp_path: Path, engine: str, digits: int | None) -> None:
    """For the prompt in the file, too, whose sums on the sheet Proof NumPy took of the weights as they stand here."""
    path = tmp_path / "tiny.xlsb"
    xlgpt.build(path, model="tiny", context=10, max_bytes=40, generate=2, precision=digits)
    prompt = Book(path).prompt.text
    done = run_xlgpt("check", path, "--model", "tiny", "--engine", engine, "--prompt", prompt)
    assert "Passed: " in done.stdout, done.stdout + done.stderr
    assert "not checked" not in done.stdout.partition("Home")[0]
