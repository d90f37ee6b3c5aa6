"""The files of the page with one workbook in it."""

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path

from xlgpt.errors import OutputError
from xlgpt.view.convert import convert
from xlgpt.xlsx.package import replacing

PAGE = Path(__file__).parent / "page"  # made by `npm run build` in web/
FOLDER = "folder.js"
NEEDED = ("page.js", "worker.js", "ironcalc.wasm", "book.json", "book.ic.gz")

Site = Mapping[str, bytes]  # by name, all in one folder


def site(path: str | Path) -> Site:
    """The page and a workbook, by the names of their files.

    Raises what convert raises.
    """
    converted = convert(path)
    page = {file.name: file.read_bytes() for file in sorted(PAGE.iterdir())}
    facts = json.dumps(converted.facts, ensure_ascii=False, separators=(",", ":")).encode()
    return page | {"book.json": facts, "book.ic.gz": gzip.compress(converted.model, 9, mtime=0)}


def export(files: Site, folder: str | Path) -> int:
    """Write the page into a folder that can be put anywhere, or opened as it is. Returns the bytes a visitor loads.

    A page that is opened from a folder may not read the files beside it, but it may run scripts there: `folder.js`
    holds the files once more, for that case alone.
    Raises OutputError where something else stands there.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(file.name not in {*files, FOLDER} for file in folder.iterdir())):
        raise OutputError(f"{folder} is not empty; give a folder that is new, or one that xlgpt view has written.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"{folder} cannot be made: {e.strerror}.") from e
    packed = {name: base64.b64encode(files[name]).decode() for name in NEEDED if name != "page.js"}
    script = f"globalThis.FOLDER={json.dumps(packed)};".encode()
    for name, content in {**files, FOLDER: script}.items():
        with replacing(folder / name) as file:
            file.write(content)
    return sum(map(len, files.values()))
