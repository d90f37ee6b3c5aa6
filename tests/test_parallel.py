"""Work in other processes and on a Dask cluster of two: the same results, little that travels, sentences that help."""

import math
import os
import pickle
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from operator import truediv
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import psutil
import pytest
from conftest import run_xlgpt, write_checkpoint

import xlgpt
from xlgpt import parallel
from xlgpt.errors import (
    ClusterNotInstalled,
    ClusterNotReached,
    FileNotShared,
    UsageError,
    WorkerDiffers,
    WorkerEnded,
)
from xlgpt.interp import rome
from xlgpt.interp.circuit import asked, case, find_circuit
from xlgpt.model import checkpoint
from xlgpt.model.checkpoint import TINY, Safetensors, in_memory, load
from xlgpt.model.notation import BINARY
from xlgpt.model.precision import rounded
from xlgpt.parallel import Workers, workers
from xlgpt.verify.cases import usual
from xlgpt.verify.check import _little, _Task
from xlgpt.verify.check_weights import Source
from xlgpt.workbook import weightsheet
from xlgpt.workbook.book import Book
from xlgpt.workbook.file_formats import Xlsx
from xlgpt.workbook.options import Options
from xlgpt.workbook.plan import make_plan
from xlgpt.workbook.write import _tensors
from xlgpt.xlsx.package import Packed

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'xlgpt[cluster]'")

LARGE = "random:n_layer=2,n_embd=512,vocab_size=1280"  # enough weights for others to pack them
SMALL = 100_000  # bytes


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as found:
        yield found


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workbook that is soon checked."""
    folder = tmp_path_factory.mktemp("small")
    model = write_checkpoint(folder / "model", n_layer=1)
    xlgpt.build(folder / "book.xlsx", str(model), "hello world", context=6, max_bytes=16, generate=3)
    return folder / "book.xlsx"


def parts(path: Path) -> list[tuple[str, int, int]]:
    """Each part's name, sum and size, but of the one that says when it was made."""
    with zipfile.ZipFile(path) as book:
        entries = [entry for entry in book.infolist() if entry.filename != "docProps/core.xml"]
        return [(entry.filename, entry.CRC, entry.compress_size) for entry in entries]


def untimed(report: object) -> object:
    """What a report says, but for what differs from run to run."""
    if isinstance(report, dict):
        differs = ("seconds", "peak_memory", "calculated_by")
        return {key: untimed(value) for key, value in report.items() if key not in differs}
    return [untimed(one) for one in report] if isinstance(report, list | tuple) else report


# Processes here


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_every_item_is_done_once_and_in_order(count: int) -> None:
    items = list(range(1, 40))
    with workers("counted", count) as found:
        assert list(found.results(math.sqrt, items)) == [math.sqrt(i) for i in items]
        for _ in range(2):
            shared = dict(found.shared(math.sqrt, items, math.sqrt))
            assert shared == {number: math.sqrt(i) for number, i in enumerate(items)}
        assert list(found.shared(math.sqrt, [], math.sqrt)) == []
        assert str(found) == ("1 process" if count == 1 else f"{count} processes")


@pytest.mark.slow
def test_the_longest_wait_is_one_item() -> None:
    """This process and the other take the next when they are done, so a long one holds up none."""
    with workers("slept", 2) as found:
        dict(found.shared(time.sleep, [0, 0], time.sleep))  # the other has started
        began = time.monotonic()
        dict(found.shared(time.sleep, [1, *[0.1] * 10], time.sleep))
        assert time.monotonic() - began < 1.9  # one after the other it would be 2


@pytest.mark.slow
def test_what_fails_there_fails_here_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), workers("divided", 2) as found:
        list(found.results(_inverse, [2, 0]))
    sentence = r"A process that ended was ended; give it more memory, or fewer --jobs\."
    with pytest.raises(WorkerEnded, match=sentence), workers("ended", 2) as found:
        list(found.results(os._exit, [1, 1, 1]))
    assert not [child for child in psutil.Process().children() if "popen_loky" in " ".join(child.cmdline())]


@pytest.mark.slow
def test_a_process_may_keep_much() -> None:
    """loky takes what is kept for a leak, and would end the process."""
    with workers("kept", 2) as found:
        pids = {pid for _ in range(3) for pid in found.results(_keep_more, [150_000_000] * 4)}
    assert len(pids) == 2


_much: list[bytes] = []


def _keep_more(size: int) -> int:
    _much.append(b"1" * size)
    time.sleep(0.4)
    return os.getpid()


def _inverse(number: float) -> float:
    return truediv(1, number)


