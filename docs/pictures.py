"""Make the README's pictures from a real workbook, rendered by LibreOffice.

python docs/pictures.py        (needs LibreOffice, python3-uno and pdftoppm)
"""

import json
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import xlgpt
from xlgpt.book import Book
from xlgpt.engines.libreoffice import SERVER, find_python, find_soffice

DOCS = Path(__file__).parent
PROMPT = "If today is Tuesday, tomorrow is"


@dataclass(frozen=True)
class Picture:
    """Cells of a sheet, and the file that shows them."""

    file: str
    sheet: str
    cells: str


# Run by the Python that has `uno`: prints each picture's cells, and nothing else, to a page of a PDF of its own.
RENDER = """
import json, sys
sys.path.insert(0, sys.argv[1])
import uno
from uno_server import Office
from com.sun.star.beans import PropertyValue

def setting(name, value):
    made = PropertyValue()
    made.Name, made.Value = name, value
    return made

_, _, soffice, profile, book, pictures = sys.argv
for picture in json.loads(pictures):
    office = Office(soffice, profile, "pictures" + picture["file"].replace(".", ""), 60)
    office.open(book)
    office.document.enableAutomaticCalculation(True)  # otherwise no colour that a formula decides is shown
    sheets = office.document.Sheets
    for name in sheets.ElementNames:
        sheet = sheets.getByName(name)
        shown = picture["cells"] if name == picture["sheet"] else "XFD1048576"
        sheet.setPrintAreas((sheet.getCellRangeByName(shown).RangeAddress,))
    sheet = sheets.getByName(picture["sheet"])
    size = sheet.getCellRangeByName(picture["cells"]).Size
    page = office.document.StyleFamilies.getByName("PageStyles").getByName(sheet.PageStyle)
    page.HeaderIsOn = page.FooterIsOn = False
    page.IsLandscape = size.Width > size.Height
    page.Width, page.Height = size.Width + 800, size.Height + 800
    page.LeftMargin = page.RightMargin = page.TopMargin = page.BottomMargin = 300
    page.ScaleToPagesX = page.ScaleToPagesY = 1
    first = uno.Any("[]com.sun.star.beans.PropertyValue", (setting("PageRange", "1"),))
    target = uno.systemPathToFileUrl(profile + "/" + picture["file"] + ".pdf")
    office.document.storeToURL(target, (setting("FilterName", "calc_pdf_Export"), setting("FilterData", first)))
    office.document.close(True)
    try:
        office.desktop.terminate()
    except Exception:
        pass
    office.process.wait(30)
"""


def main() -> None:
    """Build the bundled model's workbook and render some of its sheets."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.xlsx"
        xlgpt.build(path, model="tiny", prompt=PROMPT, context=12)
        pattern = Book(path).named("blocks.0.attn.pattern")
        pictures = [
            Picture("home.png", "Home", "A1:O58"),
            Picture("block.png", "Block 0", f"A{pattern.row - 4}:AA{pattern.row + 24}"),
            Picture("weights.png", "h.0", "A1:N30"),
            Picture("lens.png", "Logit lens", "A1:O41"),
        ]
        soffice = find_soffice()
        shown = json.dumps([asdict(picture) for picture in pictures])
        command = [find_python(soffice), "-c", RENDER, str(SERVER.parent), soffice, folder, str(path), shown]
        subprocess.run(command, check=True)
        for picture in pictures:
            pdf = Path(folder) / f"{picture.file}.pdf"
            subprocess.run(
                ["pdftoppm", "-r", "96", "-png", "-singlefile", pdf, DOCS / Path(picture.file).stem], check=True
            )
            print(DOCS / picture.file)


if __name__ == "__main__":
    main()
