"""The file itself: a zip archive (PKWARE APPNOTE 6.3) whose parts are compressed by isal as they stream in."""

import errno
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from isal import isal_zlib

from xlgpt.errors import OutputError, WorkbookTooLarge

XLSX, XLSB = ".xlsx", ".xlsb"  # what a workbook's name can end in: the same in XML, and in records
LIMIT = 2**32 - 1  # beyond it a zip archive needs zip64, which Excel does not read reliably
DATE = 0x5CB5, 0x0000  # 2026-05-21 in MS-DOS' way: a fixed date, so that the same build packs the same
LAST_BLOCK = b"\x03\x00"  # of a deflate stream: empty, in the fixed code (RFC 1951, 3.2.6)
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


@dataclass(frozen=True)
class Sums:
    """What an archive must know of compressed bytes: their CRC-32, and their size with and without compression."""

    crc: int = 0
    packed: int = 0
    size: int = 0

    def __add__(self, behind: "Sums") -> "Sums":
        """Of two stretches, one behind the other."""
        crc = isal_zlib.crc32_combine(self.crc, behind.crc, behind.size)
        return Sums(crc, self.packed + behind.packed, self.size + behind.size)


@dataclass(frozen=True)
class Packed:
    """A stretch of a part that stands compressed in a file of its own, or in memory."""

    held: Path | bytes
    sums: Sums


def deflate(chunks: Iterable[bytes], file: BinaryIO) -> Sums:
    """Compress into a file, as a stretch of a stream that others may follow and that LAST_BLOCK ends.

    A thread compresses and writes a chunk while the caller makes the next.
    """
    start, crc, size = file.tell(), 0, 0
    stream = isal_zlib.compressobj(1, isal_zlib.DEFLATED, -15)
    pending: Future[int] | None = None

    def write(chunk: bytes) -> int:
        return file.write(stream.compress(chunk))

    with ThreadPoolExecutor(1) as worker:
        for chunk in chunks:
            if pending:
                pending.result()
            crc, size = isal_zlib.crc32(chunk, crc), size + len(chunk)
            pending = worker.submit(write, chunk)
        if pending:
            pending.result()
    file.write(stream.flush(isal_zlib.Z_SYNC_FLUSH))
    return Sums(crc, file.tell() - start, size)


@dataclass(frozen=True)
class _Part:
    name: bytes
    offset: int
    sums: Sums

    def fields(self) -> bytes:
        """What the local and the central header share: version, flags, method, date, sums and lengths."""
        date, time = DATE
        head = struct.pack("<HHHHH", 20, 0x0800, 8, time, date)
        return head + struct.pack("<IIIHH", self.sums.crc, self.sums.packed, self.sums.size, len(self.name), 0)


class Package:
    """Writes parts one after the other, and at the end the directory that names them."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._parts: list[_Part] = []

    def add(self, name: str, pieces: Iterable[bytes | Packed]) -> None:
        """Append a part, of pieces to be compressed and others that are, whose files go. Raises WorkbookTooLarge."""
        offset, sums = self._file.tell(), Sums()
        self._file.write(LOCAL + _Part(name.encode(), offset, sums).fields() + name.encode())
        for kind, stretch in groupby(pieces, type):
            take: Callable[[Iterable[Any]], Sums] = self._copy if kind is Packed else self._deflate
            sums += take(stretch)
            self._check(sums)
        self._file.write(LAST_BLOCK)
        part = _Part(name.encode(), offset, sums + Sums(packed=len(LAST_BLOCK)))
        self._file.seek(offset)
        self._file.write(LOCAL + part.fields())
        self._file.seek(0, os.SEEK_END)
        self._parts.append(part)

    def copy(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
        """Append a part of another archive as it stands, compressed as it is. Raises WorkbookTooLarge, BadZipFile."""
        if entry.compress_type != zipfile.ZIP_DEFLATED or archive.fp is None:
            self.add(entry.filename, [archive.read(entry)])
            return
        part = _Part(entry.filename.encode(), self._file.tell(), Sums(entry.CRC, entry.compress_size, entry.file_size))
        self._file.write(LOCAL + part.fields() + part.name)
        archive.fp.seek(entry.header_offset)
        head = archive.fp.read(30)
        if len(head) < 30:
            raise zipfile.BadZipFile(f"{entry.filename} is not there")
        name, extra = struct.unpack("<26xHH", head)
        archive.fp.seek(name + extra, os.SEEK_CUR)
        left = entry.compress_size
        while left and (piece := archive.fp.read(min(left, 1 << 20))):
            left -= self._file.write(piece)
        if left:
            raise zipfile.BadZipFile(f"{entry.filename} is cut short")
        self._check(part.sums)
        self._parts.append(part)

    def _deflate(self, stretch: Iterable[bytes]) -> Sums:
        return deflate(stretch, self._file)

    def _copy(self, stretch: Iterable[Packed]) -> Sums:
        sums = Sums()
        for packed in stretch:
            if isinstance(packed.held, bytes):
                self._file.write(packed.held)
            else:
                with packed.held.open("rb") as file:
                    shutil.copyfileobj(file, self._file, 1 << 20)
                packed.held.unlink()
            sums += packed.sums
        return sums

    def _check(self, sums: Sums) -> None:
        if max(sums.size, self._file.tell()) > LIMIT:
            raise WorkbookTooLarge(
                "The workbook would pass 4 GiB, beyond which Excel does not read it. Build a smaller model."
            )

    def __enter__(self) -> "Package":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        with suppress(OSError):  # it is in its place, or was never made
            beside.unlink()


def is_xlsb(path: Path) -> bool:
    """Whether a workbook of that name is to be one of records."""
    return path.suffix.lower() == XLSB


def check_target(path: Path) -> None:
    """Fail before any work is done where the workbook could not be written. Raises OutputError."""
    if os.path.isdir(path):  # False, where Path.is_dir() raises: a name that is too long
        raise OutputError(f"{path} is a folder; give the name of the file to write.")
    if path.suffix.lower() not in (XLSX, XLSB):
        raise OutputError(f"{path} ends in neither {XLSX} nor {XLSB}: give it one of these, and xlgpt writes that.")
    with replacing(path, keep=False):
        pass


def _why(error: OSError, path: Path) -> str:
    folder = path.parent
    if error.errno == errno.ENOSPC:
        return f"The disk of {folder} is full; {path.name} was not written."
    if not os.path.isdir(folder):
        return f"There is no folder {folder}; make it first."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path} cannot be written: you have no right to write there, or another program has it open."
    return f"{path} cannot be written: {error.strerror}."
