"""The rows of weight sheets, formatted and compressed by as many processes as there are cores, or by a cluster."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from xlgpt.model.checkpoint import Weights, rows_of_a_piece
from xlgpt.parallel import Workers
from xlgpt.xlsx.package import Packed, deflate

WORTH_IT = 5_000_000  # weights; below, starting a process takes longer than the work
STRETCH = 8  # pieces of a tensor, 8 million weights, that one worker packs while another packs the next


@dataclass(frozen=True)
class Tensor:
    """A tensor, or some rows of one, and how many rows and columns it takes."""

    name: str
    height: int
    width: int
    weights: Weights
    number_rows: Callable[[Any, int], Iterator[bytes]]  # what makes them cells of a file
    first: int  # its first row on the sheet, from 0
    start: int = 0  # the piece of the tensor with which it begins

    @property
    def size(self) -> int:
        """How many weights it holds."""
        return self.height * self.width

    def rows(self) -> Iterator[bytes]:
        """Its rows as the file has them. Raises BadCheckpoint."""
        first = self.first
        for piece in self.weights.pieces(self.name, self.start):
            rows = piece.reshape(-1, self.width)
            yield from self.number_rows(rows, first)
            first += len(rows)
            if first == self.first + self.height:
                return

    def stretches(self) -> list["Tensor"]:
        """Its rows as several, so that not one worker packs wte, a third of GPT-2 small, while all others wait."""
        each = rows_of_a_piece(self.width)
        return [
            replace(self, height=min(STRETCH * each, self.height - row), first=self.first + row, start=row // each)
            for row in range(0, self.height, STRETCH * each)
        ]


def packing(tensors: list[Tensor], folder: Path, workers: Workers) -> Callable[[Tensor], Iterator[Packed]]:
    """Start the work; returns what gives each tensor's rows, to be asked for in their order.

    folder: for the packed rows. A worker that does not see it hands them on as bytes, which Dask moves from there to
    here without the scheduler: so no folder has to be shared but the checkpoint's, and where one is, no worker and not
    this process ever holds a packed tensor in memory.
    Asking raises what stopped a worker: BadCheckpoint, OSError, MemoryError; or WorkerEnded where something killed it.
    """
    stretches = [stretch for tensor in tensors for stretch in tensor.stretches()]
    packed = workers.results(partial(pack, folder.absolute()), enumerate(stretches))
    return lambda tensor: islice(packed, len(tensor.stretches()))


def pack(folder: Path, numbered: tuple[int, Tensor]) -> Packed:
    """What a worker does: a tensor's rows into a file, whose name says nothing, so that any system can have it."""
    number, tensor = numbered
    if not folder.is_dir():
        held = BytesIO()
        sums = deflate(tensor.rows(), held)
        return Packed(held.getvalue(), sums)
    file = folder / str(number)
    with file.open("wb") as packed:
        return Packed(file, deflate(tensor.rows(), packed))
