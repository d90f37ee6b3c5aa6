"""The sheet Features: what an autoencoder's features say, held against its file, and what they do when turned up."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import xlgpt
from xlgpt import OpenWorkbook
from xlgpt.compiler import template
from xlgpt.errors import BadAutoencoder, UsageError
from xlgpt.interp.sae import read_autoencoder
from xlgpt.model import reference
from xlgpt.model.checkpoint import TINY, load

PROMPT = "Mike is a Jedi. He pulls out his"
RANDOM = "random:n_layer=2,n_embd=8,n_head=2"


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "tiny.xlsx"
    xlgpt.build(path, model="tiny", prompt=PROMPT, context=12, sheets="steering,features", features="2,58,2,144")
    return path


def saved(folder: Path, centred: bool = True, width: int = 8) -> Path:
    """A random autoencoder as SAELens saved those of gpt2-small-res-jb."""
    random = np.random.default_rng(0)
    shapes = {"W_enc": (width, 20), "b_enc": (20,), "W_dec": (20, width), "b_dec": (width,)}
    folder.mkdir()
    save_file({name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
              folder / "sae_weights.safetensors")  # fmt: skip
    name = "hook_point" if centred else "hook_name"
    (folder / "cfg.json").write_text(json.dumps({"d_in": width, "d_sae": 20, name: "blocks.1.hook_resid_pre"}))
    return folder


@pytest.mark.slow
@pytest.mark.libreoffice
def test_a_jedi_wakes_its_feature_in_libreoffice(in_libreoffice: OpenWorkbook) -> None:
    names = [f"features.{name}" for name in ("number", "activation", "promotes", "peak", "active")]
    number, activation, promotes, peak, active = in_libreoffice.read(*names).values()
    assert number[:, 0].tolist() == [2, 58, 144]
    model, weights = load("tiny"), load_file(TINY / "sae" / "sae_weights.safetensors")
    seen = reference.forward(model.tokenizer.encode(PROMPT), model.weights, model.config)
    wanted = np.maximum(0, (seen["blocks.2.resid_pre"] - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"])
    assert activation[:, :9].astype(float) == pytest.approx(wanted[:, [2, 58, 144]].T, abs=1e-5)
    assert set(activation[:, 9:].flat) == {""}
    assert activation[0, 8] > 1
    assert peak[:, 0].astype(float) == pytest.approx(wanted[1:, [2, 58, 144]].max(axis=0), abs=1e-5)
    assert active[0, 0] == (wanted[8, [2, 58, 144]] > 0).sum()
    scores = weights["W_dec"] @ model.weights.tensor("wte.weight").T
    for row, feature in zip(promotes, (2, 58, 144), strict=True):
        assert row.tolist() == [model.tokenizer.shown(int(i)) for i in np.argsort(-scores[feature])[:5]]


@pytest.mark.slow
@pytest.mark.libreoffice
def test_turned_up_it_makes_a_lightsaber_of_a_phone_in_libreoffice(in_libreoffice: OpenWorkbook) -> None:
    cells = {"steering.on": 1, "steering.vector": "feature 2"}
    names = ("next_token", "steering.status", "features.activation")
    token, status, activation = in_libreoffice.read(*names, prompt="Mike pulls out his", settings=cells).values()
    assert (token[0, 0], status[0, 0]) == (" lightsaber", "feature 2 is added before block 2.")
    assert activation[0, 3] > 30, "the sheet sees what was added"
    token = in_libreoffice.read("next_token", prompt="Mike pulls out his")["next_token"]
    assert token[0, 0] == " phone"


@pytest.mark.slow
@pytest.mark.parametrize("centred", [True, False])
def test_an_autoencoder_of_another_model_in_saelens_format(tmp_path: Path, centred: bool) -> None:
    folder = saved(tmp_path / "sae", centred)
    xlgpt.build(tmp_path / "a.xlsx", RANDOM, "a b c", context=6, sae=folder, features="19,3", sheets="features")
    assert xlgpt.check(tmp_path / "a.xlsx", prompts=("a b c", "c")).passed
    model = load(RANDOM)
    ids = model.tokenizer.encode("a b c")
    stream = reference.forward(ids, model.weights, model.config)["blocks.1.resid_pre"]
    wanted = read_autoencoder(folder, model).features(stream)[:, [19, 3]].T
    shown = xlgpt.read(tmp_path / "a.xlsx", "features.activation", engine="formulas")["features.activation"]
    assert shown[:, : len(ids)].astype(float) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.slow
def test_the_most_active_features_are_taken_unasked(tmp_path: Path) -> None:
    folder = saved(tmp_path / "sae")
    xlgpt.build(tmp_path / "a.xlsx", RANDOM, "a b c", context=6, sae=folder)
    shown = xlgpt.read(tmp_path / "a.xlsx", "features.number", "features.peak", "steering.names", engine="formulas")
    peaks = shown["features.peak"][:, 0].tolist()
    assert peaks == sorted(peaks, reverse=True)
    assert 0 < len(peaks) <= 16
    assert shown["steering.names"][:, 0].tolist() == [f"feature {i:.0f}" for i in shown["features.number"][:, 0]]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": "tiny", "features": "256"}, "There is no feature 256; the autoencoder has features 0 to 255."),
        ({"model": "tiny", "features": "7,x"}, "--features takes numbers with commas between, .*; 'x' is none."),
        ({"model": "tiny", "features": ""}, "--features takes numbers with commas between, .*; '' is none."),
        (
            {"model": RANDOM, "features": "7"},
            "--features are those of a sparse autoencoder; name its folder with --sae.",
        ),
        (
            {"model": "tiny", "sheets": "lens", "features": "7"},
            "--features needs the sheet 'features', which --sheets leaves out; name it there too.",
        ),
        ({"model": "tiny", "sheets": "steering", "sae": "x"}, "--sae needs the sheet 'features'"),
        ({"model": "tiny", "sheets": "none", "steering": "x.npy"}, "--steering needs the sheet 'steering'"),
        ({"model": RANDOM, "sheets": "features"}, "The sheet 'features' would be empty: .* with --sae."),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        xlgpt.build(tmp_path / "a.xlsx", prompt="a", context=2, **options)
    assert not list(tmp_path.iterdir())


def test_an_autoencoder_of_another_width_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "sae", width=9)
    with pytest.raises(BadAutoencoder, match="reads a stream of 9 numbers, and the model's has 8: the autoencoder be"):
        xlgpt.build(tmp_path / "a.xlsx", RANDOM, "a", context=2, sae=folder)
    assert not (tmp_path / "a.xlsx").exists()


@pytest.mark.slow
def test_a_bias_that_is_left_out_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake that check is there for."""
    shutil.copytree(template.folder(), tmp_path / "templates")
    sheet = tmp_path / "templates" / "views" / "features.toml"
    sheet.write_text(sheet.read_text().replace("+{b_enc})", ")"))
    folder = saved(tmp_path / "sae")
    with monkeypatch.context() as patch:
        patch.setattr(template, "folder", lambda: tmp_path / "templates")
        xlgpt.build(tmp_path / "a.xlsx", RANDOM, "a b", context=4, sae=folder, sheets="features")
    report = xlgpt.check(tmp_path / "a.xlsx", prompts=("a b",))
    assert not report.passed
    assert "features.activation" in str(report)
