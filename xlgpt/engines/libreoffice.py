"""Calculates a workbook in LibreOffice: one of its own, without a window, which ends with the engine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil

from xlgpt.compiler.settings import Settings
from xlgpt.engines.engine import Engine, inputs
from xlgpt.errors import EngineFailed, EngineNotFound
from xlgpt.workbook.book import Book, Prompt
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import CellError, Values

SERVER = Path(__file__).with_name("uno_server.py")
SMALL_SHEET = 100_000  # cells
CRASHED = "crashed"  # as uno_server.py says it
PLACES = (  # before those on the PATH, where Homebrew has a script from which LibreOffice's own Python is not found
    "/Applications/LibreOffice.app/Contents/MacOS/soffice",
    str(Path.home() / "Applications/LibreOffice.app/Contents/MacOS/soffice"),
    os.environ.get("PROGRAMFILES", r"C:\Program Files") + r"\LibreOffice\program\soffice.exe",
    os.environ.get("PROGRAMFILES(X86)", r"C:\Program Files (x86)") + r"\LibreOffice\program\soffice.exe",
)
SYSTEM_PYTHON = Path("/usr/bin/python3")  # for which Debian has `uno`; on Windows and macOS LibreOffice brings its own
NO_LIBREOFFICE = (
    "LibreOffice was not found. Debian, Ubuntu: `apt-get install libreoffice-calc python3-uno`; macOS: "
    "`brew install --cask libreoffice`; Windows: `winget install TheDocumentFoundation.LibreOffice`. "
    "Where it stands elsewhere, set XLGPT_SOFFICE to its soffice."
)
NO_UNO = (
    "LibreOffice is there, but no Python that can talk to it. Debian, Ubuntu: `apt-get install python3-uno`; on macOS "
    "and Windows it is part of the LibreOffice from libreoffice.org."
)
# No lock files: the workbook is never saved, and two checks may read it at once. No calculation on loading.
SETTINGS = """<?xml version="1.0" encoding="UTF-8"?>
<oor:items xmlns:oor="http://openoffice.org/2001/registry">
<item oor:path="/org.openoffice.Office.Common/Misc">
<prop oor:name="UseLocking" oor:op="fuse"><value>false</value></prop>
<prop oor:name="UseDocumentSystemFileLocking" oor:op="fuse"><value>false</value></prop>
<prop oor:name="UseDocumentOOoLockFile" oor:op="fuse"><value>false</value></prop>
</item>
<item oor:path="/org.openoffice.Office.Calc/Formula/Load">
<prop oor:name="OOXMLRecalcMode" oor:op="fuse"><value>1</value></prop>
</item>
</oor:items>
"""


@cache
def find_soffice() -> str:
    """LibreOffice's program. Raises EngineNotFound."""
    places = (os.environ.get("XLGPT_SOFFICE"), *PLACES, shutil.which("soffice"), shutil.which("libreoffice"))
    for place in places:
        if place and Path(place).is_file():
            return str(place)
    raise EngineNotFound(NO_LIBREOFFICE)


@cache
def find_python(soffice: str) -> str:
    """A Python that can import `uno`: LibreOffice's own, or the system's. Raises EngineNotFound."""
    program = Path(soffice).resolve().parent
    own = (program / "python", program / "python.exe", program.parent / "Resources" / "python")
    for python in (*own, SYSTEM_PYTHON, Path(sys.executable)):
        if python.is_file():
            tried = subprocess.run([python, "-c", "import uno"], capture_output=True, env=_environment(), check=False)
            if tried.returncode == 0:
                return str(python)
    raise EngineNotFound(NO_UNO)


