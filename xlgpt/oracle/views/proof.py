"""The sheet Proof: checksums of the forward pass and of the weights, as the build stored them and as they are now.

Of each range of numbers v two sums: Σ v, which a wrong number changes, and Σ p v, which two exchanged numbers change
too, for each place has a number p of its own, from -10 to 10. A sum's difference is divided by the length √(Σ v²), so
that it matters neither how large a model's numbers are nor that they cancel. A number that is off by d shows where d is
more than 1e-6 of the length, two exchanged ones that differ by d where |p - p'| d is. Rounding stays far below: numbers
that are right to 1e-13 have sums that are right to 1e-13 · √(Σ p²), some 1e-10.

Of a weight one sum, Σ w. Two exchanged weights leave it as it is; they show in the forward pass.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.layout import Placed
from xlgpt.compiler.sentences import say
from xlgpt.compiler.settings import Settings
from xlgpt.compiler.template import forward, weights
from xlgpt.model.checkpoint import Model
from xlgpt.oracle.run import Run

Values = NDArray[Any]
Array = NDArray[np.float64]
Sums = dict[str, Array]
ENOUGH = 1e-6  # the largest difference that is agreement


def as_built(run: Run) -> dict[str, Any]:
    """What the sheet holds of the workbook as it was built: the prompt, all names, the places' numbers, NumPy's sums.

    run: of that prompt, with nothing ablated or added.
    """
    numbers, of_tokens = places(*run.layout.bands["proof.places"].dims), places(run.model.config.vocab_size, 1)
    columns: dict[str, Values] = {
        "range.name": np.array([band.name for band in forward(run.model.config)], dtype=object),
        "token_places": of_tokens[:, 0],
        "weight.name": np.array([weight.name for weight in weights(run.model.config)], dtype=object),
    }
    for part, sums in (("range", range_sums(run, numbers, of_tokens)), ("weight", weight_sums(run.model))):
        columns[f"{part}.length"] = sums.pop("length")
        columns |= {f"{part}.numpy_{name}": found for name, found in sums.items()}
    cells = {f"proof.{name}": column[:, None].astype(object) for name, column in columns.items()}
    return cells | {"proof.prompt": run.prompt, "proof.places": numbers.astype(object)}


def places(height: int, width: int) -> Array:
    """A number for each place of the widest range: ten times the sine of a number that grows irregularly."""
    phases = np.arange(height)[:, None] * np.sqrt(3) + np.arange(width) * np.pi * (np.sqrt(5) - 1)
    found: Array = (10 * np.sin(1 + phases)).round(4)
    return found


def range_sums(run: Run, numbers: Array, of_tokens: Array) -> Sums:
    """Of each band of the forward pass its sum, its sum by place and its length: [ranges].

    numbers: of the places, [rows, columns]; of_tokens: of those in a column as long as the vocabulary, [V, 1].
    """
    sums = []
    for i, band in enumerate(forward(run.model.config)):
        cells = run.layout.proven(i)
        values = _cells(run.shows[band.name][: cells.height], run.layout.bands[band.name])
        own = of_tokens if band.rows == "vocab_size" else numbers[: cells.height, : cells.width]
        sums.append((values.sum(), (values * own).sum(), np.linalg.norm(values) or 1.0))
    return dict(zip(("sum", "placed_sum", "length"), np.array(sums).T, strict=True))


def _cells(values: Values, placed: Placed) -> Array:
    """A band's values as they stand in its cells, [rows, columns]; 0 where a token pays no attention."""
    rows = values.astype(np.float64).reshape(len(values), *placed.dims[1:-1], -1)
    missing = placed.dims[-1] - rows.shape[-1] if placed.band.shape[-1] == "key" else 0
    rows = np.pad(np.where(np.isfinite(rows), rows, 0.0), [(0, 0)] * (rows.ndim - 1) + [(0, missing)])
    return rows.reshape(len(rows), -1)


def weight_sums(model: Model) -> Sums:
    """Of each weight its sum and its length: [weights]."""
    sums = [model.sums[weight.name] for weight in weights(model.config)]
    return dict(zip(("sum", "length"), np.array(sums).T, strict=True))


