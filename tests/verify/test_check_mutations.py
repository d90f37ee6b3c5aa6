"""A check that can fail: a good workbook is broken in many ways, and check must name the sheet and the band."""

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import CONFIG, random_tensors, write_vocabulary
from safetensors.numpy import save_file

import xlgpt
from xlgpt.verify.proofread import proofread
from xlgpt.workbook.book import Book
from xlgpt.xlsx.ranges import Range

CONTEXT = 10  # more rows than a prompt and what is written after it take
Change = Callable[[str, "Good"], str]


@dataclass(frozen=True)
class Good:
    """A small workbook in which nothing is wrong, and the checkpoint that it was built from."""

    book: Book
    model: Path

    def cells(self, band: str, row: int = 0, head: int | None = None) -> Range:
        """The cells of a band's formula."""
        line = self.book.named(band).rows(row, row + 1)
        found = [f.cells for f in self.book.cells(line.sheet).formulas if f.cells.row == line.row]
        return [c for c in sorted(found, key=lambda c: c.column) if c.column >= line.column][head or 0]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    folder = tmp_path_factory.mktemp("good")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(CONFIG))
    save_file(random_tensors(CONFIG), folder / "model" / "model.safetensors")
    write_vocabulary(folder / "model")
    xlgpt.build(folder / "book.xlsx", model=str(folder / "model"), context=CONTEXT, max_bytes=16, prompt="abcd")
    return Good(Book(folder / "book.xlsx"), folder / "model")


def broken(good: Good, sheet: str, change: Change, out: Path) -> Path:
    """A copy of the good workbook in which one sheet's XML is changed; fails where nothing is."""
    with zipfile.ZipFile(good.book.path) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            content = old.read(part)
            if part == good.book.part(sheet):
                changed = change(content.decode(), good).encode()
                assert changed != content, "the mutation was not applied"
                content = changed
            new.writestr(part, content)
    return out


def in_formula(band: str, old: str, new: str, row: int = 2) -> Change:
    """Another text in the formula of a band's row."""

    def change(xml: str, good: Good) -> str:
        cell = re.compile(rf'(<c r="{good.cells(band, row).first}"[^>]*><f[^>]*>)([^<]*)(</f>)')
        found = cell.search(xml)
        assert found, f"{band} has no formula there"
        assert old in found[2], f"{found[2]} holds no {old}"
        return cell.sub(lambda m: m[1] + m[2].replace(old, new) + m[3], xml)

    return change


def row_above(band: str, of: str) -> Change:
    """The formula of a band's row refers to another band's row above its own."""

    def change(xml: str, good: Good) -> str:
        source = good.book.named(of)
        return in_formula(band, source.rows(2, 3).a1, source.rows(1, 2).a1)(xml, good)

    return change


def own_cell(xml: str, good: Good) -> str:
    return in_formula("blocks.0.ln1.scale", "VARP(", f"VARP({good.cells('blocks.0.ln1.scale', 2).a1},")(xml, good)


def heads_swapped(xml: str, good: Good) -> str:
    first, second = (good.cells("blocks.0.attn.z", 2, head) for head in (0, 1))
    formulas = [re.search(rf'<c r="{cells.first}"[^>]*><f[^>]*>([^<]*)</f>', xml) for cells in (first, second)]
    texts = [found[1] for found in formulas if found]
    return xml.replace(texts[0], "\0").replace(texts[1], texts[0]).replace("\0", texts[1])


def mask_gone(xml: str, good: Good) -> str:
    """Row 3 of the scores looks at row 4 too, and has a cell for it."""
    cells, keys = good.cells("blocks.0.attn.attn_scores", 2), good.book.named("blocks.0.attn.k").rows(0, 3)
    keys = keys.columns(0, 4)
    wider = cells.columns(0, 4)
    xml = xml.replace(f'ref="{cells.a1}"', f'ref="{wider.a1}"')
    return in_formula("blocks.0.attn.attn_scores", keys.a1, keys.rows(0, 4).a1)(xml, good)


