"""xlgpt edit: one fact of a model rewritten, written as an adapter, and what it did to all that the model knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from xlgpt.errors import BadSubject, UsageError
from xlgpt.interp.circuit import one_token, processes
from xlgpt.interp.relations import PLACE, neighbours, paraphrases, read_relations
from xlgpt.interp.rome import Place, own_prefixes, rewrite
from xlgpt.interp.steering import check_block
from xlgpt.interp.tracing import subject_tokens, trace
from xlgpt.model import reference
from xlgpt.model.adapter import Adapter, check_folder, write_adapter
from xlgpt.model.checkpoint import Model, Weights, in_memory, load
from xlgpt.model.config import GPT2Config
from xlgpt.model.edits import NOTHING, Edits
from xlgpt.model.tokenizer import check_text
from xlgpt.parallel import HERE, Workers, check_jobs, in_order, workers
from xlgpt.progress import Progress, silent

MOST_LOST = 5  # prompts that are named one by one
TOKENS = ("subject", "last")  # whose last token's key is changed: the subject's, or the prompt's


@dataclass(frozen=True)
class Share:
    """Of some prompts those after which the wanted token is the most likely one, before and after the change.

    lost: those that were right before, with the token that follows now.
    """

    name: str
    prompts: int
    before: int
    after: int
    lost: tuple[tuple[str, str], ...]

    def of(self, right: int) -> float:
        """The share that so many are; 0 of none."""
        return right / self.prompts if self.prompts else 0.0


@dataclass(frozen=True, eq=False)
class Edited:
    """A fact rewritten. block, token: whose MLP was changed, and for which token of the prompt (one of TOKENS).

    restored: how much of the answer that MLP's result brought back in causal tracing, from 0 to 1. shares: efficacy, of
    the prompt, alone and behind other sentences; paraphrases; neighbours, which should stay as they are. ran_on: how
    many processes ran the model, or workers of which cluster.
    """

    prompt: str
    subject: str
    target: str
    block: int
    token: str
    restored: float
    adapter: Adapter
    path: Path
    shares: tuple[Share, ...]
    ran_on: str

    def table(self) -> Table:
        """The three shares, before and after."""
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("share", "prompts", "before", "after"):
            shown.add_column(title, justify="left" if title == "share" else "right")
        for share in self.shares:
            before, after = (f"{share.of(n):.1%}" if share.prompts else "" for n in (share.before, share.after))
            shown.add_row(Text(share.name), f"{share.prompts:,}", before, after)
        return shown

    def __str__(self) -> str:
        where = {"subject": "the subject's last token", "last": "the prompt's last token"}[self.token]
        lost = [f"Lost: {prompt!r} goes on with {now!r} now." for share in self.shares for prompt, now in share.lost]
        if len(lost) > MOST_LOST:
            lost[MOST_LOST:] = [f"And {len(lost) - MOST_LOST} more (--json has all)."]
        return "\n".join(
            [
                f"{self.path}: {self.prompt.replace(PLACE, self.subject)}{self.target}, by {self.adapter.parameters:,} "
                f"numbers beside h.{self.block}.mlp.c_proj, whose key is that of {where} "
                f"({self.restored:.0%} of the answer comes from there).",
                *lost,
                f"The model ran on {self.ran_on}.",
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        keys = ("prompt", "subject", "target", "block", "token", "restored")
        shares = {
            share.name: {
                "prompts": share.prompts,
                "before": share.of(share.before),
                "after": share.of(share.after),
                "lost": dict(share.lost),
            }
            for share in self.shares
        }
        return {key: getattr(self, key) for key in keys} | {"path": str(self.path), "shares": shares}


def edit(
    model: str,
    prompt: str,
    subject: str,
    target: str,
    *,
    out: str | Path = "edit",
    block: int | None = None,
    token: str | None = None,
    text: str | Path | None = None,
    relations: str | Path | None = None,
    jobs: int | None = None,
    cluster: str = "",
    progress: Progress = silent,
) -> Edited:
    """Make `target` what follows the prompt about the subject, and write the change into the folder `out`.

    model: as for build. prompt: a text with {} in the subject's place, or with the subject itself. block, token: where
    to change it, chosen by causal tracing unless told. text: a file with a document a line, whose keys are left alone;
    relations: a file of facts, of which the shares are taken; unless told, those that come with the model.
    jobs: how many processes run the model; by default one for each core, as far as the memory goes. cluster: the
    address of a Dask scheduler, tcp://…, whose workers run it instead. The change is the same.
    Raises BadSubject, NotOneToken, UsageError, BadRelations, OutputError, whatever loading a model may, and what
    xlgpt.parallel does.
    """
    check_folder(Path(out))
    check_jobs(jobs, cluster)
    found = in_memory(load(model))
    wording = _with_place(prompt, subject)
    check_text(wording + subject + target)
    wanted = one_token(target, found.tokenizer)
    known = Path(relations) if relations else found.companions.relations
    facts = read_relations(known) if known else ()
    texts = read_text(Path(text) if text else found.companions.text, found)
    if jobs is None and not cluster:
        jobs = processes(found)
    with workers("ran the model", jobs, cluster, found.weights.files()) as others:
        progress("Tracing", 0, 1)
        site = _site(found, wording, subject, block, token, others)
        behind = [f"{prefix}{wording}" for prefix in ("", *own_prefixes(found, others))]
        place = Place(site.block, tuple(_prompts(found, behind, subject, site.token)))
        adapter = rewrite(found, place, wanted, texts, Path(out).resolve().name, progress, others)
        asked = {
            "efficacy": [(found.tokenizer.decode(list(ids)), target) for ids, _ in place.prompts],
            "paraphrases": [(other.replace(PLACE, subject), target) for other in paraphrases(facts, wording)],
            "neighbours": list(neighbours(facts, wording, subject)),
        }
        shares = tuple(_share(name, cases, found, adapter, others) for name, cases in asked.items())
        ran_on = str(others)
    write_adapter(Path(out), adapter)
    return Edited(wording, subject, target, site.block, site.token, site.restored, adapter, Path(out), shares, ran_on)


@dataclass(frozen=True)
class _Site:
    """Whose MLP is changed, for which token (one of TOKENS), and how much of the answer it brings back."""

    block: int
    token: str
    restored: float


def _site(model: Model, wording: str, subject: str, block: int | None, token: str | None, others: Workers) -> _Site:
    """What is told, and of the rest what causal tracing finds. Raises UsageError."""
    if block is not None:
        check_block(block, model.config)
    if token not in (None, *TOKENS):
        raise UsageError(f"There is no token {token!r} to choose; write {' or '.join(TOKENS)}.")
    text, last = wording.replace(PLACE, subject), model.config.n_layer - 1
    ids = _ids(model, text)
    tokens = subject_tokens(text, subject, model.tokenizer, wording.index(PLACE))
    traced = trace(model, ids, tokens, kinds=("mlp_out",), others=others)
    places = {"subject": traced.subject[-1], "last": len(ids) - 1}
    blocks = range(model.config.n_layer) if block is None else [block]
    at_block, at = traced.decisive(blocks, places.values() if token is None else [places[token]])
    at_token = token or ("last" if at == places["last"] else "subject")
    if at_block == last and at != places["last"]:
        raise UsageError(
            f"Nothing reads what block {last} writes at the subject; choose another block, or the last token."
        )
    return _Site(at_block, at_token, float(traced.shares("mlp_out")[at_block, at]))


def _with_place(prompt: str, subject: str) -> str:
    """The prompt with {} once, where the subject goes. Raises BadSubject."""
    if PLACE not in prompt and subject:
        prompt = prompt.replace(subject, PLACE, 1)
    if prompt.count(PLACE) != 1 or not subject:
        raise BadSubject(
            f"The subject {subject!r} is not in the prompt {prompt!r}; write {PLACE} once, where the subject goes."
        )
    return prompt


def _ids(model: Model, text: str) -> list[int]:
    """The tokens of a prompt. Raises UsageError."""
    ids = model.tokenizer.encode(text)
    if not 0 < len(ids) <= model.config.n_positions:
        raise UsageError(f"The prompt {text!r} has {len(ids)} tokens; the model takes 1 to {model.config.n_positions}.")
    return ids


def _prompts(model: Model, wordings: Sequence[str], subject: str, token: str) -> Iterator[tuple[tuple[int, ...], int]]:
    """The tokens of each that is short enough, and the place of the one whose key is changed."""
    for wording in wordings:
        text = wording.replace(PLACE, subject)
        ids = tuple(model.tokenizer.encode(text))
        if len(ids) <= model.config.n_positions:
            within = subject_tokens(text, subject, model.tokenizer, wording.index(PLACE))
            yield ids, within[-1] if token == "subject" else len(ids) - 1


def read_text(path: Path | None, model: Model) -> list[list[int]]:
    """The documents of a file, one a line, as token ids; none without a file. Raises UsageError."""
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{path} cannot be read as UTF-8 text; it should have a document a line.") from e
    documents = [model.tokenizer.encode(line) for line in lines if line]
    if not documents:
        raise UsageError(f"{path} is empty; it should have a document a line.")
    return documents


def _share(name: str, cases: Sequence[tuple[str, str]], model: Model, adapter: Adapter, others: Workers) -> Share:
    prompts = [prompt for prompt, _ in cases]
    before, after = (next_tokens(prompts, model, edits, others) for edits in (NOTHING, Edits(adapter=adapter)))
    was, is_now = (
        [token == answer for token, (_, answer) in zip(found, cases, strict=True)] for found in (before, after)
    )
    lost = ((prompt, now) for prompt, now, old, new in zip(prompts, after, was, is_now, strict=True) if old and not new)
    return Share(name, len(cases), sum(was), sum(is_now), tuple(lost))


def next_tokens(prompts: Sequence[str], model: Model, edits: Edits = NOTHING, others: Workers = HERE) -> list[str]:
    """The most likely token behind each prompt."""
    encoded = [model.tokenizer.encode(prompt)[-model.config.n_positions :] for prompt in prompts]
    found = [""] * len(prompts)
    groups = list(reference.batches(encoded, model.config))
    run = partial(_most_likely, model.weights, model.config, edits)
    answers = in_order(others, run, [[encoded[i] for i in numbers] for numbers in groups])
    for numbers, best in zip(groups, answers, strict=True):
        for i, token in zip(numbers, best, strict=True):
            found[i] = model.tokenizer.text(token)
    return found


def _most_likely(weights: Weights, config: GPT2Config, edits: Edits, prompts: Sequence[Sequence[int]]) -> list[int]:
    """The token that comes next after each of some prompts of one length."""
    logits = reference.forward(np.array(prompts), weights, config, edits)["logits"][:, -1]
    return [int(best) for best in logits.argmax(axis=-1)]
