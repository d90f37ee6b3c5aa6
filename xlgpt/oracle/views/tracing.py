"""The sheet Tracing: of the prompt on Home, if it was traced, how much of the answer each state brings back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.sentences import say
from xlgpt.interp.tracing import KINDS
from xlgpt.oracle.run import Run

Values = NDArray[Any]


def tracing(run: Run) -> dict[str, Values]:
    """The bands of the sheet."""
    cells = run.settings.cells
    is_prompt = np.array([i if str(cell) == run.prompt else 0 for i, cell in enumerate(cells["kept.prompts"][:, 0], 1)])
    at_prompt = int(is_prompt.max())
    kept = {name.removeprefix("kept."): rows[at_prompt - 1] for name, rows in cells.items() if name.startswith("kept.")}
    names = ("subject", "answer", "clean", "corrupted")
    values = [*kept["about"], *kept["likely"]] if at_prompt else [""] * len(names)
    single: dict[str, Any] = dict(zip(names, values, strict=True))
    single["at_prompt"] = at_prompt
    single["status"] = say("views/tracing", "not_traced")
    if at_prompt:
        single["status"] = say("views/tracing", "traced", subject=single["subject"], answer=single["answer"])
    found: dict[str, Values] = {name: np.array([value], dtype=object) for name, value in single.items()}
    found["token"] = kept["tokens"] if at_prompt else np.full(run.layout.room.traced_tokens, "", dtype=object)
    for kind in KINDS:
        rows = kept[kind].reshape(len(found["token"]), -1)  # [T, L]
        found[kind] = np.array(
            [
                [_share(value, single) if token else "" for value in row]
                for token, row in zip(found["token"], rows, strict=True)
            ],
            dtype=object,
        )
    return {f"trace.{name}": value for name, value in found.items()} | {"kept.is_prompt": is_prompt}


def _share(restored: float, single: dict[str, Any]) -> float:
    """How much of what the noise took comes back; 0 where it took nothing."""
    gone = single["clean"] - single["corrupted"]
    return float((restored - single["corrupted"]) / gone) if gone else 0.0
