"""What several test files need: small checkpoints without torch, the command line, and LibreOffice."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from xlgpt.engines.libreoffice import find_python, find_soffice
from xlgpt.errors import EngineNotFound

SHARED = Path(__file__).parents[2] / "shared"  # the oracles that the project may not contain
SOFFICE = shutil.which("soffice") or shutil.which("libreoffice")
NO_LIBREOFFICE = "LibreOffice is not installed: apt-get install libreoffice-calc python3-uno"
CONFIG = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 32, "vocab_size": 300}
MERGES = ["Ġ t", "h e", "Ġt he", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld"]
MERGES += [f"{'a' * 2**k} {'a' * 2**k}" for k in range(13)]  # so that a long text can have few tokens

Tensors = dict[str, NDArray[Any]]
Edit = Callable[[Tensors], None]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs LibreOffice where it is missing; with XLGPT_REQUIRE_LIBREOFFICE set, let it fail."""
    if item.get_closest_marker("libreoffice") and not os.environ.get("XLGPT_REQUIRE_LIBREOFFICE"):
        try:
            find_python(find_soffice())
        except EngineNotFound as e:
            pytest.skip(str(e))


def random_tensors(config: dict[str, Any], seed: int = 0) -> Tensors:
    """A GPT-2's tensors by the names and shapes that `transformers` saves; large enough that each of them matters."""
    d, inner = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (config["vocab_size"], d),
        "wpe.weight": (config["n_positions"], d),
    }
    for h in (f"h.{i}" for i in range(config["n_layer"])):
        shapes |= {f"{h}.{ln}.{part}": (d,) for ln in ("ln_1", "ln_2") for part in ("weight", "bias")}
        shapes |= {f"{h}.attn.c_attn.weight": (d, 3 * d), f"{h}.attn.c_attn.bias": (3 * d,)}
        shapes |= {f"{h}.attn.c_proj.weight": (d, d), f"{h}.attn.c_proj.bias": (d,)}
        shapes |= {f"{h}.mlp.c_fc.weight": (d, inner), f"{h}.mlp.c_fc.bias": (inner,)}
        shapes |= {f"{h}.mlp.c_proj.weight": (inner, d), f"{h}.mlp.c_proj.bias": (d,)}
    shapes |= {"ln_f.weight": (d,), "ln_f.bias": (d,)}
    random = np.random.default_rng(seed)
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def byte_names() -> list[str]:
    """GPT-2's letter for each of the 256 bytes, in the order of its vocabulary (openai/gpt-2, encoder.py)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def write_vocabulary(folder: Path, merges: list[str] = MERGES, special: tuple[str, ...] = ("<|endoftext|>",)) -> None:
    names = [*byte_names(), *(merge.replace(" ", "") for merge in merges), *special]
    vocab = {name: i for i, name in enumerate(names)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def write_checkpoint(folder: Path, edit: Edit | None = None, **changes: Any) -> Path:
    folder.mkdir()
    config = CONFIG | changes
    tensors = random_tensors(config)
    if edit:
        edit(tensors)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    write_vocabulary(folder)
    return folder


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a checkpoint folder: `edit` changes its tensors, keywords change its config.json."""

    def make(edit: Edit | None = None, folder: str = "model", **changes: Any) -> Path:
        return write_checkpoint(tmp_path / folder, edit, **changes)

    return make


def run_xlgpt(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, offline."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | options.pop("env", {})
    command = [sys.executable, "-m", "xlgpt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)


@pytest.fixture(scope="session")
def tiny_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model's workbook with a short context."""
    import xlgpt

    path = tmp_path_factory.mktemp("tiny") / "tiny.xlsx"
    xlgpt.build(path, model="tiny", context=16)
    return path
