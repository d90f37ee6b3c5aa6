"""The logit lens: the LM head on the residual stream after every block (nostalgebraist 2020, `interpreting GPT`)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.inside.thought import Thought
from xlgpt.reference import slices, softmax

Array = NDArray[np.float64]
Values = NDArray[Any]
BEST = 5
ABOUT_CHOSEN = (
    *("vector", "total", "best_id", "best_token", "best_logit", "best_probability"),
    *("target_logit", "target_probability", "target_rank"),
)


def lens(thought: Thought) -> dict[str, Values]:
    """Every band of the sheet. T tokens, D n_embd, L n_layer + 1 places to look at, V vocabulary."""
    rows = _rows(thought)
    scored = [_scores(thought, x[rows:]) for x in _stream(thought)]  # L of [T - rows, V]
    ids = np.stack([scores.argmax(axis=-1) for scores in scored], axis=-1)  # [T - rows, L]
    grid = {
        "id": ids,
        "logit": np.stack([scores.max(axis=-1) for scores in scored], axis=-1),
        "probability": np.stack([softmax(scores).max(axis=-1) for scores in scored], axis=-1),
        "token": _shown(thought, ids),
    }
    values = {name: _below(rows, value) for name, value in grid.items()} | _chosen(thought)
    return {f"lens.{name}": value for name, value in values.items()}


def _stream(thought: Thought) -> list[Array]:
    """The residual stream [T, D] before the first block and after each."""
    after = [thought.seen[f"blocks.{layer}.resid_post"] for layer in range(thought.model.config.n_layer)]
    return [thought.seen["blocks.0.resid_pre"], *after]


def _rows(thought: Thought) -> int:
    """How many tokens the grid leaves out."""
    if thought.settings.text("lens.rows").lower() == "all":
        return 0
    return int(min(thought.n_tokens, max(0, np.ceil(thought.n_tokens - thought.settings.number("lens.rows")))))


def _normalized(thought: Thought, x: Array) -> Array:
    """The final layer norm of [T, D]."""
    weight, bias = (thought.model.weights.tensor(f"ln_f.{part}").astype(np.float64) for part in ("weight", "bias"))
    scale = np.sqrt(x.var(axis=-1, keepdims=True) + thought.model.config.layer_norm_epsilon)  # [T, 1]
    normalized: Array = (x - x.mean(axis=-1, keepdims=True)) / scale * weight + bias
    return normalized


def _scores(thought: Thought, x: Array) -> Array:
    """A score for every token of the vocabulary: [T, D] -> [T, V]."""
    name = "wte.weight" if thought.model.config.tie_word_embeddings else "lm_head.weight"
    head = slices(thought.model.weights.tensor(name))
    return np.concatenate([_normalized(thought, x) @ part.T.astype(np.float64) for part in head], axis=-1)


def _chosen(thought: Thought) -> dict[str, Values]:
    """What is shown of the chosen token and the target."""
    at, target = _position(thought), thought.target("lens.target")
    cells = {
        "at": at,
        "at_token": None if at is None else thought.model.tokenizer.shown(thought.ids[at]),
        "target_id": target,
        "status": _status(thought, at, target),
    }
    values: dict[str, Values] = {
        "choices": np.array(["last", *range(thought.n_tokens)][: thought.layout.room.context], dtype=object),
        "place": np.arange(1, BEST + 1),
    }
    values |= {name: np.array(["" if value is None else value], dtype=object) for name, value in cells.items()}
    x = None if at is None else np.stack([stream[at] for stream in _stream(thought)])  # [L, D]
    found = {} if x is None else {"vector": _normalized(thought, x).T} | _best(thought, _scores(thought, x))
    if x is not None and target is not None:
        found |= _followed(_scores(thought, x), target)
    return values | {name: found.get(name, _nothing(thought, name)) for name in ABOUT_CHOSEN}


def _best(thought: Thought, scores: Array) -> dict[str, Values]:
    """The five best by the scores [L, V]."""
    ids = np.argsort(-scores, axis=-1, kind="stable")[:, :BEST]  # [L, BEST]
    return {
        "best_id": ids.T,
        "best_token": _shown(thought, ids.T),
        "best_logit": np.take_along_axis(scores, ids, axis=-1).T,
        "best_probability": np.take_along_axis(softmax(scores), ids, axis=-1).T,
        "total": np.exp(scores - scores.max(axis=-1, keepdims=True)).sum(axis=-1)[None],
    }


def _followed(scores: Array, target: int) -> dict[str, Values]:
    """The target among the scores [L, V]."""
    return {
        "target_logit": scores[None, :, target],
        "target_probability": softmax(scores)[None, :, target],
        "target_rank": 1 + (scores > scores[:, target, None]).sum(axis=-1)[None],
    }


def _nothing(thought: Thought, name: str) -> Values:
    """A band's empty cells."""
    return np.full(thought.layout.bands[f"lens.{name}"].dims, "", dtype=object)


def _position(thought: Thought) -> int | None:
    """The position that is looked at closely; None where there is no token."""
    chosen = thought.settings.cells["lens.chosen"][0, 0]
    if str(chosen).lower() in ("last", ""):
        return thought.n_tokens - 1
    return int(chosen) if isinstance(chosen, int | float) and 0 <= chosen < thought.n_tokens else None


def _status(thought: Thought, at: int | None, target: int | None) -> str:
    text = thought.settings.text
    if at is None:
        return f"There is no token at position {text('lens.chosen')}: choose one from the list."
    if not text("lens.target"):
        return "Type the token to follow into the cell of the target."
    if target is None:
        return (
            f"“{text('lens.target')}” is not one token of this model: "
            "capital letters matter, and so does a space in front."
        )
    return "ok"


def _shown(thought: Thought, ids: NDArray[np.int64]) -> Values:
    """The tokens' texts."""
    return np.vectorize(thought.model.tokenizer.shown, otypes=[object])(ids) if ids.size else ids.astype(object)


def _below(rows: int, values: Values) -> Values:
    """A token's row for each token: empty where the grid leaves it out."""
    return np.concatenate([np.full((rows, values.shape[1]), "", dtype=object), values]) if rows else values
