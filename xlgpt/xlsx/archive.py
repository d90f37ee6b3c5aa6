"""The parts of a workbook's file as they are read back: none larger than it can need to be, and each whole.

A zip archive can hold a thousand times its own size (deflate packs up to 1,032 to 1), and its directory may lie.
"""

import posixpath
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from isal import igzip_lib, isal_zlib
from lxml import etree

from xlgpt.errors import BrokenWorkbook, NotAWorkbook
from xlgpt.xlsx.package import LIMIT

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRINGS = "xl/sharedStrings.xml"
PIECE = 1 << 22  # packed bytes read at a time
UNPACKED = 1 << 24  # bytes that come of them at a time
# Any part but a sheet of many cells. Measured with GPT-2's 50,257 tokens, after LibreOffice has saved it: the shared
# strings 7 MB, the sheet Merges 21 MB; with the most tokens that a workbook can tell apart, 27 MB.
PLAIN = 40 << 20
INDEX = 8 << 20  # the list of sheets and names, which is parsed as a whole: 0.15 MB in a model of 48 blocks
GROWING = ("xl/worksheets/", "xl/calcChain.xml")  # parts that grow with the number of cells


class Archive:
    """A workbook's file. Raises NotAWorkbook, and BrokenWorkbook where a part is larger than any can be."""

    def __init__(self, path: Path):
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
        except FileNotFoundError as e:
            raise NotAWorkbook(f"There is no file {path}.") from e
        except OSError as e:
            raise NotAWorkbook(f"{path} cannot be read: {e.strerror}.") from e
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as e:
            raise NotAWorkbook(
                f"{path} is no .xlsx or .xlsb workbook, or it is cut short or locked by a password."
            ) from e
        for part in self._entries:
            self.check_size(part, LIMIT if part.startswith(GROWING) else PLAIN)

    def __contains__(self, part: str) -> bool:
        return part in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def size(self, part: str) -> int:
        """How many bytes a part has, as the archive's directory says. Raises BrokenWorkbook where it is not there."""
        return self._entry(part).file_size

    def check_size(self, part: str, most: int) -> None:
        """Refuse a part that says it is larger, before it is unpacked. Raises BrokenWorkbook."""
        if self.size(part) > most:
            raise BrokenWorkbook(
                f"{self._path}: the part {part} would unpack to {self.size(part):,} bytes, and such a workbook needs "
                f"{most:,} at most; take an intact copy."
            )

    def read(self, part: str, most: int = PLAIN) -> bytes:
        """A part as a whole. Raises BrokenWorkbook where it is damaged or larger than that."""
        self.check_size(part, most)
        return b"".join(self.pieces(part))

    def pieces(self, part: str) -> Iterator[bytes]:
        """A part in pieces of 16 MB at most. Raises BrokenWorkbook where it is not what the directory says."""
        entry = self._entry(part)
        broken = BrokenWorkbook(
            f"{self._path}: the part {part} is damaged; build the workbook again, or take an intact copy."
        )
        size = crc = 0
        try:
            for piece in self._inflated(entry):
                size, crc = size + len(piece), isal_zlib.crc32(piece, crc)
                if size > entry.file_size:
                    raise broken
                yield piece
        except (igzip_lib.IsalError, struct.error, EOFError) as e:  # type: ignore[misc]  # isal's stub calls it an instance
            raise broken from e
        except OSError as e:
            raise NotAWorkbook(f"{self._path} cannot be read: {e.strerror}.") from e
        if (size, crc) != (entry.file_size, entry.CRC):
            raise broken

    def _entry(self, part: str) -> zipfile.ZipInfo:
        if part not in self._entries:
            raise BrokenWorkbook(f"{self._path} lacks the part {part}; take an intact copy.")
        return self._entries[part]

    def _inflated(self, entry: zipfile.ZipInfo) -> Iterator[bytes]:
        inflate = isal_zlib.decompressobj(-15)
        for packed in self._packed(entry):
            if entry.compress_type == zipfile.ZIP_STORED:
                yield packed
                continue
            piece = inflate.decompress(packed, UNPACKED)
            while piece:
                yield piece
                piece = inflate.decompress(inflate.unconsumed_tail, UNPACKED)

    def _packed(self, entry: zipfile.ZipInfo) -> Iterator[bytes]:
        """What stands in the file of a part; nothing where it is packed in a way that no workbook is."""
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return
        with self._path.open("rb") as file:
            file.seek(entry.header_offset)
            name, extra = struct.unpack("<26xHH", file.read(30))
            file.seek(name + extra, 1)
            left = entry.compress_size
            while left > 0 and (packed := file.read(min(PIECE, left))):
                left -= len(packed)
                yield packed


def sheet_names(book: zipfile.ZipFile | Archive) -> dict[str, str]:
    """The name on the tab of each worksheet part, in the order of the tabs."""
    relations = etree.fromstring(book.read("xl/_rels/workbook.xml.rels"))
    targets = {e.get("Id"): posixpath.join("/xl", e.get("Target", "")).lstrip("/") for e in relations}
    sheets = etree.fromstring(book.read("xl/workbook.xml")).iter(f"{{{MAIN}}}sheet")
    return {targets[e.get(f"{{{RELATION}}}id")]: e.get("name", "") for e in sheets}
