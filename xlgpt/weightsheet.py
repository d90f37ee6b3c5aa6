"""Sheets of weights, formatted and compressed whole, by as many processes as there are cores.

A worker reads its jobs from standard input, writes each packed sheet to a file in a folder, and sends back, pickled,
what the archive must know of it, or the error that ended it.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xlgpt.cells import number_rows
from xlgpt.checkpoint import Weights
from xlgpt.errors import BadCheckpoint, XlgptError
from xlgpt.package import Sums, deflate

WORTH_IT = 5_000_000  # weights; below, starting a process takes longer than the work


@dataclass(frozen=True)
class Tensor:
    """A tensor, the rows and columns it takes, and the row above it, which says what it is."""

    name: str
    height: int
    width: int
    line: bytes


@dataclass(frozen=True)
class Job:
    """One sheet: its part's name in the archive, its XML before and after the rows, and its tensors."""

    part: str
    before: bytes
    after: bytes
    tensors: tuple[Tensor, ...]
    weights: Weights

    @property
    def size(self) -> int:
        """How many weights the sheet holds."""
        return sum(tensor.height * tensor.width for tensor in self.tensors)

    def xml(self) -> Iterator[bytes]:
        """The sheet, in pieces."""
        yield self.before
        for tensor in self.tensors:
            yield tensor.line
            matrix = self.weights.tensor(tensor.name).reshape(tensor.height, tensor.width)
            yield from number_rows(matrix)
        yield self.after


@dataclass(frozen=True)
class Packed:
    """A sheet that stands compressed in a file."""

    job: Job
    file: Path
    sums: Sums


@contextmanager
def workers(jobs: list[Job], folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the work; whatever happens, no process is left behind."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for share in _shares(jobs, os.cpu_count() or 1):
            command = [sys.executable, "-c", f"from xlgpt.weightsheet import work; work({str(folder)!r})"]
            worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
            started.append(worker)
            assert worker.stdin
            pickle.dump(share, worker.stdin)
            worker.stdin.close()
        yield started
    finally:
        for worker in started:
            worker.kill()
            worker.wait()


def results(worker: subprocess.Popen[bytes]) -> Iterator[Packed]:
    """What a worker has packed, as it goes. Raises what stopped it."""
    assert worker.stdout
    while True:
        try:
            result = pickle.load(worker.stdout)
        except EOFError:
            if worker.wait():
                raise BadCheckpoint("A process that packed weights ended early; is there enough memory?") from None
            return
        if isinstance(result, Exception):
            raise result
        yield result


def _shares(jobs: list[Job], count: int) -> list[list[Job]]:
    """The jobs in shares of about the same size: the largest first, each to whoever has least."""
    shares: list[list[Job]] = [[] for _ in range(min(count, len(jobs)))]
    for job in sorted(jobs, key=lambda job: -job.size):
        min(shares, key=lambda share: sum(job.size for job in share)).append(job)
    return shares


def work(folder: str) -> None:
    """What a worker does: pack each job that it reads, and send back what came of it."""
    for job in pickle.load(sys.stdin.buffer):
        result: Packed | Exception
        try:
            file = Path(folder) / Path(job.part).name
            with file.open("wb") as packed:
                result = Packed(job, file, deflate(job.xml(), packed))
        except (XlgptError, OSError) as e:
            result = e
        except KeyboardInterrupt:
            sys.exit(130)
        pickle.dump(result, sys.stdout.buffer)
        sys.stdout.flush()
