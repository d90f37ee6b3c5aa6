"""The logit lens: the LM head on the residual stream after every block (nostalgebraist 2020, `interpreting GPT`)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.sentences import say
from xlgpt.model.reference import softmax
from xlgpt.oracle.run import Run
from xlgpt.oracle.views.best import best, by_slice, codes, scores

Array = NDArray[np.float64]
Values = NDArray[Any]
# The bands about the chosen token; those about the target are empty without one.
ABOUT_CHOSEN = (
    *("stream", "vector", "total", "best", "best_token", "best_logit", "best_probability", "best_in_slice"),
    *("total_in_slice", "target_row", "target_logit", "target_probability", "target_rank", "higher", "higher_in_slice"),
)


def lens(run: Run) -> dict[str, Values]:
    """Every band of the sheet. T tokens, D n_embd, L n_layer + 1 places to look at, V vocabulary, S slices of it."""
    rows = _rows(run)
    columns = [_column(run, x[rows:]) for x in _stream(run)]
    grid = {name: np.stack([column[name] for column in columns], axis=1) for name in columns[0]}
    values = {name: _below(rows, value) for name, value in grid.items()} | _chosen(run)
    return {f"lens.{name}": value for name, value in values.items()}


def _column(run: Run, x: Array) -> dict[str, Values]:
    """A column of the grid: what the stream [T, D] at one place would make of every token."""
    scored = scores(run.model, _normalized(run, x))  # [T, V]
    ids, logits = scored.argmax(axis=-1), scored.max(axis=-1, keepdims=True)
    total = by_slice(run.model, np.exp(scored - logits), np.add)  # [T, S]
    return {
        "id": ids,
        "logit": logits[:, 0],
        "probability": 1 / total.sum(axis=-1),
        "token": _shown(run, ids),
        "grid_best": by_slice(run.model, codes(scored), np.maximum),
        "grid_total": total,
    }


def _stream(run: Run) -> list[Array]:
    """The residual stream [T, D] before the first block and after each."""
    after = [run.cache[f"blocks.{layer}.resid_post"] for layer in range(run.model.config.n_layer)]
    return [run.cache["blocks.0.resid_pre"], *after]


def _rows(run: Run) -> int:
    """How many tokens the grid leaves out."""
    if run.settings.text("lens.rows").lower() == "all":
        return 0
    return int(min(run.n_tokens, max(0, np.ceil(run.n_tokens - run.settings.number("lens.rows")))))


def _normalized(run: Run, x: Array) -> Array:
    """The final layer norm of [T, D]."""
    weight, bias = (run.model.weights.tensor(f"ln_f.{part}").astype(np.float64) for part in ("weight", "bias"))
    scale = np.sqrt(x.var(axis=-1, keepdims=True) + run.model.config.layer_norm_epsilon)  # [T, 1]
    normalized: Array = (x - x.mean(axis=-1, keepdims=True)) / scale * weight + bias
    return normalized


def _chosen(run: Run) -> dict[str, Values]:
    """What is shown of the chosen token and the target."""
    at, target = _position(run), run.target("lens.target")
    cells = {
        "at": at,
        "at_token": None if at is None else run.model.tokenizer.shown(run.ids[at]),
        "target_id": target,
        "status": _status(run, at, target),
    }
    values: dict[str, Values] = {
        "choices": np.array(["last", *range(run.n_tokens)][: run.layout.room.context], dtype=object),
    }
    values |= {name: np.array(["" if value is None else value], dtype=object) for name, value in cells.items()}
    found: dict[str, Values] = {}
    if at is not None:
        stream = np.stack([x[at] for x in _stream(run)])  # [L, D]
        vector = _normalized(run, stream)
        scored = scores(run.model, vector)  # [L, V]
        found |= {"stream": stream, "vector": vector} | _best(run, scored)
        found |= _followed(run, scored, target) if target is not None else {}
    if target is not None:
        found["target_row"] = run.model.weights.tensor(run.model.config.unembedding)[[target]].astype(np.float64)
    return values | {name: found.get(name, _nothing(run, name)) for name in ABOUT_CHOSEN}


def _best(run: Run, scored: Array) -> dict[str, Values]:
    """The five best by the scores [L, V]."""
    found = best(run.model, scored)
    logits = np.take_along_axis(scored, found.ids, axis=-1)  # [L, 5]
    total = by_slice(run.model, np.exp(scored - logits[:, :1]), np.add)  # [L, S]
    return {
        "best": found.codes,
        "best_in_slice": found.in_slice,
        "best_token": _shown(run, found.ids.T),
        "best_logit": logits,
        "best_probability": (np.exp(logits - logits[:, :1]) / total.sum(axis=-1, keepdims=True)).T,
        "total": total.sum(axis=-1),
        "total_in_slice": total,
    }


def _followed(run: Run, scored: Array, target: int) -> dict[str, Values]:
    """The target among the scores [L, V]."""
    higher = by_slice(run.model, (scored > scored[:, [target]]).astype(np.int64), np.add)  # [L, S]
    return {
        "target_logit": scored[:, target],
        "target_probability": softmax(scored)[None, :, target],
        "target_rank": 1 + higher.sum(axis=-1)[None],
        "higher": higher.sum(axis=-1),
        "higher_in_slice": higher,
    }


def _nothing(run: Run, name: str) -> Values:
    """A band's empty cells."""
    return np.full(run.layout.bands[f"lens.{name}"].dims, "", dtype=object)


def _position(run: Run) -> int | None:
    """The position that is looked at closely; None where there is no token."""
    chosen = run.settings.cells["lens.chosen"][0, 0]
    if str(chosen).lower() in ("last", ""):
        return run.n_tokens - 1
    return int(chosen) if isinstance(chosen, int | float) and 0 <= chosen < run.n_tokens else None


def _status(run: Run, at: int | None, target: int | None) -> str:
    text = run.settings.text
    if at is None:
        return say("views/lens", "no_token", chosen=text("lens.chosen"))
    if not text("lens.target"):
        return say("views/lens", "no_target")
    if target is None:
        return say("views/lens", "no_such_target", target=text("lens.target"))
    return "ok"


def _shown(run: Run, ids: NDArray[np.int64]) -> Values:
    """The tokens' texts."""
    return np.vectorize(run.model.tokenizer.shown, otypes=[object])(ids) if ids.size else ids.astype(object)


def _below(rows: int, values: Values) -> Values:
    """A token's row for each token: empty where the grid leaves it out."""
    return np.concatenate([np.full((rows, *values.shape[1:]), "", dtype=object), values]) if rows else values
