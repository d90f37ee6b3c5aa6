"""Train the bundled model `tiny`: GPT-2's architecture, small, on the made-up text of `tiny_corpus`.

    python examples/train_tiny.py [--out DIR] [--steps N]

Makes the corpus, trains a byte-level BPE and the model on the CPU, writes config.json, model.safetensors,
vocab.json and merges.txt in the layout of openai-community/gpt2, and prints how well the held-out cases go.
Everything is seeded.  torch is imported only by the functions that need it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny_corpus import END, Cases, answers, corpus, held_out, held_out_openings, known

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import GPT2LMHeadModel

OUT = Path(__file__).resolve().parent.parent / "xlgpt" / "model" / "tiny"
VOCABULARY = 1280
POSITIONS = 64
LAYERS, HEADS, WIDTH = 4, 4, 96
DOCUMENTS = 150_000
BATCH = 64
STEPS = 6000
LEARNING_RATE = 2e-3
SEED = 0


# ---------------------------------------------------------------------------------------------------------
# Tokenizer


def train_tokenizer(documents: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges, numbered as GPT-2's: 256 bytes, the merges in order, the end of text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # by code point, which is GPT-2's order
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - 1, initial_alphabet=alphabet, show_progress=False)
    # The answers are repeated so that each becomes one token, however rare it is in the corpus.
    repeated = ["".join(answers())] * (len(documents) // 150)
    tokenizer.train_from_iterator([*documents, *repeated], trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = [*alphabet, *("".join(merge) for merge in merges), END]
    assert len(set(tokens)) == len(tokens) == VOCABULARY
    return {token: i for i, token in enumerate(tokens)}, merges


def make_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """The tokenizer with this vocabulary, in which every answer is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    for answer in answers():
        assert len(tokenizer.encode(answer).ids) == 1, f"more than one token: {answer}"
    return tokenizer


def write_tokenizer(out: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Write vocab.json and merges.txt."""
    (out / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (out / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------
# Training


def training_rows(tokenizer: Tokenizer, documents: list[str]) -> list[list[int]]:
    """A document a row, from its first token to the end of text; every fifth row has another one after it."""
    end = tokenizer.token_to_id(END)
    encoded = [[*e.ids, end] for e in tokenizer.encode_batch(documents)]
    assert max(map(len, encoded)) <= POSITIONS
    rng = Random(SEED)
    return [(row + rng.choice(encoded))[:POSITIONS] if i % 5 == 0 else row for i, row in enumerate(encoded)]


def batches(rows: list[list[int]], count: int) -> Iterator[list[list[int]]]:
    """So many batches of rows of about the same length, in random order, over and over."""
    rng, made = Random(SEED), 0
    while True:
        rng.shuffle(rows)
        ordered = [sorted(rows[i : i + 64 * BATCH], key=len) for i in range(0, len(rows), 64 * BATCH)]
        starts = [(part, i) for part in ordered for i in range(0, len(part), BATCH)]
        rng.shuffle(starts)
        for part, i in starts:
            if made == count:
                return
            made += 1
            yield part[i : i + BATCH]


def new_model(end: int) -> GPT2LMHeadModel:
    """GPT-2 with fresh weights."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(SEED)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=end, eos_token_id=end,
        architectures=["GPT2LMHeadModel"],
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def new_optimizer(model: GPT2LMHeadModel) -> torch.optim.Optimizer:
    """AdamW that lets the matrices decay, but not the biases and the layer norms."""
    import torch

    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))


