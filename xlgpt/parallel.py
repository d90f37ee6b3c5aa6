"""Where work runs: in processes on the cores here, by joblib, or on the workers of a Dask cluster, by Dask's client.

joblib has a backend for Dask as well. It waits for ever where a piece of work ends every worker that takes it (tried
with joblib 1.6.0 and distributed 2026.8), as one does that needs more memory than they have; the client says so.
"""

import math
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from threadpoolctl import threadpool_limits

from xlgpt.errors import ClusterNotInstalled, ClusterNotReached, FileNotShared, UsageError, WorkerDiffers, WorkerEnded

TIMEOUT = 5  # seconds a scheduler has to answer
SAMPLES, SAMPLE = 64, 4096  # of a file: blocks that tell it from another, and bytes in each

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Protocol):
    """What works: `str` says how many, and where. Work and items go to other processes, so they are to be small."""

    count: int

    def results(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Begin at once; gives what comes of each item, in their order."""

    def shared(
        self, work: Callable[[Item], Result], items: Iterable[Item], here: Callable[[Item], Result]
    ) -> Iterator[tuple[int, Result]]:
        """The number of each item and what came of it, as they are done; begun in their order.

        here: what this process does with an item, where it is one of those that work.
        """


@contextmanager
def workers(doing: str, jobs: int | None, cluster: str = "", files: Iterable[Path] = ()) -> Iterator[Workers]:
    """What works until the context ends; then no process is left behind, and nothing in a cluster's memory.

    doing: what they do, in the past. jobs: how many processes there are, with this one; one on each core unless told.
    cluster: the address of a Dask scheduler, tcp://…, whose workers take their place. files: what these are to find
    under the same path. A process has one thread for NumPy, so that its sums are the same however many there are.
    Raises ClusterNotInstalled, ClusterNotReached, WorkerDiffers; where a result is taken WorkerEnded, FileNotShared.
    """
    with threadpool_limits(1), _cluster(doing, cluster, files) if cluster else _processes(doing, jobs) as found:
        yield found


def check_jobs(jobs: int | None, cluster: str = "") -> None:
    """Raises UsageError where nothing could work."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: give 1 or more processes, or leave it out for one on each core.")
    if jobs is not None and cluster:
        raise UsageError("--jobs is for the cores here, and --cluster for others: give one of the two.")


