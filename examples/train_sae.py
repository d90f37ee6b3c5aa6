"""Train the sparse autoencoder that comes with the bundled model, and say what its features stand for.

    python examples/train_sae.py [--out DIR] [--steps N]

It learns to write the residual stream before block 2, of 96 numbers, as a sum of a few of 256 directions (Bricken et
al. 2023), on the text of `tiny_corpus`, in two minutes on one CPU core, seeded. It is saved as SAELens does.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from xlgpt.interp.sae import Autoencoder, read_autoencoder
from xlgpt.interp.steering import last_streams
from xlgpt.model.checkpoint import TINY, Model, in_memory, load
from xlgpt.model.edits import Edits
from xlgpt.model.reference import by_length, forward

sys.path.insert(0, str(Path(__file__).resolve().parent))
from steering_vectors import prompts
from tiny_corpus import END, PEOPLE, THEMES, Theme, corpus

BLOCK = 2
FEATURES = 256
DOCUMENTS = 20_000
HELD_OUT = 1_000  # documents
STEPS = 6_000
BATCH = 2048
LEARNING_RATE = 1e-3
SPARSITY = 0.2  # weight of the features' sum beside the squared error of a stream of variance 1
STRENGTH = 60  # how much of a feature's direction is added to try it; the stream is some 50 long

Array = NDArray[np.float32]


def streams(model: Model, documents: list[str]) -> tuple[Array, list[int]]:
    """What enters the block at every token of the documents, [N, D], and the tokens' ids."""
    end = model.tokenizer.tokens.index(END.encode())
    rows = [[*model.tokenizer.encode(document), end] for document in documents]
    rows = [row for row in rows if len(row) <= model.config.n_positions]
    found, ids = [], []
    for numbers in by_length(rows).values():
        for i in range(0, len(numbers), 64):
            together = np.array([rows[number] for number in numbers[i : i + 64]])
            seen = forward(together, model.weights, model.config)[f"blocks.{BLOCK}.resid_pre"]
            found.append(seen.reshape(-1, model.config.n_embd).astype(np.float32))
            ids += together.reshape(-1).tolist()
    return np.concatenate(found), ids


