"""The rows of weight sheets, formatted and compressed by as many processes as there are cores.

All workers have the same list of tensors, and each takes the first that nobody has taken: whoever makes a tensor's file
has it. They write the packed rows to that file, and report, pickled, what the archive must know of them, or the error
that stopped them.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xlgpt.cells import number_rows
from xlgpt.checkpoint import Weights
from xlgpt.errors import BadCheckpoint, XlgptError
from xlgpt.package import Packed, deflate

WORTH_IT = 5_000_000  # weights; below, starting a process takes longer than the work
LIST = "tensors"  # the file that holds it; no tensor is called so


@dataclass(frozen=True)
class Tensor:
    """A tensor, and how many rows and columns it takes."""

    name: str
    height: int
    width: int
    weights: Weights

    @property
    def size(self) -> int:
        """How many weights it holds."""
        return self.height * self.width

    def rows(self) -> Iterator[bytes]:
        """Its rows as XML. Raises BadCheckpoint."""
        return number_rows(self.weights.tensor(self.name).reshape(self.height, self.width))


@contextmanager
def workers(tensors: list[Tensor], folder: Path) -> Iterator[Callable[[Tensor], Packed]]:
    """Start the work; gives what waits for a tensor. Whatever happens, no process is left behind."""
    (folder / LIST).write_bytes(pickle.dumps(tensors))
    command = [sys.executable, "-c", f"from xlgpt.weightsheet import work; work({str(folder)!r})"]
    reading, writing = os.pipe()
    started: list[subprocess.Popen[bytes]] = []
    with open(reading, "rb") as reports:
        try:
            with open(writing, "wb") as end:
                for _ in range(os.cpu_count() or 1):
                    started.append(subprocess.Popen(command, stdout=end, start_new_session=True))
            yield _waiting(reports)
        finally:
            for worker in started:
                worker.kill()
                worker.wait()


def _waiting(reports: BinaryIO) -> Callable[[Tensor], Packed]:
    done: dict[str, Packed] = {}

    def wait(tensor: Tensor) -> Packed:
        """Wait until a tensor is packed. Raises what stopped a worker."""
        while tensor.name not in done:
            try:
                name, result = pickle.load(reports)
            except EOFError:
                raise BadCheckpoint("A process that packed weights ended early; is there enough memory?") from None
            if isinstance(result, Exception):
                raise result
            done[name] = result
        return done.pop(tensor.name)

    return wait


def work(folder: str) -> None:
    """What a worker does: pack the tensors that nobody has taken, and report each."""
    os.nice(5)  # the process that makes all the other sheets goes first: nobody can help it
    for tensor in pickle.loads((Path(folder) / LIST).read_bytes()):
        result: Packed | Exception
        try:
            file = Path(folder) / tensor.name
            with file.open("xb") as packed:
                result = Packed(file, deflate(tensor.rows(), packed))
        except FileExistsError:
            continue
        except (XlgptError, OSError) as e:
            result = e
        except KeyboardInterrupt:
            sys.exit(130)
        report = pickle.dumps((tensor.name, result))
        os.write(sys.stdout.fileno(), report)  # at once: the workers share the pipe
