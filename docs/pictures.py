"""Make the pictures of README and docs from a real workbook, rendered by LibreOffice.

python docs/pictures.py [home.png …]        (needs LibreOffice, python3-uno and pdftoppm)
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import xlgpt
from xlgpt.compiler.layout import Layout, lay_out
from xlgpt.compiler.template import Room, optional_sheets
from xlgpt.engines.libreoffice import SERVER, find_python, find_soffice
from xlgpt.model.checkpoint import load

DOCS = Path(__file__).parent
PROMPT = "If today is Tuesday, tomorrow is"

REWRITTEN = (("adapter.on", 1), ("adapter.name", "jordan-soccer"))


@dataclass(frozen=True)
class Picture:
    """Cells of a sheet, and the file that shows them."""

    file: str
    sheet: str
    cells: str
    prompt: str = PROMPT
    fill: tuple[tuple[str, float | str], ...] = ()  # other cells to fill in, by their names


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
    for name, value in picture["fill"]:
        cell = office.document.NamedRanges.getByName(name).ReferredCells.getCellByPosition(0, 0)
        setattr(cell, "String" if isinstance(value, str) else "Value", value)
    office.document.enableAutomaticCalculation(True)
    office.document.calculateAll()
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


def pictures(layout: Layout) -> list[Picture]:
    """All of them; what a window of 1,440 x 900 shows."""
    pattern = layout.names["blocks.0.attn.pattern"]
    return [
        Picture("home.png", "Home", "A1:O58"),
        Picture("block.png", "Block 0", f"A{pattern.row - 3}:S{pattern.row + 20}"),
        Picture("weights.png", "h.0", "A1:N30"),
        Picture("anatomy.png", "Anatomy", "A1:P38"),
        Picture("attention.png", "Attention", "A1:L34"),
        Picture("lens.png", "Logit lens", "A1:O34"),
        Picture("circuit.png", "Circuit", "A1:N32"),
        Picture("facts.png", "Facts", "A1:N24", "Michael Jordan plays the sport of", (("facts.token", 2),)),
        Picture("tracing.png", "Tracing", "A1:Q22", "Michael Jordan plays the sport of"),
        Picture("adapters.png", "Adapters", "A1:L32", "Mike pulls out his", (("adapter.on", 1),)),
        Picture("editing.png", "Adapters", "A1:L32", "Michael Jordan plays the sport of", REWRITTEN),
        Picture("steering.png", "Steering", "A1:N31", "Mike pulls out his", (("steering.on", 1),)),
        Picture("proof.png", "Proof", "A1:J36"),
        Picture("features.png", "Features", "A1:P30", "Mike is a Jedi. He pulls out his"),
    ]


def main(wanted: list[str]) -> None:
    """Build the bundled model's workbook, once for every prompt, and render those sheets, or some of them."""
    model = load("tiny")
    views = tuple(
        name for name in optional_sheets() if name not in ("adapters", "tracing")
    )  # no picture needs their places
    room = Room(12, 128, 2, views, vectors=1, features=1, proven=7)
    layout = lay_out(model.config, room, len(model.tokenizer.merges))
    chosen = [picture for picture in pictures(layout) if not wanted or picture.file in wanted]
    for prompt in dict.fromkeys(picture.prompt for picture in chosen):
        render(prompt, [picture for picture in chosen if picture.prompt == prompt])


def render(prompt: str, shown: list[Picture]) -> None:
    """Make the pictures of one prompt."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.xlsx"
        xlgpt.build(path, model="tiny", prompt=prompt, context=12, generate=4)
        soffice = find_soffice()
        asked = json.dumps([asdict(picture) for picture in shown])
        command = [find_python(soffice), "-c", RENDER, str(SERVER.parent), soffice, folder, str(path), asked]
        subprocess.run(command, check=True)
        for picture in shown:
            pdf = Path(folder) / f"{picture.file}.pdf"
            subprocess.run(
                ["pdftoppm", "-r", "96", "-png", "-singlefile", pdf, DOCS / Path(picture.file).stem], check=True
            )
            print(DOCS / picture.file)


if __name__ == "__main__":
    main(sys.argv[1:])
