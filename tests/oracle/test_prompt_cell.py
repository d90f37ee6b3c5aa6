"""What the workbook says of a prompt cell that holds no text, or a text that has no bytes; in both engines."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import write_checkpoint

import xlgpt
from xlgpt.engines.formulas_library import FormulasLibrary
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.workbook.book import Book

HALF = "The prompt holds half a character (a lone surrogate), which has no bytes."
TAB = "The prompt holds the control character 1, which may stand for a tab."
ERROR = "The prompt cell holds an error value, not a text."
NO_TEXT = (
    "The prompt cell holds a number, a date or TRUE or FALSE, not a text: format the cell as Text and type it again."
)
NOTHING = "There is no token: type a text into the prompt."

# The prompt's cell as ECMA-376 18.3.1.4 writes it; style 0 is no text format.
CASES = {
    "the first half of a character": ('t="inlineStr"><is><t>a_xD83D_b</t></is>', HALF),
    "the second half of a character": ('t="inlineStr"><is><t>a_xDE00_</t></is>', HALF),
    "two halves the wrong way round": ('t="inlineStr"><is><t>_xDE00__xD83D_</t></is>', HALF),
    "an error value": ('t="e"><v>#N/A</v>', ERROR),
    "a formula with an error": ('t="e"><f>1/0</f><v>#DIV/0!</v>', ERROR),
    "a number": ("><v>42</v>", NO_TEXT),
    "zero": ("><v>0</v>", NO_TEXT),
    "a date": ("><f>DATE(2024,2,29)</f><v>45351</v>", NO_TEXT),
    "TRUE": ('t="b"><v>1</v>', NO_TEXT),
    "nothing": (">", NOTHING),
    "an empty text": ('t="str"><f>""</f><v></v>', NOTHING),
    "digits as a text": ('t="str"><v>42</v>', "ok"),
    "a formula's text": ('t="str"><f>"hel"&amp;"lo"</f><v>hello</v>', "ok"),
}
everything = pytest.mark.parametrize(("cell", "sentence"), CASES.values(), ids=list(CASES))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompt")
    model = write_checkpoint(folder / "model", n_layer=1)
    xlgpt.build(folder / "book.xlsx", str(model), "hello", context=4, max_bytes=12)
    return folder / "book.xlsx"


def with_prompt(good: Path, cell: str, out: Path) -> Book:
    """A copy of a workbook with another cell for its prompt."""
    home = Book(good).part("Home")
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.namelist():
            content = old.read(part)
            if part == home:
                xml, count = re.subn(r'<c r="B7" (s="\d+").*?</c>', f'<c r="B7" s="0" {cell}</c>', content.decode())
                assert count == 1
                content = xml.encode()
            new.writestr(part, content)
    return Book(out)


def holds(book: Book, engine: FormulasLibrary | LibreOffice, sentence: str) -> None:
    """The status is that sentence, and but for ok there is no token and no next one."""
    assert engine.read(book.named("status"))[0, 0] == sentence
    ids = engine.read(book.named("token_ids"))[:, 0].tolist()
    assert all(i == -1 for i in ids) == (sentence != "ok")
    assert (engine.read(book.named("next_token"))[0, 0] == "") == (sentence != "ok")


@everything
def test_formulas(cell: str, sentence: str, good: Path, tmp_path: Path) -> None:
    book = with_prompt(good, cell, tmp_path / "book.xlsx")
    holds(book, FormulasLibrary(book), sentence)


@pytest.fixture(scope="module")
def office(good: Path) -> Iterator[LibreOffice]:
    engine = LibreOffice(Book(good))
    yield engine
    engine.close()


@pytest.mark.quick(3)
@everything
@pytest.mark.libreoffice
def test_libreoffice(cell: str, sentence: str, office: LibreOffice, good: Path, tmp_path: Path) -> None:
    book = with_prompt(good, cell, tmp_path / "book.xlsx")
    office._ask("open", str(book.path))
    office._ask("calculate", True)
    holds(book, office, sentence)


CHARACTER_1 = 't="inlineStr"><is><t>a_x0001_b</t></is>'


def test_character_1_where_it_may_stand_for_a_tab(good: Path, tmp_path: Path) -> None:
    """The library's UNICHAR(0) is an error, as Excel's is."""
    book = with_prompt(good, CHARACTER_1, tmp_path / "book.xlsx")
    engine = FormulasLibrary(book)
    assert engine.read(book.named("tab_code"))[0, 0] == 1
    holds(book, engine, TAB)


@pytest.mark.libreoffice
def test_character_1_is_a_tab_in_libreoffice(office: LibreOffice, good: Path, tmp_path: Path) -> None:
    book = with_prompt(good, CHARACTER_1, tmp_path / "book.xlsx")
    office._ask("open", str(book.path))
    office._ask("calculate", True)
    ids = office.read(book.named("token_ids"))[:3, 0].tolist()
    assert ids == book.tokenizer.encode("a\tb")
