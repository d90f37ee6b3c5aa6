"""The memory of a build or a check, held against processes that allocate what we know."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import xlgpt
from xlgpt.memory import peak_memory

SIZE = 200_000_000
HOLD = f"import time; held = b'x' * {SIZE}; time.sleep(1.5)"
HAND_ON = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
INTERPRETER = 40_000_000  # at most


def peak_of(*codes: str) -> int:
    """How much more than this process is seen while others run at the same time."""
    with peak_memory() as alone:
        pass
    with peak_memory() as peak:
        running = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
        for process in running:
            process.wait()
    return peak.bytes - alone.bytes


@pytest.mark.parametrize(("codes", "count"), [([HOLD], 1), ([HOLD, HOLD], 2), ([HAND_ON], 1)])
def test_what_was_started_counts_and_adds_up(codes: list[str], count: int) -> None:
    assert count * SIZE <= peak_of(*codes) < count * (SIZE + 2 * INTERPRETER)


def test_what_this_process_held_for_a_moment_counts() -> None:
    with peak_memory() as alone:
        pass
    with peak_memory() as peak:
        held = b"x" * SIZE
        time.sleep(0.3)
        del held
    assert peak.bytes - alone.bytes >= 0.95 * SIZE


def test_a_process_that_ends_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    look = psutil.Process.memory_info

    def gone(process: psutil.Process) -> object:
        if process.pid != psutil.Process().pid:
            raise psutil.NoSuchProcess(process.pid)
        return look(process)

    monkeypatch.setattr(psutil.Process, "memory_info", gone)
    assert peak_of(HOLD) < SIZE / 2


@pytest.mark.slow
@pytest.mark.libreoffice
def test_libreoffice_counts_in_a_check(tiny_book: Path) -> None:
    """LibreOffice alone takes more than 100 MB, whatever this process takes."""
    with peak_memory() as alone:
        pass
    report = xlgpt.check(tiny_book, engine="libreoffice", prompts=("Mike",))
    assert report.peak_memory > alone.bytes + 100_000_000
