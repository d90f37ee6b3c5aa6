"""Nothing that Excel would repair, refuse or misread: its rules, held against every kind of workbook that we write.

Nobody here has Excel. Where a rule comes from is said beside it; ../shared/tools/lint_xlsx.py knows more of them.
"""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import FIXTURES, MICRO, SHARED
from lxml import etree
from safetensors.numpy import save_file
from xlsb_grammar import findings
from xlsb_samples import opened

import xlgpt
from xlgpt.errors import TooLongForExcel
from xlgpt.model.checkpoint import TINY
from xlgpt.workbook import plan
from xlgpt.workbook.book import Book
from xlgpt.xlsx.worksheet import a1_range

LINT = SHARED / "tools" / "lint_xlsx.py"
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
OWN_CALCULATION = 191029  # calcId of the newest Excel: it believes what a file of that number saved
MOST_NUMBER_FORMATS = 150  # Excel allows 200 to 250, by its language (Excel specifications and limits)
SLICE = 1024  # rows of an embedding matrix that one product may take
CORNER = r"\$?[A-Z]+\$?\d+"
PIECE = re.compile(rf"(\w+\()?(?:(wte\.weight|lm_head\.weight)\b|(wte|lm_head)!({CORNER}:{CORNER}))")
RANGES = ("INDEX(", "COUNT(", "ROWS(", "COLUMNS(")  # functions that take a range as it is


@dataclass(frozen=True)
class Cell:
    """A cell's XML: where it stands, if it says so, its style, and its formula, if it has one."""

    sheet: str
    place: str | None
    style: str
    formula: Any


def cells(path: Path) -> Iterator[Cell]:
    book = Book(path)
    with zipfile.ZipFile(path) as archive:
        for sheet in book.sheets:
            with archive.open(book.part(sheet)) as part:
                for _, row in etree.iterparse(part, tag=f"{MAIN}row"):
                    for cell in row:
                        formula = cell.find(f"{MAIN}f") if len(cell) else None
                        yield Cell(sheet, cell.get("r"), cell.get("s", "0"), formula)
                    row.clear()


NARROW: dict[str, object] = {
    "model": "random:n_layer=2,n_embd=16,n_head=2,vocab_size=1280",
    "context": 10,
    "max_bytes": 40,
}
KINDS: dict[str, dict[str, object]] = {
    "short": {"model": "tiny", "context": 6, "max_bytes": 24, "generate": 2},
    "tiny": {"model": "tiny"},
    "without views": {**NARROW, "sheets": "none", "precision": 4},
    "dot products": {**NARROW, "matmul": "sumproduct", "generate": 1},
    "dot products that write on": {**NARROW, "matmul": "sumproduct", "generate": 4},
    "48 layers": {
        "model": "random:n_layer=48,n_embd=16,n_head=2,vocab_size=1280",
        "context": 4,
        "max_bytes": 16,
        "generate": 2,
    },
    "48 layers, dot products": {
        "model": "random:n_layer=48,n_embd=16,n_head=2,vocab_size=1280",
        "context": 4,
        "max_bytes": 16,
        "matmul": "sumproduct",
    },
}


DEEP = {"context": 4, "max_bytes": 16, "generate": 2}


