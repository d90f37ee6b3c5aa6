"""The most memory held at once by this process and by all that it started, and what those started in turn.

Summed is the resident set of each: what stands in physical memory, as every system tells it at no cost (on Windows the
working set). Pages that processes share, such as the code of libraries, count once for each of them, so the sum is
somewhat above what the machine gave; the set that is a process's own would have to be counted page by page.
"""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

INTERVAL = 0.1  # seconds between two looks
SHARE = 0.01  # of a core, at most, for finding the processes: systems list them slowly


@dataclass
class Peak:
    """The most bytes seen so far."""

    bytes: int = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Look 10 times a second, and once more at the end, for as long as the context lasts."""
    peak, ended = Peak(), threading.Event()
    watching = threading.Thread(target=_watch, args=(peak, ended), name="peak memory", daemon=True)
    watching.start()
    try:
        yield peak
    finally:
        ended.set()
        watching.join()


def _watch(peak: Peak, ended: threading.Event) -> None:
    import psutil  # here, since it takes a tenth of `import xlgpt`

    here, next_search = psutil.Process(), 0.0
    family = [here]
    while True:
        over, held = ended.is_set(), 0
        for process in family:
            with suppress(psutil.Error):  # it has just ended, or belongs to another user
                held += process.memory_info().rss
        peak.bytes = max(peak.bytes, held)
        if over:
            return
        if (
            time.monotonic() >= next_search
        ):  # after the look: until it runs its own program, a child is this process' twin
            began = time.thread_time()
            family = [here, *here.children(recursive=True)]
            next_search = time.monotonic() + (time.thread_time() - began) / SHARE
        ended.wait(INTERVAL)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's search for cycles: there are millions of small objects, and no cycles to speak of."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