def proof(run: Run) -> dict[str, Values]:
    """The bands of the sheet."""
    changed, settings = _changed(run), run.settings
    found = _compared("weight", weight_sums(run.model), settings)
    if any(changed.values()):
        nothing = np.full(len(forward(run.model.config)), "", dtype=object)
        found |= {f"range.{name}": nothing for name in ("sum", "placed_sum", "difference", "verdict")}
    else:
        numbers = (settings.numbers(f"proof.{name}") for name in ("places", "token_places"))
        found |= _compared("range", range_sums(run, *numbers), settings)
    single: dict[str, Any] = {f"changed.{name}": value for name, value in changed.items()}
    single["changed"] = sum(changed.values())
    single["difference"] = "" if single["changed"] else found["range.difference"].max()
    single["status"] = _status(found, changed, run)
    found |= {name: np.array([value], dtype=object) for name, value in single.items()}
    return {f"proof.{name}": value for name, value in found.items()}


def _compared(part: str, here: Sums, settings: Settings) -> dict[str, Values]:
    """Sums beside those that are stored, and how far they are apart."""
    sums = {name: found for name, found in here.items() if name != "length"}
    kept = {name: settings.numbers(f"proof.{part}.numpy_{name}")[:, 0] for name in sums}
    length = settings.numbers(f"proof.{part}.length")[:, 0]
    difference = np.max([np.abs(sums[name] - kept[name]) for name in sums], axis=0) / length
    words = say("views/proof", "agrees"), say("views/proof", "differs")
    verdict = np.where(difference < ENOUGH, *words).astype(object)
    found: dict[str, Values] = {"difference": difference, "verdict": verdict, **sums}
    return {f"{part}.{name}": value for name, value in found.items()}


def _changed(run: Run) -> dict[str, int]:
    """What is at work that was not when the workbook was built, by name; 0 where nothing is."""
    settings = run.settings
    changed: dict[str, float] = {
        "prompt": run.prompt != settings.text("proof.prompt"),
        "typed": (settings.cells["typed_tokens"] != "").sum(),
        "position": settings.is_number("shown_position"),
    }
    if "circuit.heads" in settings.cells:
        changed["circuit"] = sum((settings.cells[f"circuit.{part}"] != 1).sum() for part in ("heads", "mlps"))
    if "facts.ablate" in settings.cells:
        changed["facts"] = settings.is_number("facts.ablate") + settings.counted("facts.strongest") > 0
    if "steering.on" in settings.cells:
        changed["steering"] = settings.counted("steering.on") != 0
    if "adapter.on" in settings.cells:
        changed["adapters"] = settings.counted("adapter.on") != 0
    return {name: int(value) for name, value in changed.items()}


def _status(found: Mapping[str, Values], changed: Mapping[str, int], run: Run) -> str:
    """What the sheet says of all that."""
    said, names = "", [weight.name for weight in weights(run.model.config)]
    wrong = np.flatnonzero(~(found["weight.difference"] < ENOUGH))
    if len(wrong):
        count, first = len(wrong), names[wrong[0]]
        said = say("views/proof", "not_as_built", wrong_weights=count, n_weights=len(names), first_weight=first)
    if any(changed.values()):
        return said + _back(changed, run.settings.text("proof.prompt"))
    ranges = [band.name for band in forward(run.model.config)]
    wrong = np.flatnonzero(~(found["range.difference"] < ENOUGH))
    if len(wrong):
        count, first = len(wrong), ranges[wrong[0]]
        return said + say("views/proof", "not_as_numpy", wrong_ranges=count, n_ranges=len(ranges), first_range=first)
    return said + say("views/proof", "as_numpy", n_ranges=len(ranges))


def _back(changed: Mapping[str, int], prompt: str) -> str:
    """What to do so that there is something to compare."""
    ways = {
        "typed": say("views/proof", "typed_back"),
        "position": say("views/proof", "position_back"),
        "circuit": say("views/proof", "circuit_back"),
        "facts": say("views/proof", "facts_back"),
        "steering": say("views/proof", "steering_back"),
        "adapters": say("views/proof", "adapters_back"),
        "prompt": say("views/proof", "prompt_back", prompt=prompt),
    }
    return say("views/proof", "incomparable") + "".join(way for name, way in ways.items() if changed.get(name))