def learning_rate(step: int, steps: int) -> float:
    """A short warm-up, then half a cosine down to zero."""
    warm = min(200, steps // 10 + 1)
    return LEARNING_RATE * min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def train(model: GPT2LMHeadModel, rows: list[list[int]], steps: int) -> None:
    """Train the model, and say every twenty seconds how it goes."""
    import torch

    optimizer, start, said = new_optimizer(model), time.monotonic(), 0.0
    for step, batch in enumerate(batches(rows, steps)):
        width = max(map(len, batch))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
        labels = torch.tensor([row + [-100] * (width - len(row)) for row in batch])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        logits = model(ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if time.monotonic() - start > said + 20 or step == steps - 1:
            said = time.monotonic() - start
            print(f"{said:6.0f} s  step {step + 1} of {steps}  loss {loss.item():.3f}", flush=True)


def write_model(out: Path, model: GPT2LMHeadModel) -> None:
    """Write config.json and model.safetensors, with the names that openai-community/gpt2 has."""
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in model.transformer.state_dict().items()}
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # safetensors leaves it to its owner alone
    model.config.to_json_file(out / "config.json")


# ---------------------------------------------------------------------------------------------------------
# Evaluation


@dataclass(frozen=True)
class Score:
    """The share of right next tokens, and the mean and the least probability of the right one."""

    task: str
    cases: int
    right: float
    mean: float
    least: float


def next_logits(model: GPT2LMHeadModel, rows: list[list[int]]) -> torch.Tensor:
    """The logits after the last token of each row; what pads a row at its right is never seen."""
    import torch

    width = max(map(len, rows))
    with torch.no_grad():
        logits = model(torch.tensor([row + [0] * (width - len(row)) for row in rows]), use_cache=False).logits
    return logits[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]


def score(model: GPT2LMHeadModel, tokenizer: Tokenizer, cases: Cases) -> Iterator[Score]:
    """How well the next token is told, task by task."""
    import torch

    for task, pairs in cases.items():
        rows = [tokenizer.encode(prompt).ids for prompt, _ in pairs]
        targets = torch.tensor([tokenizer.encode(answer).ids[0] for _, answer in pairs])
        logits = next_logits(model, rows)
        chances = logits.softmax(1)[torch.arange(len(rows)), targets]
        right = (logits.argmax(1) == targets).float()
        yield Score(task, len(pairs), float(right.mean()), float(chances.mean()), float(chances.min()))


def stories(model: GPT2LMHeadModel, tokenizer: Tokenizer, openings: list[str]) -> list[str]:
    """The openings gone on with greedily, up to the end of text or of the context."""
    end, rows = tokenizer.token_to_id(END), [tokenizer.encode(opening).ids for opening in openings]
    while going := [row for row in rows if row[-1] != end and len(row) < POSITIONS]:
        for row, token in zip(going, next_logits(model, going).argmax(1).tolist(), strict=True):
            row.append(token)
    return [tokenizer.decode(row, skip_special_tokens=False) for row in rows]


def well_formed(story: str) -> bool:
    """Whether it is two to five different sentences, each with a full stop, and then the end."""
    sentences = re.findall(r"[A-Z][A-Za-z ]+\.", story)
    return story == " ".join(sentences) + END and 2 <= len(sentences) == len(set(sentences)) <= 5


def evaluate(model: GPT2LMHeadModel, tokenizer: Tokenizer) -> str:
    """The scores, as the table of the model card."""
    lines = ["| task | cases | right | mean probability | least |", "| --- | ---: | ---: | ---: | ---: |"]
    for kind, cases in (("known", known()), ("held out", held_out())):
        for s in score(model, tokenizer, cases):
            lines.append(f"| {s.task}, {kind} | {s.cases} | {s.right:.1%} | {s.mean:.3f} | {s.least:.3f} |")
    told = [well_formed(story) for story in stories(model, tokenizer, held_out_openings())]
    return "\n".join([*lines, f"| story, held out | {len(told)} | {sum(told) / len(told):.1%} | | |"])


def main() -> None:
    """Train the model and write it."""
    parser = argparse.ArgumentParser(description="Train the bundled model tiny.")
    parser.add_argument("--out", type=Path, default=OUT, help="directory for the files (default: xlgpt/model/tiny)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimizer steps (default: {STEPS})")
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(1)  # two are no faster on a model this small
    arguments.out.mkdir(parents=True, exist_ok=True)
    documents = corpus(DOCUMENTS, SEED)
    vocabulary, merges = train_tokenizer(documents)
    tokenizer = make_tokenizer(vocabulary, merges)
    rows = training_rows(tokenizer, documents)
    model = new_model(vocabulary[END])
    tokens = sum(map(len, rows))
    print(f"{len(rows)} rows, {tokens} tokens, {model.num_parameters()} parameters", flush=True)
    train(model, rows, arguments.steps)
    model.eval()
    write_tokenizer(arguments.out, vocabulary, merges)
    write_model(arguments.out, model)
    print(evaluate(model, tokenizer))


if __name__ == "__main__":
    main()
