"""The home sheet as data: what stands in templates/home.toml."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from xlgpt.compiler.band import Band, Kind, reach, wrong
from xlgpt.compiler.compile import formulas
from xlgpt.compiler.layout import Layout, Placed, Sheet
from xlgpt.compiler.records import record
from xlgpt.compiler.references import Slip, Tables
from xlgpt.compiler.template import Stage, folder, optional_sheets, read, tables
from xlgpt.errors import TemplateError
from xlgpt.xlsx.ranges import Range, column_number

HOME = "Home"
AREA = re.compile(r"([A-Z]{1,3})(\d+)(?::([A-Z]{1,3})(\d+))?")
STYLES = ("note", "link", "place", "piece", "column_title", *(f"heading {kind}" for kind in get_args(Kind)))  # all's
TEXT = re.compile(r"\{([\w.]+)\}")


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, or in several joined to one: a text, a link with a text, or a formula.

    at: the cell, or the corners of several. rows: so many cells below one another, with the same formula, or numbers.
    shows: how Python knows what the formula shows; the band that it names unless told. name: its defined name.
    views: it is there where the workbook has one of these. style: of the file's table, or of all sheets.
    """

    at: str
    text: str = ""
    link: str = ""
    formula: str = ""
    shows: str = ""
    rows: int = 1
    style: str = "note"
    height: int = 0
    colour: Literal["", "verdict"] = ""
    name: str = ""
    views: tuple[str, ...] = ()


@dataclass(frozen=True)
class Style:
    """How a cell looks, in XlsxWriter's words; colours are those of a kind of cells."""

    font_size: int = 11
    bold: bool = False
    font_color: Literal["muted"] | Kind = "plain"
    bg_color: Kind = "plain"
    border_color: Literal["line"] | Kind = "plain"
    text_wrap: bool = False
    indent: int = 0
    num_format: str = ""
    align: Literal["left", "center", "right"] = "left"


@dataclass(frozen=True)
class Drawn:
    """The chart: a series of cells, and what each is called."""

    at: str
    title: str
    about: str
    series: str
    categories: str
    values: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Facts:
    """The model's facts, below one another: what each is called, by its name."""

    at: str
    title: str
    names: dict[str, str]


@dataclass(frozen=True)
class Map:
    """Links to all sheets: what the tables hold, and what each kind of cell is."""

    at: str
    title: str
    weights: str
    colours: str
    tables: dict[str, str]
    kinds: dict[str, str]


@dataclass(frozen=True)
class Prompts:
    """Prompts to try, for a model that brings none of its own."""

    at: str
    title: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """All of the home sheet."""

    widths: dict[str, float]
    style: dict[str, dict[str, Any]]
    cells: tuple[Cell, ...]
    chart: Drawn
    facts: Facts
    map: Map
    prompts: Prompts
    tables: Tables
    file: Path

    def text(self, text: str, known: dict[str, str]) -> str:
        """A text with what its braces name: what is known by that name, or the choice for it. Raises TemplateError."""

        def filled(found: re.Match[str]) -> str:
            table, _, key = found[1].rpartition(".")
            choices = self.tables.choices.get(key, {}) if table == "choice" else known
            value = known.get(key) if table == "choice" else found[1]
            if value not in choices:
                raise TemplateError(f"{self.file}: the text {text!r} names {found[0]}, which is not known.")
            return choices[value]

        return TEXT.sub(filled, text)

    def formulas(self, cell: Cell, layout: Layout) -> Iterator[str]:
        """The formula of each of its cells, row by row. Raises TemplateError."""
        areas = self.areas(cell)
        width = 1 if is_joined(cell, areas) else sum(area.width for area in areas)
        shape = (cell.rows, width) if width > 1 else (cell.rows,)
        band = Band(f"the cell {cell.at}", cell.text, "", shape, cell.formula)
        try:
            band = replace(band, per=reach(band, set(self.tables.words(cell.formula))))
        except Slip as slip:
            raise wrong(str(self.file), band, "formula", slip) from slip
        placed = Placed(band, Range(HOME, areas[0].row, areas[0].column, cell.rows, width), areas[0].row, shape)
        stage = Stage(HOME, "", "", (band,), (), (), self.tables, file=str(self.file))
        yield from (formula.text for formula in formulas(layout, Sheet(stage, ((placed,),)), placed))

    def areas(self, cell: Cell) -> list[Range]:
        """Where it stands. Raises TemplateError."""
        return [self.area(at) for at in cell.at.split()]

    def area(self, at: str) -> Range:
        """The cells from one corner to another. Raises TemplateError."""
        found = AREA.fullmatch(at)
        if not found:
            raise TemplateError(f"{self.file}: the at {at!r} is none; it is a cell such as B7, or its corners: B7:O7.")
        row, column = int(found[2]) - 1, column_number(found[1])
        last_row, last = (int(found[4]) - 1, column_number(found[3])) if found[3] else (row, column)
        return Range(HOME, row, column, last_row - row + 1, last - column + 1)


def is_joined(cell: Cell, areas: list[Range]) -> bool:
    """Whether its cells are one."""
    return len(areas) == 1 and areas[0].width > 1


def home_page() -> Page:
    """The home sheet of the templates. Raises TemplateError."""
    path = folder() / "home.toml"
    raw = read(path)
    parts: dict[str, type[Any]] = {"chart": Drawn, "facts": Facts, "map": Map, "prompts": Prompts}
    missing = {"widths", "style", "cell", *parts} - set(raw)
    if missing:
        raise TemplateError(f"{path} lacks {', '.join(sorted(missing))}.")
    for name, given in raw["style"].items():
        record(Style, given, str, path, name)
    cells = tuple(record(Cell, cell, str, path) for cell in raw["cell"])
    styles = {*raw["style"], *STYLES}
    for cell in cells:
        if cell.style not in styles:
            raise TemplateError(f"{path}: the style {cell.style!r} of the cell {cell.at} is none of {sorted(styles)}.")
        for view in cell.views:
            if view not in optional_sheets():
                raise TemplateError(f"{path}: the views of the cell {cell.at} has {view!r}, which is no view.")
    if not any(cell.name == "prompt" for cell in cells):
        raise TemplateError(f"{path} needs a cell with the name 'prompt'.")
    return Page(
        widths=raw["widths"],
        style=raw["style"],
        cells=cells,
        tables=tables(path),
        file=path,
        **{name: record(kind, raw[name], str, path) for name, kind in parts.items()},
    )
