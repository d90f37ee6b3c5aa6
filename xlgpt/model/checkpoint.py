"""Where models come from: the Hub, a folder, the bundled one, or random numbers."""

import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast
from uuid import uuid4

import ml_dtypes  # noqa: F401 - importing it teaches NumPy, and so safetensors, the type bfloat16
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from xlgpt.errors import BadCheckpoint, ModelNotFound, UnsupportedModel, UsageError
from xlgpt.model.companions import NONE, Companions, read_companions
from xlgpt.model.config import GPT2Config, parse_config, read_config, weight_shapes
from xlgpt.model.hub import repository
from xlgpt.model.tokenizer import Tokenizer, read_tokenizer
from xlgpt.parallel import kept

TINY = Path(__file__).parent / "tiny"
GPT2 = "openai-community/gpt2"
GPT2_REVISION = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
WEIGHTS, INDEX, CARD = "model.safetensors", "model.safetensors.index.json", "README.md"
LARGEST = 1 << 20  # dimension of a random model: what a sheet has rows for
PIECE = 1 << 20  # numbers in a piece of a tensor
HELD = 1 << 30  # bytes of weights that stay in memory for many runs: those of GPT-2 small, as float64
MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which older checkpoints carry along
RANDOM_SIZES = {
    "gpt2": GPT2Config(n_layer=12, n_head=12, n_embd=768, n_positions=1024, vocab_size=50257, n_inner=3072),
    "gpt2-medium": GPT2Config(n_layer=24, n_head=16, n_embd=1024, n_positions=1024, vocab_size=50257, n_inner=4096),
    "gpt2-large": GPT2Config(n_layer=36, n_head=20, n_embd=1280, n_positions=1024, vocab_size=50257, n_inner=5120),
    "gpt2-xl": GPT2Config(n_layer=48, n_head=25, n_embd=1600, n_positions=1024, vocab_size=50257, n_inner=6400),
}


class Weights(Protocol):
    """Tensors by checkpoint name, without the `transformer.` prefix. Each call reads afresh; nothing is kept."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor that belongs to the model."""

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor as float32. Raises BadCheckpoint where it is not finite or not readable."""

    def pieces(self, name: str, start: int = 0) -> Iterator[NDArray[np.float32]]:
        """The same, some rows at a time, so that a large tensor does not stand in memory whole.

        start: with which piece to begin; each has the rows that come to about PIECE numbers.
        """

    def files(self) -> tuple[Path, ...]:
        """The files that they are read from, none of them by a relative path."""


@dataclass(frozen=True)
class Model:
    """A GPT-2: its configuration, vocabulary and weights, and where they come from.

    precision: to how many significant digits its weights were rounded; 0 where they are the checkpoint's own.
    """

    name: str
    source: str
    licence: str
    config: GPT2Config
    tokenizer: Tokenizer
    weights: Weights
    precision: int = 0
    companions: Companions = NONE

    @cached_property
    def parameters(self) -> int:
        """How many numbers the checkpoint holds."""
        return sum(int(np.prod(shape)) for shape in self.weights.shapes().values())

    @cached_property
    def sums(self) -> dict[str, tuple[float, float]]:
        """Of each tensor its sum, and its length √(Σ w²), of zeros 1. Raises BadCheckpoint."""
        weights = self.weights if isinstance(self.weights, Summed) else Summed(self.weights)
        return {name: weights.sums_of(name) for name in weights.shapes()}


class Summed:
    """The same tensors, each added up when it is first read: their sums then need no reading of their own."""

    def __init__(self, weights: Weights):
        self._weights = weights
        self._sums: dict[str, tuple[float, float]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process adds up anew."""
        return Summed, (self._weights,)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor that belongs to the model."""
        return self._weights.shapes()

    def files(self) -> tuple[Path, ...]:
        """The files that they are read from."""
        return self._weights.files()

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor. Raises BadCheckpoint where it is not finite or not readable."""
        tensor = self._weights.tensor(name)
        if name not in self._sums:
            self._sums[name] = float(tensor.sum(dtype=np.float64)), float(np.linalg.norm(tensor)) or 1.0
        return tensor

    def pieces(self, name: str, start: int = 0) -> Iterator[NDArray[np.float32]]:
        """The same, some rows at a time."""
        return self._weights.pieces(name, start)

    def sums_of(self, name: str) -> tuple[float, float]:
        """A tensor's sum and its length, as Model.sums has them; read only where it was not before."""
        if name not in self._sums:
            self.tensor(name)
        return self._sums[name]


