"""Every formula that we write compiles, and its tokens read back are the formula."""

import re
import zipfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

import xlgpt
from xlgpt.errors import UnsupportedFormula
from xlgpt.xlsb.place import ORIGIN, Place
from xlgpt.xlsb.scope import Kind, Scope
from xlgpt.xlsb.text import Texts, formula_text
from xlgpt.xlsb.tokens import Compiled, Compiler, member

KINDS = {"tiny": {"context": 16}, "dot products": {"context": 24, "matmul": "sumproduct", "generate": 8}}
FORMULAS = re.compile(
    r'<f(?P<array> t="array"[^>]*)?>(?P<cell>[^<]*)</f>|<formula>(?P<condition>[^<]*)</formula>'
    r'|<dataValidation type="list"[^>]*><formula1>(?P<list>[^<]*)</formula1>'
    r"|<formula[12]>(?P<validation>[^<]*)</formula[12]>"
)


@pytest.fixture(scope="module", params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "tiny.xlsx"
    return xlgpt.build(path, model="tiny", **KINDS[request.param]).path


def parts_of(path: Path) -> tuple[Scope, dict[str, str]]:
    """The workbook's sheets and names, and its sheets' XML."""
    with zipfile.ZipFile(path) as archive:
        book = archive.read("xl/workbook.xml").decode()
        sheets = [unescape(name) for name in re.findall(r'<sheet name="([^"]*)"', book)]
        names = [unescape(name) for name in re.findall(r'<definedName name="([^"]*)"', book)]
        future = ["_xlfn.UNICHAR", "_xlfn.UNICODE"]
        xml = {name: archive.read(f"xl/worksheets/sheet{i}.xml").decode() for i, name in enumerate(sheets, 1)}
        xml[""] = book
    return Scope(tuple(sheets), tuple((name, None) for name in names + future)), xml


def formulas(xml: dict[str, str]) -> Iterator[tuple[str | None, Kind, str]]:
    for text in re.findall(r"<definedName [^>]*>([^<]*)<", xml[""]):
        yield None, Kind.NAME, unescape(text)
    for sheet in filter(None, xml):
        for found in FORMULAS.finditer(xml[sheet]):
            kind = Kind.ARRAY if found["array"] else Kind(found.lastgroup)
            yield sheet, kind, unescape(found[found.lastgroup])


@pytest.mark.quick(1)
def test_every_formula_of_ours_comes_back(path: Path) -> None:
    scope, xml = parts_of(path)
    compilers: dict[str | None, Compiler] = {}
    kinds, texts = set(), Texts(scope)
    for sheet, kind, text in formulas(xml):
        compiler = compilers.setdefault(sheet, Compiler(scope, sheet))
        compiled = compiler.compiled(text, kind)
        assert formula_text(compiled, scope) == texts.of(compiled) == text
        kinds.add(kind)
    assert kinds == {Kind.NAME, Kind.CELL, Kind.ARRAY, Kind.CONDITION, Kind.LIST}


@pytest.mark.quick(1)
def test_formulas_of_one_shape_are_compiled_as_if_alone(path: Path) -> None:
    scope, xml = parts_of(path)
    shared = {sheet: Compiler(scope, sheet) for sheet in xml}
    for i, (sheet, kind, text) in enumerate(formulas(xml)):
        if sheet and kind in (Kind.CELL, Kind.ARRAY):
            together = shared[sheet].compiled(text, kind)
            assert i % 20 or together == Compiler(scope, sheet).compiled(text, kind)


SCOPE = Scope(("Home", "it's", "A:C"), (("wte", None), ("wte", "it's"), ("n.tokens", None)))


@pytest.mark.parametrize(
    "text",
    [
        "'it''s'!$B3+wte",
        "'it''s'!wte",
        'IF(A1,,"say ""hi""")',
        "-2^2%--1E-7",
        "SUM((A1:B2,C3) B:B)",
        '{1,-2;"a",#N/A;TRUE,0.5}',
        "INDEX(A:C,1,):INDEX($1:$3,2,2)",
        " IF( A1 >= 1 ,1, 2 )",
        "CHOOSE(A1,B1,C1,D1)",
        "OFFSET(A1,1,1)&TODAY()",
        "IFERROR(1/0,#DIV/0!)",
    ],
)
def test_what_we_might_write_comes_back(text: str) -> None:
    assert formula_text(Compiler(SCOPE, "it's").compiled(text), SCOPE) == text.replace(" ,", ",")


def test_formulas_alike_are_told_apart() -> None:
    """What differs in more than cells and whole numbers is read anew, as is what moves with its place."""
    texts, compiler = Texts(SCOPE), Compiler(SCOPE)
    for text in (
        "A1+7",
        "$B2+8",
        "A1-7",
        "7+A1",
        '"a"&A1',
        '"b"&B2',
        '"%s"&B2',
        "A1:B2",
        "A$1:$B2",
        "1.5+7",
        "2.5+7",
        "{1,2}+A1",
        "{3,4}+A1",
    ):
        assert texts.of(compiler.compiled(text)) == text
    shared = compiler.compiled("A1+$A$9", Kind.SHARED, Place(5, 3))
    assert [texts.of(shared, place) for place in (Place(5, 3), Place(6, 4))] == ["A1+$A$9", "B2+$A$9"]


def test_names_of_a_sheet_come_first() -> None:
    assert Compiler(SCOPE, "it's").compiled("wte").tokens == bytes.fromhex("4302000000")
    assert Compiler(SCOPE, "Home").compiled("wte").tokens == bytes.fromhex("4301000000")


def test_distances_wrap_around_the_sheet() -> None:
    """[MS-XLSB] 2.5.98.90, RgceLocRel: above or left of the place stands as below or right of it."""
    place = Place(5, 3)
    for kind in (Kind.SHARED, Kind.CONDITION, Kind.VALIDATION):
        ours = Compiler(SCOPE).compiled("A1+$A$9", kind, place)
        assert ours.tokens == bytes.fromhex("4cfbff0f00fdff 44080000000000 03")
        assert formula_text(ours, SCOPE, place) == "A1+$A$9"
        assert formula_text(ours, SCOPE, Place(6, 4)) == "B2+$A$9"


def test_cells_of_an_array_say_where_it_begins() -> None:
    assert member(Place(258, 3)) == Compiled(bytes.fromhex("0102010000"), bytes.fromhex("03000000"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("LAMBDA(x,x)(1)", "LAMBDA"),
        ("BAHTTEXT(1)", "function BAHTTEXT"),
        ("ABS(1,2)", "gives ABS 2 arguments"),
        ("missing+1", "name missing"),
        ("Nowhere!A1", "sheet Nowhere"),
        ("Home!missing", "name missing"),
        ("A1048577", "outside"),
        ("1+", "at its end"),
        ("(1", "at its end"),
        ("1)", r"at \)"),
        ("A1#", "from its character 3"),
        ('"open', "from its character 1"),
        ("{1;2,3}", "different lengths"),
        ("{A1}", "at A1"),
        ("+".join(["A1"] * 2_000), "nested too deeply"),
        ('"' + "a" * 8_191 + '"&1', "more than 16,384 bytes"),
    ],
)
def test_what_we_do_not_know_is_said(text: str, why: str) -> None:
    with pytest.raises(UnsupportedFormula, match=why):
        Compiler(SCOPE).compiled(text)


def test_a_name_needs_sheets() -> None:
    with pytest.raises(UnsupportedFormula, match="of which sheet"):
        Compiler(SCOPE).compiled("$A$1", Kind.NAME)


@pytest.mark.parametrize(
    "tokens",
    ["", "03", "44", "1702006100", "1e0100 1e0100", "18190000", "7f", "220204", "23ff000000", "2100ff", "1c63"],
)
def test_tokens_that_make_no_formula(tokens: str) -> None:
    with pytest.raises(UnsupportedFormula):
        formula_text(Compiled(bytes.fromhex(tokens)), SCOPE, ORIGIN)