def deep(path: Path, blocks: int, **more: object) -> Path:
    """All sheets of a narrow model of so many blocks: it has vectors, features, and an adapter of every matrix."""
    folder, width, random = path.parent, 16, np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    np.save(folder / "vector.npy", numbers(1, width))
    for name in ("sae", f"adapter {blocks}"):
        (folder / name).mkdir(exist_ok=True)
    encoder = {"W_dec": numbers(8, width), "W_enc": numbers(width, 8), "b_dec": numbers(width), "b_enc": numbers(8)}
    save_file(encoder, folder / "sae" / "sae_weights.safetensors")
    config = json.loads((TINY / "sae" / "cfg.json").read_text(encoding="utf-8")) | {"d_in": width, "d_sae": 8}
    (folder / "sae" / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    adapter = folder / f"adapter {blocks}"
    (adapter / "adapter_config.json").write_bytes((FIXTURES / "lora-all" / "adapter_config.json").read_bytes())
    matrices = {"attn.c_attn": (1, 3), "attn.c_proj": (1, 1), "mlp.c_fc": (1, 4), "mlp.c_proj": (4, 1)}
    tensors: dict[str, np.ndarray] = {}
    for block in range(blocks):
        for name, (rows, columns) in matrices.items():
            key = f"base_model.model.transformer.h.{block}.{name}.lora_"
            tensors[f"{key}A.weight"] = numbers(2, width * rows)
            tensors[f"{key}B.weight"] = numbers(width * columns, 2)
    save_file(tensors, adapter / "adapter_model.safetensors")
    model = f"random:n_layer={blocks},n_embd={width},n_head=2,vocab_size=1280"
    given = {"steering": folder / "vector.npy", "sae": folder / "sae", "adapter": adapter}
    xlgpt.build(path, model, **DEEP, **given, **more)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, tiny_book: Path) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("kinds")

    def book(kind: str) -> Path:
        if kind == "tiny":
            return tiny_book
        path = folder / f"{kind}.xlsx"
        if not path.exists():
            xlgpt.build(path, **KINDS[kind])  # type: ignore[arg-type]
        return path

    return book


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workbook as a large model has it, whose weights do not say where they stand."""
    path = tmp_path_factory.mktemp("bare") / "bare.xlsx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "BARE_FROM", 0)
        xlgpt.build(path, "tiny", context=6, max_bytes=24, generate=2)
    return path


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", KINDS)
def test_the_rules_hold(kind: str, books: Callable[[str], Path]) -> None:
    """One pass over all cells, for each rule that is about cells."""
    path = books(kind)
    book, text = Book(path), text_styles(path)
    for cell in cells(path):
        assert cell.place, f"{cell.sheet}: a cell without a reference, which IronCalc refuses and Gnumeric misplaces"
        if cell.formula is None:
            continue
        where, formula = f"{cell.sheet}!{cell.place}", cell.formula.text or ""
        assert cell.style not in text, f"{where}: a formula in a cell formatted as text becomes text when it is edited"
        assert not excess(formula), where
        if cell.formula.get("t") == "shared":  # [MS-XLS] 2.5.198.118
            assert "!" not in formula, f"{where}: a shared formula refers to another sheet"
        for piece in PIECE.finditer(formula):  # Excel turns a range in an array operation into an array first
            function, name, sheet, range_ = piece.groups()
            height = book.named(name).height if name else a1_range(sheet, range_).height
            as_it_is = function in RANGES or formula[piece.start() : piece.end() + 1] == f"SUM({name})"
            assert as_it_is or height <= SLICE, f"{where} multiplies {height:,} rows of the embedding matrix"


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", KINDS)
def test_there_are_few_number_formats(kind: str, books: Callable[[str], Path]) -> None:
    with zipfile.ZipFile(books(kind)) as archive:
        styles = ElementTree.fromstring(archive.read("xl/styles.xml"))
    assert 10 < len(list(styles.iter(f"{MAIN}numFmt"))) <= MOST_NUMBER_FORMATS


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", ["tiny", "dot products"])
def test_excel_calculates_it_on_loading(kind: str, books: Callable[[str], Path]) -> None:
    """Excel counts 😀 as two characters, and the saved `wide_units` says one: it must not be believed there."""
    with zipfile.ZipFile(books(kind)) as archive:
        calculation = ElementTree.fromstring(archive.read("xl/workbook.xml")).find(f"{MAIN}calcPr")
    assert calculation is not None
    assert int(calculation.get("calcId", "0")) < OWN_CALCULATION or calculation.get("fullCalcOnLoad") == "1"
    assert Book(books(kind)).cells("Tokens")  # wide_units stands there
    wide = Book(books(kind)).named("wide_units")
    assert any(f.text == "LEN(_xlfn.UNICHAR(128512))" for f in Book(books(kind)).cells(wide.sheet).formulas)


@pytest.mark.slow
def test_the_weights_of_a_large_model_say_their_names_in_text_boxes(bare: Path) -> None:
    """Their cells have no reference, and hold numbers alone; every cell with a formula has one all the same."""
    book = Book(bare)
    places = {sheet: [c.place for c in cells(bare) if c.sheet == sheet and not c.place] for sheet in ("h.0", "Block 0")}
    assert len(places["h.0"]) == sum(book.named(n).height * book.named(n).width for n in book.weights.sheets["h.0"])
    assert not places["Block 0"]
    assert all(cell.place for cell in cells(bare) if cell.formula is not None)
    with zipfile.ZipFile(bare) as archive:
        assert b't="s"' not in archive.read(book.part("h.0"))
        drawings = [archive.read(name) for name in archive.namelist() if name.startswith("xl/drawings/drawing")]
    shown = [drawing for drawing in drawings if b"h.0.attn.c_attn.weight" in drawing]
    assert len(shown) == 1
    assert xlgpt.check(bare, model="tiny", prompts=("The cow says",)).passed


def test_a_label_is_a_text_in_a_cell_where_cells_may_be_texts(books: Callable[[str], Path]) -> None:
    book = Book(books("short"))
    cells_ = book.named("h.1.attn.c_attn.weight")
    label = book.cells("h.1").constants[cells_.row - 1, 0]
    assert str(label).startswith("h.1.attn.c_attn.weight   96 × 288 = 27,648 weights: makes queries, keys and values")


def text_styles(path: Path) -> set[str]:
    """The cell styles whose number format is text (ECMA-376 18.8.30: 49, or @)."""
    with zipfile.ZipFile(path) as archive:
        styles = ElementTree.fromstring(archive.read("xl/styles.xml"))
    codes = {e.get("numFmtId"): e.get("formatCode") for e in styles.iter(f"{MAIN}numFmt")}
    formats = styles.find(f"{MAIN}cellXfs")
    assert formats is not None
    return {str(i) for i, e in enumerate(formats) if e.get("numFmtId") == "49" or codes.get(e.get("numFmtId")) == "@"}


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "short"])  # which is like tiny
def test_lint_finds_nothing(kind: str, books: Callable[[str], Path]) -> None:
    lint(books(kind))


@pytest.mark.slow
@pytest.mark.shared
def test_lint_finds_nothing_in_other_models(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    models = [
        make_checkpoint(
            lambda t: t.update({"lm_head.weight": t["wte.weight"][::-1].copy()}), "untied", tie_word_embeddings=False
        )
    ]
    models.append(make_checkpoint(None, "scaled", scale_attn_by_inverse_layer_idx=True, activation_function="relu"))
    for i, model in enumerate([*models, MICRO]):
        xlgpt.build(tmp_path / f"{i}.xlsx", str(model), context=6, max_bytes=24, generate=2)
        lint(tmp_path / f"{i}.xlsx")


def lint(path: Path) -> None:
    done = subprocess.run([sys.executable, LINT, path], capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.stdout.splitlines()[-1:] == ["0 findings"], done.stdout + done.stderr


# What a cell, a formula or a name may have at most (Excel's specifications and limits).

TOKENS = re.compile(r'"(?:[^"]|"")*"|\'(?:[^\']|\'\')*\'|[(){},;]')


def excess(formula: str) -> list[str]:
    """Which of Excel's limits it passes: 8,192 characters, 64 levels, 255 arguments, 255 characters of a text."""
    found = ["characters"] if len(formula) > 8192 else []
    arguments, levels = [0], 0
    for token in TOKENS.findall(formula):
        if token[0] == '"' and len(token[1:-1].replace('""', '"')) > 255:
            found.append("text")
        elif token in "({":
            arguments.append(1)
            levels = max(levels, len(arguments) - 1)
        elif token in ")}":
            found += ["arguments"] if arguments.pop() > 255 else []
        elif token == ",":
            arguments[-1] += 1
    return found + (["levels"] if levels > 64 else [])


