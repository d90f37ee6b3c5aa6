"""How build, check and circuit grow with the number of blocks, and with the number of workers of a Dask cluster here.

    python bench/growth.py --width 768 [--heads 12] [--vocabulary 50257] [--blocks 2,4,8,12,24,48]
    python bench/growth.py --width 768 --blocks 12 --workers 1,2 [--simulated 4,16,64]

Each measurement runs in a process of its own. Prints Markdown tables: time and memory beside the parameters, with the
straight line through them; then, with --workers, the time by so many workers, and what more of them would take: that is
a simulation, which gives the times that one worker's tasks took to so many, and adds what this process did alone.
"""

import argparse
import heapq
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

VERBS = ("build", "check", "circuit")
PROMPT = "If today is Tuesday, tomorrow is"


def size(blocks: int, options: argparse.Namespace) -> str:
    given = {"n_layer": blocks, "n_embd": options.width, "n_head": options.heads, "vocab_size": options.vocabulary}
    return "random:" + ",".join(f"{key}={value}" for key, value in given.items())


def do(verb: str, path: Path, model: str, **where: Any) -> None:
    """One of the three, as a user has it; the circuit keeps what the model says, for a random one knows no answer."""
    import xlgpt
    from xlgpt.interp.circuit import Case, find_circuit
    from xlgpt.model import reference
    from xlgpt.model.checkpoint import load

    if verb == "build":
        xlgpt.build(path, model, PROMPT, context=16, **where)
    elif verb == "check":
        assert xlgpt.check(path, **where).passed
    else:
        found = load(model)
        ids = tuple(found.tokenizer.encode(PROMPT))
        target = int(reference.forward(list(ids), found.weights, found.config)["logits"][-1].argmax())
        find_circuit(found, (Case(PROMPT, ids, target, ""),), "zero", **where)


def measured(verb: str, path: Path, model: str, workers: int) -> dict[str, Any]:
    """Seconds and bytes of one verb in this process; with workers the seconds of each round of tasks, too."""
    from xlgpt.memory import peak_memory

    found: dict[str, Any] = {}
    with peak_memory() as peak:
        if workers:
            found["seconds"], found["rounds"] = on_workers(
                workers, lambda address: do(verb, path, model, cluster=address)
            )
        else:
            began = time.monotonic()
            do(verb, path, model, jobs=1)
            found["seconds"] = time.monotonic() - began
    return found | {"memory": peak.bytes}


def on_workers(count: int, work: Callable[[str], None]) -> tuple[float, list[list[float]]]:
    """Seconds that it took, and those of each task, by the rounds in which they were handed out."""
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster.scheduler_address, set_as_default=False) as client, counted() as counts:
        client.get_task_stream()  # it begins to be kept
        began = time.monotonic()
        work(cluster.scheduler_address)
        seconds = time.monotonic() - began
        stream = [task for task in client.get_task_stream() if task["key"].startswith("run_there")]
    times = [computed(task["startstops"]) for task in stream]
    ends = np.cumsum(counts)
    return seconds, [times[end - length : end] for end, length in zip(ends, counts, strict=True)]


