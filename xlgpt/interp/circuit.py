"""xlgpt circuit: the few heads and MLPs that keep the answers to some prompts right by themselves."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from xlgpt.errors import NotOneToken, UsageError
from xlgpt.interp.mean_activations import Means, component_means
from xlgpt.model import reference
from xlgpt.model.checkpoint import Model, in_memory
from xlgpt.model.edits import Edits
from xlgpt.model.tokenizer import Tokenizer, check_text
from xlgpt.progress import Progress

Array = NDArray[np.float64]
Ablation = Literal["mean", "zero"]
ABLATIONS: tuple[Ablation, ...] = ("mean", "zero")
MANY = 32  # components: of more, up to half are removed at once
CANDIDATES = 16  # components outside a circuit that are tried in place of some inside


# The prompts that are to come out right.


@dataclass(frozen=True)
class Case:
    """A prompt and the token that should come next: its id, and its text with spaces made visible."""

    prompt: str
    ids: tuple[int, ...]
    target: int
    shown: str


def read_cases(path: Path, target: str | None, model: Model) -> tuple[Case, ...]:
    """A file with a prompt a line, or `prompt<TAB>target`; `target` is for lines that have none.

    Raises UsageError.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is no UTF-8 text"
        raise UsageError(f"{path} cannot be read: {reason}.") from e
    pairs = [
        (prompt, answer if tab else target) for line in lines if line for prompt, tab, answer in [line.partition("\t")]
    ]
    if not pairs:
        raise UsageError(f"{path} holds no prompt; write one a line.")
    return tuple(case(prompt, answer, model) for prompt, answer in pairs)


def case(prompt: str, target: str | None, model: Model) -> Case:
    """A prompt with its target. Raises UsageError where that is not one token."""
    if not target:
        raise UsageError(f"The prompt {prompt!r} has no target: write it behind a tab, or give --target.")
    check_text(prompt + target)
    ids = model.tokenizer.encode(prompt)
    if not 0 < len(ids) <= model.config.n_positions:
        raise UsageError(
            f"The prompt {prompt!r} has {len(ids)} tokens; the model takes 1 to {model.config.n_positions}."
        )
    token = one_token(target, model.tokenizer)
    return Case(prompt, tuple(ids), token, model.tokenizer.shown(token))


def one_token(text: str, tokenizer: Tokenizer) -> int:
    """The id of a text that is one token. Raises NotOneToken."""
    ids = tokenizer.encode(text)
    if len(ids) == 1:
        return ids[0]
    parts = " + ".join(repr(tokenizer.text(i)) for i in ids)
    hint = f" Did you mean {f' {text}'!r}, with a space?" if len(tokenizer.encode(f" {text}")) == 1 else ""
    raise NotOneToken(f"The target {text!r} is {len(ids)} tokens ({parts}); choose one that is a single token.{hint}")


# The circuit.


@dataclass(frozen=True, order=True)
class Component:
    """A head, or a block's MLP where `head` is None."""

    layer: int
    head: int | None = None

    def __str__(self) -> str:
        return f"block {self.layer} MLP" if self.head is None else f"block {self.layer} head {self.head}"


@dataclass(frozen=True, eq=False)
class Circuit:
    """The components that keep every prompt's answer right while all others are ablated.

    margins: by how much each prompt's target leads the next best logit. full_margins: the same in the whole model.
    tried: how many sets of components were run.
    """

    cases: tuple[Case, ...]
    components: tuple[Component, ...]
    edits: Edits
    ablate: Ablation
    margins: Array
    full_margins: Array
    tried: int

    @property
    def size(self) -> int:
        """How many components the model has."""
        switches = self.inputs()
        return switches["circuit.heads"].size + switches["circuit.mlps"].size

    def inputs(self) -> dict[str, Array]:
        """What the switches of the sheet Circuit hold with this circuit on, by name."""
        assert self.edits.heads is not None
        assert self.edits.mlps is not None
        return {"circuit.heads": self.edits.heads, "circuit.mlps": self.edits.mlps}

    def cells(self) -> dict[str, NDArray[Any]]:
        """All cells that make the sheet Circuit show this circuit: the switches, and what is there instead."""
        edits = self.edits
        found: dict[str, NDArray[Any]] = {**self.inputs(), "circuit.ablate": np.array(self.ablate)}
        if edits.head_means is not None and edits.mlp_means is not None:
            found |= Means(edits.head_means, edits.mlp_means).cells()
        return found

    def as_dict(self) -> dict[str, Any]:
        """All of it but the means, for JSON."""
        prompts = [
            {"prompt": one.prompt, "target": one.target, "margin": margin, "full_margin": full}
            for one, margin, full in zip(self.cases, self.margins.tolist(), self.full_margins.tolist(), strict=True)
        ]
        components = [asdict(part) for part in self.components]
        return {"components": components, "ablate": self.ablate, "prompts": prompts, "tried": self.tried}

    def __str__(self) -> str:
        return (
            f"{len(self.components)} of {self.size} components keep the answer right on all {len(self.cases)} prompts; "
            f"the others give {'their mean' if self.ablate == 'mean' else 'zero'}. {self.tried:,} sets were tried."
        )


