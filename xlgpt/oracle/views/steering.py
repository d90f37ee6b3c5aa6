"""The sheet Steering: a vector that is added to the residual stream, where, and how large it is beside it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.layout import Layout
from xlgpt.compiler.sentences import say
from xlgpt.compiler.settings import Settings
from xlgpt.oracle.run import Run

Array = NDArray[np.float64]
Values = NDArray[Any]
BEST = 10


@dataclass(frozen=True)
class Steer:
    """What is chosen. row: of the vector, from 1, 0 where there is none of that name. block: -1 where there is none."""

    row: int
    block: int
    coefficient: float
    vector: Array | None  # [D]
    at: Array  # [context], the coefficient at each position


def chosen(settings: Settings, layout: Layout, n_given: int) -> Steer:
    """The vector, the block, the coefficient and the positions that the cells choose, for so many given tokens."""
    context, n_layer = layout.room.context, layout.config.n_layer
    names = settings.cells["steering.names"][:, 0]
    row = max((i for i, name in enumerate(names, 1) if str(name) == settings.text("steering.vector")), default=0)
    if not row:
        return Steer(0, -1, 0.0, None, np.zeros(context))
    wanted = wanted_block(settings, row)
    block = int(wanted) if wanted in range(n_layer) else -1
    coefficient = _own(settings, "steering.coefficient", "steering.coefficients", row)
    first = settings.counted("steering.from")
    last = settings.number("steering.to") if settings.is_number("steering.to") else n_given - 1
    position = np.arange(context)
    at = np.where((position >= first) & (position <= last), coefficient, 0.0) * (block >= 0)
    return Steer(row, block, coefficient, settings.numbers("steering.vectors")[row - 1], at)


def wanted_block(settings: Settings, row: int) -> float:
    """The block that is asked for, whether there is such a one or not."""
    return _own(settings, "steering.block", "steering.blocks", row)


def _own(settings: Settings, name: str, own: str, row: int) -> float:
    """What a person has filled in, or else the vector's own."""
    return settings.number(name) if settings.is_number(name) else float(settings.numbers(own)[row - 1, 0])


def steering(run: Run) -> dict[str, Values]:
    """The bands of the sheet. T rows in use, D n_embd."""
    config, settings = run.model.config, run.settings
    steer = chosen(settings, run.layout, run.n_given)
    cells = {
        "at_vector": steer.row,
        "at_block": steer.block,
        "at_coefficient": steer.coefficient,
        "status": _status(settings, steer, config.n_layer),
    }
    found: dict[str, Values] = {name: np.array([value], dtype=object) for name, value in cells.items()}
    nothing = np.full(BEST, "", dtype=object)
    found |= {name: run.shows.get(f"top.{name}", nothing) for name in ("token", "probability")}
    found["chosen"] = np.full((1, config.n_embd), "", dtype=object) if steer.vector is None else steer.vector[None]
    found["lengths"] = np.linalg.norm(settings.numbers("steering.vectors"), axis=-1)
    found |= _lengths(run, steer)
    return {f"steering.{name}": value for name, value in found.items()}


def _lengths(run: Run, steer: Steer) -> dict[str, Values]:
    """At each token how long what is added is, and what it is added to."""
    at = steer.at[: len(run.ids)]  # [T]
    if steer.vector is None or steer.block < 0 or not len(at):
        nothing = np.full(len(at), "", dtype=object)
        return {"at": at, "added": at, "stream": nothing, "share": nothing}
    added = at[:, None] * steer.vector  # [T, D]
    stream = np.linalg.norm(run.cache[f"blocks.{steer.block}.resid_pre"] - added, axis=-1)
    length = np.linalg.norm(added, axis=-1)
    return {"at": at, "added": length, "stream": stream, "share": length / stream}


def _status(settings: Settings, steer: Steer, n_layer: int) -> str:
    name = settings.text("steering.vector")
    if not steer.row:
        return say("views/steering", "no_vector", vector=name)
    if steer.block < 0:
        block = wanted_block(settings, steer.row)
        return say("views/steering", "no_block", block=block, last=n_layer - 1)
    return say("views/steering", "added", vector=name, at_block=steer.block)
