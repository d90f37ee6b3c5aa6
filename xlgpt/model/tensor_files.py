"""Tensors in files of a folder, which processes map: none holds in its own memory what it does not look at."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.errors import OutputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TensorFiles:
    """A folder with a file for each tensor, of float64."""

    folder: Path

    def get(self, name: str, shape: tuple[int, ...]) -> Array | None:
        """A tensor, mapped anew each time, so that read pages do not stay in memory; None where it is not there."""
        try:
            return np.memmap(self.folder / name, np.float64, "r", shape=shape).view(np.ndarray)
        except FileNotFoundError:
            return None

    def put(self, name: str, tensor: Array) -> None:
        """Keep a tensor; it is there for others when it is there as a whole. Raises OutputError."""
        beside = self.folder / f"{name}.{os.getpid()}"
        try:
            tensor.tofile(beside)
            beside.replace(self.folder / name)
        except OSError as e:
            raise OutputError(
                f"The weights take {tensor.nbytes / 1e6:,.0f} MB more than {self.folder.parent} has room for, "
                f"or it cannot be written: {e.strerror or e}."
            ) from e


def temporary_folder(beside: Path, owner: Any) -> tuple[Path, Callable[[], object]]:
    """A new folder, and what removes it: at the latest when its owner goes, or when this process is killed.

    beside: a file on whose disk it stands, where one may write there; else it is where temporary files are.
    """
    from joblib.externals.loky.backend import resource_tracker  # a process that outlives this one

    where = beside.absolute().parent
    folder = tempfile.mkdtemp(prefix=f".{beside.name}.", dir=where if os.access(where, os.W_OK) else None)
    resource_tracker.register(folder, "folder")
    return Path(folder), weakref.finalize(owner, _remove, folder)


def _remove(folder: str) -> None:
    from joblib.externals.loky.backend import resource_tracker

    shutil.rmtree(folder, ignore_errors=True)
    resource_tracker.unregister(folder, "folder")