def find_circuit(
    model: Model, cases: tuple[Case, ...], ablate: Ablation = "mean", progress: Progress | None = None
) -> Circuit:
    """The smallest set of components, as far as a greedy search sees, that keeps the answer right on all prompts.

    Whatever a set lacks is ablated at all positions. From all on, the component whose removal leaves the largest
    worst margin goes, until none can; of more than 32, up to half go at once. Then one from outside is tried in place
    of two inside. It takes about 2 runs of all prompts for each component of a large model, more where they are few:
    seconds for the bundled model, minutes and 8 bytes a parameter for GPT-2 small.
    Raises UsageError where the whole model does not answer right.
    """
    search = Search(in_memory(model), cases, ablate, progress)
    everything = search.components
    full = search.margins(everything)
    if full.min() <= 0:
        wrong = cases[int(full.argmin())]
        raise UsageError(
            f"The model does not answer {model.tokenizer.text(wrong.target)!r} to {wrong.prompt!r}, "
            "so no circuit can be found that keeps it; leave the prompt out."
        )
    found = search.swapped(search.shrunk(everything))
    return Circuit(
        cases, tuple(sorted(found, key=_order)), search.edits(found), ablate, search.margins(found), full, search.tried
    )


def _order(component: Component) -> tuple[int, int]:
    return component.layer, 10**6 if component.head is None else component.head


class Search:
    """Runs all prompts with a set of components on and the others off."""

    def __init__(self, model: Model, cases: tuple[Case, ...], ablate: Ablation, progress: Progress | None):
        self._model, self._cases, self._progress = model, cases, progress
        self._means = component_means([list(case.ids) for case in cases], model) if ablate == "mean" else None
        self._known: dict[frozenset[Component], Array] = {}

    @property
    def tried(self) -> int:
        """How many sets were run."""
        return len(self._known)

    @cached_property
    def components(self) -> frozenset[Component]:
        """All of them."""
        layers, heads = range(self._model.config.n_layer), range(self._model.config.n_head)
        return frozenset(Component(layer, head) for layer in layers for head in (*heads, None))

    def edits(self, on: frozenset[Component]) -> Edits:
        """The switches that leave only these components on."""
        config = self._model.config
        heads, mlps = np.zeros((config.n_layer, config.n_head)), np.zeros(config.n_layer)
        for part in on:
            if part.head is None:
                mlps[part.layer] = 1
            else:
                heads[part.layer, part.head] = 1
        if self._means is None:
            return Edits(heads=heads, mlps=mlps)
        return Edits(heads=heads, mlps=mlps, head_means=self._means.heads, mlp_means=self._means.mlps)

    def margins(self, on: frozenset[Component]) -> Array:
        """By how much each prompt's target leads; below 0 where another token does."""
        if on not in self._known:
            self._known[on] = self._run(self.edits(on))
            if self._progress:
                self._progress("Searching", len(self._known), 20 * len(self.components))
        return self._known[on]

    def worst(self, on: frozenset[Component]) -> float:
        """The least margin of all prompts."""
        return float(self.margins(on).min())

    def _run(self, edits: Edits) -> Array:
        margins = np.empty(len(self._cases))
        for numbers in reference.by_length([case.ids for case in self._cases]).values():
            ids = np.array([self._cases[i].ids for i in numbers])
            logits = reference.forward(ids, self._model.weights, self._model.config, edits)["logits"][:, -1]  # [B, V]
            rows, targets = np.arange(len(numbers)), [self._cases[i].target for i in numbers]
            right = logits[rows, targets]
            logits[rows, targets] = -np.inf
            margins[numbers] = right - logits.max(axis=-1)
        return margins

    def shrunk(self, on: frozenset[Component]) -> frozenset[Component]:
        """What is left when nothing more can be removed."""
        while True:
            ranked = sorted(sorted(on, key=_order), key=lambda part: -self.worst(on - {part}))
            right = sum(self.worst(on - {part}) > 0 for part in ranked)
            count = self._removable(on, ranked[:right])
            if not count:
                return on
            on = on - set(ranked[:count])

    def _removable(self, on: frozenset[Component], ranked: list[Component]) -> int:
        """How many of the first, each of which can be removed alone, can be removed together: at most half of all."""
        if len(on) <= MANY:
            return min(1, len(ranked))
        fewest, most = min(1, len(ranked)), min(len(ranked), len(on) // 2)
        while fewest < most:
            middle = (fewest + most + 1) // 2
            if self.worst(on - set(ranked[:middle])) > 0:
                fewest = middle
            else:
                most = middle - 1
        return fewest

    def swapped(self, on: frozenset[Component]) -> frozenset[Component]:
        """A smaller set, if there is one with a component from outside in place of two inside."""
        smaller = next(self._swaps(on), None)
        return on if smaller is None else self.swapped(self.shrunk(smaller))

    def _swaps(self, on: frozenset[Component]) -> Iterator[frozenset[Component]]:
        outside = sorted(self.components - on, key=lambda part: (-self.worst(on | {part}), _order(part)))
        for part in outside[:CANDIDATES]:
            more = on | {part}
            spare = [old for old in sorted(on, key=_order) if self.worst(more - {old}) > 0]
            yield from (less for pair in combinations(spare, 2) if self.worst(less := more - set(pair)) > 0)


def tables(found: Circuit) -> Iterator[Table]:
    """The components that are on, block by block, and every prompt with its margins."""
    layers, heads = found.inputs()["circuit.heads"].shape
    switches = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("block", *(f"head {i}" for i in range(heads)), "MLP"):
        switches.add_column(title, justify="right")
    for layer in range(layers):
        parts = (Component(layer, head) for head in (*range(heads), None))
        switches.add_row(str(layer), *("on" if part in found.components else "·" for part in parts))
    yield switches
    prompts = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("prompt", "target", "leads by", "in the whole model"):
        prompts.add_column(title, justify="left" if title in ("prompt", "target") else "right")
    for one, margin, full in zip(found.cases, found.margins, found.full_margins, strict=True):
        prompts.add_row(Text(one.prompt), Text(one.shown), f"{margin:.2f}", f"{full:.2f}")
    yield prompts
