"""Turns a workbook into what the page loads: IronCalc's own file, and what that file does not hold.

IronCalc calculates all conditional formats at each edit, and on loading: on the weights' sheets that takes longer than
the model itself. So they are left out of its file, and the page colours the cells that it shows.
"""

import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from xlgpt.errors import EngineFailed, EngineNotFound, TooManyCells
from xlgpt.view.facts import END, facts_of, switches, tail
from xlgpt.view.formulas import capitals, chosen_vector, marked, marked_tokens, with_marks, with_numbers
from xlgpt.workbook.book import Book
from xlgpt.xlsx.ranges import Range

MOST_CELLS = 3_000_000  # of the model; each takes some 300 bytes in the browser, which grants 4 GB to a page
MOST_CAPITALS = 150  # with 300 of them IronCalc's calls, one in another, are too deep for the browser
ENGINE = "0.8."  # whose files @ironcalc/wasm 0.8.4 reads; it reads neither older nor newer ones
NO_IRONCALC = "IronCalc was not found. Install it with `pip install 'xlgpt[view]'`."
WRONG_IRONCALC = (
    "The page reads what ironcalc 0.8.3 saves, and {} is installed: run `pip install 'xlgpt[view]'` in an environment "
    "of its own."
)
FORMATS = re.compile(rb"<conditionalFormatting.*</conditionalFormatting>", re.DOTALL)


@dataclass(frozen=True)
class Converted:
    """A workbook for the page.

    model: IronCalc's file. facts: what else the page has to know: the model's name, prompts to try, the switch of each
    sheet, and of each sheet its size, merged cells, links, lists and colours; rows and columns count from 1.
    """

    model: bytes
    facts: dict[str, Any]


def convert(path: str | Path) -> Converted:
    """Load a workbook in IronCalc and save it for the page, with all that looks inside switched off.

    Raises NotAWorkbook, ForeignWorkbook, BrokenWorkbook, TooManyCells, EngineNotFound, EngineFailed.
    """
    book = Book(path)
    book.check_sizes()
    _check(book)
    ironcalc = _ironcalc()
    tails = {sheet: tail(book, sheet) for sheet in book.sheets}
    with tempfile.TemporaryDirectory() as folder:
        plain, saved = Path(folder) / "book.xlsx", Path(folder) / "book.ic"
        _without_formats(book, plain)
        try:
            model = ironcalc.load_from_xlsx(str(plain), "en", "UTC", "en")
            _prepare(model, book)
            model.save_to_icalc(str(saved))
        except ironcalc.WorkbookError as e:
            raise EngineFailed(f"IronCalc cannot load {path}: {str(e).rstrip('.')}.") from e
        return Converted(saved.read_bytes(), facts_of(book, model, tails))


def _ironcalc() -> ModuleType:
    try:
        import ironcalc
    except ImportError as e:
        raise EngineNotFound(NO_IRONCALC) from e
    version: str = ironcalc.__version__
    if not version.startswith(ENGINE):
        raise EngineNotFound(WRONG_IRONCALC.format(version))
    return ironcalc


def _check(book: Book) -> None:
    """Refuse what the page could not hold or would calculate wrongly."""
    if book.scope:
        raise EngineFailed(f"IronCalc reads no .xlsb, as {book.path} is one: build the workbook as .xlsx.")
    bands, weights = book.layout.bands.values(), book.layout.weights
    cells = sum(at.height * at.width for at in (*(p.cells for p in bands), *(p.cells for p in weights)))
    if cells > MOST_CELLS:
        raise TooManyCells(
            f"{book.path} has {cells:,} cells; a page in the browser holds {MOST_CELLS:,} at most. "
            "Open it in Excel or LibreOffice, or build it of a smaller model."
        )
    if (letters := len(capitals(book))) > MOST_CAPITALS:
        raise EngineFailed(
            f"The tokens of {book.path} have {letters} capital letters; the page compares them with {MOST_CAPITALS} at "
            "most. Open it in Excel or LibreOffice."
        )
    if book.config.activation_function == "gelu":
        raise EngineFailed("IronCalc takes NORMSDIST of one number only; the gelu of this model is of a whole row.")
    if book.matmul == "sumproduct":
        raise EngineFailed(f"IronCalc cannot calculate {book.path}: build it with --matmul mmult.")
    if book.new_tokens == 1:
        raise EngineFailed(f"IronCalc cannot calculate {book.path}: build it with --generate 2 or more.")


def _without_formats(book: Book, out: Path) -> None:
    """A copy of the workbook without conditional formats, and with formulas that IronCalc 0.8 calculates rightly."""
    sheets = {book.part(sheet) for sheet in book.sheets}
    with zipfile.ZipFile(book.path) as old, zipfile.ZipFile(out, "w") as new:
        for part in old.namelist():
            xml = old.read(part)
            if part in sheets:
                end = xml.rfind(END)
                cells = with_marks(book, with_numbers(book, xml[:end]))
                xml = cells + FORMATS.sub(b"", xml[end:])
            new.writestr(part, xml)


def _prepare(model: Any, book: Book) -> None:
    """Switch off what looks inside, and writing: the first answer is there sooner, and the page can switch them on."""
    sheets = [sheet["name"] for sheet in model.get_worksheets_properties()]

    def place(cells: Range) -> tuple[int, int, int]:
        return sheets.index(cells.sheet), cells.row + 1, cells.column + 1

    for name in {*switches(book).values(), "max_new_tokens"}:
        model.update_cell_with_number(*place(book.named(name)), 0.0)
    letters, (sheet, row, column) = capitals(book), place(marked_tokens(book))
    for i, text in enumerate(book.column(book.named("vocabulary.shown"))):
        model.update_cell_with_text(sheet, row + i, column, marked(str(text), letters))
    if book.has("steering.at_vector"):
        model.update_cell_with_formula(*place(book.named("steering.at_vector")), chosen_vector(book))
    model.evaluate()
