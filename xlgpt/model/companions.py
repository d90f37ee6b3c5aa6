"""What comes with a model for a workbook made of it: named in a file xlgpt.toml beside its weights."""

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from xlgpt.errors import BadCheckpoint

FILE = "xlgpt.toml"


KINDS = {
    "steering": "a path",
    "sae": "a path",
    "features": "a list of numbers from 0",
    "adapters": "a list of paths",
    "prompts": "a list of texts",
    "text": "a path",
    "relations": "a path",
}


@dataclass(frozen=True)
class Companions:
    """steering: a file of vectors. sae: the folder of a sparse autoencoder. features: those of it that are shown first.

    adapters: the folders of LoRA adapters. prompts: some to try, on the home sheet. text: what it
    knows, a document a line. relations: facts that it knows, see xlgpt.interp.relations.
    """

    steering: Path | None = None
    sae: Path | None = None
    features: tuple[int, ...] = ()
    adapters: tuple[Path, ...] = ()
    prompts: tuple[str, ...] = ()
    text: Path | None = None
    relations: Path | None = None


NONE = Companions()


def read_companions(folder: Path) -> Companions:
    """What the xlgpt.toml in a model's folder names; nothing where there is none. Raises BadCheckpoint."""
    path = folder / FILE
    if not path.is_file():
        return NONE
    try:
        named = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise BadCheckpoint(f"{path} is no TOML file that can be read: {e}.") from e
    known = {item.name for item in fields(Companions)}
    for key, value in named.items():
        if key not in known:
            raise BadCheckpoint(f"{path} has the key {key!r}; it may have {', '.join(sorted(known))}.")
        if not _fits(key, value):
            raise BadCheckpoint(f"{path}: {key} is {value!r}; it must be {KINDS[key]}.")
    single = [key for key, kind in KINDS.items() if kind == "a path" and key in named]
    paths = {key: [named[key]] for key in single}
    paths["adapters"] = named.get("adapters", [])
    for key, names in paths.items():
        for name in names:
            if not (folder / name).exists():
                raise BadCheckpoint(f"{path} names {name!r} as {key}, and there is no such thing beside it.")
    adapters = tuple(folder / name for name in paths["adapters"])
    features, prompts = (tuple(named.get(key, ())) for key in ("features", "prompts"))
    return Companions(
        features=features, adapters=adapters, prompts=prompts, **{key: folder / named[key] for key in single}
    )


def _fits(key: str, value: Any) -> bool:
    """Whether a value is of its key's kind."""
    match key:
        case "features":
            return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
        case "prompts" | "adapters":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, str)