def test_where_it_is_to_run_is_said_once() -> None:
    with pytest.raises(UsageError, match="--jobs 0: give 1 or more"):
        Options("tiny", jobs=0)
    with pytest.raises(UsageError, match="give one of the two"):
        Options("tiny", jobs=2, cluster="tcp://127.0.0.1:1")


def test_what_is_kept_is_kept_for_one() -> None:
    made: list[str] = []

    def make() -> str:
        made.append("")
        return str(len(made))

    assert [parallel.kept(key, make) for key in "aabba"] == ["1", "1", "2", "2", "3"]
    parallel.forget()


# What travels


def test_a_task_is_small(tiny_book: Path) -> None:
    """Whatever the model's size: no tensor, no vocabulary and no cell is in it."""
    plan = make_plan(replace(load("random:gpt2-xl"), precision=2), Options("", "Hello"), BINARY)
    tensors = [tensor for tensors in _tensors(plan, Xlsx.number_rows(plan)).values() for tensor in tensors]
    assert len(tensors) == 580
    entries = {t.name: (TINY / "model.safetensors", t.name, (t.height, t.width)) for t in tensors}
    stored = [replace(tensor, weights=Safetensors(entries)) for tensor in tensors]
    book = Book(tiny_book)
    book.weights.tensor("wte.weight")
    prompts = tuple(case(f"If today is {day}, tomorrow is", " Monday", book.model) for day in ("Sunday", "Monday"))
    task = _Task(book.path, None, Source("tiny", stored[0].weights), None, "")
    tasks: list[object] = [*tensors, *stored, asked(book.model, prompts, "mean")]
    tasks += [(task.weights, name) for name in book.weights.sheets]
    tasks += [(task.tried, [_little(case, book) for case in group]) for group in usual(book, False)]
    assert max(len(pickle.dumps(one)) for one in tasks) < SMALL


def test_packed_rows_come_back_as_a_file_or_as_bytes(tmp_path: Path) -> None:
    plan = make_plan(load("tiny"), Options("tiny"))
    tensor = next(iter(_tensors(plan, Xlsx.number_rows(plan)).values()))[0]
    file, held = (weightsheet.pack(folder, (0, tensor)) for folder in (tmp_path, tmp_path / "not there"))
    assert isinstance(file.held, Path)
    assert held == Packed(file.held.read_bytes(), file.sums)


@pytest.mark.parametrize("name", ["random:n_embd=64", "tiny", "rounded"])
def test_stretches_of_a_tensor_are_its_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "PIECE", 1000)  # and so 8,000 numbers are a stretch
    model = rounded(load("tiny"), 2) if name == "rounded" else load(name)
    plan = make_plan(model, Options(""))
    tensors = [tensor for tensors in _tensors(plan, Xlsx.number_rows(plan)).values() for tensor in tensors]
    assert max(len(tensor.stretches()) for tensor in tensors) > 10
    for tensor in tensors:
        stretches = tensor.stretches()
        assert max(stretch.size for stretch in stretches) <= 8000
        assert [row for stretch in stretches for row in stretch.rows()] == list(tensor.rows())
        assert b"".join(tensor.rows()).count(b"<c") == tensor.size


@pytest.mark.slow
def test_stretches_of_a_tensor_make_the_same_file(tmp_path: Path) -> None:
    """With a wpe of more than one, all of which is there."""
    model = "random:n_layer=1,n_embd=160,n_positions=60000"
    for jobs in (1, 2):
        xlgpt.build(tmp_path / f"{jobs}.xlsb", model, context=4, max_bytes=16, generate=1, sheets="none", jobs=jobs)
    assert parts(tmp_path / "1.xlsb") == parts(tmp_path / "2.xlsb")
    held = Book(tmp_path / "1.xlsb").weights.tensor("wpe.weight")
    assert np.array_equal(held, load(model).weights.tensor("wpe.weight"))


# A cluster


