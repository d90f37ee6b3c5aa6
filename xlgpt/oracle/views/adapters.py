"""The sheet Adapters: what a fine-tune adds to each matrix, how large it is beside it, and what the model says then."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.layout import Layout
from xlgpt.compiler.sentences import say
from xlgpt.compiler.settings import Settings
from xlgpt.compiler.template import RANKS, ranks
from xlgpt.model.adapter import Adapter, LowRank
from xlgpt.oracle.run import Run

Values = NDArray[Any]
Array = NDArray[np.float64]
BEST = 10


def chosen_adapter(settings: Settings, layout: Layout) -> Adapter:
    """The adapter that the cells choose, as strong as they say; one that changes nothing where there is none."""
    name, matrices = settings.text("adapter.name"), {}
    for matrix, rows in _rows(layout).items():
        kind = _kind(matrix)
        A, B = (settings.numbers(f"{kind}.lora_{part}")[rows] for part in "AB")  # [ranks, in], [ranks, out]
        matrices[matrix] = LowRank(A.T, _strength(settings, kind)[rows, None] * B)
    return Adapter(name, matrices)


def _rows(layout: Layout) -> dict[str, slice]:
    """Where the ranks of each matrix stand in the table of its kind."""
    found, ends = {}, dict.fromkeys(ranks(layout.room.adapted), 0)
    for matrix, count in layout.room.adapted:
        kind = f"{_kind(matrix)}{RANKS}"
        found[matrix] = slice(ends[kind], ends[kind] + count)
        ends[kind] += count
    return found


def _kind(matrix: str) -> str:
    """attn.c_attn, of h.0.attn.c_attn."""
    return matrix.split(".", 2)[2]


def _strength(settings: Settings, kind: str) -> Array:
    """How strong each rank is, [ranks]: the scale times its scaling, where it is the chosen adapter's."""
    found: Array = _chosen(settings, kind) * _scale(settings) * settings.numbers(f"{kind}.scaling")[:, 0]
    return found


def _chosen(settings: Settings, kind: str) -> Array:
    """Whether each rank is the chosen adapter's, [ranks]: 1 or 0."""
    return np.array([float(str(of) == settings.text("adapter.name")) for of in settings.cells[f"{kind}.of"][:, 0]])


def _scale(settings: Settings) -> float:
    return settings.number("adapter.scale") if settings.is_number("adapter.scale") else 1.0


def adapters(run: Run) -> dict[str, Values]:
    """The bands of the sheet."""
    settings, cells = run.settings, run.settings.cells
    is_name = _rows_that_are(settings.text("adapter.name"), cells["adapter.names"])
    plain = _plain(settings, run.prompt)
    table = _matrices(run)
    numbers, own = int(table["size"].sum()), run.model.parameters
    at_name = int(is_name.max())
    single: dict[str, Any] = {
        "numbers": numbers,
        "of_model": own,
        "share": numbers / own,
        "status": _status(settings, at_name),
        "writes": run.shows.get("completion", [""])[0],
        "at_name": at_name,
        "at_scale": _scale(settings),
        "at_prompt": plain["plain.is_prompt"].max(),
    }
    found: dict[str, Values] = {name: np.array([value], dtype=object) for name, value in single.items()}
    nothing = np.full(BEST, "", dtype=object)
    found |= {name: run.shows.get(f"top.{name}", nothing) for name in ("token", "probability")}
    found |= {"is_name": is_name} | table
    kinds = [kind.removesuffix(RANKS) for kind, count in ranks(run.layout.room.adapted).items() if count]
    shown = {f"adapter.{name}": value for name, value in found.items()} | plain
    shown |= {f"{kind}.chosen": _chosen(settings, kind) for kind in kinds}
    return shown | {f"{kind}.strength": _strength(settings, kind) for kind in kinds}


def _plain(settings: Settings, prompt: str) -> dict[str, Values]:
    """What is known of the plain model for this prompt."""
    cells = settings.cells
    is_prompt = _rows_that_are(prompt, cells["plain.prompts"])
    found: dict[str, Values] = {"plain.is_prompt": is_prompt}
    for shown, kept in (("token", "tokens"), ("probability", "probabilities"), ("text", "texts")):
        rows = cells[f"plain.{kept}"]
        found[f"plain.{shown}"] = rows[is_prompt.max() - 1] if is_prompt.any() else np.full(rows.shape[1], "", object)
    return found


def _rows_that_are(text: str, cells: Values) -> Values:
    """In each row of a column its number, where it holds that text, and otherwise 0."""
    return np.array([row if str(cell) == text else 0 for row, cell in enumerate(cells[:, 0], 1)])


def _matrices(run: Run) -> dict[str, Values]:
    """Of each matrix that an adapter may change: what the chosen one adds, and how large it is beside it."""
    settings, chosen = run.settings, chosen_adapter(run.settings, run.layout)
    places = _rows(run.layout).items()
    rank = {matrix: int(_chosen(settings, _kind(matrix))[rows].sum()) for matrix, rows in places}
    parts = chosen.matrices
    product = np.array([np.linalg.norm(part.A @ part.B) for part in parts.values()])
    own = np.array([np.linalg.norm(run.model.weights.tensor(f"{name}.weight").astype(np.float64)) for name in parts])
    size = [rank[name] * (len(part.A) + part.B.shape[1]) for name, part in parts.items()]
    return {
        "matrix": np.array(list(parts), dtype=object),
        "rank": np.array([rank[name] for name in parts]),
        "size": np.array(size),
        "product_norm": product,
        "matrix_norm": own,
        "change": product / own,
    }


def _status(settings: Settings, at_name: int) -> str:
    name, scale = settings.text("adapter.name"), _scale(settings)
    if not at_name:
        return say("views/adapters", "no_adapter", name=name)
    if scale == 1:
        return say("views/adapters", "added", name=name)
    return say("views/adapters", "added_times", name=name, at_scale=scale)


def plain_answers(runs: list[Run]) -> dict[str, Any]:
    """What the sheet keeps of the plain model's answers to some prompts."""
    nothing = np.full(BEST, "", dtype=object)
    return {
        "plain.prompts": _column(run.prompt for run in runs),
        "plain.texts": _column(run.shows.get("completion", [""])[0] for run in runs),
        "plain.tokens": np.array([run.shows.get("top.token", nothing) for run in runs], dtype=object),
        "plain.probabilities": np.array([run.shows.get("top.probability", nothing) for run in runs], dtype=object),
    }


def _column(values: Iterable[object]) -> Values:
    return np.array([[value] for value in values], dtype=object)
