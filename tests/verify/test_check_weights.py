"""With a checkpoint, check also sees what is no weight of it: vectors, an autoencoder, means, vocabulary, merges."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from xlgpt.model.checkpoint import load
from xlgpt.verify.check_weights import Given, check_what_it_holds
from xlgpt.verify.report import BandResult
from xlgpt.workbook.book import Book
from xlgpt.workbook.fill import fill


def found(book: Book, given: Given) -> dict[str, BandResult]:
    """What is wrong, or not checked, by name."""
    bands = [band for sheet in check_what_it_holds(book, given) for band in sheet.bands]
    return {band.name: band for band in bands if band.problem or band.gap}


def test_the_bundled_model_has_all_that_comes_with_it(tiny_book: Path) -> None:
    assert found(Book(tiny_book), Given(load("tiny"))) == {}


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("band", "place", "name"),
    [
        ("steering.vectors", (3, 5), "vector farmer"),
        ("steering.coefficients", (0, 0), "vector Jedi"),
        ("features.W_enc", (2, 9), "features.W_enc"),
        ("features.b_dec", (0, 1), "features.b_dec"),
        ("circuit.head_means", (1, 7), "circuit.head_means"),
        ("circuit.mlp_means", (0, 0), "circuit.mlp_means"),
    ],
)
def test_one_number_that_differs(band: str, place: tuple[int, int], name: str, tiny_book: Path, tmp_path: Path) -> None:
    cells = np.array(Book(tiny_book).settings.cells[band])
    cells[place] = float(cells[place]) + 1e-6
    fill(tiny_book, tmp_path / "other.xlsx", {band: cells})
    wrong = found(Book(tmp_path / "other.xlsx"), Given(load("tiny")))
    expected = {name, "vector Jedi"} if band == "steering.coefficients" else {name}
    assert set(wrong) == expected
    assert "1 numbers are not those" in wrong[name].problem


@pytest.mark.slow
def test_means_that_a_circuit_may_have_brought_are_not_checked(tiny_book: Path, tmp_path: Path) -> None:
    means = np.array(Book(tiny_book).settings.cells["circuit.mlp_means"]) * 2
    heads = np.ones(Book(tiny_book).settings.cells["circuit.heads"].shape)
    heads[0, 0] = 0
    fill(tiny_book, tmp_path / "other.xlsx", {"circuit.mlp_means": means, "circuit.heads": heads})
    wrong = found(Book(tmp_path / "other.xlsx"), Given(load("tiny")))
    assert [(band.name, band.verdict) for band in wrong.values()] == [("circuit.mlp_means", "not checked")]


@pytest.mark.slow
def test_vectors_of_ones_own_are_not_checked_unless_their_file_is_named(tiny_book: Path, tmp_path: Path) -> None:
    names = np.array(Book(tiny_book).settings.cells["steering.names"])
    names[0, 0] = "mine"
    fill(tiny_book, tmp_path / "other.xlsx", {"steering.names": names})
    wrong = found(Book(tmp_path / "other.xlsx"), Given(load("tiny")))
    assert [(band.name, band.verdict) for band in wrong.values()] == [("vector mine", "not checked")]
    np.savez(tmp_path / "mine.npz", mine=Book(tiny_book).settings.numbers("steering.vectors")[0] + 1)
    named = found(Book(tmp_path / "other.xlsx"), Given(load("tiny"), steering=tmp_path / "mine.npz"))
    assert "numbers are not those" in named["vector mine"].problem


@pytest.mark.slow
def test_two_merges_in_another_order(tiny_book: Path, tmp_path: Path) -> None:
    part = Book(tiny_book).part("Merges")
    with zipfile.ZipFile(tiny_book) as old, zipfile.ZipFile(tmp_path / "other.xlsx", "w") as new:
        for name in old.namelist():
            content = old.read(name).decode("latin-1")
            if name == part:
                pattern = r'(<c r="C9"[^>]*><v>)(\d+)(.*?<c r="C10"[^>]*><v>)(\d+)'
                content, count = re.subn(pattern, r"\1\4\3\2", content, flags=re.DOTALL)
                assert count == 1
            new.writestr(name, content.encode("latin-1"))
    assert set(found(Book(tmp_path / "other.xlsx"), Given(load("tiny")))) == {"merges.key"}
