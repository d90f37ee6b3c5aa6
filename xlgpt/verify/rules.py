"""What a workbook refers to besides its formulas: lists in cells, conditional formats, charts and defined names."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from lxml import etree

from xlgpt.errors import BrokenWorkbook, NotAWorkbook, UnsupportedFormula
from xlgpt.verify.tokens_of import Token, tokens_of
from xlgpt.xlsb import sheet as records
from xlgpt.xlsb.fields import Block
from xlgpt.xlsb.place import Place
from xlgpt.xlsb.records import read_records
from xlgpt.xlsb.scope import Scope
from xlgpt.xlsb.sheet_part import LIST as A_LIST
from xlgpt.xlsb.sheet_part import OPERATORS, POINT_KINDS, RULE_KINDS
from xlgpt.xlsb.text import formula_text
from xlgpt.xlsx.formula import with_cells
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import a1_range

WORKBOOK = "xl/workbook.xml"
CHART = re.compile(r"xl/charts/chart\d+\.xml")
LISTS, FORMATS, CHARTS = "lists in cells", "conditional formats", "charts"
CONDITIONS = {kind: name for name, kind in RULE_KINDS.items()}
POINTS = {kind: name for name, kind in POINT_KINDS.items()}
NO_NAMES: Mapping[str, str] = MappingProxyType({})
SHEET_DATA = re.compile(rb"<(\w+:)?sheetData\b.*</(\w+:)?sheetData>|<(\w+:)?sheetData/>", re.DOTALL)


class Rule(NamedTuple):
    """A list or a conditional format: of which kind, for which cells, and what it says, as tokens."""

    kind: str
    cells: str
    says: str

    def place(self, sheet: str) -> Range:
        """Its first cells."""
        return a1_range(sheet, self.cells.partition(" ")[0]) or Range(sheet, 0, 0)


def rules(xml: bytes, sheet: str, path: Path, names: Mapping[str, str] = NO_NAMES) -> Counter[Rule]:
    """The lists and the conditional formats in a sheet's part, a list cell by cell. Raises BrokenWorkbook.

    names: for names, in small letters, the cells to read in their place.
    """
    found: list[Rule] = []
    for element in _elements(SHEET_DATA.sub(b"", xml), path, f"sheet {sheet!r}"):
        match _local(element):
            case "dataValidation" if element.get("type") == "list":
                found += [Rule(LISTS, cell, _formulas(element, sheet, 1, names)) for cell in _cells(element)]
            case "conditionalFormatting":
                areas = " ".join(_areas(element))
                found += [
                    Rule(FORMATS, areas, _condition(rule, sheet, names)) for rule in element if _local(rule) == "cfRule"
                ]
    return Counter(found)


def _elements(xml: bytes, path: Path, what: str) -> list[Any]:
    """All elements of a part. Raises BrokenWorkbook."""
    try:
        return list(etree.fromstring(xml).iter("*"))
    except etree.XMLSyntaxError as e:
        raise BrokenWorkbook(f"{path}: the {what} is no well-formed XML; take an intact copy.") from e


def _local(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _areas(element: Any) -> list[str]:
    """The ranges that a rule is for: an attribute, or in Excel's extension an element of its own."""
    text = element.get("sqref") or next((e.text or "" for e in element if _local(e) == "sqref"), "")
    return sorted(text.split())


def _cells(element: Any) -> Iterator[str]:
    for area in _areas(element):
        cells = a1_range("", area)
        if cells:
            yield from (cells.cell(i, j).first for i in range(cells.height) for j in range(cells.width))


def _formulas(element: Any, sheet: str, count: int, names: Mapping[str, str]) -> str:
    """The formulas of a rule, as tokens."""
    found = [e for e in element if _local(e).startswith("formula")][:count]
    texts = (e.text or "".join(inner.text or "" for inner in e) for e in found)
    return _said(
        (with_cells(text.removeprefix("="), names) if names else text.removeprefix("=") for text in texts), sheet
    )


def _said(formulas: Iterable[str], sheet: str) -> str:
    return " ".join(" ".join(tokens_of(formula, sheet)) for formula in formulas)


