"""What a workbook brings along to look for and to steer by: vectors, and features of a sparse autoencoder."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from xlgpt.errors import UsageError
from xlgpt.interp.sae import Autoencoder, read_autoencoder
from xlgpt.interp.steering import Vector, read_vectors
from xlgpt.model import reference
from xlgpt.model.checkpoint import Model

FEATURES = 16  # that stand in a workbook, unless some are asked for
COEFFICIENT, FEATURE_COEFFICIENT = 1.0, 60.0  # where a vector has none of its own


@dataclass(frozen=True)
class Asked:
    """What a build is told about them: a file of vectors, an autoencoder's folder, and features by their numbers."""

    steering: Path | None = None
    sae: Path | None = None
    features: tuple[int, ...] = ()


@dataclass(frozen=True)
class Directions:
    """Vectors, each with a block and a coefficient, no two of one name; those of the features come last."""

    vectors: tuple[Vector, ...] = ()
    autoencoder: Autoencoder | None = None
    features: tuple[int, ...] = ()


def features_of(text: str | None) -> tuple[int, ...]:
    """The numbers in `7650,12`. Raises UsageError."""
    numbers = [number.strip() for number in (text or "").split(",") if number.strip()]
    wrong = next((number for number in numbers if not number.isdecimal()), None)
    if wrong or (text is not None and not numbers):
        raise UsageError(f"--features takes numbers with commas between, such as 7650,12; {wrong or text!r} is none.")
    return tuple(dict.fromkeys(map(int, numbers)))


def find_directions(model: Model, ids: list[int], asked: Asked, sheets: tuple[str, ...]) -> Directions:
    """What there is for the sheets that are wanted: what comes with the model, and what is asked for.

    ids: the prompt; where no features are asked for, those that are most active in it are taken.
    Raises BadVectors, BadAutoencoder, UsageError.
    """
    with_model = model.companions
    files = (with_model.steering if "steering" in sheets else None, asked.steering)
    vectors = tuple(vector for file in files if file for vector in read_vectors(file, model.config))
    folder = asked.sae or with_model.sae
    if asked.features and not folder:
        raise UsageError("--features are those of a sparse autoencoder; name its folder with --sae.")
    if not folder or "features" not in sheets:
        return Directions(_complete(vectors, model))
    autoencoder = read_autoencoder(folder, model)
    features = asked.features or _features(autoencoder, model, ids, () if asked.sae else with_model.features)
    written = (replace(autoencoder.vector(i), coefficient=FEATURE_COEFFICIENT) for i in features)
    return Directions(_complete((*vectors, *written), model), autoencoder, features)


def _features(autoencoder: Autoencoder, model: Model, ids: list[int], known: tuple[int, ...]) -> tuple[int, ...]:
    """Those that are known, then the most active in a prompt; of a prompt that wakes none, the first."""
    active: list[int] = []
    if ids:
        cache = reference.forward(ids, model.weights, model.config)
        active = autoencoder.most_active(cache[f"blocks.{autoencoder.block}.resid_pre"], FEATURES)
    return tuple(dict.fromkeys((*known, *active)))[:FEATURES] or (0,)


def _complete(vectors: tuple[Vector, ...], model: Model) -> tuple[Vector, ...]:
    """With a block and a coefficient each, and a name of its own."""
    complete = []
    for vector, name in zip(vectors, own_names([vector.name for vector in vectors]), strict=True):
        block = model.config.n_layer // 2 if vector.block is None else vector.block
        coefficient = COEFFICIENT if vector.coefficient is None else vector.coefficient
        complete.append(replace(vector, name=name, block=block, coefficient=coefficient))
    return tuple(complete)


def own_names(names: list[str]) -> list[str]:
    """The names, where one stands there twice with a number behind it."""
    found: list[str] = []
    for wanted in names:
        found.append(next(name for name in _versions(wanted) if name not in found))
    return found


def _versions(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name} ({number})"
        number += 1
