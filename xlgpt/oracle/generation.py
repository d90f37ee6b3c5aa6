"""What the sheet Generate shows: from logits, row by row, to a text."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlgpt.compiler.layout import Layout
from xlgpt.compiler.sentences import say
from xlgpt.compiler.settings import Settings
from xlgpt.compiler.template import numbers
from xlgpt.model.sampling import BEST, Sampling, candidates, choose, kept, mixed_pair, random_numbers, shares
from xlgpt.model.tokenizer import Tokenizer
from xlgpt.oracle.given import Given

Values = NDArray[Any]
END = b"<|endoftext|>"
NOT_ASKED, NONE_FITS = -1, -2  # in place of a chosen id; the format hides them


def sampling_of(settings: Settings) -> Sampling:
    """How the cells on the home sheet say that a token is to be chosen."""
    temperature, top_k, top_p, seed = (settings.number(name) for name in ("temperature", "top_k", "top_p", "seed"))
    return Sampling(temperature, int(top_k), top_p, int(seed))


def settings_status(settings: Settings, layout: Layout) -> str:
    """ok, or which cell holds what cannot be."""

    def whole(name: str, most: float) -> bool:
        value = settings.cells[name][0, 0] or 0
        return not isinstance(value, str) and 0 <= value <= most and value == int(value)

    def between(name: str, low: float, high: float) -> bool:
        value = settings.cells[name][0, 0] or 0
        return not isinstance(value, str) and low <= value <= high

    new_tokens = layout.room.new_tokens
    if not whole("max_new_tokens", new_tokens):
        return say("model/generate", "no_number", new_tokens=new_tokens)
    if not between("temperature", 0, np.inf):
        return say("model/generate", "no_temperature")
    if not whole("top_k", BEST):
        return say("model/generate", "no_top_k", n_best=BEST)
    if not between("top_p", np.nextafter(0, 1), 1):
        return say("model/generate", "no_top_p")
    if not whole("seed", 2**31 - 1):
        return say("model/generate", "no_seed")
    return "ok"


def to_write(settings: Settings, layout: Layout) -> int:
    """How many tokens are wanted; none where a setting cannot be."""
    return int(settings.number("max_new_tokens")) if settings_status(settings, layout) == "ok" else 0


def end_of_text(tokenizer: Tokenizer) -> int:
    """The id at which writing stops; -1 where there is none."""
    return next((i for i, token in enumerate(tokenizer.tokens) if token.lower() == END), -1)


def rows_in_use(n_prompt: int, written: Sequence[int], wanted: int) -> int:
    """How many rows the model calculates: the last token that was asked for needs none."""
    return min(n_prompt + len(written), n_prompt + max(0, wanted - 1))


def generation(
    logits: Values, given: Given, written: list[int], tokenizer: Tokenizer, layout: Layout, settings: Settings
) -> dict[str, Values]:
    """All bands of the sheet. logits: [rows in use, V]. Of what is written below an error nothing is listed."""
    status, end = settings_status(settings, layout), end_of_text(tokenizer)
    wanted = to_write(settings, layout)
    sampling = sampling_of(settings) if status == "ok" else Sampling()
    count = numbers(layout.config, layout.room)
    known = _choices(logits, given, wanted, sampling, layout)
    written = written if given.status == "ok" else []
    n_prompt = len(given.ids)
    data = b"".join(tokenizer.tokens[i] for i in written)
    there = data[: count["new_bytes"]]
    temperature = settings.counted("temperature")
    first, second = mixed_pair(int(settings.counted("seed")))
    single: dict[str, Any] = {
        "completion": shown_text(there) if written else "",
        "n_written": len(written),
        "n_new_bytes": len(there),
        "settings_status": status,
        "to_write": wanted,
        "end_of_text": end,
        "softmax_temperature": temperature if temperature > 0 else 1,
        "sorts": int(temperature > 0 and (settings.counted("top_k") > 0 or settings.counted("top_p") < 1)),
        "seed.first": first,
        "seed.second": second,
    }
    if status == "ok" and given.status == "ok":
        refused = bool((known["next.id"] == NONE_FITS).any())
        single["generation_status"] = _generation_status(n_prompt, written, len(data), refused, layout, settings)
    else:
        single["generation_status"] = given.status if status == "ok" else status
    values = known | _listed(written, known["next.probability"], n_prompt, tokenizer, layout)
    values |= _spelled(there, [len(tokenizer.tokens[i]) for i in written], count["new_bytes"])
    values |= {"slices": np.arange(1, count["n_slices"] + 1)[None], "ranks": np.arange(1, BEST + 1)[None]}
    return values | {name: np.array([value], dtype=object) for name, value in single.items()}


def _generation_status(
    n_prompt: int, written: list[int], size: int, refused: bool, layout: Layout, settings: Settings
) -> str:
    wanted, context = settings.number("max_new_tokens"), layout.room.context
    if not wanted:
        return say("model/generate", "none")
    if refused:
        return say("model/generate", "none_fits", n_best=BEST)
    if size > numbers(layout.config, layout.room)["new_bytes"]:
        return say("model/generate", "cut_short")
    if len(written) == wanted:
        return "ok"
    if n_prompt + len(written) == context:
        return say("model/generate", "no_row", context=context)
    return say("model/generate", "ended")


def _choices(logits: Values, given: Given, wanted: int, sampling: Sampling, layout: Layout) -> dict[str, Values]:
    """The bands with a row for each token."""
    count = numbers(layout.config, layout.room)
    n_slices, slice_size = count["n_slices"], count["slice_size"]
    names = ("needed", "max", "total", "state_1", "state_2", "draw", "kept", "sought", "slice", "before")
    wide = {
        "share": (n_slices,),
        "found": (n_slices,),
        "candidates": (BEST,),
        "running": (BEST,),
        "largest": (n_slices, BEST),
    }
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys((*names, "id", "logit", "probability"), ()) | wide
    values = {name: np.full((len(logits), *shape), "", dtype=object) for name, shape in shapes.items()}
    values["id"] = np.full(layout.room.context, NOT_ASKED, dtype=object)
    random = random_numbers(sampling.seed)
    for row, line in enumerate(logits):
        behind = row + 1 - len(given.ids)  # which of the tokens that are written stands below
        needed = 0 <= behind < min(wanted, given.room)
        values["needed"][row] = int(needed)
        if not needed:
            continue
        drawn, share = next(random), shares(line, sampling)
        chosen = choose(line, drawn.number, sampling)
        part = chosen // slice_size
        slices = [slice(i * slice_size, (i + 1) * slice_size) for i in range(n_slices)]
        by_slice = np.array([share[s].sum() for s in slices])
        found: dict[str, Any] = {
            "max": line.max(),
            "total": share.sum(),
            "state_1": drawn.first,
            "state_2": drawn.second,
            "draw": drawn.number,
            "share": by_slice,
            "largest": [_largest(line[s], sampling.sorts) for s in slices],
            "id": chosen if chosen >= 0 else NONE_FITS,
        }
        if sampling.sorts:
            best = candidates(line)
            found |= {"kept": kept(line, sampling), "candidates": line[best], "running": np.cumsum(share[best])}
        if chosen >= 0:
            found |= {"slice": part + 1, "logit": line[chosen]}
            values["found"][row, part] = chosen
            found["probability"] = share[chosen] / share.sum()
            if sampling.sorts or not sampling.temperature:
                found["sought"] = line[chosen]
            else:
                found["before"] = by_slice[:part].sum()
        for name, value in found.items():
            values[name][row] = value
    return {f"next.{name}": value for name, value in values.items()}


def _listed(
    written: list[int], probabilities: Values, n_prompt: int, tokenizer: Tokenizer, layout: Layout
) -> dict[str, Values]:
    """The tokens that were written, one in each row."""
    sizes = [len(tokenizer.tokens[i]) for i in written]
    columns: dict[str, list[Any]] = {
        "id": written,
        "token": [tokenizer.shown(i) for i in written],
        "probability": list(probabilities[n_prompt - 1 :][: len(written)]),
        "bytes": sizes,
        "before": list(accumulate(sizes, initial=0))[:-1],
    }
    height = layout.room.new_tokens
    return {f"written.{name}": _filled_up(column, height) for name, column in columns.items()}


def _filled_up(column: list[Any], height: int) -> Values:
    return np.array([*column, *[""] * (height - len(column))], dtype=object)


def shown_text(data: bytes) -> str:
    """Bytes as text: what is no UTF-8, or what no cell can hold, as U+FFFD."""
    return data.decode("utf-8", errors="replace").translate(dict.fromkeys((0, 0xFFFE, 0xFFFF), "�"))


def _spelled(data: bytes, sizes: list[int], height: int) -> dict[str, Values]:
    """Byte by byte, the way from bytes to text: what Python's decoder says of every beginning of them."""
    columns: dict[str, list[Any]] = {name: [] for name in ("fits", "due", "least", "most", "code", "text")}
    begun = b""  # of the character under way
    for i, byte in enumerate(data):
        fits = bool(begun) and _begins(begun + bytes([byte]))
        begun = begun + bytes([byte]) if fits else bytes([byte])
        due = _length(begun[0]) - len(begun) if _begins(begun) else 0
        code = 65533 if not _begins(begun) else _code(begun)
        shown = shown_text(data[: i + 1])
        edges = (128, 191) if fits else _edges(byte)
        for name, value in zip(columns, (int(fits), due, *edges, code, shown[:-1] if due else shown), strict=True):
            columns[name].append(value)
        begun = begun if due else b""
    columns["token"] = [i for i, size in enumerate(sizes, 1) for _ in range(size)][: len(data)]
    columns["byte"] = list(data)
    return {f"piece.{name}": _filled_up(column, height) for name, column in columns.items()}


def _length(lead: int) -> int:
    return 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _begins(data: bytes) -> bool:
    """Whether some bytes are a character of UTF-8, or the beginning of one: then they make one U+FFFD, or none."""
    shown = data.decode("utf-8", errors="replace")
    if data[0] in range(0x80, 0xC2) or data[0] > 0xF4:
        return False
    return len(shown) == 1


def _edges(lead: int) -> tuple[int, int]:
    """What the byte after a first one must be to go on."""
    goes_on = [b for b in range(0x80, 0xC0) if lead in range(0xC2, 0xF5) and _begins(bytes([lead, b]))]
    return (goes_on[0], goes_on[-1]) if goes_on else (128, 191)


def _code(data: bytes) -> int:
    """The bits of a character so far."""
    length = _length(data[0])
    code = data[0] - (0, 0, 0xC0, 0xE0, 0xF0)[length]
    for byte in data[1:]:
        code = code * 64 + byte - 128
    return code


def _largest(logits: Values, sorts: bool) -> Values:
    """The largest logits of a slice, in their order; where nothing is to be sorted, the first of them alone."""
    best: Values = np.full(BEST, "", dtype=object)
    count = BEST if sorts else 1
    best[:count] = np.sort(logits)[::-1][:count]
    return best
