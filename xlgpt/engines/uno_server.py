"""Starts a LibreOffice of its own and does what it is told: a line of JSON in, a line of JSON out.

It runs under the Python that can import `uno`, which is LibreOffice's or the system's, and so imports nothing else of
xlgpt. When its input ends, because the engine was closed or killed, LibreOffice ends too and its profile is removed.

    python3 uno_server.py SOFFICE PROFILE PIPE TIMEOUT
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import uno  # type: ignore[import-not-found]
from com.sun.star.beans import PropertyValue  # type: ignore[import-not-found]
from com.sun.star.connection import NoConnectException  # type: ignore[import-not-found]

STARTED = "started"
CRASHED = "crashed"


class Office:
    """One LibreOffice, with at most one document."""

    def __init__(self, soffice: str, profile: str, pipe: str, timeout: float):
        options = ["--headless", "--norestore", "--nologo", "--nodefault", "--nofirststartwizard"]
        place = f"-env:UserInstallation={uno.systemPathToFileUrl(profile)}"
        self.process = subprocess.Popen(
            [soffice, *options, place, f"--accept=pipe,name={pipe};urp;"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        local = uno.getComponentContext()
        resolver = local.ServiceManager.createInstanceWithContext("com.sun.star.bridge.UnoUrlResolver", local)
        try:
            context = self._connect(resolver, f"uno:pipe,name={pipe};urp;StarOffice.ComponentContext", timeout)
        except BaseException:
            self.end()
            raise
        self.desktop = context.ServiceManager.createInstanceWithContext("com.sun.star.frame.Desktop", context)
        self.document: Any = None
        self.sheets: dict[str, Any] = {}

    def _connect(self, resolver: Any, url: str, timeout: float) -> Any:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                return resolver.resolve(url)
            except NoConnectException:
                if self.process.poll():
                    raise RuntimeError(f"it ended at once, with exit code {self.process.returncode}") from None
                time.sleep(0.05)
        raise TimeoutError(f"it did not answer within {timeout:g} seconds")

    def open(self, path: str) -> None:
        """Load a workbook; it calculates only when asked to."""
        hidden = PropertyValue()
        hidden.Name, hidden.Value = "Hidden", True
        self.document = self.desktop.loadComponentFromURL(uno.systemPathToFileUrl(path), "_blank", 0, (hidden,))
        if self.document is None or not hasattr(self.document, "Sheets"):
            raise ValueError("LibreOffice cannot load it as a spreadsheet")
        self.document.enableAutomaticCalculation(False)
        self.sheets = {}

    def set(self, cells: list[Any], values: list[list[Any]]) -> None:
        """Fill cells with texts and numbers; empty text empties them."""
        # As floats: a whole number above 2^31 would arrive as a UNO hyper, which no cell takes.
        data = tuple(tuple(float(v) if isinstance(v, int) else v for v in row) for row in values)
        self._range(cells).setDataArray(data)

    def calculate(self, everything: bool) -> None:
        """Calculate all formulas, or only those that depend on what was set."""
        if everything:
            self.document.calculateAll()
        else:
            self.document.calculate()

    def try_text(self, cells: list[Any], text: str, wanted: list[list[Any]]) -> list[Any]:
        """Set a cell and read others, for which only those are calculated that they need."""
        self.document.enableAutomaticCalculation(True)
        self._range(cells).setDataArray(((text,),))
        return [self.read(each) for each in wanted]

    def read(self, cells: list[Any]) -> list[list[Any]]:
        """What cells show, row by row; an error value as an object with its text."""
        block = self._range(cells)
        rows = [list(row) for row in block.getDataArray()]
        for i, row in enumerate(rows):
            while None in row:
                j = row.index(None)
                row[j] = {"error": block.getCellByPosition(j, i).String or "an error"}
        return rows

    def used(self, sheet: str) -> list[int]:
        """How many rows and columns of a sheet are in use."""
        cursor = self._sheet(sheet).createCursor()
        cursor.gotoEndOfUsedArea(False)
        return [cursor.RangeAddress.EndRow + 1, cursor.RangeAddress.EndColumn + 1]

    def _range(self, cells: list[Any]) -> Any:
        sheet, row, column, height, width = cells
        return self._sheet(sheet).getCellRangeByPosition(column, row, column + width - 1, row + height - 1)

    def _sheet(self, name: str) -> Any:
        if name not in self.sheets:  # to ask for it takes as long as to read some cells
            self.sheets[name] = self.document.Sheets.getByName(name)
        return self.sheets[name]

    def end(self) -> None:
        """End LibreOffice and the processes that it started: they share our session, or on Windows are its tree."""
        if sys.platform == "win32":
            command = ["taskkill", "/F", "/T", "/PID", str(self.process.pid)]
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        elif os.getpgrp() == os.getpid():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.killpg(0, signal.SIGTERM)
        else:
            self.process.terminate()

    def crashed(self) -> bool:
        """Whether LibreOffice has ended; it may take a moment to do so."""
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            return False
        return True


def answer(**reply: Any) -> None:
    """One line of JSON on standard output."""
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


def serve(office: Office) -> None:
    """Do what each line of standard input asks, until there are no more."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            answer(result=getattr(office, request["do"])(*request["with"]))
        except Exception as e:
            message = f"{type(e).__name__}: {e}".splitlines()[0]
            answer(error=CRASHED if office.crashed() else message)


def work(soffice: str, profile: str, pipe: str, timeout: float) -> None:
    """Start LibreOffice, say so, serve; at the end, or where nobody listens any more, LibreOffice ends."""
    try:
        office = Office(soffice, profile, pipe, timeout)
    except Exception as e:
        answer(error=str(e).splitlines()[0])
        return
    try:
        answer(result=STARTED)
        serve(office)
    finally:
        office.end()


def main() -> None:
    """Work, and remove the profile."""
    soffice, profile, pipe, timeout = sys.argv[1:]
    try:
        work(soffice, profile, pipe, float(timeout))
    finally:
        for _ in range(40):  # what was ended may still be writing there
            shutil.rmtree(profile, ignore_errors=True)
            if not os.path.exists(profile):
                break
            time.sleep(0.05)


if __name__ == "__main__":
    main()