class Kept:
    """Weights that stay in memory as float64 once they are read, for many runs: 8 bytes a parameter.

    Of a larger model than GPT-2 small those that come first; the others are read again for each run.
    """

    def __init__(self, weights: Weights):
        self._weights, self._identity = weights, uuid4().hex
        self._tensors: dict[str, NDArray[np.float64]] = {}
        self._left = HELD

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process reads them itself, once for all that it is given to do."""
        return _kept_there, (self._weights, self._identity)

    def files(self) -> tuple[Path, ...]:
        """The files that they are read from."""
        return self._weights.files()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return self._weights.shapes()

    def tensor(self, name: str) -> NDArray[Any]:
        """One tensor. Raises BadCheckpoint where it is not finite or not readable."""
        if name in self._tensors:
            return self._tensors[name]
        found = self._weights.tensor(name)
        if 8 * found.size > self._left:
            return found
        self._left -= 8 * found.size
        self._tensors[name] = found.astype(np.float64, copy=False)
        return self._tensors[name]


def _kept_there(weights: Weights, identity: str) -> Kept:
    return kept(identity, partial(Kept, weights))


def in_memory(model: Model) -> Model:
    """The same model, whose weights are read only once."""
    return replace(model, weights=cast(Weights, Kept(model.weights)))


def summed(model: Model) -> Model:
    """The same model, whose weights are added up when they are first read."""
    return replace(model, weights=Summed(model.weights))


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


def _load_hub(name: str, commit: str | None) -> Model:
    """A model of the Hub: only the files that are needed."""
    there = repository(name, commit)
    folder = there.fetch("config.json").parent
    for file in ("vocab.json", "merges.txt"):
        there.fetch(file)
    there.find(CARD)
    if not there.find(WEIGHTS):
        index = there.find(INDEX)
        if not index:
            raise ModelNotFound(
                f"{name} holds no {WEIGHTS}; a pickle, which can run code when it is read, is not read."
            )
        for file in _shard_names(index):
            there.fetch(file)
    source = f"https://huggingface.co/{name}" + (f"/tree/{commit}" if commit else "")
    return _load_folder(folder, name.split("/")[-1], source, _licence(folder))


def _licence(folder: Path) -> str:
    """The licence that a model card's front matter names."""
    try:
        card = (folder / CARD).read_text(encoding="utf-8", errors="replace")
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
    tokenizer = read_tokenizer(folder, config.vocab_size)
    return Model(name, source, licence, config, tokenizer, weights, companions=read_companions(folder))


@dataclass(frozen=True)
class Safetensors:
    """The tensors of a folder's safetensors files.

    entries: for each canonical name, the file that holds it, its name there and its shape.
    """

    entries: dict[str, tuple[Path, str, tuple[int, ...]]]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, from the files' headers."""
        return {name: shape for name, (_, _, shape) in self.entries.items()}

    def files(self) -> tuple[Path, ...]:
        """The files of the folder that hold some."""
        return tuple(dict.fromkeys(path for path, _, _ in self.entries.values()))

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Read one tensor. The file is mapped anew each time, so that read pages do not stay in memory."""
        path, key, _ = self.entries[name]
        try:
            with safe_open(path, framework="np") as file:
                value = file.get_tensor(key)
        except (SafetensorError, OSError) as e:
            raise BadCheckpoint(f"{path} cannot be read: {e}.") from e
        return finite(value.astype(np.float32, copy=False), name)

    def pieces(self, name: str, start: int = 0) -> Iterator[NDArray[np.float32]]:
        """Read one tensor, some rows at a time."""
        path, key, shape = self.entries[name]
        try:
            with safe_open(path, framework="np") as file:
                whole = file.get_slice(key)
                for first, last in islice(_rows(shape), start, None):
                    yield finite(whole[first:last].astype(np.float32, copy=False), name, first)
        except (SafetensorError, OSError) as e:
            raise BadCheckpoint(f"{path} cannot be read: {e}.") from e


def rows_of_a_piece(width: int) -> int:
    """Of a tensor with so many numbers in a row."""
    return max(1, PIECE // width)


def _rows(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The first row of each piece of a tensor, and the one behind its last."""
    step = rows_of_a_piece(int(np.prod(shape[1:])))
    return ((first, min(first + step, shape[0])) for first in range(0, shape[0], step))


