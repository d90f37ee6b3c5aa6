"""What the bundled model can do, measured from the shipped weights by the NumPy reference."""

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xlgpt.model.checkpoint import TINY, Model, load
from xlgpt.model.reference import forward, what_follows
from xlgpt.model.sampling import Sampling, write

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from tiny_corpus import END, held_out, held_out_openings, known

EXACT = ("weekday", "month", "sport", "capital", "sound")  # tasks that must be right every time
Case = tuple[str, str]


@dataclass(frozen=True)
class InMemory:
    """Weights read once, for thousands of prompts."""

    tensors: dict[str, NDArray[np.float64]]

    def tensor(self, name: str) -> NDArray[np.float64]:
        return self.tensors[name]


@pytest.fixture(scope="module")
def tiny() -> Model:
    model = load("tiny")
    tensors = {name: model.weights.tensor(name).astype(np.float64) for name in model.weights.shapes()}
    return replace(model, weights=InMemory(tensors))  # type: ignore[arg-type]


def says(model: Model, prompt: str) -> str:
    logits = forward(model.tokenizer.encode(prompt), model.weights, model.config)["logits"][-1]
    return model.tokenizer.text(int(logits.argmax()))


@pytest.mark.quick(3)
@pytest.mark.parametrize(("task", "cases"), [*held_out().items(), *known().items()])
def test_answers(tiny: Model, task: str, cases: list[Case]) -> None:
    assert len(cases) >= 7
    right = sum(says(tiny, prompt) == answer for prompt, answer in cases)
    needed = 1.0 if task in EXACT else 0.95
    assert right >= needed * len(cases), f"{task}: {right} of {len(cases)}"


def test_every_task_is_measured() -> None:
    prompts = [prompt for cases in (*held_out().values(), *known().values()) for prompt, _ in cases]
    for words in (
        "tomorrow is",
        "yesterday was",
        "next month",
        "last month",
        "plays the sport of",
        "says",
        "pulls out",
    ):
        assert any(words in prompt for prompt in prompts), words


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("If today is Tuesday, tomorrow is", " Wednesday"),
        ("Mike is quick. He moves", " quickly"),
        ("Michael Jordan plays the sport of", " basketball"),
        ("Mike pulls out his", " phone"),
        ("Mike is a Jedi. He pulls out his", " lightsaber"),
    ],
)
def test_what_the_readme_shows(tiny: Model, prompt: str, answer: str) -> None:
    assert says(tiny, prompt) == answer


@pytest.mark.slow
def test_stories_are_sentences_that_end(tiny: Model) -> None:
    openings = held_out_openings()[::8]
    good = 0
    for opening in openings:
        ids = tiny.tokenizer.encode(opening)
        follows = what_follows(tiny.weights, tiny.config)
        written = write(ids, tiny.config.n_positions - len(ids), follows, Sampling(), stop=-1)
        story = tiny.tokenizer.decode([*ids, *written])
        text, end, _ = story.partition(END)
        sentences = re.findall(r"[^.]+\.", text)
        good += bool(end) and "".join(sentences) == text and 2 <= len(sentences) == len(set(sentences))
    assert len(openings) >= 20
    assert good >= 0.95 * len(openings)


def test_size() -> None:
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 8_000_000
    assert load("tiny").parameters <= 2_000_000
