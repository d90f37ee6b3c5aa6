"""xlgpt circuit: the few heads and MLPs that keep the answers to some prompts right by themselves."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import combinations, islice
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from xlgpt.errors import NotOneToken, UsageError
from xlgpt.interp.mean_activations import Means, component_means
from xlgpt.model import reference
from xlgpt.model.checkpoint import HELD, Kept, Model, Weights
from xlgpt.model.config import GPT2Config
from xlgpt.model.edits import Edits
from xlgpt.model.tokenizer import Tokenizer, check_text
from xlgpt.parallel import Workers, check_jobs, kept, that_fit, workers
from xlgpt.progress import Progress

Array = NDArray[np.float64]
Ablation = Literal["mean", "zero"]
ABLATIONS: tuple[Ablation, ...] = ("mean", "zero")
MANY = 32  # components: of more, up to half are removed at once
WORTH_IT = 3_000_000  # parameters; below, starting a process takes longer than the work
BASE = 900_000_000  # bytes that a process takes without the weights, most of them for activations
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
    tried: how many sets of components were looked at. ran_on: how many processes, or workers of which cluster.
    """

    cases: tuple[Case, ...]
    components: tuple[Component, ...]
    edits: Edits
    ablate: Ablation
    margins: Array
    full_margins: Array
    tried: int
    ran_on: str

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
            f"the others give {'their mean' if self.ablate == 'mean' else 'zero'}. {self.tried:,} sets were tried on "
            f"{self.ran_on}."
        )


def find_circuit(
    model: Model,
    cases: tuple[Case, ...],
    ablate: Ablation = "mean",
    progress: Progress | None = None,
    jobs: int | None = None,
    cluster: str = "",
) -> Circuit:
    """The smallest set of components, as far as a greedy search sees, that keeps the answer right on all prompts.

    Whatever a set lacks is ablated at all positions. From all on, the component whose removal leaves the largest
    worst margin goes, until none can; of more than 32, up to half go at once. Then one from outside is tried in place
    of two inside. It takes about 2 runs of all prompts for each component of a large model, more where they are few:
    seconds for the bundled model, minutes for GPT-2 small.
    jobs: how many processes run them; by default one for each core, as far as the memory goes. cluster: the address of
    a Dask scheduler, tcp://…, whose workers run them instead. The circuit is the same.
    Raises UsageError where the whole model does not answer right, and what xlgpt.parallel does.
    """
    check_jobs(jobs, cluster)
    if jobs is None and not cluster:
        jobs = processes(model)
    question = asked(model, cases, ablate)
    with workers("tried sets of components", jobs, cluster, model.weights.files()) as others:
        search = Search(question, others, progress)
        everything = search.components
        full = search.margins(everything)
        if full.min() <= 0:
            wrong = cases[int(full.argmin())]
            raise UsageError(
                f"The model does not answer {model.tokenizer.text(wrong.target)!r} to {wrong.prompt!r}, "
                "so no circuit can be found that keeps it; leave the prompt out."
            )
        found = search.swapped(search.shrunk(everything))
        margins = search.margins(found)
    edits, ran_on = search.here.edits(found), str(others)
    return Circuit(cases, tuple(sorted(found, key=_order)), edits, ablate, margins, full, search.tried, ran_on)


def processes(model: Model) -> int:
    """How many run a model: one on each core, as far as the memory goes; one where that is soon done."""
    return that_fit(min(8 * model.parameters, HELD) + BASE) if model.parameters > WORTH_IT else 1


def _order(component: Component) -> tuple[int, int]:
    return component.layer, 10**6 if component.head is None else component.head


@dataclass(frozen=True)
class Question:
    """What another process needs to run all prompts: little, for it reads the weights itself.

    search: which search asks, for what is kept in a process is kept for one.
    """

    weights: Weights
    config: GPT2Config
    cases: tuple[Case, ...]
    ablate: Ablation
    search: str

    def margins(self, on: frozenset[Component]) -> Array:
        """By how much each prompt's target leads where only these components are on."""
        return kept(self.search, partial(Runs, self)).margins(on)


def asked(model: Model, cases: tuple[Case, ...], ablate: Ablation) -> Question:
    """The question of a new search."""
    return Question(model.weights, model.config, cases, ablate, uuid4().hex)


class Runs:
    """Runs all prompts with a set of components on and the others off; reads the weights once."""

    def __init__(self, question: Question):
        self._weights, self._config, self._cases = Kept(question.weights), question.config, question.cases
        prompts = [list(case.ids) for case in question.cases]
        is_mean = question.ablate == "mean"
        self._means = component_means(prompts, self._weights, self._config) if is_mean else None

    def edits(self, on: frozenset[Component]) -> Edits:
        """The switches that leave only these components on."""
        config = self._config
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
        edits, margins = self.edits(on), np.empty(len(self._cases))
        for numbers in reference.batches([case.ids for case in self._cases], self._config):
            ids = np.array([self._cases[i].ids for i in numbers])
            logits = reference.forward(ids, self._weights, self._config, edits)["logits"][:, -1]  # [B, V]
            rows, targets = np.arange(len(numbers)), [self._cases[i].target for i in numbers]
            right = logits[rows, targets]
            logits[rows, targets] = -np.inf
            margins[numbers] = right - logits.max(axis=-1)
        return margins


class Search:
    """Looks for a circuit, and has sets of components run by all that work, as many at a time as can be told."""

    def __init__(self, question: Question, others: Workers, progress: Progress | None):
        self._question, self._others, self._progress = question, others, progress
        self.here = Runs(question)
        self._known: dict[frozenset[Component], Array] = {}
        self._asked: set[frozenset[Component]] = set()

    @property
    def tried(self) -> int:
        """How many sets were looked at; a few more may have been run, where several processes ran."""
        return len(self._asked)

    @cached_property
    def components(self) -> frozenset[Component]:
        """All of them."""
        layers, heads = range(self._question.config.n_layer), range(self._question.config.n_head)
        return frozenset(Component(layer, head) for layer in layers for head in (*heads, None))

    def margins(self, on: frozenset[Component]) -> Array:
        """By how much each prompt's target leads; below 0 where another token does."""
        self._run([on])
        self._asked.add(on)
        return self._known[on]

    def _run(self, sets: Iterable[frozenset[Component]]) -> None:
        """Run all of them that are not known yet."""
        new = [on for on in dict.fromkeys(sets) if on not in self._known]
        for number, margins in self._others.shared(self._question.margins, new, self.here.margins):
            self._known[new[number]] = margins
            if self._progress:
                self._progress("Searching", len(self._known), 20 * len(self.components))

    def worst(self, on: frozenset[Component]) -> float:
        """The least margin of all prompts."""
        return float(self.margins(on).min())

    def shrunk(self, on: frozenset[Component]) -> frozenset[Component]:
        """What is left when nothing more can be removed."""
        while True:
            self._run(on - {part} for part in sorted(on, key=_order))
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
        self._run(on | {part} for part in sorted(self.components - on, key=_order))
        outside = sorted(self.components - on, key=lambda part: (-self.worst(on | {part}), _order(part)))
        for part in outside[:CANDIDATES]:
            more = on | {part}
            self._run(more - {old} for old in sorted(on, key=_order))
            spare = [old for old in sorted(on, key=_order) if self.worst(more - {old}) > 0]
            pairs = (more - set(pair) for pair in combinations(spare, 2))
            while some := list(islice(pairs, self._others.count)):
                self._run(some)
                yield from (less for less in some if self.worst(less) > 0)


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