def finite(value: NDArray[np.float32], name: str, row: int = 0) -> NDArray[np.float32]:
    """The same array, a tensor from `row` on. Raises BadCheckpoint where a number is not finite, naming the first."""
    if not np.isfinite(value).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        place = [row + where[0], *where[1:]]
        raise BadCheckpoint(
            f"The weight {name} holds {value[where]} at {place}; a cell cannot, and no answer could be right."
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
                    entries[name] = (path.absolute(), key, tuple(part.get_shape()))
        except (SafetensorError, OSError) as e:
            raise BadCheckpoint(f"{path} is damaged or no safetensors file ({e}); download it again.") from e
    return Safetensors(entries)


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not index.is_file():
        pickles = ", ".join(p.name for p in sorted(folder.glob("pytorch_model*.bin")))
        hint = (
            f" {pickles} is a pickle, which can run code when it is read; convert it to safetensors." if pickles else ""
        )
        raise ModelNotFound(f"{folder} holds no {WEIGHTS}.{hint}")
    names = _shard_names(index)
    missing = next((name for name in names if not (folder / name).is_file()), None)
    if missing:
        raise BadCheckpoint(f"{index} names the file {missing!r}, which is not there; download it again.")
    return [folder / name for name in names]


def _shard_names(index: Path) -> list[str]:
    """The files that an index of shards names. Raises BadCheckpoint."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise BadCheckpoint(f"{index} is damaged; download it again.") from e
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise BadCheckpoint(f"{index} names the file {name!r}, which is none beside it; download it again.")
    return names


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
    """Hold a checkpoint against the tensors that a model has. Raises BadCheckpoint, naming the first fault."""
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
        """The shape of every tensor, as the model has them."""
        return weight_shapes(self.config)

    def files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def tensor(self, name: str) -> NDArray[np.float32]:
        """One tensor; the same seed and name give the same numbers."""
        return _largest(self, name) if name == "wte.weight" else self._whole(name)

    def pieces(self, name: str, start: int = 0) -> Iterator[NDArray[np.float32]]:
        """One tensor, some rows at a time. Each piece is drawn from a seed of its own, so that any can be the first."""
        shape = self.shapes()[name]
        for piece, (first, last) in islice(enumerate(_rows(shape)), start, None):
            drawn = np.empty((last - first, *shape[1:]), np.float32)
            self._draw(name, piece, drawn)
            drawn.flags.writeable = False
            yield drawn

    def _whole(self, name: str) -> NDArray[np.float32]:
        shape = self.shapes()[name]
        whole = np.empty(shape, np.float32)
        for piece, (first, last) in enumerate(_rows(shape)):
            self._draw(name, piece, whole[first:last])
        whole.flags.writeable = False
        return whole

    def _draw(self, name: str, piece: int, out: NDArray[np.float32]) -> None:
        seeds = [self.seed, zlib.crc32(name.encode()), piece]
        random = np.random.Generator(np.random.SFC64(seeds))  # twice as fast as the default
        random.standard_normal(dtype=np.float32, out=out)
        out *= np.float32(0.02)
        if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
            out += 1


@lru_cache(maxsize=1)
def _largest(weights: RandomWeights, name: str) -> NDArray[np.float32]:
    """The tensor that many views read, kept: to draw it takes longer than what they do with it."""
    return weights._whole(name)


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
        if len(value) > len(str(LARGEST)) or int(value) > LARGEST:
            raise UsageError(f"random:{text}: {key} is above {LARGEST:,}, the number of rows that a sheet has.")
        changes[key] = int(value)
    n_embd = changes.get("n_embd", base.n_embd)
    defaults = {"n_inner": 4 * n_embd, "n_head": base.n_head if n_embd % base.n_head == 0 else 1}
    try:
        return parse_config(asdict(base) | defaults | changes, f"random:{text}")
    except BadCheckpoint as e:
        raise UsageError(str(e)) from e