@pytest.mark.slow
@pytest.mark.parametrize("is_shared", [True, False])
def test_a_cluster_builds_the_same_file(
    is_shared: bool, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not the workers see the folder that it is built in."""
    if not is_shared:
        monkeypatch.setattr("xlgpt.workbook.write.packing", _unseen)
    here, there = tmp_path / "here.xlsx", tmp_path / "there.xlsx"
    options: dict[str, Any] = {"context": 4, "sheets": "none"}
    assert " on 1 process, " in str(xlgpt.build(here, LARGE, jobs=1, **options))
    built = xlgpt.build(there, LARGE, cluster=cluster.scheduler_address, **options)
    assert f" on 2 workers of {cluster.scheduler_address}, " in str(built)
    assert parts(here) == parts(there)


def _unseen(
    tensors: list[weightsheet.Tensor], folder: Path, found: Workers
) -> Callable[[weightsheet.Tensor], Iterator[Packed]]:
    return weightsheet.packing(tensors, folder / "nowhere", found)


@pytest.mark.slow
def test_a_cluster_reads_a_checkpoint_from_its_path(
    cluster: Any, tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    """A relative one too, though the workers stand elsewhere."""
    folder = os.path.relpath(make_checkpoint(None, "wide", n_embd=512, n_head=8))
    for name, more in {"here.xlsb": {"jobs": 2}, "there.xlsb": {"cluster": cluster.scheduler_address}}.items():
        xlgpt.build(tmp_path / name, folder, context=4, max_bytes=16, generate=1, sheets="none", precision=4, **more)
    assert parts(tmp_path / "here.xlsb") == parts(tmp_path / "there.xlsb")


@pytest.mark.slow
def test_a_check_finds_the_same_wherever_it_runs(cluster: Any, book: Path, tmp_path: Path) -> None:
    """A value that was saved and is not what the formula shows, too, which only the file's own prompt betrays."""
    path = tmp_path / "stale.xlsx"
    cell = Book(book).named("n_tokens")
    with zipfile.ZipFile(book) as good, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stale:
        for part in good.namelist():
            text = good.read(part)
            if part == Book(book).part(cell.sheet):
                place = cell.first.replace("$", "").encode()
                before, found, behind = text.partition(b'<c r="%b"' % place)
                assert found
                text = before + found + behind.replace(b"<v>2</v>", b"<v>3</v>", 1)
            stale.writestr(part, text)
    given: list[dict[str, Any]] = [{"jobs": 1}, {"jobs": 3}, {"cluster": cluster.scheduler_address}]
    reports = [xlgpt.check(path, **one) for one in given]
    assert [band.name for _, band in reports[0].problems()] == ["n_tokens"]
    first, *others = (untimed(report.as_dict()) for report in reports)
    assert all(other == first for other in others)
    ran = ["1 process", "3 processes", f"2 workers of {cluster.scheduler_address}"]
    assert [report.calculated_by for report in reports] == ran
    assert all(f" s on {on}, " in list(report.sentences())[-1] for on, report in zip(ran, reports, strict=True))


@pytest.mark.slow
def test_a_circuit_is_the_same_wherever_it_is_sought(cluster: Any, tiny_book: Path) -> None:
    model = Book(tiny_book).model
    days = [("Monday", " Tuesday"), ("Friday", " Saturday")]
    prompts = tuple(case(f"If today is {day}, tomorrow is", target, model) for day, target in days)
    given: list[dict[str, Any]] = [{"jobs": 1}, {"jobs": 3}, {"cluster": cluster.scheduler_address}]
    found = [find_circuit(model, prompts, "mean", **one) for one in given]
    assert found[0].as_dict() == found[1].as_dict() == found[2].as_dict()
    assert [np.array_equal(one.margins, found[0].margins) for one in found] == [True] * 3
    assert str(found[1]).endswith(" sets were tried on 3 processes.")


@pytest.mark.slow
def test_an_edit_is_the_same_wherever_the_model_runs(cluster: Any, tmp_path: Path) -> None:
    """What is added up is added in one order, whoever is done first."""
    fact = ("tiny", "{} plays the sport of", "Michael Jordan", " soccer")
    given: list[dict[str, Any]] = [{"jobs": 1}, {"jobs": 3}, {"cluster": cluster.scheduler_address}]
    made = [xlgpt.edit(*fact, out=tmp_path / str(i), **one) for i, one in enumerate(given)]
    files = [(one.path / "adapter_model.safetensors").read_bytes() for one in made]
    assert files[0] == files[1] == files[2]
    assert made[0].shares == made[1].shares == made[2].shares
    assert [share.prompts > 1 for share in made[0].shares] == [True] * 3
    ran = ["1 process", "3 processes", f"2 workers of {cluster.scheduler_address}"]
    assert [str(one).splitlines()[-1] for one in made] == [f"The model ran on {on}." for on in ran]


def test_a_piece_of_an_edit_is_small() -> None:
    """The weights stay where they are, read or not, and whoever gets several pieces reads them once."""
    model = in_memory(load("random:gpt2"))
    model.weights.tensor("wpe.weight")
    piece = pickle.dumps(partial(rome.states, model.weights, model.config, "blocks.0.mlp.post"))
    assert len(piece) < SMALL
    first, second = (pickle.loads(piece).args[0] for _ in range(2))
    assert first is second
    parallel.forget()


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(book: Path) -> None:
    """In the middle of a check, which then ends with the same report."""
    prompts = ("hello", "world", "the", "well")
    whole = xlgpt.check(book, prompts=prompts, jobs=1)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        killed: list[int] = []

        def kill() -> None:
            with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
                while not any(tasks for tasks in client.processing().values()):
                    time.sleep(0.05)
                time.sleep(0.2)
                busy = next(worker for worker, tasks in client.processing().items() if tasks)
                killed.append(client.run(os.getpid, workers=[busy])[busy])
                psutil.Process(killed[0]).kill()

        killing = threading.Thread(target=kill)
        killing.start()
        report = xlgpt.check(book, prompts=prompts, cluster=cluster.scheduler_address)
        killing.join()
        with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            assert killed[0] not in client.run(os.getpid).values()
    assert untimed(report.as_dict()) == untimed(whole.as_dict())


@pytest.mark.slow
def test_work_that_ends_every_worker_ends_in_a_sentence(cluster: Any) -> None:
    """As work does that takes more memory than a worker may have: Dask tries it four times."""
    with (
        pytest.raises(
            WorkerEnded, match=r"Workers that ended were ended, one after the other; give them more memory\."
        ),
        workers("ended", None, cluster.scheduler_address) as found,
    ):
        list(found.results(os._exit, [1]))
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)  # others need them


