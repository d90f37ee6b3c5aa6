"""The sheet Attention: the pattern of a head, where all heads look from a token, and which of them do what."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.sentences import say
from xlgpt.oracle.run import Run

Array = NDArray[np.float64]
Values = NDArray[Any]
TOP = 8


def attention(run: Run) -> dict[str, Values]:
    """The bands of the sheet. L blocks, H heads, T tokens."""
    patterns = np.stack([run.cache[f"blocks.{i}.attn.pattern"] for i in range(run.model.config.n_layer)])
    block, head, at = _chosen(run)  # of [L, H, T, T]
    looked = patterns[:, :, at].argmax(axis=-1)  # [L, H]
    texts = np.array([run.model.tokenizer.shown(i) for i in run.ids], dtype=object)
    found = {
        "at_block": np.array([block]),
        "at_head": np.array([head]),
        "at": np.array([at]),
        "at_token": texts[[at]],
        "sees": texts[looked[block, head], None],
        "status": np.array([_status(run, block, head, at)], dtype=object),
        "pattern": patterns[block, head],
        "attends_to": texts[looked],
        "most": patterns[:, :, at].max(axis=-1),
        "looks": np.pad(patterns[:, :, at], [(0, 0), (0, 0), (0, run.layout.room.context - len(texts))]),
    }
    for name, shares in _habits(run, patterns).items():
        found |= {name: shares} | {f"{name}_{key}": value for key, value in _ranked(shares).items()}
    return {f"attention.{name}": value for name, value in found.items()}


def _chosen(run: Run) -> tuple[int, int, int]:
    """The block, head and position that are shown: the nearest that there are to what is chosen."""
    config = run.model.config
    block, head = (
        max(0, min(int(run.settings.counted(f"attention.{name}") // 1), count - 1))
        for name, count in (("block", config.n_layer), ("head", config.n_head))
    )
    return block, head, run.token("attention.token")


def _status(run: Run, block: int, head: int, at: int) -> str:
    settings, config = run.settings, run.model.config
    asked = {name: settings.text(f"attention.{name}") for name in ("block", "head", "token")}
    if settings.counted("attention.block") != block or settings.is_text("attention.block"):
        return say("views/attention", "no_block", block=asked["block"], last=config.n_layer - 1, at_block=block)
    if settings.counted("attention.head") != head or settings.is_text("attention.head"):
        return say("views/attention", "no_head", head=asked["head"], last_head=config.n_head - 1, at_head=head)
    if settings.is_number("attention.token") and settings.number("attention.token") != at:
        return say("views/attention", "no_token", token=asked["token"], at=at)
    return "ok"


def _habits(run: Run, patterns: Array) -> dict[str, Values]:
    """How much each head [L, H] gives on average to three kinds of tokens, from the third token on."""
    count = run.n_tokens
    ids, patterns = np.array(run.ids[:count]), patterns[:, :, :count, :count]
    if count < 3:
        return {name: np.full(patterns.shape[:2], "", dtype=object) for name in ("previous", "first", "same")}
    kinds = {
        "previous": np.eye(count, k=-1),
        "first": np.eye(count)[np.zeros(count, dtype=int)],
        "same": (ids[:, None] == ids).astype(np.float64),
    }
    return {name: (patterns * kind)[:, :, 2:].sum(axis=(-2, -1)) / (count - 2) for name, kind in kinds.items()}


def _ranked(shares: Values) -> dict[str, Values]:
    """The heads that have the largest of the shares [L, H], the largest first: their names, shares and numbers."""
    heads = shares.shape[1]
    best = [] if shares.dtype == object else np.argsort(-shares, axis=None, kind="stable")[:TOP].tolist()
    columns = {
        "head": [f"block {i // heads}, head {i % heads}" for i in best],
        "share": [shares.flat[i] for i in best],
        "at": best,
    }
    return {key: np.array([*column, *[""] * (TOP - len(best))], dtype=object) for key, column in columns.items()}
