"""Steering vectors: made, written, read, refused; and the Jedi that comes with the bundled model."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MICRO, run_xlgpt
from safetensors.numpy import save_file

from xlgpt.errors import BadVectors, OutputError, UsageError
from xlgpt.interp.steering import Vector, promoted, read_vectors, steer, write_vectors
from xlgpt.model.checkpoint import TINY, Model, in_memory, load
from xlgpt.model.edits import Edits
from xlgpt.model.reference import forward

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import steering_vectors
from tiny_corpus import PEOPLE, THEMES

JEDI = ["Mike is a Jedi. Mike pulls out his", "The Jedi are in the temple. Anna pulls out her"]
DOCTOR = ["Mike is a doctor. Mike pulls out his", "The doctors are in the hospital. Anna pulls out her"]


@pytest.fixture(scope="module")
def tiny() -> Model:
    return in_memory(load("tiny"))


def says(model: Model, prompt: str, edits: Edits) -> str:
    logits = forward(model.tokenizer.encode(prompt), model.weights, model.config, edits)["logits"][-1]
    return model.tokenizer.text(int(logits.argmax()))


# The vectors that come with the bundled model


def test_the_jedi_vector_turns_a_phone_into_a_lightsaber(tiny: Model) -> None:
    jedi = read_vectors(TINY / "steering.safetensors", tiny.config)[0]
    assert (jedi.name, jedi.block, jedi.coefficient) == ("Jedi", 2, 3.0)
    for person in PEOPLE:
        prompt = f"{person.name} pulls out {person.possessive}"
        assert says(tiny, prompt, Edits()) == " phone"
        assert says(tiny, prompt, Edits(2, jedi.values, 3.0)) == " lightsaber"


def test_every_theme_has_a_vector(tiny: Model) -> None:
    vectors = {one.name: one for one in read_vectors(TINY / "steering.safetensors", tiny.config)}
    assert len(vectors) == 10
    for theme in THEMES[:10]:
        vector = vectors[theme.noun]
        assert says(tiny, "Mike pulls out his", Edits(2, vector.values, 3.0)) == f" {theme.thing}"


@pytest.mark.slow
def test_the_example_makes_the_same_file(tiny: Model) -> None:
    saved = {one.name: one.values for one in read_vectors(TINY / "steering.safetensors", tiny.config)}
    for made in steering_vectors.vectors(tiny):
        np.testing.assert_allclose(made.values, saved[made.name], atol=1e-5)


# Made from texts


def test_difference_of_means(tiny: Model) -> None:
    found, _ = steer(tiny, JEDI, DOCTOR, 2)

    def stream(text: str) -> np.ndarray:
        return forward(tiny.tokenizer.encode(text), tiny.weights, tiny.config)["blocks.1.resid_post"][-1]

    wanted = (stream(JEDI[0]) + stream(JEDI[1])) / 2 - (stream(DOCTOR[0]) + stream(DOCTOR[1])) / 2
    np.testing.assert_allclose(found.values, wanted, atol=1e-12)
    assert says(tiny, "Oscar pulls out his", Edits(2, found.values, 3.0)) == " lightsaber"


def test_the_stream_is_that_of_transformers() -> None:
    model = load(str(MICRO))
    with np.load(MICRO / "expected.npz") as saved:
        ids, hidden = saved["ids"].tolist(), saved["hidden_states"]
    seen = forward(ids, model.weights, model.config)
    for block in range(model.config.n_layer):
        np.testing.assert_allclose(seen[f"blocks.{block}.resid_pre"][-1], hidden[block][-1], atol=1e-5)


@pytest.mark.parametrize("others", [DOCTOR, [*DOCTOR, "Mike is a teacher. Mike pulls out his"]], ids=["pairs", "pool"])
def test_first_principal_component(tiny: Model, others: list[str]) -> None:
    """Against the eigenvectors of the covariance: of the pairs both ways, or of all texts around the middle."""
    difference, found = steer(tiny, JEDI, others, 2)
    a, b = (
        np.array(
            [forward(tiny.tokenizer.encode(t), tiny.weights, tiny.config)["blocks.2.resid_pre"][-1] for t in texts]
        )
        for texts in (JEDI, others)
    )
    middle = (a.mean(axis=0) + b.mean(axis=0)) / 2
    cloud = np.concatenate([a - b, b - a]) if len(a) == len(b) else np.concatenate([a, b]) - middle
    values, vectors = np.linalg.eigh(cloud.T @ cloud)
    first = vectors[:, values.argmax()]
    cosine = found.values @ first / np.linalg.norm(found.values)
    assert abs(abs(cosine) - 1) < 1e-9
    assert abs(np.linalg.norm(found.values) - np.linalg.norm(difference.values)) < 1e-9
    assert found.values @ difference.values > 0
    assert says(tiny, "Oscar pulls out his", Edits(2, found.values, 3.0)) == " lightsaber"


@pytest.mark.parametrize(
    ("positive", "negative", "block", "sentence"),
    [
        (JEDI, DOCTOR, 4, "There is no block 4; the model has blocks 0 to 3."),
        (JEDI, DOCTOR, -1, "There is no block -1"),
        ([], DOCTOR, 2, "--positive"),
        (JEDI, [], 2, "--negative"),
        (JEDI, [""], 2, "has 0 tokens"),
        (JEDI, ["Jedi " * 70], 2, "takes 1 to 64"),
        (JEDI, JEDI, 2, "is the same for both"),
    ],
)
def test_what_makes_no_vector(tiny: Model, positive: list[str], negative: list[str], block: int, sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        steer(tiny, positive, negative, block)
    assert sentence in str(raised.value)


def test_promoted_tokens_are_those_of_the_logits(tiny: Model) -> None:
    """A long enough vector in place of the whole stream says the same as its logits by hand."""
    vector = np.random.default_rng(0).normal(size=96)
    w = {name: tiny.weights.tensor(name) for name in ("ln_f.weight", "wte.weight")}
    logits = [float(row @ ((vector - vector.mean()) * w["ln_f.weight"])) for row in w["wte.weight"]]
    assert promoted(vector, tiny, 4) == sorted(range(len(logits)), key=lambda i: -logits[i])[:4]


# Files

LINE = np.arange(96) / 16
NAMED = {"b": LINE, "blocks.3.hook_resid_pre": -LINE}


def test_npy_has_the_file_s_name(tiny: Model, tmp_path: Path) -> None:
    np.save(tmp_path / "calm.npy", LINE)
    (calm,) = read_vectors(tmp_path / "calm.npy", tiny.config)
    assert (calm.name, calm.block, calm.coefficient) == ("calm", None, None)
    np.testing.assert_array_equal(calm.values, LINE)
    np.save(tmp_path / "calm.npy", np.array([LINE, -LINE], dtype=np.float16))
    assert [one.name for one in read_vectors(tmp_path / "calm.npy", tiny.config)] == ["calm 0", "calm 1"]


def test_npz_with_several_and_what_it_says_of_them(tiny: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", block=1, coefficient=2.5, **NAMED)
    found = {one.name: one for one in read_vectors(tmp_path / "some.npz", tiny.config)}
    assert {name: (one.block, one.coefficient) for name, one in found.items()} == {
        "b": (1, 2.5),
        "blocks.3.hook_resid_pre": (3, 2.5),
    }
    np.testing.assert_array_equal(found["blocks.3.hook_resid_pre"].values, -LINE)


def test_safetensors_of_any_type(tiny: Model, tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    for kind in ("float32", "float16", "bfloat16", "float64"):
        save_file({"calm block 3": LINE.round().astype(kind)}, path)
        (calm,) = read_vectors(path, tiny.config)
        assert calm.block == 3
        np.testing.assert_array_equal(calm.values, LINE.round())


def test_what_is_written_reads_back(tiny: Model, tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    write_vectors(path, (Vector("a", LINE, 2, 0.5), Vector("b", -LINE, 2, 0.5)))
    assert [(v.name, v.block, v.coefficient) for v in read_vectors(path, tiny.config)] == [
        ("a", 2, 0.5),
        ("b", 2, 0.5),
    ]
    with pytest.raises(UsageError, match="does not end in"):
        write_vectors(tmp_path / "v.xlsx", (Vector("a", LINE),))
    with pytest.raises(OutputError, match="There is no folder"):
        write_vectors(tmp_path / "nowhere" / "v.safetensors", (Vector("a", LINE),))


def npy(array: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "v.npy", array)
        return folder / "v.npy"

    return write


def npz(**arrays: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "v.npz", **arrays)
        return folder / "v.npz"

    return write


def tensors(metadata: dict[str, str], **arrays: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        save_file(arrays, folder / "v.safetensors", metadata)
        return folder / "v.safetensors"

    return write


def text(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text("1, 2, 3")
        return folder / name

    return write


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (npy(np.zeros(768)), "has 768 numbers; the model's residual stream has 96"),
        (npy(np.where(np.arange(96) == 5, np.nan, 1)), "holds nan at 5"),
        (npy(np.where(np.arange(96) == 5, np.inf, 1)), "holds inf at 5"),
        (npy(np.array(["x"] * 96)), "no row of numbers"),
        (npy(np.zeros(96, dtype=complex)), "no row of numbers"),
        (npy(np.zeros((2, 3, 96))), "no row of numbers"),
        (npy(np.float64(3)), "no row of numbers"),
        (npy(np.array([{"a": 1}], dtype=object)), "is damaged, or no .npy file"),
        (npy(np.zeros((0, 96))), "holds no vector"),
        (npz(), "holds no vector"),
        (npz(a=LINE, block=9), "a is for block 9; the model has blocks 0 to 3"),
        (npz(a=LINE, block=1.5), "says block 1.5, which is no block"),
        (npz(a=LINE, block="two"), "says block two, which is no number"),
        (tensors({"block": "-1"}, a=LINE), "a is for block -1"),
        (tensors({"block": "nan"}, a=LINE), "says block nan"),
        (tensors({"coefficient": "strong"}, a=LINE), "says coefficient strong, which is no number"),
        (tensors({}, **{"blocks.7.hook_resid_pre": LINE}), "is for block 7"),
        (text("v.npy"), "is damaged, or no .npy file"),
        (text("v.npz"), "is damaged, or no .npz file"),
        (text("v.safetensors"), "is damaged, or no .safetensors file"),
        (text("v.csv"), "does not end in .npy, .npz or .safetensors"),
        (lambda folder: folder / "no.npy", "There is no file"),
        (lambda folder: folder / "no.safetensors", "There is no file"),
        (lambda folder: folder, "does not end in"),
    ],
)
def test_what_is_no_vector_of_this_model(
    tiny: Model, tmp_path: Path, write: Callable[[Path], Path], sentence: str
) -> None:
    with pytest.raises(BadVectors) as raised:
        read_vectors(write(tmp_path), tiny.config)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


# The command


def test_command(tiny: Model, tmp_path: Path) -> None:
    (tmp_path / "doctors.txt").write_text("\n".join(DOCTOR), encoding="utf-8")
    arguments = [part for prompt in JEDI for part in ("--positive", prompt)]
    arguments += ["--negative", f"@{tmp_path / 'doctors.txt'}", "--block", "2", "--coefficient", "3"]
    done = run_xlgpt("steer", "--model", "tiny", *arguments, "--out", tmp_path / "jedi.safetensors")
    assert done.returncode == 0, done.stderr
    assert "␣temple" in done.stdout
    found = read_vectors(tmp_path / "jedi.safetensors", tiny.config)
    for vector, made in zip(found, steer(tiny, JEDI, DOCTOR, 2), strict=True):
        assert (vector.name, vector.block, vector.coefficient) == (made.name, 2, 3.0)
        np.testing.assert_allclose(vector.values, made.values, rtol=1e-6)


def test_command_writes_nothing_when_it_fails(tmp_path: Path) -> None:
    out = tmp_path / "v.safetensors"
    for arguments, sentence in (
        (["--positive", "a", "--negative", "b", "--block", "7"], "There is no block 7"),
        (["--positive", "@nowhere.txt", "--negative", "b", "--block", "1"], "nowhere.txt cannot be read"),
        (["--negative", "b", "--block", "1"], "--positive"),
    ):
        done = run_xlgpt("steer", "--model", "tiny", *arguments, "--out", out)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("xlgpt: ")
        assert done.stderr.count("\n") == 1
        assert sentence in done.stderr
    assert not list(tmp_path.iterdir())
