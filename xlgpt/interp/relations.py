"""Facts that a model knows, by relation, with other wordings of each: a file `relations.toml` beside its weights.

[[relation]]
prompt      = "{} plays the sport of"   # {} is the subject
paraphrases = ["{} likes"]
[relation.answers]                      # the next token of each subject, with its space
"Michael Jordan" = " basketball"
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlgpt.errors import BadRelations

KEYS = {"prompt", "paraphrases", "answers"}
PLACE = "{}"  # of the subject


@dataclass(frozen=True)
class Relation:
    """What is said of each of some subjects. prompt, paraphrases: texts with {} in the subject's place."""

    prompt: str
    paraphrases: tuple[str, ...]
    answers: Mapping[str, str]

    @property
    def wordings(self) -> tuple[str, ...]:
        """All of them."""
        return self.prompt, *self.paraphrases


def read_relations(path: Path) -> tuple[Relation, ...]:
    """The relations in a file. Raises BadRelations."""
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise BadRelations(f"{path} is no TOML file that can be read: {e}.") from e
    tables = told.get("relation")
    if not isinstance(tables, list) or told.keys() != {"relation"}:
        raise BadRelations(f"{path} must hold [[relation]] tables, and nothing beside them.")
    return tuple(_relation(table, path) for table in tables)


def _relation(table: Any, path: Path) -> Relation:
    if not isinstance(table, dict) or table.keys() != KEYS:
        raise BadRelations(f"{path}: a relation has {', '.join(sorted(KEYS))}, and nothing else.")
    prompt, paraphrases, answers = (table[key] for key in ("prompt", "paraphrases", "answers"))
    if not isinstance(paraphrases, list) or not isinstance(answers, dict):
        raise BadRelations(f"{path}: the paraphrases of {prompt!r} must be a list, and its answers a table.")
    for text in (prompt, *paraphrases):
        if not isinstance(text, str) or text.count(PLACE) != 1:
            raise BadRelations(f"{path}: {text!r} is no text with one {PLACE} in the subject's place.")
    for subject, answer in answers.items():
        if not isinstance(answer, str) or not answer:
            raise BadRelations(f"{path}: the answer for {subject!r} is {answer!r}, which is no text.")
    return Relation(prompt, tuple(paraphrases), answers)


def paraphrases(relations: tuple[Relation, ...], prompt: str) -> tuple[str, ...]:
    """Other wordings of a prompt with {}; none where no relation has it."""
    return next((relation.paraphrases for relation in relations if relation.prompt == prompt), ())


def neighbours(relations: tuple[Relation, ...], prompt: str, subject: str) -> Iterator[tuple[str, str]]:
    """Every other fact, in every wording: a prompt and its answer."""
    for relation in relations:
        for other, answer in relation.answers.items():
            if (relation.prompt, other) != (prompt, subject):
                yield from ((wording.replace(PLACE, other), answer) for wording in relation.wordings)


def subject_of(relations: tuple[Relation, ...], text: str) -> str:
    """What a text in one of the wordings is about; nothing where it is in none of them."""
    facts = ((w.replace(PLACE, s), s) for relation in relations for s in relation.answers for w in relation.wordings)
    return next((subject for wording, subject in facts if wording == text), "")
