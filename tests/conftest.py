"""What several test files need: small checkpoints without torch, the command line, and LibreOffice."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of two processes with two threads each, all wait for each other

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from xlgpt.engines import FormulasLibrary
from xlgpt.engines.libreoffice import find_python, find_soffice
from xlgpt.engines.read import OpenWorkbook
from xlgpt.errors import EngineNotFound
from xlgpt.model.checkpoint import GPT2, GPT2_REVISION
from xlgpt.workbook.book import Book
from xlgpt.xlsx.worksheet import Values

SHARED = Path(__file__).parents[2] / "shared"  # the oracles that the project may not contain
FIXTURES = Path(__file__).parent / "fixtures"  # checkpoints, and what transformers answers: make_gpt2_micro.py there
MICRO = FIXTURES / "gpt2-micro"
SOFFICE = shutil.which("soffice") or shutil.which("libreoffice")
NO_LIBREOFFICE = "LibreOffice is not installed: apt-get install libreoffice-calc python3-uno"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROGRAMS = (
    "libreoffice",
    "gnumeric",
    "node",
    "browser",
    "hub",
    "shared",
    "train",
)  # what the extra `test` does not install
CONFIG = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 32, "vocab_size": 300}
NOTHING: Mapping[str, Any] = {}
MERGES = ["Ġ t", "h e", "Ġt he", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld"]
MERGES += [f"{'a' * 2**k} {'a' * 2**k}" for k in range(13)]  # so that a long text can have few tokens

Tensors = dict[str, NDArray[Any]]
Edit = Callable[[Tensors], None]


REQUIRED = set(filter(None, os.environ.get("XLGPT_REQUIRE", "").split(",")))  # for want of these a test fails


def pytest_configure() -> None:
    """A misspelt name would let a test be skipped that has to fail."""
    if unknown := REQUIRED - set(PROGRAMS):
        raise pytest.UsageError(f"XLGPT_REQUIRE names {', '.join(sorted(unknown))}; it may name {', '.join(PROGRAMS)}")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Leave out what is slow or long, and what downloads GPT-2, unless `-m` speaks of it."""
    cases: Counter[tuple[Path, str]] = Counter()
    for item in items:
        cases[test := (item.path, item.originalname)] += 1
        if (quick := item.get_closest_marker("quick")) and cases[test] > quick.args[0]:
            item.add_marker("slow")
    unasked = [marker for marker in ("slow", "long", "hub") if marker not in config.option.markexpr]
    left_out = [item for item in items if any(map(item.get_closest_marker, unasked))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.path.name != "test_readme.py")  # takes longest, and so would be waited for


@cache
def lack_of_hub() -> str:
    """Why GPT-2 cannot be had: it is not in the cache, and the Hub does not answer within some seconds."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(GPT2, "model.safetensors", revision=GPT2_REVISION), str):
        return ""
    if constants.HF_HUB_OFFLINE:
        return "GPT-2 is not in the Hub's cache, and HF_HUB_OFFLINE is set"
    try:
        get_hf_file_metadata(hf_hub_url(GPT2, "config.json", revision=GPT2_REVISION), timeout=5)
    except Exception as e:
        return f"GPT-2 is not in the Hub's cache, and {constants.ENDPOINT} does not answer: {e}"
    return ""


def lack_of_browser() -> str:
    """Why a page cannot be tried in a browser here."""
    if not CHROMIUM:
        return "Chromium is not installed: apt-get install chromium"
    if not find_spec("playwright"):
        return "Playwright is not installed: pip install -e '.[browser]'"
    if not find_spec("ironcalc") or not version("ironcalc").startswith("0.8."):
        return "ironcalc 0.8 is not installed: pip install -e '.[view]' in an environment of its own"
    return ""


def missing(program: str) -> str:
    """Why a test that needs this program cannot run here; nothing where it can."""
    match program:
        case "libreoffice":
            try:
                find_python(find_soffice())
            except EngineNotFound as e:
                return str(e)
        case "hub":
            return lack_of_hub()
        case "gnumeric":
            return "" if shutil.which("ssconvert") else "Gnumeric is not installed: apt-get install gnumeric"
        case "node":
            return "" if shutil.which("node") and shutil.which("npm") else "Node is not installed: apt-get install npm"
        case "browser":
            return lack_of_browser()
        case "shared":
            return "" if SHARED.is_dir() else f"{SHARED} is not there; the project does not contain it"
        case "train":
            lacks = [package for package in ("torch", "peft") if not find_spec(package)]
            return f"{lacks[0]} is not installed: pip install -e '.[train]'" if lacks else ""
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a program, or the Hub, that is missing; where XLGPT_REQUIRE (libreoffice,hub) names it, fail."""
    for program in PROGRAMS:
        if item.get_closest_marker(program) and (why := missing(program)):
            (pytest.fail if program in REQUIRED else pytest.skip)(why)


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


def run_xlgpt(*arguments: str | Path, code: str | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line, or some code, in a process of its own: offline, and in UTF-8 unless told."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"} | options.pop("env", {})
    what = ["-c", code] if code else ["-m", "xlgpt", *map(str, arguments)]
    options = {"encoding": "utf-8", "timeout": 300} | options
    return subprocess.run([sys.executable, *what], capture_output=True, text=True, env=environment, **options)


@lru_cache(maxsize=2)  # of a workbook of the bundled model each takes some 200 MB
def opened(path: Path) -> tuple[Book, FormulasLibrary]:
    book = Book(path)
    return book, FormulasLibrary(book)


def read_in_python(
    path: Path, *names: str, prompt: str | None = None, settings: Mapping[str, Any] = NOTHING
) -> dict[str, Values]:
    """What `xlgpt.read` with the engine formulas gives; a workbook that stands open answers in a tenth of the time."""
    book, engine = opened(path)
    engine.calculate(book.prompt if prompt is None else book.prompt_of(prompt), book.settings.changed(settings))
    return {name: engine.read(book.named(name)) for name in names}


@pytest.fixture(scope="module")
def in_libreoffice(book: Path) -> Iterator[OpenWorkbook]:
    """A module's `book`, open in LibreOffice as long as its tests run."""
    with OpenWorkbook(book) as opened_book:
        yield opened_book


@pytest.fixture(scope="session")
def tiny_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model's workbook with a short context."""
    import xlgpt

    path = tmp_path_factory.mktemp("tiny") / "tiny.xlsx"
    xlgpt.build(path, model="tiny", context=16)
    return path


@pytest.fixture(scope="session")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The bundled model's workbook as .xlsb and as .xlsx, with every sheet and few rows."""
    import xlgpt

    folder, few = tmp_path_factory.mktemp("twins"), {"context": 10, "max_bytes": 40, "generate": 2}
    xlsb, xlsx = (xlgpt.build(folder / f"tiny.{ending}", model="tiny", **few).path for ending in ("xlsb", "xlsx"))
    return xlsb, xlsx


@pytest.fixture(scope="session")
def sheetjs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script, beside the packages that package-lock.json names."""
    folder = shutil.copytree(Path(__file__).parent / "sheetjs", tmp_path_factory.mktemp("npm") / "sheetjs")
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode and "node" not in REQUIRED:
        pytest.skip(f"The npm registry does not answer: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder / "read.js"
