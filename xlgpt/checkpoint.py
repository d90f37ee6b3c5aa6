"""Where models come from: the Hub, a folder, the bundled one, or random numbers."""

import json
import os
import re
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import ml_dtypes  # noqa: F401 - importing it teaches NumPy, and so safetensors, the type bfloat16
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from xlgpt.config import GPT2Config, parse_config, read_config
from xlgpt.errors import BadCheckpoint, ModelNotFound, UnsupportedModel, UsageError
from xlgpt.layout import MAX_ROWS
from xlgpt.template import weight_shapes
from xlgpt.tokenizer import Tokenizer, read_tokenizer

TINY = Path(__file__).parent / "tiny"
GPT2 = "openai-community/gpt2"
GPT2_REVISION = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
HUB_FILES = [
    "config.json",
    "vocab.json",
    "merges.txt",
    "README.md",
    "model*.safetensors",
    "model.safetensors.index.json",
]
MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which older checkpoints carry along
RANDOM_SIZES = {
    "gpt2": GPT2Config(n_layer=12, n_head=12, n_embd=768, n_positions=1024, vocab_size=50257, n_inner=3072),
    "gpt2-medium": GPT2Config(n_layer=24, n_head=16, n_embd=1024, n_positions=1024, vocab_size=50257, n_inner=4096),
    "gpt2-large": GPT2Config(n_layer=36, n_head=20, n_embd=1280, n_positions=1024, vocab_size=50257, n_inner=5120),
}


class Weights(Protocol):
    """Tensors by checkpoint name, without the `transformer.` prefix. Each call reads afresh; nothing is kept."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor that belongs to the model."""

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32. Raises BadCheckpoint where it is not finite or not readable."""


@dataclass(frozen=True)
class Model:
    """A GPT-2: its configuration, vocabulary and weights, and where they come from."""

    name: str
    source: str
    licence: str
    config: GPT2Config
    tokenizer: Tokenizer
    weights: Weights

    @property
    def parameters(self) -> int:
        """How many numbers the checkpoint holds."""
        return sum(int(np.prod(shape)) for shape in self.weights.shapes().values())


class Kept:
    """Weights that stay in memory as float64 once they are read, for many runs: 8 bytes a parameter."""

    def __init__(self, weights: Weights):
        self._weights = weights
        self._tensors: dict[str, NDArray[np.float64]] = {}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return self._weights.shapes()

    def tensor(self, name: str) -> NDArray[np.float64]:
        """One tensor. Raises BadCheckpoint where it is not finite or not readable."""
        if name not in self._tensors:
            self._tensors[name] = self._weights.tensor(name).astype(np.float64, copy=False)
        return self._tensors[name]


def in_memory(model: Model) -> Model:
    """The same model, whose weights are read only once."""
    return replace(model, weights=cast(Weights, Kept(model.weights)))


def load(name: str, seed: int = 0) -> Model:
    """Find a model by its name: gpt2, tiny, random:…, a folder, or an id on the Hub.

    Raises ModelNotFound, UnsupportedModel, BadCheckpoint, BadVocabulary, UsageError.
    """
    if name == "tiny":
        return _load_folder(TINY, "tiny", "bundled with xlgpt", "MIT")
    if name.startswith("random:"):
        return _load_random(name, seed)
    if os.path.isdir(name):  # False, where Path.is_dir() raises: a name that is too long
        return _load_folder(Path(name), Path(name).resolve().name, str(Path(name).resolve()), _licence(Path(name)))
    if name == "gpt2":
        return _load_hub(GPT2, GPT2_REVISION)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise ModelNotFound(f"There is no folder {name!r}, and it is no name on the Hub either.")
    return _load_hub(name, None)


def _load_hub(repo: str, revision: str | None) -> Model:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    offline = "Offline, `--model tiny`, `--model random:gpt2` and `--model FOLDER` work."
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=HUB_FILES))
    except GatedRepoError as e:
        raise ModelNotFound(f"{repo} is gated: accept its terms on the Hub and log in with `hf auth login`.") from e
    except RepositoryNotFoundError as e:
        raise ModelNotFound(f"There is no model {repo!r} on the Hub, and no folder of that name here. {offline}") from e
    except LocalEntryNotFoundError as e:
        raise ModelNotFound(f"{repo} is not in the cache and the Hub cannot be reached. {offline}") from e
    except Exception as e:  # whatever the Hub's client and the network beneath it may raise
        reason = (str(e) or type(e).__name__).splitlines()[0].rstrip(".")
        raise ModelNotFound(f"{repo} could not be downloaded: {reason}. {offline}") from e
    source = f"https://huggingface.co/{repo}" + (f"/tree/{revision}" if revision else "")
    return _load_folder(folder, repo.split("/")[-1], source, _licence(folder))


def _licence(folder: Path) -> str:
    """The licence that a model card's front matter names."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "not stated"
    found = re.search(r"\A---\s*\n.*?^license:\s*(\S+)", card, re.DOTALL | re.MULTILINE)
    return found[1].strip("'\"") if found else "not stated"