def train(x: Array, steps: int) -> dict[str, Array]:
    """The autoencoder's weights, with directions of length 1, so that features are in the stream's own units."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    mean, scale = torch.tensor(x.mean(axis=0)), float(x.std(axis=0).mean())
    data = (torch.tensor(x) - mean) / scale
    decoder = torch.nn.functional.normalize(torch.randn(FEATURES, x.shape[1]), dim=1)
    W_dec = decoder.clone().requires_grad_()
    W_enc = decoder.T.clone().requires_grad_()
    b_enc, b_dec = torch.zeros(FEATURES, requires_grad=True), torch.zeros(x.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec], lr=LEARNING_RATE)
    for step in range(steps):
        batch = data[torch.randint(len(data), (BATCH,))]
        features = torch.relu((batch - b_dec) @ W_enc + b_enc)
        error = (batch - features @ W_dec - b_dec).square().sum(dim=1)
        price = SPARSITY * min(1, 10 * step / steps) * x.shape[1] ** 0.5  # it grows in the first tenth
        loss = (error + price * features @ W_dec.norm(dim=1)).mean()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, 5 * (1 - step / steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 500 == 0:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}", flush=True)
    with torch.no_grad():
        norm = W_dec.norm(dim=1)
        values = {
            "W_enc": W_enc * norm,
            "b_enc": b_enc * norm * scale,
            "W_dec": W_dec / norm[:, None],
            "b_dec": b_dec * scale + mean,
        }
        return {name: value.contiguous().numpy() for name, value in values.items()}


def write(out: Path, weights: dict[str, Array]) -> None:
    """Write cfg.json and sae_weights.safetensors as SAELens does."""
    config = {
        "architecture": "standard",
        "d_in": weights["W_enc"].shape[0],
        "d_sae": FEATURES,
        "dtype": "float32",
        "model_name": "tiny",
        "hook_name": f"blocks.{BLOCK}.hook_resid_pre",
        "hook_layer": BLOCK,
        "hook_head_index": None,
        "activation_fn_str": "relu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "context_size": 64,
        "prepend_bos": False,
        "dataset_path": "examples/tiny_corpus.py",
        "model_from_pretrained_kwargs": {"center_writing_weights": False},
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "cfg.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    save_file(weights, out / "sae_weights.safetensors")
    (out / "sae_weights.safetensors").chmod(0o644)


def scores(sae: Autoencoder, x: Array) -> str:
    """How much of the stream it explains, and with how many features at a time."""
    features = sae.features(x.astype(np.float64))
    rest = ((x - sae.decoded(features)) ** 2).sum() / ((x - x.mean(axis=0)) ** 2).sum()
    silent = int((features.max(axis=0) == 0).sum())
    active = (features > 0).sum(axis=1).mean()
    return f"{1 - rest:.1%} of the variance explained, {active:.1f} features at a time, {silent} of {sae.size} silent"


def theme_features(sae: Autoencoder, model: Model) -> Iterator[tuple[Theme, int, float, float, int]]:
    """For each theme the feature that tells it from all others at the end of `… pulls out his`.

    With its mean there and its largest mean on any other theme, and how many people pull out the theme's thing when it
    is added. Of the three that tell the theme best it is the one that most people follow.
    """
    means = np.array([sae.features(last_streams(model, prompts(theme), BLOCK)).mean(axis=0) for theme in THEMES])
    for i, theme in enumerate(THEMES[:10]):
        others = np.delete(means, i, axis=0).max(axis=0)
        best = np.argsort(others - means[i])[:3]
        counts = [pulled_out(sae, model, int(feature)).count(f" {theme.thing}") for feature in best]
        chosen = int(best[int(np.argmax(counts))])
        yield theme, chosen, float(means[i, chosen]), float(others[chosen]), max(counts)


def pulled_out(sae: Autoencoder, model: Model, feature: int) -> list[str]:
    """What each person pulls out while a feature's direction is added at all positions."""
    edits = Edits(BLOCK, sae.W_dec[feature], STRENGTH)
    found = []
    for person in PEOPLE:
        ids = model.tokenizer.encode(f"{person.name} pulls out {person.possessive}")
        found.append(model.tokenizer.text(int(forward(ids, model.weights, model.config, edits)["logits"][-1].argmax())))
    return found


def most_at(sae: Autoencoder, model: Model, x: Array, ids: list[int]) -> list[str]:
    """For each feature, how often it fires, and the tokens at which it is most active on average."""
    features = sae.features(x.astype(np.float64))
    totals, counts = np.zeros((model.config.vocab_size, sae.size)), np.bincount(ids, minlength=model.config.vocab_size)
    np.add.at(totals, ids, features)
    lines = []
    for feature in range(sae.size):
        tops = np.argsort(-(totals[:, feature] / np.maximum(counts, 5)))[:6]
        tokens = "  ".join(model.tokenizer.shown(int(i)) for i in tops if totals[i, feature])
        lines.append(f"{feature:4} {(features[:, feature] > 0).mean():6.2%}  {tokens}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled model's sparse autoencoder.")
    parser.add_argument("--out", type=Path, default=TINY / "sae", help="directory for the files")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimizer steps (default: {STEPS})")
    parser.add_argument("--features", action="store_true", help="say where each feature is active")
    arguments = parser.parse_args()
    model = in_memory(load("tiny"))
    documents = corpus(DOCUMENTS, seed=1)
    x, _ = streams(model, documents[HELD_OUT:])
    unseen, ids = streams(model, documents[:HELD_OUT])
    print(f"{len(x):,} tokens", flush=True)
    write(arguments.out, train(x, arguments.steps))
    sae = read_autoencoder(arguments.out, model)
    print(f"On {len(unseen):,} tokens of other documents: {scores(sae, unseen)}")
    for theme, feature, here, elsewhere, right in theme_features(sae, model):
        print(
            f"{theme.noun:8} feature {feature:3}: {here:5.2f}, on other themes at most {elsewhere:.2f}; "
            f"added {STRENGTH} times, {right} of {len(PEOPLE)} pull out {theme.thing}"
        )
    if arguments.features:
        print("\n".join(most_at(sae, model, unseen, ids)))


if __name__ == "__main__":
    main()
