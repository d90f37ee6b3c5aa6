"""What every band shows for a prompt, from the reference: the saved values of a new workbook, the truth of a check."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt import reference
from xlgpt.checkpoint import Model
from xlgpt.layout import Placed
from xlgpt.tokenizer import Tokenizer

Values = NDArray[Any]
TOP = 10


def expected(ids: list[int], model: Model, context: int) -> dict[str, Values]:
    """Every band's values by name: a row for each token in use (of positions, for each of the context).

    For an empty prompt, only the few bands that have something to say.
    """
    status = "ok" if ids else "There is no token: type an id into the first row of token_ids."
    values: dict[str, Values] = {
        "n_tokens": np.array([len(ids)]),
        "status": np.array([status], dtype=object),
        "position": np.array([i if i < len(ids) else -1 for i in range(context)]),
    }
    if not ids:
        return values
    seen: dict[str, Values] = dict(reference.forward(ids, model.weights, model.config))
    logits = seen.pop("logits")[-1]
    values |= {name: _by_token(name, value) for name, value in seen.items()}
    values |= {
        "token_ids": np.array(ids),
        "tokens": np.array([model.tokenizer.shown(i) for i in ids], dtype=object),
        "ln_final.last": seen["ln_final.normalized"][-1:],
    }
    return values | readout(logits, model.tokenizer)


def readout(logits: NDArray[np.float64], tokenizer: Tokenizer) -> dict[str, Values]:
    """What the LM head and argmax sheets make of the logits [V]."""
    best = np.argsort(-logits, kind="stable")[:TOP]
    probabilities = reference.softmax(logits)
    return {
        "logits": logits,
        "probabilities": probabilities,
        "next_token_id": best[:1],
        "next_token": np.array([tokenizer.text(int(best[0]))], dtype=object),
        "top.logit": logits[best],
        "top.probability": probabilities[best],
        "top.id": best,
        "top.token": np.array([tokenizer.shown(int(i)) for i in best], dtype=object),
    }


def _by_token(name: str, value: Values) -> Values:
    """Attention's [head, token, key] turned to a row per token, as it stands on the sheet."""
    return value.swapaxes(0, 1) if name.endswith((".attn_scores", ".pattern")) else value


def on_sheet(values: Values, placed: Placed) -> Values:
    """A band's values as they stand in its cells: [rows in use, columns]. Cells without a number hold NaN."""
    missing = placed.dims[-1] - values.shape[-1] if len(placed.dims) == 3 else 0
    if missing:  # a column per key, and fewer tokens than the context has rows
        values = np.pad(values, ((0, 0), (0, 0), (0, missing)), constant_values=np.nan)
    return values.reshape(len(values), -1)
