"""The examples run, and do what they say."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_quickstart(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "quickstart.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Mike is a Jedi. He pulls out his lightsaber" in done.stdout


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

    from xlgpt.checkpoint import load

    documents = corpus(2000)
    check_held_out(documents)
    assert documents == corpus(2000), "the same seed gives the same corpus"
    tokenizer = load("tiny").tokenizer
    assert all(len(tokenizer.encode(answer)) == 1 for answer in answers())
