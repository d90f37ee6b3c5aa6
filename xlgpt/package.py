"""The file itself: a zip archive (PKWARE APPNOTE 6.3) whose parts are compressed by isal as they stream in."""

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from isal import isal_zlib

from xlgpt.errors import OutputError, WorkbookTooLarge

LIMIT = 2**32 - 1  # beyond it a zip archive needs zip64, which Excel does not read reliably
DATE = 0x5CB5, 0x0000  # 2026-05-21 in MS-DOS' way: a fixed date, so that the same build packs the same
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


@dataclass(frozen=True)
class _Part:
    name: bytes
    offset: int
    crc: int
    packed: int
    size: int

    def fields(self) -> bytes:
        """What the local and the central header have in common: version, flags, method, date, sums and lengths."""
        date, time = DATE
        head = struct.pack("<HHHHH", 20, 0x0800, 8, time, date)
        return head + struct.pack("<IIIHH", self.crc, self.packed, self.size, len(self.name), 0)


class Package:
    """Writes parts one after the other. One thread compresses and writes while the caller makes the next chunk."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._parts: list[_Part] = []
        self._worker = ThreadPoolExecutor(1)

    def add(self, name: str, chunks: Iterable[bytes]) -> None:
        """Append a part. Raises WorkbookTooLarge."""
        offset = self._file.tell()
        empty = _Part(name.encode(), offset, 0, 0, 0)
        self._file.write(LOCAL + empty.fields() + empty.name)
        deflate = isal_zlib.compressobj(1, isal_zlib.DEFLATED, -15)
        crc = size = 0
        pending: Future[None] | None = None

        def write(chunk: bytes) -> None:
            nonlocal crc, size
            crc = isal_zlib.crc32(chunk, crc)
            size += len(chunk)
            self._file.write(deflate.compress(chunk))

        for chunk in chunks:
            if pending:
                pending.result()
            pending = self._worker.submit(write, chunk)
        if pending:
            pending.result()
        self._file.write(deflate.flush())
        end = self._file.tell()
        if max(size, end) > LIMIT:
            raise WorkbookTooLarge(
                "The workbook would pass 4 GiB, beyond which Excel does not read it; build a smaller model."
            )
        part = _Part(empty.name, offset, crc, end - offset - 30 - len(empty.name), size)
        self._file.seek(offset)
        self._file.write(LOCAL + part.fields())
        self._file.seek(end)
        self._parts.append(part)

    def __enter__(self) -> "Package":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.shutdown()
        if kind is None:
            self._finish()

    def _finish(self) -> None:
        start = self._file.tell()
        for part in self._parts:
            made_by = struct.pack("<H", 20)
            place = struct.pack("<HHHII", 0, 0, 0, 0, part.offset)
            self._file.write(CENTRAL + made_by + part.fields() + place + part.name)
        length, count = self._file.tell() - start, len(self._parts)
        self._file.write(END + struct.pack("<HHHHIIH", 0, 0, count, count, length, start, 0))


@contextmanager
def replacing(path: Path, keep: bool = True) -> Iterator[BinaryIO]:
    """A file to write beside `path`, moved into its place at the end; on any failure it is gone and `path` untouched.

    Raises OutputError where it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            yield file
        if keep:
            beside.replace(path)
    except OSError as e:
        raise OutputError(_why(e, path)) from e
    finally:
        beside.unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Fail before any work is done where the workbook could not be written. Raises OutputError."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of the file to write.")
    if path.suffix.lower() != ".xlsx":
        raise OutputError(f"{path} does not end in .xlsx, so no spreadsheet program would open it.")
    with replacing(path, keep=False):
        pass


def _why(error: OSError, path: Path) -> str:
    folder = path.parent
    if error.errno == errno.ENOSPC:
        return f"The disk of {folder} is full; {path.name} was not written."
    if not folder.is_dir():
        return f"There is no folder {folder}; make it first."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path} cannot be written: you have no right to write there."
    return f"{path} cannot be written: {error.strerror}."