def computed(parts: list[dict[str, Any]]) -> float:
    """Seconds of a task, without those in which it travelled."""
    return sum(part["stop"] - part["start"] for part in parts if part["action"] == "compute")


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many tasks each round has."""
    from xlgpt.parallel import Cluster

    counts: list[int] = []
    results = Cluster.results

    def counting(self: Cluster, work: Any, items: Any) -> Any:
        items = list(items)
        counts.append(len(items))
        return results(self, work, items)

    Cluster.results = counting  # type: ignore[method-assign]
    yield counts
    Cluster.results = results  # type: ignore[method-assign]


def simulated(seconds: float, rounds: list[list[float]], count: int) -> float:
    """What it would take: each task goes to the worker that is free first, and one round waits for the other."""
    alone = seconds - sum(map(sum, rounds))
    return alone + sum(replayed(times, count) for times in rounds)


def replayed(times: list[float], count: int) -> float:
    free = [0.0] * count
    for each in times:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def here(*arguments: object) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def growth(options: argparse.Namespace, folder: Path, shared: list[object]) -> None:
    from xlgpt.model.checkpoint import load

    print("| blocks | parameters | file, MB |" + "".join(f" {verb}, s | {verb}, MB |" for verb in options.verbs))
    print("| ---: | ---: | ---: |" + " ---: | ---: |" * len(options.verbs))
    parameters, found = [], []
    for blocks in options.blocks:
        path = folder / f"{blocks}.xlsx"
        row = [here(*shared, "--here", verb, "--book", path, "--blocks", blocks) for verb in options.verbs]
        parameters.append(load(size(blocks, options)).parameters)
        found.append([number for each in row for number in (each["seconds"], each["memory"] / 1e6)])
        numbers = "".join(f" {each['seconds']:.1f} | {each['memory'] / 1e6:,.0f} |" for each in row)
        print(f"| {blocks} | {parameters[-1]:,} | {path.stat().st_size / 1e6:.1f} |{numbers}", flush=True)
    if len(parameters) > 2:
        lines(np.array(parameters) / 1e6, np.array(found), options.verbs)


def lines(millions: Any, found: Any, verbs: list[str]) -> None:
    """The straight line through each column, and how much of its spread that leaves over."""
    print("\n| | at 0 | for a million parameters | R² |\n| --- | ---: | ---: | ---: |")
    names = (f"{verb}, {unit}" for verb in verbs for unit in ("s", "MB"))
    for name, column in zip(names, found.T, strict=True):
        slope, at_zero = np.polyfit(millions, column, 1)
        left = ((column - slope * millions - at_zero) ** 2).sum() / max(((column - column.mean()) ** 2).sum(), 1e-12)
        print(f"| {name} | {at_zero:.2f} | {slope:.3f} | {1 - left:.4f} |")


def scaling(options: argparse.Namespace, folder: Path, shared: list[object]) -> None:
    blocks = options.blocks[-1]
    print(f"\n{blocks} blocks:\n\n| | workers | seconds | speed-up | ideal |\n| --- | ---: | ---: | ---: | ---: |")
    for verb in options.verbs:
        given = [*shared, "--here", verb, "--book", folder / f"{blocks}.xlsx", "--blocks", blocks]
        runs = {count: here(*given, "--workers", count) for count in options.workers}
        first = runs[options.workers[0]]
        base = first["seconds"] * options.workers[0]
        for count, run in runs.items():
            print(f"| {verb} | {count} | {run['seconds']:.1f} | {base / run['seconds']:.2f} | {count} |", flush=True)
        for count in options.simulated:
            seconds = simulated(first["seconds"], first["rounds"], count)
            print(f"| {verb}, a simulation | {count} | {seconds:.1f} | {base / seconds:.2f} | {count} |", flush=True)


def counts_of(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--heads", type=int, default=0, help="of 64 numbers each, unless told")
    parser.add_argument("--vocabulary", type=int, default=1280)
    parser.add_argument("--blocks", type=counts_of, default=[2, 4, 8, 12, 24, 48])
    parser.add_argument("--workers", type=counts_of, default=[], help="first so many, for the simulation too")
    parser.add_argument("--simulated", type=counts_of, default=[4, 16, 64])
    parser.add_argument("--verbs", type=lambda text: text.split(","), default=list(VERBS))
    parser.add_argument("--here", choices=VERBS, help="do this one in this process, and print JSON")
    parser.add_argument("--book", type=Path)
    options = parser.parse_args()
    options.heads = options.heads or max(1, options.width // 64)
    if options.here:
        workers = options.workers[0] if options.workers else 0
        print(json.dumps(measured(options.here, options.book, size(options.blocks[0], options), workers)))
        return
    shared: list[object] = ["--width", options.width, "--heads", options.heads, "--vocabulary", options.vocabulary]
    with tempfile.TemporaryDirectory() as folder:
        growth(options, Path(folder), shared)
        if options.workers:
            scaling(options, Path(folder), shared)


if __name__ == "__main__":
    main()
