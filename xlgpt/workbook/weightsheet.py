"""The rows of weight sheets, formatted and compressed by as many processes as there are cores."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from xlgpt.errors import WorkerEnded
from xlgpt.model.checkpoint import Weights
from xlgpt.xlsx.package import Packed, deflate

WORTH_IT = 5_000_000  # weights; below, starting a process takes longer than the work


@dataclass(frozen=True)
class Tensor:
    """A tensor, and how many rows and columns it takes."""

    name: str
    height: int
    width: int
    weights: Weights
    number_rows: Callable[[Any, int], Iterator[bytes]]  # what makes them cells of a file
    first: int  # its first row, from 0

    @property
    def size(self) -> int:
        """How many weights it holds."""
        return self.height * self.width

    def rows(self) -> Iterator[bytes]:
        """Its rows as the file has them. Raises BadCheckpoint."""
        first = self.first
        for piece in self.weights.pieces(self.name):
            rows = piece.reshape(-1, self.width)
            yield from self.number_rows(rows, first)
            first += len(rows)


@contextmanager
def packing(tensors: list[Tensor], folder: Path, jobs: int | None) -> Iterator[Iterator[Packed]]:
    """Start the work; gives the tensors' rows in their order. Whatever happens, no process is left behind.

    jobs: how many processes pack, one on each core unless told; with 1 it is this one, when it is asked for a tensor.
    Asking raises what stopped a worker: BadCheckpoint, OSError, MemoryError; or WorkerEnded where something killed it.
    """
    from joblib import Parallel, delayed, effective_n_jobs, parallel_config  # here, since small models need none of it
    from joblib.externals.loky import get_reusable_executor

    with _uninterrupted(), parallel_config("loky", inner_max_num_threads=1, initializer=prepare):
        work = Parallel(n_jobs=jobs or -1, return_as="generator", batch_size=1, max_nbytes=None)
        packed = work(delayed(pack)(tensor, folder / str(number)) for number, tensor in enumerate(tensors))
    try:
        yield _each(packed)
    finally:
        with catch_warnings():
            simplefilter("ignore")  # joblib's advice how not to stop early
            packed.close()
        if effective_n_jobs(jobs or -1) > 1:
            get_reusable_executor(reuse=True).shutdown(kill_workers=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that start meanwhile do not hear Ctrl-C, so that this one alone answers it; it hears it a moment later.

    Windows has no such mask: there they are deaf once they are prepared.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepare() -> None:
    """What a worker does first: leave Ctrl-C to the process that started it, let that go first, and end with it.

    That process makes all the other sheets, where nobody can help it; a build takes a fifth less time so.
    """
    import psutil

    here, above = psutil.Process(), psutil.Process(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    here.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if psutil.WINDOWS else max(here.nice(), 5))
    threading.Thread(target=_end_with, args=(above.wait,), daemon=True).start()


def _end_with(wait: Callable[[], object]) -> None:
    wait()
    os._exit(1)


def pack(tensor: Tensor, file: Path) -> Packed:
    """What a worker does: a tensor's rows into a file, whose name says nothing, so that any system can have it."""
    with file.open("wb") as packed:
        return Packed(file, deflate(tensor.rows(), packed))


def _each(packed: Iterator[Packed]) -> Iterator[Packed]:
    try:
        yield from packed
    except BrokenExecutor as e:
        raise WorkerEnded("A process that packed weights was ended; give it more memory, or fewer --jobs.") from e
