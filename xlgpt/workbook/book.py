"""Reads a workbook back: the whole model from its cells, and every formula. No saved value of a formula is believed."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any, cast

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from xlgpt.compiler.layout import Layout, Placed, lay_out
from xlgpt.compiler.settings import Settings, input_bands
from xlgpt.compiler.template import Matmul, Room, optional_sheets
from xlgpt.errors import BrokenWorkbook, ForeignWorkbook, NotAWorkbook, PromptTooLong
from xlgpt.model.adapter import MODULES
from xlgpt.model.checkpoint import Model, Weights
from xlgpt.model.companions import Companions
from xlgpt.model.config import ACTIVATIONS, GPT2Config, weight_shapes
from xlgpt.model.notation import BINARY, DECIMAL, Notation
from xlgpt.model.tensor_files import TensorFiles, temporary_folder
from xlgpt.model.tokenizer import Tokenizer, check_text
from xlgpt.xlsb import read as xlsb
from xlgpt.xlsb.package_parts import BOOK
from xlgpt.xlsb.read import read_index
from xlgpt.xlsb.scope import Scope
from xlgpt.xlsx.archive import INDEX, MAIN, PLAIN, STRINGS, Archive, sheet_names
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import (
    Cells,
    Scalar,
    a1_range,
    cells_of,
    numbers,
    read_cells,
    rows,
    text_of,
    unreadable,
)

KEPT = 1 << 28  # bytes of weights held in memory; those of a larger model are kept in files
SMALL = 1 << 16  # numbers of a tensor that is held in memory all the same
# Bytes that a cell can take; on average over a sheet up to 26 and 225, and 62 and 160 once LibreOffice has saved it.
A_NUMBER, A_FORMULA = 100, 400
FACTS = (  # what is read before it is known how large all else is
    *(
        "context",
        "max_bytes",
        "new_tokens",
        "matmul",
        "precision",
        "vocabulary",
        "merges.key",
        "merges.id",
        "merges.rank",
    ),
    *(item.name for item in fields(GPT2Config)),
)
INDEX_PARTS = ("xl/workbook.xml", "xl/_rels/workbook.xml.rels")
NAMED = re.compile(r"(?:'((?:[^']|'')+)'|([^'!]+))!(.+)")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prompt:
    """A text and its token ids."""

    text: str
    ids: tuple[int, ...]


class BookWeights:
    """The tensors as float64, exactly as the cells hold them. Sheets are read as they are needed, and only once.

    Those of a large model stand in files, which other processes on this machine map as well, until it is closed.
    A number that is missing is NaN.
    """

    def __init__(self, book: "Book", shapes: dict[str, tuple[int, ...]], folder: Path | None = None):
        self._book, self._shapes = book, shapes
        self._kept: dict[str, Array] = {}
        self._folder = folder if folder and folder.is_dir() else None
        self._remove: Callable[[], object] | None = None
        self._one_by_one = RLock()  # threads: else two would make a folder, and write the same files

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process reads them itself, or finds what this one has read."""
        return BookWeights, (self._book, self._shapes, self.folder)

    def files(self) -> tuple[Path, ...]:
        """The workbook."""
        return (self._book.path.absolute(),)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor that the configuration asks for."""
        return dict(self._shapes)

    def tensor(self, name: str) -> Array:
        """One tensor, in the checkpoint's shape. Raises BrokenWorkbook, OutputError."""
        return self.cells(name).reshape(self._shapes[name])

    def cells(self, name: str) -> Array:
        """One tensor as it stands on its sheet: [rows, columns]. Of a large model it is not to be kept for long."""
        with self._one_by_one:
            return self._cells(name)

    def _cells(self, name: str) -> Array:
        if name not in self._kept:
            cells = self._book.named(name)
            found = self._files.get(name, (cells.height, cells.width)) if self.are_large else None
            if found is None:
                self._keep(self._read(cells.sheet))
                return self._cells(name)
            if found.size > SMALL:
                return found
            self._kept[name] = found.copy()
        return self._kept[name]

    def _keep(self, tensors: dict[str, Array]) -> None:
        for name, tensor in tensors.items():
            if self.are_large:
                self._files.put(name, tensor)
            else:
                self._kept[name] = tensor

    @cached_property
    def are_large(self) -> bool:
        """Whether they stand in files."""
        return 8 * sum(math.prod(shape) for shape in self._shapes.values()) > KEPT

    @property
    def folder(self) -> Path | None:
        """Where their files are; None where they are few."""
        return self._files.folder if self.are_large else None

    @property
    def _files(self) -> TensorFiles:
        with self._one_by_one:
            if self._folder is None:
                self._folder, self._remove = temporary_folder(self._book.path, self)
            return TensorFiles(self._folder)

    def close(self) -> None:
        """Remove the files that were made here."""
        if self._remove:
            self._remove()

    @cached_property
    def sheets(self) -> dict[str, list[str]]:
        """The names of the tensors on each weight sheet."""
        found: dict[str, list[str]] = {}
        for name in self._shapes:
            found.setdefault(self._book.named(name).sheet, []).append(name)
        return found

    def missing(self, name: str) -> Range | None:
        """The first cell of a tensor that holds no number."""
        gaps = np.argwhere(np.isnan(self.cells(name)))
        if not len(gaps):
            return None
        row, column = (int(i) for i in gaps[0])
        return self._book.named(name).cell(row, column)

    def _read(self, sheet: str) -> dict[str, Array]:
        places = {name: self._book.named(name) for name in self.sheets[sheet]}
        tensors = {name: np.full((cells.height, cells.width), np.nan) for name, cells in places.items()}
        of_row = {row: name for name, cells in places.items() for row in range(cells.row, cells.row + cells.height)}
        self._book.check_size(sheet)
        if self._book.scope:
            self._read_runs(sheet, places, tensors, of_row)
            return tensors
        for row, cells in rows(self._book.path, self._book.part(sheet)):
            if row not in of_row:
                continue
            place, tensor = places[of_row[row]], tensors[of_row[row]]
            line = numbers(cells)
            try:
                if line is not None and len(line) == place.width and place.column == 0:
                    tensor[row - place.row] = line
                else:
                    _fill(tensor[row - place.row], place, cells, self._book.strings)
            except (ValueError, IndexError) as e:
                raise unreadable(self._book.path, sheet, row) from e
        return tensors

    def _read_runs(
        self, sheet: str, places: dict[str, Range], tensors: dict[str, Array], of_row: dict[int, str]
    ) -> None:
        """The same from the records of an .xlsb."""
        for run in xlsb.number_runs(self._book.path, self._book.part(sheet)):
            name = of_row.get(run.row)
            if name is None:
                continue
            place, (first, last) = places[name], run.columns[[0, -1]].astype(np.int64)
            line = tensors[name][run.row - place.row]
            if last - first == len(run.columns) - 1 and place.column <= first and last < place.column + place.width:
                line[first - place.column : last - place.column + 1] = run.values
            else:
                columns = run.columns.astype(np.int64) - place.column
                inside = (columns >= 0) & (columns < place.width)
                line[columns[inside]] = run.values[inside]
        for tensor in tensors.values():
            tensor[~np.isfinite(tensor)] = np.nan