@pytest.mark.parametrize(
    ("formula", "found"),
    [
        ("+".join(["1"] * 4096), []),
        ("+".join(["1"] * 4097), ["characters"]),
        (f"SUM({','.join(['1'] * 255)})", []),
        (f"SUM({','.join(['1'] * 256)})", ["arguments"]),
        (f'SUM({",".join(["1"] * 200)},SUM({",".join(["1"] * 200)}),",,,")', []),
        (f'LEN("{"x" * 253}""")', []),
        (f'LEN("{"x" * 254}"""&"")', []),
        (f'LEN("{"x" * 255}"""&"")', ["text"]),
        (f"{'ABS(' * 64}1{')' * 64}", []),
        (f"{'ABS(' * 65}1{')' * 65}", ["levels"]),
        (f"{'ABS(1)+' * 65}'a,(b'!A1", []),
    ],
)
def test_what_is_too_much_is_seen(formula: str, found: list[str]) -> None:
    assert excess(formula) == found


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["xlsx", "xlsb"])
def test_48_blocks_pass_no_limit(ending: str, tmp_path: Path) -> None:
    """GPT-2 XL's depth with every sheet: formulas, rules, names, formats; in an .xlsb formulas refer to cells."""
    path = deep(tmp_path / f"book.{ending}", 48)
    book = Book(path)
    formulas = [
        formula for sheet in book.sheets if sheet not in book.weights.sheets for formula in book.cells(sheet).formulas
    ]
    assert {sheet.partition(" ")[0] for sheet in book.sheets} >= {
        "Steering",
        "Features",
        "Adapters",
        "Circuit",
        "Proof",
    }
    assert len(formulas) > 20_000
    assert [formula.text for formula in formulas if excess(formula.text)] == []
    assert all(len(sheet) <= 31 and not re.search(r"[\[\]:*?/\\]", sheet) for sheet in book.sheets)
    assert len({sheet.casefold() for sheet in book.sheets}) == len(book.sheets)
    assert all(len(name) <= 255 for name in book.layout.names)
    if ending == "xlsb":
        assert findings(opened(path)) == []
    else:
        assert_few(path)