def _load_folder(folder: Path, name: str, source: str, licence: str) -> Model:
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"{folder} holds no config.json; xlgpt reads a folder in the Hub's layout.")
    config = read_config(folder / "config.json")
    weights = open_safetensors(folder)
    weights = _settle_tying(config, weights, folder)
    expect(weights, weight_shapes(config), str(folder))
    return Model(name, source, licence, config, read_tokenizer(folder, config.vocab_size), weights)


@dataclass(frozen=True)
class Safetensors:
    """The tensors of a folder's safetensors files.

    entries: for each canonical name, the file that holds it, its name there and its shape.
    """

    entries: dict[str, tuple[Path, str, tuple[int, ...]]]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, from the files' headers."""
        return {name: shape for name, (_, _, shape) in self.entries.items()}

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Read one tensor. The file is mapped anew each time, so that read pages do not stay in memory."""
        path, key, _ = self.entries[name]
        try:
            with safe_open(path, framework="np") as file:
                value = file.get_tensor(key)
        except (SafetensorError, OSError) as e:
            raise BadCheckpoint(f"{path} cannot be read: {e}.") from e
        return finite(value.astype(np.float32, copy=False), name)


def finite(value: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """The same array. Raises BadCheckpoint where a number is NaN or infinite, naming the first."""
    if not np.isfinite(value).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        raise BadCheckpoint(
            f"The weight {name} holds {value[where]} at {list(where)}; a cell cannot, and no answer could be right."
        )
    return value


def open_safetensors(folder: Path) -> Safetensors:
    """Read the headers of model.safetensors, or of the shards that its index names. Raises BadCheckpoint."""
    entries: dict[str, tuple[Path, str, tuple[int, ...]]] = {}
    for path in _shards(folder):
        try:
            with safe_open(path, framework="np") as file:
                for key in file.keys():  # noqa: SIM118 - it is no dict
                    part = file.get_slice(key)
                    name = key.removeprefix("transformer.")
                    if MASKS.fullmatch(name):
                        continue
                    if part.get_dtype() not in ("F16", "BF16", "F32"):
                        raise UnsupportedModel(
                            f"{path}: {key} is stored as {part.get_dtype()}; xlgpt reads F32, F16 and BF16."
                        )
                    if name in entries:
                        raise BadCheckpoint(f"{path}: {name} stands in the checkpoint twice.")
                    entries[name] = (path, key, tuple(part.get_shape()))
        except (SafetensorError, OSError) as e:
            raise BadCheckpoint(f"{path} is damaged or no safetensors file ({e}); download it again.") from e
    return Safetensors(entries)


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not index.is_file():
        pickles = ", ".join(p.name for p in sorted(folder.glob("pytorch_model*.bin")))
        hint = (
            f" {pickles} is a pickle, which can run code when it is read; convert it to safetensors." if pickles else ""
        )
        raise ModelNotFound(f"{folder} holds no model.safetensors.{hint}")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise BadCheckpoint(f"{index} is damaged; download it again.") from e
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise BadCheckpoint(f"{index} names the file {name!r}, which is not there; download it again.")
    return [folder / name for name in names]


def _settle_tying(config: GPT2Config, weights: Safetensors, folder: Path) -> Safetensors:
    """Drop a stored lm_head that only repeats the tied embedding. Raises BadCheckpoint where the two differ."""
    if not config.tie_word_embeddings or not {"lm_head.weight", "wte.weight"} <= weights.entries.keys():
        return weights
    if not np.array_equal(weights.tensor("lm_head.weight"), weights.tensor("wte.weight")):
        raise BadCheckpoint(
            f"{folder}: config.json ties the word embeddings, but lm_head.weight differs from wte.weight. "
            'If the model has a head of its own, set "tie_word_embeddings": false.'
        )
    return Safetensors({name: entry for name, entry in weights.entries.items() if name != "lm_head.weight"})


def expect(weights: Weights, wanted: dict[str, tuple[int, ...]], where: str) -> None:
    """Hold a checkpoint against the tensors that the templates name. Raises BadCheckpoint, naming the first fault."""
    there = weights.shapes()
    for name, shape in wanted.items():
        if name not in there:
            raise BadCheckpoint(f"{where} lacks the tensor {name} of shape {list(shape)}.")
        if there[name] != shape:
            raise BadCheckpoint(
                f"{where}: the tensor {name} has shape {list(there[name])}; config.json asks for {list(shape)}."
            )
    extra = sorted(set(there) - set(wanted))
    if extra:
        raise BadCheckpoint(f"{where} holds the tensor {extra[0]}, which no GPT-2 of this config.json has.")


@dataclass(frozen=True)
class RandomWeights:
    """Seeded random weights, drawn as GPT-2's were (Radford et al. 2019): normal(0, 0.02), norms at 1."""

    config: GPT2Config
    seed: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, as the templates name them."""
        return weight_shapes(self.config)

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor; the same seed and name give the same numbers."""
        shape = self.shapes()[name]
        random = np.random.Generator(
            np.random.SFC64([self.seed, zlib.crc32(name.encode())])
        )  # twice as fast as the default
        values = random.standard_normal(shape, dtype=np.float32)
        values *= np.float32(0.02)
        if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
            values += 1
        return values