def one_column_off(xml: str, good: Good) -> str:
    weight = good.book.named("h.0.mlp.c_proj.weight")
    moved = weight.columns(1, weight.width + 1).seen_from("Block 0")
    return in_formula("blocks.0.mlp_out", "h.0.mlp.c_proj.weight", moved)(xml, good)


def without_formula(band: str) -> Change:
    """The formula is gone, what it showed remains."""

    def change(xml: str, good: Good) -> str:
        return re.sub(rf'(<c r="{good.cells(band, 2).first}"[^>]*>)<f[^>]*>[^<]*</f>', r"\1", xml)

    return change


def other_value(cell: Range, value: str) -> Change:
    """Another number in a cell that is no text."""

    def change(xml: str, good: Good) -> str:
        return re.sub(rf'(<c r="{cell.first}"[^>]*>(?:<f[^>]*>[^<]*</f>)?<v>)[^<]*', rf"\g<1>{value}", xml)

    return change


def last_digit(xml: str, good: Good) -> str:
    """The first number of a tensor becomes the float32 next to it."""
    place = good.book.named("h.0.mlp.c_fc.weight")
    rows = xml.split("</row>")
    number = re.search(r"<row[^>]*><c[^>]*><v>([^<]*)", rows[place.row])
    assert number
    other = np.nextafter(np.float32(number[1]), np.float32(9))
    rows[place.row] = rows[place.row].replace(f">{number[1]}<", f">{other}<", 1)
    return "</row>".join(rows)


def cut_short(xml: str, good: Good) -> str:
    """The last row of the weights is gone."""
    return re.sub(r"<row[^>]*>(?:(?!<row).)*</row></sheetData>", "</sheetData>", xml)


def cut_narrow(xml: str, good: Good) -> str:
    """The last row of the weights lacks its last number."""
    return re.sub(r"<c[^>]*><v>[^<]*</v></c></row></sheetData>", "</row></sheetData>", xml)


def as_text(xml: str, good: Good) -> str:
    place = good.book.named("ln_f.weight").first
    return xml.replace(f'<c r="{place}"', f'<c r="{place}" t="str"', 1)


def stale_at_home(xml: str, good: Good) -> str:
    cell = good.book.named("top.probability").first
    return re.sub(rf"(Argmax!{cell}</f><v>)[^<]*", r"\g<1>0.77", xml)


def other_epsilon(xml: str, good: Good) -> str:
    return other_value(good.book.named("layer_norm_epsilon"), "0.00002")(xml, good)


def other_token(xml: str, good: Good) -> str:
    """The one token that is not merged of others has other bytes."""
    cell = good.book.named("vocabulary").rows(280, 281).columns(2, 3)
    return re.sub(rf'<c r="{cell.first}".*?</c>', f'<c r="{cell.first}" t="str"><v>62 61</v></c>', xml)


def edited(band: str, old: str, new: str, row: int = 2) -> tuple[Change, str]:
    return in_formula(band, old, new, row), band


def valued(band: str) -> tuple[Change, str]:
    return without_formula(band), band


def stale(band: str) -> tuple[Change, str]:
    return lambda xml, good: other_value(good.cells(band, 2), "0.5")(xml, good), band


@dataclass(frozen=True)
class Mutation:
    """A sheet that is changed; check must name it, and the band, first, and say so much.

    above: a band that depends on it and stands above it on the sheet, so that it may be named first.
    """

    name: str
    sheet: str
    change: Change
    band: str
    says: str = ""
    above: str = ""


