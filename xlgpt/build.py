"""xlgpt build: a checkpoint in, a workbook out."""

import gc
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xlgpt.checkpoint import load
from xlgpt.directions import Asked, features_of
from xlgpt.errors import UsageError
from xlgpt.package import check_target
from xlgpt.plan import Plan, make_plan
from xlgpt.precision import rounded
from xlgpt.template import optional_sheets
from xlgpt.workbook import Progress, Written, write_workbook


@dataclass(frozen=True)
class Built:
    """What a build made and what it took: seconds, and bytes of memory at the peak."""

    path: Path
    size: int
    cells: int
    formulas: int
    seconds: float
    peak_memory: int

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.size / 1e6:,.1f} MB, {self.cells:,} cells, {self.formulas:,} formulas, "
            f"{self.seconds:.1f} s, {self.peak_memory / 1e6:,.0f} MB of memory at the peak"
        )


def silent(phase: str, done: int, total: int) -> None:
    """Show no progress."""


def build(
    path: str | Path,
    model: str = "gpt2",
    prompt: str | None = None,
    context: int | None = None,
    max_bytes: int | None = None,
    generate: int | None = None,
    matmul: str = "auto",
    precision: int | None = None,
    seed: int = 0,
    sheets: str = "all",
    steering: str | Path | None = None,
    sae: str | Path | None = None,
    features: str | None = None,
    progress: Progress = silent,
) -> Built:
    """Compile a GPT-2 checkpoint into a workbook.

    model: gpt2, tiny, random:gpt2, random:n_layer=2,…, a folder in the Hub's layout, or an id on the Hub.
    prompt: what the model is to go on from. context: how many tokens there are rows for. max_bytes: how long a
    prompt the workbook can cut into tokens, 256 unless told (128 for a small model). generate: how many tokens it can
    write behind the prompt, 8 unless told (32 for a small model). matmul: how a matrix product becomes cells: mmult,
    sumproduct (faster in LibreOffice, more cells) or auto. precision: to how many significant digits weights are
    rounded; None writes each so that it reads back bit for bit. seed: of a random model.
    sheets: those that look inside the model, all, none, or some of their names with commas between.
    steering: a file of vectors (.npy, .npz or .safetensors) for the sheet Steering. sae: the folder of a sparse
    autoencoder (SAELens) for the sheet Features. features: their numbers, with commas between; by default those that
    are most active in the prompt.
    Raises a subclass of XlgptError, with a sentence that says what to do; then no file is left behind.
    """
    start = time.monotonic()
    check_target(Path(path))
    wanted = chosen_sheets(sheets)
    asked = Asked(Path(steering) if steering else None, Path(sae) if sae else None, features_of(features))
    _check_shown(wanted, asked)
    progress("Finding the model", 0, 1)
    found = rounded(load(model, seed), precision)
    with uncollected():
        plan = make_plan(found, prompt, context, max_bytes, generate, wanted, matmul, asked)
        if sheets != "all":
            _check_there(wanted, plan)
        written: Written = write_workbook(Path(path), plan, progress)
    return Built(written.path, written.size, written.cells, written.formulas, time.monotonic() - start, peak_memory())


def chosen_sheets(text: str) -> tuple[str, ...]:
    """The optional sheets that `all`, `none` or a list of names asks for, in their order. Raises UsageError."""
    known = optional_sheets()
    if text in ("all", "none"):
        return tuple(known) if text == "all" else ()
    asked = {name.strip() for name in text.split(",")}
    unknown = sorted(asked - known.keys())
    if unknown:
        raise UsageError(
            f"There is no sheet {unknown[0]!r} to choose; --sheets takes all, none, or {', '.join(known)}."
        )
    return tuple(name for name in known if name in asked)


def _check_shown(wanted: tuple[str, ...], asked: Asked) -> None:
    """Whether what is given has a sheet to stand on. Raises UsageError."""
    given = {"--steering": asked.steering, "--sae": asked.sae, "--features": asked.features}
    for option, value in given.items():
        sheet = "steering" if option == "--steering" else "features"
        if value and sheet not in wanted:
            raise UsageError(f"{option} needs the sheet {sheet!r}, which --sheets leaves out; name it there too.")


def _check_there(wanted: tuple[str, ...], plan: Plan) -> None:
    """Whether there is something to show on each sheet that was asked for by its name. Raises UsageError."""
    missing = next((name for name in wanted if name not in plan.layout.room.sheets), None)
    if missing:
        needed = {"steering": "vectors; name a file of them with --steering"}
        needed["features"] = "sparse autoencoder; name its folder with --sae"
        raise UsageError(f"The sheet {missing!r} would be empty: {plan.model.name} comes with no {needed[missing]}.")


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's search for cycles: a build makes millions of small objects, and no cycles to speak of."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def peak_memory() -> int:
    """The most memory this process and its largest helper on each core have held, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    here, helper = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (here + helper * (os.cpu_count() or 1)) * unit
