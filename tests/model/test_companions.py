"""What comes with a model: an xlgpt.toml beside any checkpoint names vectors, an autoencoder, features and prompts."""

import shutil
from pathlib import Path

import pytest

import xlgpt
from xlgpt.errors import BadCheckpoint
from xlgpt.model.checkpoint import TINY
from xlgpt.model.companions import read_companions
from xlgpt.workbook.book import Book


def test_a_copy_of_the_bundled_model_brings_the_same(tmp_path: Path) -> None:
    """By its file alone: its name is another."""
    folder = tmp_path / "mine"
    shutil.copytree(TINY, folder)
    told = (folder / "xlgpt.toml").read_text().replace("[2, 251,", "[7, 251,")
    (folder / "xlgpt.toml").write_text(told)
    xlgpt.build(tmp_path / "book.xlsx", str(folder), sheets="steering,features", context=8, max_bytes=40, generate=1)
    cells = Book(tmp_path / "book.xlsx").settings.cells
    assert cells["steering.names"][0, 0] == "Jedi"
    assert cells["features.number"][0, 0] == 7


def test_without_the_file_nothing_comes_along(tmp_path: Path) -> None:
    assert read_companions(tmp_path).sae is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sae = ", "no TOML file that can be read"),
        (
            "autoencoder = 'sae'",
            "has the key 'autoencoder'; it may have adapters, features, prompts, relations, sae, steering, text",
        ),
        ("features = ['2']", "features is ['2']; it must be a list of numbers from 0"),
        ("features = [true]", "it must be a list of numbers from 0"),
        ("prompts = 'one'", "it must be a list of texts"),
        ("steering = 1", "steering is 1; it must be a path"),
        ("adapters = 'one'", "adapters is 'one'; it must be a list of paths"),
        ("adapters = ['nowhere']", "names 'nowhere' as adapters, and there is no such thing beside it"),
        ("sae = 'nowhere'", "names 'nowhere' as sae, and there is no such thing beside it"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "xlgpt.toml").write_text(text)
    with pytest.raises(BadCheckpoint) as failure:
        read_companions(tmp_path)
    assert says in str(failure.value)
    assert str(tmp_path / "xlgpt.toml") in str(failure.value)
