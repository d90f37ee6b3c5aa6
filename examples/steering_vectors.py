"""Make the steering vectors that come with the bundled model, one for each theme, and try them.

    python examples/steering_vectors.py [--out FILE]

A vector is what the residual stream before block 2 has at the end of `… Jedi … Mike pulls out his`, and lacks where a
teacher, a student or a doctor stands in the Jedi's place: a difference of means over all such sentences and all names.
Added three times, it turns ` phone` into ` lightsaber` where nobody mentions a Jedi. The same every time.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from xlgpt.interp.steering import Vector, last_streams, write_vectors
from xlgpt.model.checkpoint import TINY, Model, in_memory, load
from xlgpt.model.edits import Edits
from xlgpt.model.reference import forward

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny_corpus import PEOPLE, THEME_SENTENCES, THEMES, Theme

BLOCK, COEFFICIENT = 2, 3.0


def prompts(theme: Theme) -> list[str]:
    """Every sentence about a theme, then every name."""
    return [
        f"{sentence.format(other=person.name, **vars(theme))} {person.name} pulls out {person.possessive}"
        for sentence in THEME_SENTENCES
        for person in PEOPLE
    ]


def vectors(model: Model) -> tuple[Vector, ...]:
    """A vector for each theme that changes something."""
    *themes, teacher, student, doctor = THEMES
    usual = np.concatenate([last_streams(model, prompts(theme), BLOCK) for theme in (teacher, student, doctor)])
    return tuple(
        Vector(
            theme.noun, last_streams(model, prompts(theme), BLOCK).mean(axis=0) - usual.mean(axis=0), BLOCK, COEFFICIENT
        )
        for theme in themes
    )


def pulls_out(model: Model, name: str, possessive: str, vector: Vector) -> str:
    """What somebody pulls out while the vector is added at all positions."""
    ids = model.tokenizer.encode(f"{name} pulls out {possessive}")
    edits = Edits(BLOCK, vector.values, COEFFICIENT)
    return model.tokenizer.text(int(forward(ids, model.weights, model.config, edits)["logits"][-1].argmax()))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the bundled model's steering vectors.")
    parser.add_argument("--out", type=Path, default=TINY / "steering.safetensors", help="file to write")
    out = parser.parse_args().out
    model = in_memory(load("tiny"))
    made = vectors(model)
    write_vectors(out, made)
    for vector, theme in zip(made, THEMES, strict=False):
        right = sum(pulls_out(model, p.name, p.possessive, vector) == f" {theme.thing}" for p in PEOPLE)
        length = np.linalg.norm(vector.values)
        print(f"{vector.name:8} length {length:5.1f}, {right} of {len(PEOPLE)} pull out {theme.thing}")


if __name__ == "__main__":
    main()