def _environment() -> dict[str, str]:
    """Ours, without what would send another Python to this one's libraries."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}


class LibreOffice(Engine):
    """An engine. Raises EngineNotFound, EngineFailed.

    start_timeout: seconds that LibreOffice may take to start; loading and calculating may take as long as they do.
    The workbook is loaded in the background: the first request waits for it.
    """

    def __init__(self, book: Book, start_timeout: float = 60):
        self._book = book
        self._set = {cells: values for cells, values in inputs(book, book.prompt).items()}
        self._fresh, self._loading = True, True
        self._shown: dict[str, list[list[Any]]] = {}  # sheets that were read ahead, until something changes
        self._sizes: dict[str, list[int]] = {}  # rows and columns in use; what is written beyond them is read by itself
        soffice = find_soffice()
        python = find_python(soffice)
        self._profile = Path(tempfile.mkdtemp(prefix="xlgpt-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._started: list[psutil.Process] = []
        try:
            self._start(python, soffice, start_timeout)
            self._send("open", str(book.path.resolve()))
        except BaseException:
            self.close()
            raise

    def _start(self, python: str, soffice: str, timeout: float) -> None:
        (self._profile / "user").mkdir()
        (self._profile / "user" / "registrymodifications.xcu").write_text(SETTINGS, encoding="utf-8")
        pipe = f"xlgpt{uuid.uuid4().hex}"
        self._process = subprocess.Popen(
            [python, str(SERVER), soffice, str(self._profile), pipe, str(timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            # So that Ctrl-C reaches us alone. Each system has its way, and passes over the other's.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        started = self._answer()
        if "error" in started:
            raise EngineFailed(
                f"LibreOffice did not start: {started['error']}. Give it more time with --start-timeout, or try "
                f"`{soffice} --headless --version`."
            )
        self._started = _family(self._process.pid)

    def calculate(self, prompt: Prompt, settings: Settings | None = None) -> None:
        """Set the cells that differ and calculate: everything at first, later only what depends on them."""
        for cells, values in inputs(self._book, prompt, settings).items():
            for row in np.flatnonzero((values != self._set[cells]).any(axis=1)):
                one = cells.rows(int(row), int(row) + 1)
                self._ask("set", _place(one), [values[row].tolist()])
            self._set[cells] = values
        self._ask("calculate", self._fresh)
        self._fresh = False

    def forget(self) -> None:
        """Calculate everything the next time."""
        self._fresh = True

    def write(self, cell: Range, value: float) -> None:
        """Put a number into a cell, over a formula too, and calculate what depends on it."""
        self._ask("set", _place(cell), [[value]])
        self._ask("calculate", False)

    def read(self, cells: Range) -> Values:
        """What the cells show."""
        sheet = self._shown.get(cells.sheet, [[]])
        if cells.row + cells.height > len(sheet) or cells.column + cells.width > len(sheet[0]):
            return _values(cells, self._ask("read", _place(cells)))
        rows = sheet[cells.row : cells.row + cells.height]
        return _values(cells, [row[cells.column : cells.column + cells.width] for row in rows])

    def read_ahead(self, sheet: str) -> None:
        """Read a small sheet whole, for what will be read of it before anything changes.

        To ask for a few cells takes as long as to read thousands.
        """
        if sheet not in self._sizes:  # to find the end of a large sheet takes as long as to read a tenth of it
            self._sizes[sheet] = self._ask("used", sheet)
        height, width = self._sizes[sheet]
        if height * width <= SMALL_SHEET:
            self._shown[sheet] = self._ask("read", (sheet, 0, 0, height, width))

    def try_text(self, text: str, *wanted: Range) -> list[Values]:
        """What cells show for a prompt: no others are calculated but those that they need."""
        rows = self._ask("try_text", _place(self._book.named("prompt")), text, [_place(cells) for cells in wanted])
        return [_values(cells, shown) for cells, shown in zip(wanted, rows, strict=True)]

    def close(self) -> None:
        """End LibreOffice and all that was started with it, and remove its profile."""
        if self._process:
            _end(self._process, self._started)
            self._process = None
        for _ in range(40):  # what was killed may still be writing there
            shutil.rmtree(self._profile, ignore_errors=True)
            if not self._profile.exists():
                break
            time.sleep(0.05)

    def _ask(self, do: str, *arguments: Any) -> Any:
        """What LibreOffice answers to a request. Raises EngineFailed."""
        if do not in ("read", "used"):
            self._shown.clear()
        if self._loading:
            self._loading = False
            self._result("open")
        self._send(do, *arguments)
        return self._result(do)

    def _send(self, do: str, *arguments: Any) -> None:
        if self._process and self._process.stdin:
            with suppress(OSError):  # the pipe is broken: then there will be no answer either
                self._process.stdin.write(json.dumps({"do": do, "with": arguments}).encode() + b"\n")
                self._process.stdin.flush()

    def _result(self, do: str) -> Any:
        reply = self._answer()
        if "error" not in reply:
            return reply["result"]
        doing = {
            "open": "loading",
            "set": "writing a cell of",
            "calculate": "calculating",
            "try_text": "calculating",
            "read": "reading",
            "used": "reading",
        }[do]
        if reply["error"] == CRASHED:
            raise EngineFailed(f"LibreOffice crashed or was ended while {doing} {self._book.path}.")
        raise EngineFailed(f"LibreOffice failed while {doing} {self._book.path}: {reply['error']}.")

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process and self._process.stdout else b""
        reply: dict[str, Any] = orjson.loads(line) if line else {"error": CRASHED}
        return reply


def _place(cells: Range) -> tuple[str, int, int, int, int]:
    return cells.sheet, cells.row, cells.column, cells.height, cells.width


def _values(cells: Range, rows: list[list[Any]]) -> Values:
    """The rows that LibreOffice answered with."""
    kinds = {kind for row in rows for kind in set(map(type, row))}
    if kinds == {float}:
        return np.array(rows, dtype=np.float64)
    values = np.empty((cells.height, cells.width), dtype=object)
    for i, row in enumerate(rows):
        values[i] = [CellError(v["error"]) if type(v) is dict else v for v in row] if dict in kinds else row
    return values


def _family(pid: int) -> list[psutil.Process]:
    """A process and all that it started, and what those started in turn; none where it has ended."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _end(process: "subprocess.Popen[bytes]", started: list[psutil.Process]) -> None:
    """End a process and all that it started. `started` is what was known early: who loses its parent is not found."""
    family = {*started, *_family(process.pid)}
    for each in family:
        with suppress(psutil.Error):
            each.terminate()
    for each in psutil.wait_procs(family, timeout=0.1)[1]:  # its launcher takes 2 seconds to notice
        with suppress(psutil.Error):
            each.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()