def _load_random(name: str, seed: int) -> Model:
    if seed < 0:
        raise UsageError(f"The seed {seed} is negative; give 0 or more.")
    config = _random_config(name.removeprefix("random:"))
    tokenizer = read_tokenizer(TINY, config.vocab_size)
    return Model(
        name,
        f"random numbers, seed {seed}",
        "none: random numbers",
        config,
        tokenizer,
        RandomWeights(config, seed),
    )


def _random_config(text: str) -> GPT2Config:
    """`gpt2`, or `n_layer=2,n_embd=64,…` on top of the bundled model's dimensions."""
    if text in RANDOM_SIZES:
        return RANDOM_SIZES[text]
    base = read_config(TINY / "config.json")
    usage = f"random:{text}: write one of {', '.join(RANDOM_SIZES)}, or dimensions such as random:n_layer=2,n_embd=64."
    changes: dict[str, int] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "n_inner") or not value.isdecimal():
            raise UsageError(usage)
        if len(value) > len(str(MAX_ROWS)) or int(value) > MAX_ROWS:
            raise UsageError(f"random:{text}: {key} is above {MAX_ROWS:,}, the number of rows that a sheet has.")
        changes[key] = int(value)
    n_embd = changes.get("n_embd", base.n_embd)
    defaults = {"n_inner": 4 * n_embd, "n_head": base.n_head if n_embd % base.n_head == 0 else 1}
    try:
        return parse_config(asdict(base) | defaults | changes, f"random:{text}")
    except BadCheckpoint as e:
        raise UsageError(str(e)) from e