def that_fit(size: int, most: float = math.inf) -> int:
    """How many processes of so many bytes there can be: one on each core, as far as the free memory goes.

    most: bytes that they may take together.
    """
    import psutil

    return max(1, min(os.cpu_count() or 1, int(min(psutil.virtual_memory().available, most) // size)))


def in_order(found: Workers, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """What comes of each item, in their order, by all that work, this process among them."""
    waiting: dict[int, Result] = {}
    following = 0
    for number, result in found.shared(work, items, work):
        waiting[number] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


_kept: dict[object, Any] = {}


def kept(key: object, make: Callable[[], Result]) -> Result:
    """What pieces of work share: made once in each process, and kept until another is asked for."""
    if key not in _kept:
        _kept.clear()
        _kept[key] = make()
    found: Result = _kept[key]
    return found


def forget() -> None:
    """Keep it no longer."""
    _kept.clear()


# On the cores here.


@contextmanager
def _processes(doing: str, jobs: int | None) -> Iterator["Processes"]:
    if jobs is None:
        from joblib import cpu_count  # here, since small models need none of it

        jobs = cpu_count()
    found = Processes(jobs, doing)
    try:
        yield found
    finally:
        found.end()


class Processes:
    """Processes on the cores here; of one, it is this."""

    def __init__(self, count: int, doing: str):
        self.count, self._doing = count, doing
        self._pool: Any = None

    def __str__(self) -> str:
        return "1 process" if self.count == 1 else f"{self.count} processes"

    def results(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Begin at once, or where there is but this process when one is asked for."""
        if self.count == 1:
            return map(work, items)
        left = deque(enumerate(items))
        count, going = len(left), self._begin(work, left, self.count, 2 * self.count)
        return (self._taken(going.get()[1]) for _ in range(count))

    def shared(
        self, work: Callable[[Item], Result], items: Iterable[Item], here: Callable[[Item], Result]
    ) -> Iterator[tuple[int, Result]]:
        """Each of the processes, this one among them, takes the next item when it is done with one."""
        left = deque(enumerate(items))
        away, going = len(left), self._begin(work, left, self.count - 1, min(self.count, len(left)) - 1)
        with suppress(IndexError):
            while True:
                number, item = left.popleft()
                away -= 1
                yield number, here(item)
        for _ in range(away):
            number, future = going.get()
            yield number, self._taken(future)

    def _begin(
        self, work: Callable[[Item], Result], left: deque[tuple[int, Item]], processes: int, most: int
    ) -> SimpleQueue[tuple[int, Any]]:
        """Have others do what is left, from its beginning; so many at a time, for loky stumbles over more that wait.

        Gives the number of each and what will come of it, in the order in which they were taken.
        """
        going: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        one_by_one = threading.Lock()

        def take_one(_: object = None) -> None:
            with one_by_one:
                try:
                    number, item = left.popleft()
                    future = self._submit(work, item, processes)
                except IndexError:  # none is left
                    return
                except RuntimeError as e:  # they were ended meanwhile: this says so, and no other is taken
                    future = Future()
                    future.set_exception(e)
                    going.put((number, future))
                    return
                going.put((number, future))
            future.add_done_callback(take_one)

        for _ in range(most):
            take_one()
        return going

    def _submit(self, work: Callable[[Any], Any], item: object, processes: int) -> Any:
        with _uninterrupted():
            if self._pool is None:
                from joblib.externals.loky import ProcessPoolExecutor

                self._pool = ProcessPoolExecutor(processes, initializer=prepare)
            return self._pool.submit(run_there, work, item)

    def _taken(self, future: Any) -> Any:
        try:
            return future.result()
        except BrokenExecutor as e:
            raise WorkerEnded(f"A process that {self._doing} was ended; give it more memory, or fewer --jobs.") from e

    def end(self) -> None:
        """End them, whatever they do."""
        if self._pool is not None:
            self._pool.shutdown(kill_workers=True)


HERE: Workers = Processes(1, "worked")  # this process alone


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
    """What a process does first: leave Ctrl-C to the one that started it, let that go first, and end with it.

    That one has work that nobody else can do; a build takes a fifth less time so.
    """
    import psutil
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf  # what it keeps for its next piece of work is no leak
    here, above = psutil.Process(), psutil.Process(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    here.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if psutil.WINDOWS else max(here.nice(), 5))
    threading.Thread(target=_end_with, args=(above.wait,), daemon=True).start()


def _end_with(wait: Callable[[], object]) -> None:
    wait()
    os._exit(1)


# On a cluster.


@dataclass(frozen=True)
class File:
    """A file that this process sees under a path, and what tells it from others: its size, and blocks of it."""

    path: Path
    sample: bytes

    def check(self) -> None:
        """Raises FileNotShared where this process sees another, or none."""
        there = _sample(self.path)
        if there != self.sample:
            from distributed import get_worker

            what = "is not the same file on" if there else "is not to be seen by"
            raise FileNotShared(
                f"{self.path} {what} the worker {get_worker().address}: all workers must read it under that path, "
                "so keep it in a folder that they share."
            )


def _sample(path: Path) -> bytes:
    """Of a file of safetensors or a zip archive, it differs where any number does, for all practical purposes."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            found = blake2b(str(size).encode(), digest_size=16)
            for i in range(SAMPLES):
                file.seek(max(0, size - SAMPLE) * i // (SAMPLES - 1))
                found.update(file.read(SAMPLE))
    except OSError:
        return b""
    return found.digest()


@contextmanager
def _cluster(doing: str, address: str, files: Iterable[Path]) -> Iterator["Cluster"]:
    try:
        from distributed import Client
    except ImportError as e:
        raise ClusterNotInstalled("--cluster needs Dask, which is not installed: pip install 'xlgpt[cluster]'.") from e
    try:
        client: Any = Client(address, timeout=TIMEOUT, set_as_default=False, direct_to_workers=True)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as e:
        raise ClusterNotReached(
            f"No Dask scheduler answers at {address}; start one with `dask scheduler`, and give the address it says."
        ) from e
    with client:
        count = len(client.nthreads())
        if not count:
            raise ClusterNotReached(
                f"The scheduler at {address} has no worker; start some: `dask worker {address} --nthreads 1`."
            )
        _check_versions(client)
        found = Cluster(client, address, count, doing, tuple(File(path, _sample(path)) for path in files))
        try:
            yield found
        finally:
            found.end()


def _check_versions(client: Any) -> None:
    """Whether the scheduler, which looks into what it hands on, and every worker have this xlgpt."""
    ours, there = own_version(), client.run(own_version, on_error="return")
    try:
        scheduler = client.run_on_scheduler(own_version)
    except Exception:  # whatever may come of a function that is not there
        scheduler = None
    found = {"scheduler": scheduler, **{f"worker {address}": theirs for address, theirs in there.items()}}
    other = next((where for where, theirs in found.items() if theirs != ours), None)
    if other:
        raise WorkerDiffers(
            f"The {other} has another xlgpt than this one, or none: install the same everywhere, and start it again."
        )


@cache
def own_version() -> str:
    """What tells the program in this process from another that might calculate something else: a sum over its text."""
    found = blake2b(digest_size=16)
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()


class Cluster:
    """The workers of a Dask scheduler: each a process that takes one piece of work at a time.

    A worker that dies is Dask's to replace: what it had is done again by another.
    """

    def __init__(self, client: Any, address: str, count: int, doing: str, files: tuple[File, ...]):
        self._client, self._address, self.count, self._doing, self._files = client, address, count, doing, files
        self._going: deque[Any] = deque()

    def __str__(self) -> str:
        return f"{self.count} worker{'s' * (self.count > 1)} of {self._address}"

    def results(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Begin at once. What nobody has taken yet stays with the worker that made it, on its disk where it is much."""
        self._going = deque(
            self._client.submit(run_there, work, item, self._files, pure=False, priority=-number)
            for number, item in enumerate(items)
        )
        return (self._taken(self._going.popleft()) for _ in range(len(self._going)))

    def shared(
        self, work: Callable[[Item], Result], items: Iterable[Item], here: Callable[[Item], Result]
    ) -> Iterator[tuple[int, Result]]:
        """All by the workers."""
        return enumerate(self.results(work, items))

    def _taken(self, future: Any) -> Any:
        from distributed import KilledWorker
        from distributed.comm.core import CommClosedError

        try:
            return future.result()
        except KilledWorker as e:
            raise WorkerEnded(
                f"Workers that {self._doing} were ended, one after the other; give them more memory."
            ) from e
        except (CancelledError, CommClosedError) as e:
            raise ClusterNotReached(f"The scheduler at {self._address} was lost; nothing was finished.") from e

    def end(self) -> None:
        """Give up what is not done, and let the workers keep nothing."""
        with suppress(Exception):  # the cluster may be gone
            self._client.cancel(list(self._going))
            self._client.run(forget, on_error="ignore")


_alone = threading.Lock()


def run_there(work: Callable[[Item], Result], item: Item, files: Sequence[File] = ()) -> Result:
    """What another process does with an item. Raises FileNotShared, and what the work raises."""
    with _alone, threadpool_limits(1):
        for file in files:
            file.check()
        return work(item)