@pytest.mark.slow
def test_a_worker_reads_a_changed_file_again(cluster: Any, book: Path, tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(book.read_bytes())
    asked_: dict[str, Any] = {"prompts": ("hello", "world"), "cluster": cluster.scheduler_address}
    assert xlgpt.check(path, **asked_).passed
    broken, cell = openpyxl.load_workbook(path), Book(path).named("next_token")
    broken[cell.sheet][cell.first] = '="Sunday"'
    broken.save(path)
    report = xlgpt.check(path, **asked_, allow_changed=True)
    assert ("Argmax", "next_token") in [(sheet, band.name) for sheet, band in report.problems()]


@pytest.mark.slow
def test_a_worker_must_see_the_same_file(cluster: Any, tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(bytes(100_000))
    address = cluster.scheduler_address
    with workers("read", None, address, [path]) as found:
        assert list(found.results(abs, [-1])) == [1]
        path.write_bytes(bytes(99_999) + b"1")
        with pytest.raises(FileNotShared, match=r"book.xlsx is not the same file on the worker tcp://.* they share\."):
            list(found.results(abs, [-1]))
        path.unlink()
        with pytest.raises(FileNotShared, match=r"book.xlsx is not to be seen by the worker tcp://.* they share\."):
            list(found.results(abs, [-1]))


# A cluster that is not to be had


def entered(address: str) -> None:
    with workers("worked", None, address):
        pass


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:9", "nonsense", "nonsense://x:1", "tcp://no-such-host.invalid:8786"]
)
def test_a_scheduler_that_does_not_answer(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "TIMEOUT", 0.5)
    with pytest.raises(ClusterNotReached, match=f"No Dask scheduler answers at {address}; start one with"):
        entered(address)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["build", "check", "circuit", "edit"])
def test_the_command_line_says_it_in_a_sentence(command: str, tiny_book: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("The cow says\t moo\n", encoding="utf-8")
    fact = ("--model", "tiny", "--prompt", "{} plays", "--subject", "Michael Jordan", "--target", " soccer")
    given: dict[str, tuple[Any, ...]] = {
        "build": (tmp_path / "new.xlsx", "--model", LARGE),
        "check": (tiny_book,),
        "circuit": (tiny_book, "--prompts", tmp_path / "prompts.txt"),
        "edit": (*fact, "--out", tmp_path / "new"),
    }
    done = run_xlgpt(command, *given[command], "--cluster", "tcp://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("xlgpt: No Dask scheduler answers at tcp://127.0.0.1:9; start one with `dask sched")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_a_scheduler_without_workers() -> None:
    sentence = "has no worker; start some: `dask worker"
    empty = distributed.LocalCluster(n_workers=0, dashboard_address=":0", processes=False)
    with empty, pytest.raises(ClusterNotReached, match=sentence):
        entered(empty.scheduler_address)


@pytest.mark.slow
def test_a_worker_with_another_program(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "own_version", _other_version)
    with pytest.raises(WorkerDiffers, match="has another xlgpt than this one, or none"):
        entered(cluster.scheduler_address)


def _other_version() -> str:
    return str(os.getpid())


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterNotInstalled, match=r"pip install 'xlgpt\[cluster\]'"):
        entered("tcp://127.0.0.1:9")


def test_only_python_is_spread(tiny_book: Path) -> None:
    with pytest.raises(UsageError, match="--cluster spreads what is calculated in Python"):
        xlgpt.check(tiny_book, engine="libreoffice", cluster="tcp://127.0.0.1:9")