def _condition(rule: Any, sheet: str, names: Mapping[str, str]) -> str:
    """What a conditional format says: its kind, what it compares, and where a scale of colours has its points."""
    points = (f"{e.get('type')} {float(e.get('val') or 0):g}" for e in rule.iter() if _local(e) == "cfvo")
    return " ".join(filter(None, (rule.get("type"), rule.get("operator"), _formulas(rule, sheet, 3, names), *points)))


def rules_of_records(part: bytes, sheet: str, path: Path, scope: Scope) -> Counter[Rule]:
    """The same from a sheet's records. Raises BrokenWorkbook."""
    try:
        return Counter(_rules_of_records(part, sheet, scope))
    except (NotAWorkbook, UnsupportedFormula, KeyError, IndexError) as e:
        raise BrokenWorkbook(f"{path}: the rules of the sheet {sheet!r} cannot be read; take an intact copy.") from e


def _rules_of_records(part: bytes, sheet: str, scope: Scope) -> Iterator[Rule]:
    areas: list[Range] = []
    said: list[str] = []
    for identity, payload in read_records(part):
        match identity:
            case records.Validation.identity:
                yield from _lists(records.Validation.read(payload), sheet, scope)
            case records.BeginConditional.identity:
                areas = [_range(cells) for cells in records.BeginConditional.read(payload).cells]
            case records.BeginRule.identity:
                said = list(_rule_said(records.BeginRule.read(payload), sheet, scope, areas[0]))
            case records.ScalePoint.identity:
                point = records.ScalePoint.read(payload)
                said.append(f"{POINTS[point.kind]} {point.value:g}")
            case records.END_RULE:
                yield Rule(FORMATS, " ".join(sorted(area.a1 for area in areas)), " ".join(filter(None, said)))


def _lists(validation: records.Validation, sheet: str, scope: Scope) -> Iterator[Rule]:
    areas = [_range(cells) for cells in validation.cells]
    if validation.flags & 15 == A_LIST:
        says = _said([formula_text(validation.first, scope, Place(areas[0].row, areas[0].column))], sheet)
        for area in areas:
            yield from (Rule(LISTS, area.cell(i, j).first, says) for i, j in np.ndindex(area.height, area.width))


def _rule_said(rule: records.BeginRule, sheet: str, scope: Scope, first: Range) -> Iterator[str]:
    yield CONDITIONS.get((rule.kind, rule.template), f"condition {rule.kind} {rule.template}")
    if rule.parameter and rule.kind == 1:
        yield OPERATORS[rule.parameter - 1]
    yield _said((formula_text(formula, scope, Place(first.row, first.column)) for formula in rule.formulas), sheet)


def _range(cells: Block) -> Range:
    top, bottom, left, right = cells
    return Range("", top, left, bottom - top + 1, right - left + 1)


def charts(parts: Mapping[str, bytes], path: Path) -> Counter[tuple[Token, ...]]:
    """What the charts among some parts draw: the cells they refer to, and how often. Raises BrokenWorkbook."""
    found: Counter[tuple[Token, ...]] = Counter()
    for part, xml in parts.items():
        if CHART.fullmatch(part):
            elements = _elements(xml, path, f"part {part}")
            found.update(tokens_of(e.text or "") for e in elements if _local(e) == "f")
    return found


@dataclass(frozen=True)
class Names:
    """The defined names, in small letters, and what each refers to; and those that hold on one sheet only."""

    everywhere: dict[str, str]
    local: frozenset[str]


def names(parts: Mapping[str, bytes], path: Path) -> Names:
    """The names that a workbook defines. Raises BrokenWorkbook."""
    elements = _elements(parts[WORKBOOK], path, "list of names")
    found = [(e.get("name", "").casefold(), e) for e in elements if _local(e) == "definedName"]
    everywhere = {name: e.text or "" for name, e in found if e.get("localSheetId") is None}
    return Names(everywhere, frozenset(name for name, e in found if e.get("localSheetId") is not None))
