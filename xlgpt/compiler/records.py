"""A table of a TOML file as a frozen dataclass: every key known, every value of its type, or a sentence about it."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from xlgpt.errors import TemplateError

Record = TypeVar("Record")
Raw = dict[str, Any]


def record(kind: type[Record], raw: Raw, fill: Callable[[str], str], path: Path, name: str = "") -> Record:
    """A dataclass from a table; `fill` puts numbers into its texts, and what it derives no table gives.

    name: the table's own, where none stands in it.

    Raises TemplateError, which names the file, the table and the key.
    """
    hints, needed = _keys(kind)  # type: ignore[arg-type]  # a type is hashable
    names = (name, *(raw.get(key) for key in ("name", "title", "band", "at")))
    what = f"{path}: {kind.__name__.lower()} {next(filter(None, names), '')}"
    for key in raw:
        if key not in hints:
            raise TemplateError(f"{what} has the unknown key {key!r}; it may have {', '.join(hints)}.")
    for key in needed:
        if key not in raw:
            raise TemplateError(f"{what} lacks the key {key!r}.")
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in raw.items()}
    for key, value in given.items():
        if not _fits(value, hints[key]):
            raise TemplateError(f"{what}: the {key} {raw[key]!r} is none; it is {_said(hints[key])}.")
    return kind(**{key: fill(value) if isinstance(value, str) else value for key, value in given.items()})


@cache
def _keys(kind: type) -> tuple[dict[str, Any], list[str]]:
    """The keys that a table may have with the types of their values, and those that it must have."""
    hints = get_type_hints(kind)
    known = [field for field in fields(kind) if "derived" not in field.metadata]
    return {field.name: hints[field.name] for field in known}, [f.name for f in known if f.default is MISSING]


def _fits(value: object, hint: Any) -> bool:
    """Whether a value of a TOML file is of a type."""
    args = get_args(hint)
    match get_origin(hint):
        case o if o is Union or o is UnionType:
            return any(_fits(value, one) for one in args)
        case o if o is Literal:
            return any(value == one and type(value) is type(one) for one in args)
        case o if o is tuple and args[-1] is Ellipsis:
            return isinstance(value, tuple) and all(_fits(one, args[0]) for one in value)
        case o if o is tuple:
            return isinstance(value, tuple) and len(value) == len(args) and all(map(_fits, value, args))
        case o if o is dict:
            return isinstance(value, dict) and all(_fits(one, args[1]) for one in value.values())
    kinds = (int, float) if hint is float else hint
    return isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))


def _said(hint: Any) -> str:
    """A type in words."""
    args = get_args(hint)
    match get_origin(hint):
        case o if o is Union or o is UnionType:
            return " or ".join(_said(one) for one in args if one is not type(None))
        case o if o is Literal:
            return " or ".join(repr(one) for one in args)
        case o if o is tuple:
            return f"a list of {_said(args[0])}"
        case o if o is dict:
            return f"a table of {_said(args[1])}"
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}[hint]