def assert_few(path: Path) -> None:
    """Cell formats and fonts, and characters of the lists in cells."""
    with zipfile.ZipFile(path) as archive:
        styles = ElementTree.fromstring(archive.read("xl/styles.xml"))
        sheets = [archive.read(part) for part in archive.namelist() if part.startswith("xl/worksheets/sheet")]
    for tag, most in {"xf": 64_000, "font": 512, "numFmt": MOST_NUMBER_FORMATS}.items():
        assert 1 < len(list(styles.iter(MAIN + tag))) <= most
    lists = [found for sheet in sheets for found in re.findall(rb"<formula[12]>([^<]*)</formula", sheet)]
    assert len(lists) > 10
    assert max(len(found.decode().replace("&quot;", '"')) for found in lists) <= 255 + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blocks", "ending", "sheets", "sentence"),
    [
        (90, "xlsx", "all", "With 90 blocks the list at .* leave the sheet .* out with --sheets"),
        (88, "xlsb", "all", "With 88 blocks a formula of circuit.adapter_adds has 8,.* leave the sheet Circuit out"),
        (88, "xlsb", "steering,features,adapters", ""),
    ],
)
def test_of_more_blocks_a_sheet_is_to_be_left_out(
    blocks: int, ending: str, sheets: str, sentence: str, tmp_path: Path
) -> None:
    if not sentence:
        assert deep(tmp_path / f"book.{ending}", blocks, sheets=sheets).exists()
        return
    with pytest.raises(TooLongForExcel, match=sentence):
        deep(tmp_path / f"book.{ending}", blocks, sheets=sheets)
    assert not (tmp_path / f"book.{ending}").exists()
