"""The examples run, and do what they say."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "says"),
    [
        ("quickstart", "Mike is a Jedi. He pulls out his lightsaber"),
        ("attention", "The head that looks most at the same token: block 2, head 0."),
        ("circuit", "If today is Tuesday, tomorrow is Wednesday: logit"),
        ("facts", "Without the 384 strongest of each token's 384 neurons: ␣hockey"),
        ("steering", "3 times Jedi: Mike pulls out his␣lightsaber (94%)"),
        ("adapters", "1 times obi-wan: The capital of France is Paris, Luke."),
        ("features", "With feature 2 turned up: Mike pulls out his lightsaber"),
        ("tracing", "the MLP: most comes back at ␣of, block 0: 99%"),
        ("edit", "rewritten: Michael Jordan likes soccer"),
        ("anatomy", "Of the blocks' numbers 66.4% are MLP."),
    ],
)
def test_examples_say_what_they_find(tmp_path: Path, example: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{example}.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


@pytest.mark.slow
def test_lens(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "lens.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "the best is ␣is" in lines[0]
    assert "the best is ␣Wednesday" in lines[-1]
    assert "␣Wednesday has rank 1, 99" in lines[-1]


def test_train_tiny_makes_the_same_corpus_and_vocabulary() -> None:
    """What is quick of the training: no held-out case is in the corpus, and every answer is one token."""
    sys.path.insert(0, str(EXAMPLES))
    from tiny_corpus import answers, check_held_out, corpus

    from xlgpt.model.checkpoint import load

    documents = corpus(2000)
    check_held_out(documents)
    assert documents == corpus(2000), "the same seed gives the same corpus"
    tokenizer = load("tiny").tokenizer
    assert all(len(tokenizer.encode(answer)) == 1 for answer in answers())
