"""xlgpt build: a checkpoint in, a workbook out."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlgpt.errors import UsageError
from xlgpt.memory import peak_memory, uncollected
from xlgpt.model.checkpoint import load, summed
from xlgpt.model.notation import BINARY, DECIMAL
from xlgpt.model.precision import rounded
from xlgpt.progress import Progress, silent
from xlgpt.workbook.options import Options
from xlgpt.workbook.plan import Plan, make_plan
from xlgpt.workbook.write import Written, write_workbook
from xlgpt.xlsx.package import check_target, is_xlsb


@dataclass(frozen=True)
class Built:
    """What a build made and what it took: seconds, bytes of memory at the peak here, and what packed the weights."""

    path: Path
    size: int
    cells: int
    formulas: int
    seconds: float
    peak_memory: int
    packed_by: str

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.size / 1e6:,.1f} MB, {self.cells:,} cells, {self.formulas:,} formulas, "
            f"{self.seconds:.1f} s on {self.packed_by}, {self.peak_memory / 1e6:,.0f} MB of memory at the peak"
        )


def build(
    path: str | Path, model: str = "gpt2", prompt: str | None = None, *, progress: Progress = silent, **more: Any
) -> Built:
    """Compile a GPT-2 checkpoint into a workbook. model, prompt and all else that it can be told: see Options.

    Raises a subclass of XlgptError, with a sentence that says what to do; then no file is left behind.
    """
    start = time.monotonic()
    check_target(Path(path))
    options = Options(model, prompt, **more)
    progress("Finding the model", 0, 1)
    with peak_memory() as peak, uncollected():
        notation = BINARY if is_xlsb(Path(path)) else DECIMAL
        source = summed(rounded(load(model, options.seed), options.precision, notation))
        plan = make_plan(source, options, notation)
        if options.sheets != "all":
            _check_there(options.views, plan)
        written: Written = write_workbook(Path(path), plan, progress, options.jobs, options.cluster)
    seconds = time.monotonic() - start
    return Built(written.path, written.size, written.cells, written.formulas, seconds, peak.bytes, written.packed_by)


def _check_there(wanted: tuple[str, ...], plan: Plan) -> None:
    """Whether there is something to show on each sheet that was asked for by its name. Raises UsageError."""
    missing = next((name for name in wanted if name not in plan.layout.room.sheets), None)
    if missing == "proof":
        raise UsageError("The sheet 'proof' would be empty: there is no prompt to prove; give one with --prompt.")
    if missing:
        needed = {"steering": "vectors; name a file of them with --steering"}
        needed["features"] = "sparse autoencoder; name its folder with --sae"
        needed["adapters"] = "adapter; name the folder of one with --adapter"
        needed["tracing"] = "facts; say with --subject what the prompt is about"
        raise UsageError(f"The sheet {missing!r} would be empty: {plan.model.name} comes with no {needed[missing]}.")