def _fill(line: Array, place: Range, cells: bytes, strings: list[str]) -> None:
    """A tensor's row from cells of any kind; what is no number stays NaN."""
    row = etree.fromstring(b"<row>%b</row>" % cells, etree.XMLParser(recover=True))  # without its name spaces
    for cell in cells_of(row, strings):
        column = cell.column - place.column
        if (
            cell.formula is None
            and type(cell.value) is float
            and 0 <= column < place.width
            and math.isfinite(cell.value)
        ):
            line[column] = cell.value


class Book:
    """A workbook that xlgpt built. Everything is read when it is first asked for.

    Raises NotAWorkbook, ForeignWorkbook, BrokenWorkbook.
    """

    def __init__(self, path: str | Path, folder: Path | None = None):
        """folder: where another process keeps the weights that it has read."""
        self.path, self._folder = Path(path), folder
        self._cells: dict[str, Cells] = {}
        self._archive = Archive(self.path)
        self.scope: Scope | None = None  # of an .xlsb: what its formulas refer to by number
        self.defined: tuple[dict[str, str], frozenset[str]] | None = None  # and its names, with those of one sheet
        if BOOK in self._archive:
            self._archive.check_size(BOOK, INDEX)
            index = read_index(self.path, self._archive)
            self._parts, self._names, self.scope = index.sheets, index.names, index.scope
            self.defined = index.names, index.local
        else:
            self._parts, self._names = _contents(self.path, self._archive)
        if not {"n_layer", "n_embd", "token_ids", "next_token"} <= self._names.keys():
            raise ForeignWorkbook(
                f"{self.path} was not built by xlgpt: it lacks the names that xlgpt gives to its cells."
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file itself."""
        return Book, (self.path.absolute(), self.weights.folder if "weights" in self.__dict__ else None)

    @property
    def sheets(self) -> list[str]:
        """The sheets, in the order of their tabs."""
        return list(self._parts)

    def part(self, sheet: str) -> str:
        """The file inside the workbook that holds a sheet."""
        return self._parts[sheet]

    def xml(self, part: str) -> bytes:
        """One of the files inside as it stands. Raises BrokenWorkbook."""
        return b"".join(self._archive.pieces(part))

    def has(self, name: str) -> bool:
        """Whether there is such a defined name; capitals do not matter."""
        return name.casefold() in self._names

    def named(self, name: str) -> Range:
        """The cells of a defined name; capitals do not matter. Raises BrokenWorkbook."""
        target = self._names.get(name.casefold())
        if target is None:
            raise BrokenWorkbook(f"{self.path}: the name {name} is gone; build the workbook again.")
        found = NAMED.fullmatch(target)
        sheet = (found[1].replace("''", "'") if found[1] else found[2]) if found else ""
        cells = a1_range(sheet, found[3]) if found else None
        if cells is None:
            raise BrokenWorkbook(
                f"{self.path}: the name {name} refers to {target}, which is no range of cells: were they deleted?"
            )
        if sheet not in self._parts:
            raise BrokenWorkbook(
                f"{self.path}: the sheet {sheet!r}, which holds {name}, is not there: was it renamed or deleted? "
                "Give it its name back, or build the workbook again."
            )
        return cells

    def cells(self, sheet: str) -> Cells:
        """What stands on a sheet that holds no weights."""
        if sheet not in self._cells:
            self.check_size(sheet)
            place = self.path, sheet, self.part(sheet), self.strings
            self._cells[sheet] = xlsb.read_cells(*place, self.scope) if self.scope else read_cells(*place)
        return self._cells[sheet]

    def parts(self, *beginnings: str) -> dict[str, bytes]:
        """The files inside whose names begin so. Raises BrokenWorkbook."""
        return {part: self._archive.read(part) for part in self._archive if part.startswith(beginnings)}

    def check_size(self, sheet: str) -> None:
        """Refuse a sheet that is larger than its cells can make it, before it is unpacked. Raises BrokenWorkbook."""
        part = self.part(sheet)
        if self._archive.size(part) > PLAIN:
            has_facts = sheet in {self.named(name).sheet for name in FACTS if self.has(name)}
            self._archive.check_size(part, PLAIN if has_facts else PLAIN + self._needed.get(sheet, 0))

    def check_sizes(self) -> None:
        """All sheets: for a program that reads the file itself. Raises BrokenWorkbook."""
        for sheet in self._parts:
            self.check_size(sheet)

    @cached_property
    def _needed(self) -> dict[str, int]:
        """How many bytes the cells of each sheet can take."""
        bands = [(placed.cells, A_FORMULA) for placed in self.layout.bands.values()]
        needed: dict[str, int] = {}
        for cells, each in [*bands, *((placed.cells, A_NUMBER) for placed in self.layout.weights)]:
            needed[cells.sheet] = needed.get(cells.sheet, 0) + each * cells.height * cells.width
        return needed

    def constant(self, name: str) -> Scalar | None:
        """What the one cell of a name holds, where that is no formula; None where it is empty."""
        cells = self.named(name)
        there = self.cells(cells.sheet)
        for i in there.over(cells):  # LibreOffice saves TRUE as a formula
            return {"TRUE()": True, "FALSE()": False}.get(there.formulas[i].text)
        return there.constants.get((cells.row, cells.column))

    def column(self, cells: Range) -> list[Scalar | None]:
        """The constants in a column of cells, from the top."""
        there = self.cells(cells.sheet).constants
        return [there.get((cells.row + i, cells.column)) for i in range(cells.height)]

    @cached_property
    def config(self) -> GPT2Config:
        """The configuration, from the cells on the home sheet."""
        given: dict[str, Any] = {item.name: self.constant(item.name) for item in fields(GPT2Config)}
        for item in fields(GPT2Config):
            given[item.name] = self._checked(item.name, given[item.name], cast(type, item.type))
        config = GPT2Config(**given)
        if (
            config.n_embd % config.n_head
            or config.activation_function not in ACTIVATIONS
            or not 0 < config.layer_norm_epsilon < math.inf
            or config.n_layer > len(self._parts)
            or config.vocab_size > self.named("vocabulary").height
        ):
            raise BrokenWorkbook(
                f"{self.path}: the model's facts on the home sheet were changed, and no GPT-2 is like that."
            )
        return config

    @cached_property
    def max_bytes(self) -> int:
        """How many bytes of a prompt there are rows for."""
        return cast(int, self._checked("max_bytes", self.constant("max_bytes"), int))

    @cached_property
    def matmul(self) -> Matmul:
        """How matrix products stand in cells."""
        return "sumproduct" if self.has("matmul") and self.constant("matmul") == "sumproduct" else "mmult"

    @property
    def notation(self) -> Notation:
        """How its cells write weights."""
        return BINARY if self.scope else DECIMAL

    @cached_property
    def precision(self) -> int:
        """To how many significant digits the weights were rounded; 0 for exact ones."""
        digits = self.constant("precision") if self.has("precision") else 0.0
        return 0 if digits == 0 else cast(int, self._checked("precision", digits, int))

    @cached_property
    def context(self) -> int:
        """How many tokens there are rows for."""
        return cast(int, self._checked("context", self.constant("context"), int))

    @cached_property
    def new_tokens(self) -> int:
        """How many tokens it can write."""
        return cast(int, self._checked("new_tokens", self.constant("new_tokens"), int))

    def _checked(self, name: str, value: Any, kind: type) -> Any:
        """A fact of the home sheet in its type."""
        if kind is int and isinstance(value, float) and value >= 1 and value.is_integer():
            return int(value)
        if kind is bool and value in (0.0, 1.0):  # some programs save a boolean as a number
            return bool(value)
        if kind is not int and type(value) is kind:
            return value
        cells = self.named(name)
        shown = "is empty or a formula" if value is None else f"holds {value!r}"
        raise BrokenWorkbook(
            f"{self.path}: the cell {cells.absolute}, which says {name}, {shown}; build the workbook again."
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, from the sheets Vocabulary and Merges."""
        vocabulary = self.named("vocabulary")
        hexes = self.column(Range(vocabulary.sheet, vocabulary.row, vocabulary.column + 2, self.config.vocab_size))
        tokens = []
        for i, text in enumerate(hexes):
            try:
                tokens.append(bytes.fromhex(str(text or "")))
            except ValueError as e:
                cell = Range(vocabulary.sheet, vocabulary.row + i, vocabulary.column + 2)
                raise BrokenWorkbook(f"{self.path}: {cell.absolute} holds {text!r}, which are no bytes.") from e
        if not {bytes([i]) for i in range(256)} <= set(tokens):
            raise BrokenWorkbook(
                f"{self.path}: the sheet {vocabulary.sheet!r} lacks one of the 256 bytes; it was changed."
            )
        merges = self._merges(tokens)
        produced = {i for _, _, i in merges}
        return Tokenizer(
            tuple(tokens),
            tuple(merges),
            frozenset(i for i, token in enumerate(tokens) if len(token) > 1 and i not in produced),
        )

    def _merges(self, tokens: list[bytes]) -> list[tuple[int, int, int]]:
        """The sheet Merges: two ids and what they become, the first merge first. Raises BrokenWorkbook."""
        columns = {part: self.named(f"merges.{part}") for part in ("key", "id", "rank")}
        if len({cells.height for cells in columns.values()}) > 1:
            raise BrokenWorkbook(f"{self.path}: the names merges.key, merges.id and merges.rank differ in their rows.")
        if self.column(columns["key"]) == [-1.0]:  # what stands there where there are none
            return []
        size = len(tokens)
        most = {"key": 65536 * size, "id": size, "rank": len(self.column(columns["rank"]))}
        rows = []
        for i, row in enumerate(zip(*map(self.column, columns.values()), strict=True)):
            for value, (part, cells) in zip(row, columns.items(), strict=True):
                if not (type(value) is float and value.is_integer() and 0 <= value < most[part]):
                    raise self._no_merge(cells.cell(i, 0), value)
            key, merged, rank = (int(cast(float, value)) for value in row)
            left, right = divmod(key, 65536)
            if right >= size or tokens[left] + tokens[right] != tokens[merged]:
                raise self._no_merge(columns["key"].cell(i, 0), row[0])
            rows.append((rank, (left, right, merged)))
        return [merge for _, merge in sorted(rows)]

    def _no_merge(self, cell: Range, value: Scalar | None) -> BrokenWorkbook:
        shown = "nothing" if value is None else repr(value)
        return BrokenWorkbook(
            f"{self.path}: {cell.absolute} holds {shown}, which is no merge of two tokens; build the workbook again."
        )

    @cached_property
    def weights(self) -> BookWeights:
        """The weights, from the cells."""
        shapes = weight_shapes(self.config)
        for name, shape in shapes.items():
            cells, wanted = self.named(name), ([1, *shape])[-2:]
            if [cells.height, cells.width] != wanted:
                raise BrokenWorkbook(
                    f"{self.path}: {name} takes {cells.height} × {cells.width} cells on the sheet {cells.sheet!r}; "
                    f"the model needs {wanted[0]} × {wanted[1]}."
                )
        return BookWeights(self, shapes, self._folder)

    @cached_property
    def model(self) -> Model:
        """The model that the workbook holds; the reference can run on it."""
        name, source, licence = (str(self.constant(f"about.{key}") or "") for key in ("model", "source", "licence"))
        prompts = self.column(self.named("prompts")) if self.has("prompts") else []
        companions = Companions(prompts=tuple(map(str, prompts)))
        weights = cast(Weights, self.weights)
        return Model(name, source, licence, self.config, self.tokenizer, weights, self.precision, companions)

    @cached_property
    def layout(self) -> Layout:
        """Where xlgpt would put everything: what bands there are, and their shapes."""
        return lay_out(self.config, self.room, len(self.tokenizer.merges))

    @cached_property
    def room(self) -> Room:
        """What there are rows for, and which optional sheets there are."""
        there = (name for name, tab in optional_sheets().items() if tab in self._parts)
        matrices = (f"h.{layer}.{module}" for layer in range(self.config.n_layer) for module in MODULES)
        return Room(
            self.context,
            self.max_bytes,
            self.new_tokens,
            tuple(there),
            self.matmul,
            self._height("steering.names"),
            self._height("features.number"),
            self._height("proof.places"),
            self._height("adapter.names"),
            tuple((name, height) for name in matrices if (height := self._height(f"{name}.lora_A.weight"))),
            self._height("plain.prompts"),
            self._height("kept.prompts"),
            self._height("trace.token"),
        )

    def _height(self, name: str) -> int:
        """How many rows a name has; none where it is not there."""
        return self.named(name).height if self.has(name) else 0

    @cached_property
    def settings(self) -> Settings:
        """What stands in the cells that a person fills in, but for the prompt."""
        return Settings({placed.band.name: self._filled_in(placed) for placed in input_bands(self.layout)})

    def _filled_in(self, placed: Placed) -> NDArray[Any]:
        cells = self.named(placed.band.name)
        there = self.cells(cells.sheet).constants
        found = np.full((placed.cells.height, placed.cells.width), "", dtype=object)
        for row, column in np.ndindex(found.shape):
            found[row, column] = there.get((cells.row + row, cells.column + column), "")
        return found

    @cached_property
    def prompt(self) -> Prompt:
        """The prompt in the file."""
        return self.prompt_of(str(self.constant("prompt") or ""))

    def prompt_of(self, text: str) -> Prompt:
        """A text with its ids. Raises PromptTooLong, UsageError."""
        check_text(text)
        size, ids = len(text.encode()), self.tokenizer.encode(text)
        if size > self.max_bytes:
            raise PromptTooLong(
                f"The prompt {text[:40]!r} has {size} bytes; {self.path} has rows for {self.max_bytes}."
            )
        if len(ids) > self.context:
            raise PromptTooLong(
                f"The prompt {text[:40]!r} has {len(ids)} tokens; {self.path} has rows for {self.context}."
            )
        return Prompt(text, tuple(ids))

    @cached_property
    def strings(self) -> list[str]:
        """The shared strings."""
        return (xlsb.read_strings if self.scope else _shared_strings)(self.path, self._archive)


def _contents(path: Path, archive: Archive) -> tuple[dict[str, str], dict[str, str]]:
    """The part of each sheet, and what each defined name, in small letters, refers to."""
    for part in INDEX_PARTS:
        if part not in archive:
            raise NotAWorkbook(f"{path} is an archive, but no .xlsx or .xlsb workbook.")
        archive.check_size(part, INDEX)
    try:
        sheets = {name: part for part, name in sheet_names(archive).items()}
        book = etree.fromstring(archive.read("xl/workbook.xml"))
    except (KeyError, etree.XMLSyntaxError) as e:
        raise BrokenWorkbook(
            f"{path}: the list of its sheets is damaged; build the workbook again, or take an intact copy."
        ) from e
    names = {
        e.get("name", "").casefold(): e.text or ""
        for e in book.iter(f"{{{MAIN}}}definedName")
        if e.get("localSheetId") is None
    }
    return sheets, names


def _shared_strings(path: Path, archive: Archive) -> list[str]:
    if STRINGS not in archive:
        return []
    try:
        items = etree.fromstring(archive.read(STRINGS)).iterfind("{*}si")
        return [text_of(item) for item in items]
    except (ValueError, OverflowError, etree.XMLSyntaxError) as e:  # a character that there is none of
        raise BrokenWorkbook(f"{path}: the part {STRINGS} is damaged; take an intact copy.") from e
