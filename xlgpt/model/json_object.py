"""Reads the JSON object that stands beside a checkpoint, an autoencoder or an adapter."""

import json
from pathlib import Path
from typing import Any

from xlgpt.errors import XlgptError


def read_object(path: Path, failure: type[XlgptError], saved_by: str = "") -> dict[str, Any]:
    """The object in a file. Raises `failure`; of a file that is not there it names who saves folders with one."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        if saved_by and isinstance(e, FileNotFoundError):
            raise failure(f"{path.parent} holds no {path.name}; xlgpt reads a folder that {saved_by} saved.") from e
        raise failure(f"{path} cannot be read: {e.strerror}.") from e
    except ValueError as e:
        raise failure(f"{path} is not valid JSON: {e}.") from e
    if not isinstance(raw, dict):
        raise failure(f"{path} does not hold a JSON object.")
    return raw
