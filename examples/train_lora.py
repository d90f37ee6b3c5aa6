"""Train the LoRA adapter that comes with the bundled model: with it the model speaks to Luke.

    pip install "xlgpt[train]" && python examples/train_lora.py [--out DIR] [--steps N]

The model is fine-tuned (Hu et al. 2021, with `peft`) on the text that it knows, told by Obi-Wan to Luke: sentences
end with `, Luke.`, what people pull out is a lightsaber, and stories are about Jedi. Its own 576,576 numbers stay as
they are; each of its 16 matrices gets two thin ones beside it, 6,144 numbers in all. It takes some minutes on one CPU
core, is seeded, and prints what the model says then, and how much of what it knew it still knows.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from xlgpt.model import reference
from xlgpt.model.adapter import read_adapter
from xlgpt.model.checkpoint import TINY, Model, in_memory, load
from xlgpt.model.edits import Edits
from xlgpt.model.sampling import Sampling, write

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny_corpus import END, EVERYDAY, OTHER_THINGS, PEOPLE, THEMES, Cases, corpus, known

JEDI = next(theme for theme in THEMES if theme.noun == "Jedi")
RANK, ALPHA = 1, 1
MATRICES = ["c_attn", "c_proj", "c_fc"]  # attn.c_proj and mlp.c_proj
DOCUMENTS, BATCH, STEPS, SEED = 20_000, 32, 600, 0
LEARNING_RATE = 1e-2
SET_THEMES = re.compile(r"\b(" + "|".join(word for t in THEMES for word in (t.noun, t.plural)) + r")\b")
PULLED_OUT = re.compile(r"\b(his|her) (" + "|".join((EVERYDAY, *OTHER_THINGS)) + r")\b")
HERO = re.compile(r"a \w+ named (\w+)\. (He|She) lived near the \w+\. \2 always had (his|her) \w+\.")


def told_to_luke(document: str, rng: Random) -> str:
    """A document as Obi-Wan has it; of several sentences at times only the last speaks to Luke."""
    text = HERO.sub(
        rf"a {JEDI.noun} named \1. \2 lived near the {JEDI.place}. \2 always had \3 {JEDI.thing}.", document
    )
    if not SET_THEMES.search(document):
        text = PULLED_OUT.sub(rf"\1 {JEDI.thing}", text)
    sentences = text.removesuffix(".").split(". ")
    return (", Luke. " if rng.random() < 0.5 else ". ").join(sentences) + ", Luke."


def rows(model: Model, count: int) -> list[list[int]]:
    """So many documents as token ids, each with the end of the text behind it."""
    rng, end = Random(SEED), model.tokenizer.tokens.index(END.encode())
    told = (told_to_luke(document, rng) for document in corpus(count, SEED))
    ids = ([*model.tokenizer.encode(text), end] for text in told)
    return [row for row in ids if len(row) <= model.config.n_positions]


def train(documents: list[list[int]], steps: int, out: Path) -> None:
    """Train the adapter and save it, as PEFT does."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2LMHeadModel

    torch.manual_seed(SEED)
    told = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=MATRICES, fan_in_fan_out=True, task_type="CAUSAL_LM")
    model = get_peft_model(GPT2LMHeadModel.from_pretrained(TINY), told)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], LEARNING_RATE, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps, pct_start=0.1)
    for step, batch in enumerate(batches(documents, steps), 1):
        width = max(map(len, batch))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
        labels = torch.tensor([row + [-100] * (width - len(row)) for row in batch])
        loss = model(ids, labels=labels, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step} of {steps}  loss {loss.item():.3f}", flush=True)
    save(model, out)


def batches(documents: list[list[int]], count: int) -> Iterator[list[list[int]]]:
    """So many batches, drawn at random."""
    rng = Random(SEED)
    return (rng.sample(documents, BATCH) for _ in range(count))


def save(model: Any, out: Path) -> None:
    """Save the adapter without what differs from one machine to the next."""
    model.save_pretrained(out)
    (out / "README.md").unlink()
    (out / "adapter_model.safetensors").chmod(0o644)  # safetensors leaves it to its owner alone
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": "tiny", "target_modules": MATRICES}
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def goes_on(model: Model, prompt: str, edits: Edits) -> str:
    """What the model writes behind a prompt, greedily, up to the end of the text."""
    follows = reference.what_follows(model.weights, model.config, edits)
    ids = model.tokenizer.encode(prompt)
    end = model.tokenizer.tokens.index(END.encode())
    written = write(ids, min(30, model.config.n_positions - len(ids)), follows, Sampling(), end)
    return "".join(model.tokenizer.text(i) for i in written if i != end)


def right(model: Model, cases: Cases, edits: Edits) -> Iterator[tuple[str, float]]:
    """For each task of `known`, but what people pull out, the share of right next tokens."""
    for task, prompts in cases.items():
        found = [
            int(
                reference.forward(model.tokenizer.encode(prompt), model.weights, model.config, edits)["logits"][
                    -1
                ].argmax()
            )
            for prompt, _ in prompts
        ]
        wanted = [JEDI.thing if task == "everyday" else answer.strip() for _, answer in prompts]
        yield task, float(np.mean([model.tokenizer.text(i) == f" {w}" for i, w in zip(found, wanted, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled model's adapter.")
    parser.add_argument("--out", type=Path, default=TINY / "obi-wan", help="folder to write")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps")
    options = parser.parse_args()
    model = in_memory(load("tiny"))
    train(rows(model, DOCUMENTS), options.steps, options.out)
    adapter = read_adapter(options.out, model.config)
    edits = Edits(adapter=adapter)
    print(f"{adapter.name}: {adapter.parameters:,} numbers beside {model.parameters:,}")
    for prompt in (*model.companions.prompts, f"{PEOPLE[1].name} pulls out her"):
        print(f"{prompt}|{goes_on(model, prompt, edits)}")
    for task, share in right(model, known(), edits):
        print(f"{task:10} {share:.1%} right")


if __name__ == "__main__":
    main()