B = "blocks.0."
MUTATIONS = [
    Mutation("two heads swapped", "Block 0", heads_swapped, B + "attn.z"),
    Mutation("causal mask gone", "Block 0", mask_gone, B + "attn.attn_scores"),
    Mutation("bias forgotten", "Block 0", *edited(B + "attn_out", "+h.0.attn.c_proj.bias", "")),
    Mutation("wrong epsilon", "Block 1", *edited("blocks.1.ln1.scale", "layer_norm_epsilon", "0.001")),
    Mutation("one row off", "Block 0", row_above(B + "resid_mid", B + "attn_out"), B + "resid_mid"),
    Mutation("one column off", "Block 0", one_column_off, B + "mlp_out"),
    Mutation("VAR for VARP", "Block 0", *edited(B + "ln2.scale", "VARP", "VAR")),
    Mutation("formula replaced by its value", "Block 0", *valued(B + "ln1.scale"), "no formula"),
    Mutation("array formula replaced by its values", "Block 1", *valued("blocks.1.mlp.pre"), "no formula"),
    Mutation("GELU's constant off by 1 %", "Block 0", *edited(B + "mlp.post", "0.044715", "0.04516215")),
    Mutation("another byte's token", "Tokens", *edited("byte.id", "+1)", "+2)")),
    Mutation("another character shown", "Tokens", *edited("char.char", '" ","␣"', '"c","␣"')),
    Mutation("a letter taken for something else", "Tokens", *edited("char.kind", ",1)))", ",1)-1))")),
    Mutation("a character of two bytes", "Tokens", *edited("char.bytes", "1+(", "2+(")),
    Mutation("a word that begins too late", "Tokens", *edited("char.begins", ",1,IF(", ",0,IF(", 0)),
    Mutation("a piece out of place", "BPE merges", *edited("pieces.ids", "byte.id,1", "byte.id,2", 0)),
    Mutation("position embedding shifted", "Embeddings", *edited("pos_embed", "A5:H5", "A4:H4")),
    Mutation("scores not scaled", "Block 1", *edited("blocks.1.attn.attn_scores", "/SQRT(4)", "")),
    Mutation("another token's neurons", "Block 0", row_above(B + "mlp.post", B + "mlp.pre"), B + "mlp.post"),
    Mutation("residual stream dropped", "Block 1", *edited("blocks.1.resid_post", "+", "*0+")),
    Mutation(
        "row not in use is filled", "Block 0", *edited(B + "resid_pre", "IF($A", "IF(1&lt;&gt;1&amp;$A", CONTEXT - 1)
    ),
    Mutation("id one too high", "Argmax", *edited("next_token_id", "-1)", "-0)", 0)),
    Mutation("layer norms not counted", "Anatomy", *edited("anatomy.numbers", "SUM(anatomy.norms)+", "", 4)),
    Mutation(
        "another head's pattern", "Attention", *edited("attention.pattern", f"_head*{CONTEXT}", f"_head*0+{CONTEXT}")
    ),
    Mutation(
        "habits from the second token on",
        "Attention",
        *edited("attention.same", "position&gt;1", "position&gt;0", 0),
        above="attention.same_head",
    ),
    Mutation("another token's neurons fire", "Facts", *edited("facts.fires", "facts.at+1", "facts.at", 0)),
    Mutation("another neuron is ablated", "Block 1", *edited("blocks.1.mlp_out", ",0)", ",0.1)")),
    Mutation("error value", "LM head", *edited("ln_final.scale", "VARP", "1/0*VARP"), "#DIV/0!"),
    Mutation("unknown function", "LM head", *edited("ln_final.scale", "VARP", "VARQ"), "VARQ"),
    Mutation("unknown name", "Block 0", *edited(B + "attn.q", "W_Q", "W_X"), "W_X"),
    Mutation("depends on itself", "Block 0", own_cell, B + "ln1.scale", "itself"),
    Mutation("stale saved value", "Block 0", *stale(B + "ln1.scale"), "stale"),
    Mutation("stale saved value in an array", "Block 1", *stale("blocks.1.resid_post"), "stale"),
    Mutation("stale saved value on the home sheet", "Home", stale_at_home, "", "stale"),
    Mutation("weight sheet cut short", "h.1", cut_short, "h.1.mlp.c_proj.bias", "no number"),
    Mutation("weight sheet lacks a number", "ln_f", cut_narrow, "ln_f.bias", "no number"),
    Mutation("weight is a text", "ln_f", as_text, "ln_f.weight", "no number"),
]
WITH_MODEL = [
    Mutation("one weight in its last digit", "h.0", last_digit, "h.0.mlp.c_fc.weight", "1 weights differ"),
    Mutation("epsilon on the home sheet", "Home", other_epsilon, "layer_norm_epsilon", "2e-05"),
    Mutation("another token", "Vocabulary", other_token, "vocabulary", "are not those of"),
]


