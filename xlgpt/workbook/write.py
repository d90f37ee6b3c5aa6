"""Writes the workbook: what XlsxWriter makes of each sheet, with the stream of its cells in their place."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from xlgpt.compiler.layout import PlacedWeight
from xlgpt.parallel import workers
from xlgpt.progress import Progress
from xlgpt.workbook.file_formats import FileFormat, NumberRows, SheetData, SheetPart, Xlsb, Xlsx
from xlgpt.workbook.frame import Frame, framed
from xlgpt.workbook.plan import Plan
from xlgpt.workbook.streamed_worksheet import StreamedWorksheet
from xlgpt.workbook.weightsheet import WORTH_IT, Tensor, packing
from xlgpt.xlsx.package import Package, Packed, is_xlsb, replacing

TOGETHER = 256  # rows handed on to be compressed at a time


@dataclass(frozen=True)
class Written:
    """What a build made: the file, its size in bytes, its cells and the formulas among them."""

    path: Path
    size: int
    cells: int
    formulas: int
    packed_by: str


def write_workbook(path: Path, plan: Plan, progress: Progress, jobs: int | None = None, cluster: str = "") -> Written:
    """Write the file beside its target and move it into place, in the format that its name asks for.

    jobs, cluster: what packs weights.

    Raises OutputError, WorkbookTooLarge, BadCheckpoint, TemplateError, and what xlgpt.parallel does.
    """
    make = Xlsb if is_xlsb(path) else Xlsx
    tensors_of = _tensors(plan, make.number_rows(plan))
    packing_ = _packing(tensors_of, path, jobs, cluster)
    with replacing(path) as file, Package(file) as package, packing_ as (packed, packed_by):
        progress("Calculating the prompt", 0, 1)
        plan.values  # noqa: B018 - made when first asked for
        progress("Making the sheets", 0, 1)
        frame = framed(plan)
        form: FileFormat = make(frame)
        writer = _Writer(package, frame, form, plan)
        writer.add_sheets()
        done = 0
        for name, tensors in tensors_of.items():
            progress("Writing weights", done, plan.model.parameters)
            writer.add_weights(name, map(packed, tensors))
            done += sum(tensor.size for tensor in tensors)
        writer.add_the_rest()
        progress("Writing weights", done, done)
    cells = writer.cells + plan.model.parameters
    return Written(path, path.stat().st_size, cells, writer.formulas, packed_by)


def _tensors(plan: Plan, number_rows: NumberRows) -> dict[str, list[Tensor]]:
    """The tensors of each weight sheet, the largest sheet first, so that all processes end at about the same time."""
    sheets = {
        name: [_tensor(p, plan, number_rows) for p in placed] for name, placed in plan.layout.weight_sheets().items()
    }
    return dict(sorted(sheets.items(), key=lambda sheet: -sum(tensor.size for tensor in sheet[1])))


def _tensor(placed: PlacedWeight, plan: Plan, number_rows: NumberRows) -> Tensor:
    cells = placed.cells
    return Tensor(placed.weight.name, cells.height, cells.width, plan.model.weights, number_rows, cells.row)


Rows = Iterable[bytes | Packed]


@contextmanager
def _packing(
    sheets: dict[str, list[Tensor]], path: Path, jobs: int | None, cluster: str
) -> Iterator[tuple[Callable[[Tensor], Rows], str]]:
    """What gives a tensor's rows: this process, or others that pack them meanwhile where that is worth it; and who.

    They pack the tensors in the order in which the archive takes them, and only in that order they are given.
    """
    tensors = [tensor for sheet in sheets.values() for tensor in sheet]
    if sum(tensor.size for tensor in tensors) < WORTH_IT:
        with workers("packed weights", 1) as alone:
            yield Tensor.rows, str(alone)
        return
    files = tensors[0].weights.files()
    with (
        TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder,
        workers("packed weights", jobs, cluster, files) as others,
    ):
        yield packing(tensors, Path(folder), others), str(others)


class _Writer:
    """Puts the parts of a frame into a package, each sheet with its cells."""

    def __init__(self, package: Package, frame: Frame, form: FileFormat, plan: Plan):
        self._package, self._frame, self._form = package, frame, form
        self._weights = plan.layout.weight_sheets()
        self._parts = {sheet.name: part for part, sheet in self._frame.sheets.items()}
        self.cells = self.formulas = 0  # written so far, without the weights

    def add_sheets(self) -> None:
        """All sheets but those of weights."""
        for part, sheet in self._frame.sheets.items():
            if sheet.name not in self._weights:
                of = self._form.sheet(part)
                self._add_sheet(of, _together(map(of.data.row, sheet.rows())))

    def add_weights(self, name: str, tensors: Iterable[Rows]) -> None:
        """A sheet of weights: the rows of each tensor below the line about it."""
        part = self._parts[name]
        of = self._form.sheet(part)
        self._add_sheet(of, self._weight_rows(self._frame.sheets[part], of.data, tensors))

    def add_the_rest(self) -> None:
        """All parts that are no sheets."""
        for part, whole in self._form.the_rest():
            self._package.add(part, [whole])

    def _add_sheet(self, of: SheetPart, rows: Rows) -> None:
        self._package.add(of.name, _enclosed(of, rows))
        self.cells += of.data.cells
        self.formulas += of.data.formulas

    def _weight_rows(self, sheet: StreamedWorksheet, data: SheetData, tensors: Iterable[Rows]) -> Rows:
        lines = {row.number: data.row(row) for row in sheet.rows()}
        yield lines[0]
        for placed, rows in zip(self._weights[sheet.name], tensors, strict=True):
            yield lines[placed.cells.row - 1]
            yield from rows


def _enclosed(of: SheetPart, rows: Rows) -> Rows:
    yield of.around.before
    yield from rows
    yield of.around.behind


def _together(rows: Iterator[bytes]) -> Iterator[bytes]:
    """The same in larger pieces."""
    while piece := b"".join(islice(rows, TOGETHER)):
        yield piece
