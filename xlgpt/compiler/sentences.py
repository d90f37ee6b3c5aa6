"""The sentences of the templates, for who computes in Python which of them a workbook shows, and what it names."""

from xlgpt.compiler import template
from xlgpt.compiler.references import Coordinate, Part, Product, parse
from xlgpt.errors import TemplateError


def say(file: str, key: str, **values: object) -> str:
    """A sentence of a template's [say] table. values: what stands in its braces, by the last word of each.

    file: as sheets.toml names it. Raises TemplateError where it has no such sentence, or other words in braces.
    """
    path = template.folder() / f"{file}.toml"
    says = template.tables(path).says
    if key not in says:
        raise TemplateError(f"{path}: [say] has no {key}, which a part of xlgpt that computes in NumPy says.")
    parts = parse(says[key])
    named = {_last_word(part) for part in parts if not isinstance(part, str)}
    if named != set(values):
        names, given = (", ".join(sorted(words)) or "nothing" for words in (named, values))
        raise TemplateError(f"{path}: the {key} of [say] names {names}; what computes in NumPy knows {given}.")
    return "".join(part if isinstance(part, str) else _shown(values[_last_word(part)]) for part in parts)


def _last_word(part: Part) -> str:
    """What a value is called: `block` for {facts.block} and {text.block}."""
    match part:
        case str():
            return part
        case Coordinate():
            return part.word
        case Product():
            return part.written
    return part.written.partition("[")[0].rpartition(".")[2]


def _shown(value: object) -> str:
    """What & makes of a value in a formula."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)