@pytest.mark.slow
def test_the_good_workbook_passes(good: Good) -> None:
    report = xlgpt.check(good.book.path, model=str(good.model))
    assert report.passed, list(report.sentences())
    assert report.problems() == []


@pytest.mark.quick(2)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_check_names_the_sheet_and_the_band(mutation: Mutation, good: Good, tmp_path: Path) -> None:
    """By what it calculates alone: that the formula was changed is allowed."""
    path = broken(good, mutation.sheet, mutation.change, tmp_path / "broken.xlsx")
    report = xlgpt.check(path, prompts=("abcd", "edcba"), allow_changed=True)
    assert not report.passed
    named = {(sheet, band.name): band.problem for sheet, band in report.problems()}
    assert next(iter(named)) in {(mutation.sheet, band) for band in (mutation.band, mutation.above)}, named
    assert mutation.says in named[mutation.sheet, mutation.band]


@pytest.mark.quick(1)
@pytest.mark.parametrize("mutation", WITH_MODEL, ids=lambda m: m.name)
def test_check_against_the_checkpoint_names_what_differs(mutation: Mutation, good: Good, tmp_path: Path) -> None:
    path = broken(good, mutation.sheet, mutation.change, tmp_path / "broken.xlsx")
    report = xlgpt.check(path, model=str(good.model), prompts=("abcd",))
    assert not report.passed
    sheet, band = report.problems()[0]
    assert (sheet, band.name) == (mutation.sheet, mutation.band)
    assert mutation.says in band.problem


def test_a_fault_is_told_from_what_follows_from_it(good: Good, tmp_path: Path) -> None:
    fault = in_formula("blocks.0.mlp.post", "0.044715", "0.04516215")
    path = broken(good, "Block 0", fault, tmp_path / "broken.xlsx")
    report = xlgpt.check(path, prompts=("edcba",), allow_changed=True)
    assert {sheet for sheet, _ in report.problems()} == {"Block 0"}


@pytest.mark.quick(5)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_whoever_reads_sees_it(mutation: Mutation, good: Good, tmp_path: Path) -> None:
    """Before anything is calculated, but for values that are stale and weights that are gone."""
    path = broken(good, mutation.sheet, mutation.change, tmp_path / "broken.xlsx")
    if "stale" in mutation.says or "number" in mutation.says:
        return
    found = [(sheet.sheet, band.name) for sheet in proofread(Book(path)).sheets for band in sheet.problems]
    assert found == [(mutation.sheet, mutation.band)]


@pytest.mark.quick(1)
@pytest.mark.libreoffice
@pytest.mark.parametrize("name", ["causal mask gone", "GELU's constant off by 1 %", "error value", "stale saved value"])
def test_libreoffice_finds_it_too(name: str, good: Good, tmp_path: Path) -> None:
    mutation = next(m for m in MUTATIONS if m.name == name)
    path = broken(good, mutation.sheet, mutation.change, tmp_path / "broken.xlsx")
    report = xlgpt.check(path, engine="libreoffice", prompts=("abcd", "edcba"), allow_changed=True)
    assert not report.passed
    sheet, band = report.problems()[0]
    assert (sheet, band.name) == (mutation.sheet, mutation.band)
