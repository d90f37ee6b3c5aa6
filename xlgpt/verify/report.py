"""What a check found, as a table, as JSON and as JUnit's XML."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from rich.table import Table

from xlgpt.errors import OutputError

Verdict = Literal["ok", "FAILED", "not checked"]
COLOURS = {"ok": "green", "FAILED": "bold red", "not checked": "yellow"}
MOST = 20  # problems that are printed


@dataclass(frozen=True)
class Gap:
    """Something that was not checked, and why. details: one by one, for those who ask."""

    what: str
    why: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"Not checked: {self.what} ({self.why})."


@dataclass(frozen=True)
class BandResult:
    """One band of cells, or all formulas of a sheet that belong to none, for one prompt.

    absolute, relative: the largest difference from the reference, the latter among numbers above 1e-6, for next to 0
    any rounding is a large share. worst: the cell that is furthest off.
    problem: a sentence; empty when all is well. gap: why it was not checked, or not all of it.
    """

    name: str
    cells: int = 0
    absolute: float = 0.0
    relative: float = 0.0
    worst: str = ""
    problem: str = ""
    gap: str = ""

    @property
    def verdict(self) -> Verdict:
        """What is to be said of it."""
        return "FAILED" if self.problem else "not checked" if self.gap else "ok"


@dataclass(frozen=True)
class SheetResult:
    """One sheet, read or calculated for one prompt; for a sheet of weights, its tensors stand for bands.

    formulas: how many were read, or calculated.
    """

    sheet: str
    bands: tuple[BandResult, ...]
    formulas: int
    seconds: float

    @property
    def problems(self) -> list[BandResult]:
        """The bands that are not as they should be, from the top."""
        return [band for band in self.bands if band.problem]


@dataclass(frozen=True)
class PromptResult:
    """All sheets for one prompt, and what the workbook and the reference go on with.

    next_token, expected_token: where tokens are written, all of them. about: what was set differently from the file.
    end_to_end: whether the workbook's came from the prompt alone, by formulas alone.
    """

    text: str
    tokens: int
    sheets: tuple[SheetResult, ...]
    next_token: str
    expected_token: str
    about: str = ""
    end_to_end: bool = True

    def __str__(self) -> str:
        text = self.text if len(self.text) <= 40 else f"{self.text[:39]}…"
        about = f", {self.about}" if self.about else ""
        ours, theirs = repr(self.next_token), repr(self.expected_token)
        both = f"{ours} in the workbook, {theirs} in NumPy"
        if ours == theirs:
            both = f"{ours} in the workbook and in NumPy" if self.next_token else "no next token on both sides"
        return f"{text!r} ({self.tokens} token{'s' * (self.tokens != 1)}{about}): {both}."


@dataclass(frozen=True)
class Report:
    """The outcome of a check.

    reading: each sheet's cells held against what the templates make. changed: differences that were allowed.
    weights: the tensors, and with a checkpoint all that comes from it. gaps: what was not checked.
    compared_with: the checkpoint whose float32 the weights were held against.
    without_saved_value: formulas that were saved uncalculated, so that no saved value could be held against them.
    calculated_by: how many processes, or workers of which cluster.
    """

    path: Path
    engine: str
    reading: tuple[SheetResult, ...]
    weights: tuple[SheetResult, ...]
    prompts: tuple[PromptResult, ...]
    gaps: tuple[Gap, ...] = ()
    changed: tuple[str, ...] = ()
    compared_with: str = ""
    seconds: float = 0.0
    peak_memory: int = 0
    tolerance: float = 1e-6
    without_saved_value: int = 0
    calculated_by: str = "1 process"

    @property
    def passed(self) -> bool:
        """Whether nothing was found and something was looked at."""
        return bool(self.prompts) and not any(sheet.problems for sheet in self.all_sheets())

    @property
    def formulas_read(self) -> int:
        """How many formulas were held against the templates'."""
        return sum(sheet.formulas for sheet in self.reading)

    @property
    def formulas_calculated(self) -> int:
        """How often a formula was calculated, all prompts together."""
        return sum(sheet.formulas for prompt in self.prompts for sheet in prompt.sheets)

    def all_sheets(self) -> Iterator[SheetResult]:
        """Every sheet's result: the weights, all as read, then prompt by prompt."""
        yield from self.weights
        yield from self.reading
        for prompt in self.prompts:
            yield from prompt.sheets

    def problems(self) -> list[tuple[str, BandResult]]:
        """Each sheet and band that is not as it should be, once, in the order of the model."""
        found: dict[tuple[str, str], tuple[str, BandResult]] = {}
        for sheet in self.all_sheets():
            for band in sheet.problems:
                found.setdefault((sheet.sheet, band.name), (sheet.sheet, band))
        return list(found.values())

    def worst(self) -> tuple[str, BandResult] | None:
        """The sheet and band with the largest relative difference."""
        bands = [(s.sheet, b) for prompt in self.prompts for s in prompt.sheets for b in s.bands if b.worst]
        return max(bands, key=lambda item: item[1].relative, default=None)

    def by_sheet(self) -> dict[str, list[SheetResult]]:
        """The results of each sheet with formulas, a result for each prompt."""
        found: dict[str, list[SheetResult]] = {}
        for prompt in self.prompts:
            for sheet in prompt.sheets:
                found.setdefault(sheet.sheet, []).append(sheet)
        return found

    def table(self, verbose: bool = False) -> Table:
        """A line a sheet, or with `verbose` a line a band."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("sheet")
        for title in ("ranges", "read", "calculated", "absolute", "relative", "seconds"):
            table.add_column(title, justify="right")
        table.add_column("", no_wrap=True)
        if self.weights:
            table.add_row(*self._weights_row())
        read, calculated = {sheet.sheet: sheet for sheet in self.reading}, self.by_sheet()
        for name in dict.fromkeys([*calculated, *read]):
            results = [*([read[name]] if name in read else []), *calculated.get(name, [])]
            bands = merged([band for result in results for band in result.bands])
            shown = f"{read[name].formulas:,}" if name in read else ""
            count = f"{sum(result.formulas for result in calculated.get(name, [])):,}"
            named, seconds = [band for band in bands if band.name], sum(result.seconds for result in results)
            table.add_row(
                name,
                str(len(named)),
                shown,
                count,
                *_differences(bands),
                f"{seconds:.2f}",
                _coloured(verdict_of(bands)),
            )
            for band in bands if verbose else []:
                title = f"  {band.name or 'labels and the like'}"
                table.add_row(title, "", "", f"{band.cells:,}", *_differences([band]), "", _coloured(band.verdict))
        return table

    def _weights_row(self) -> list[str]:
        tensors = [band for sheet in self.weights for band in sheet.bands]
        seconds = sum(sheet.seconds for sheet in self.weights)
        return ["weights", f"{len(tensors)}", "", "", "", "", f"{seconds:.2f}", _coloured(verdict_of(tensors))]

    def sentences(self, verbose: bool = False) -> Iterator[str]:
        """What stands below the table: the problems, the worst band, the next token on both sides, what is missing."""
        problems = self.problems()
        for sheet, band in problems[:MOST]:
            yield f"{sheet} ▸ {band.name or 'a cell outside the named ranges'}: {band.problem}"
        if len(problems) > MOST:
            yield f"… and {len(problems) - MOST} more."
        yield from (f"Changed: {sentence}" for sentence in self.changed)
        if self.compared_with and not any(sheet.problems for sheet in self.weights):
            numbers = sum(band.cells for sheet in self.weights for band in sheet.bands if not band.gap)
            yield f"All {numbers:,} weights are those of {self.compared_with}, bit for bit."
        worst = self.worst()
        if worst and worst[1].worst:
            yield f"The largest relative difference is {worst[1].relative:.1e}, in {worst[1].name} at {worst[1].worst}."
        yield from self._spoken(verbose)
        if self.without_saved_value:
            yield f"{self.without_saved_value:,} formulas have no saved value: what saved them did not calculate."
        for gap in self.gaps:
            yield str(gap)
            yield from (f"    {detail}" for detail in gap.details if verbose)
        yield (
            f"{'Passed' if self.passed else 'FAILED'}: {self.formulas_read:,} formulas read, "
            f"{self.formulas_calculated:,} calculated by {self.engine} for {len(self.prompts)} prompts and settings, "
            f"{len(self.gaps)} things not checked; {self.seconds:.1f} s on {self.calculated_by}, "
            f"{self.peak_memory / 1e6:,.0f} MB of memory at the peak."
        )

    def _spoken(self, verbose: bool) -> Iterator[str]:
        """What comes next, from end to end: of each prompt once, and wherever the two sides differ."""
        groups: dict[str, list[PromptResult]] = {}
        for prompt in self.prompts:
            if prompt.end_to_end:
                groups.setdefault(prompt.text, []).append(prompt)
        for group in groups.values():
            said = [p for i, p in enumerate(group) if verbose or i == 0 or p.next_token != p.expected_token]
            others = len(group) - len(said)
            yield from map(str, said)
            if others:
                yield f"    and alike with {others} other choice{'s' * (others > 1)} of settings."

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        counts = {"formulas_read": self.formulas_read, "formulas_calculated": self.formulas_calculated}
        return asdict(self) | {"path": str(self.path), "passed": self.passed} | counts

    def write_junit(self, path: Path) -> None:
        """Write a JUnit file, a test case for each band and prompt. Raises OutputError."""
        try:
            path.write_bytes(self.junit())
        except OSError as e:
            raise OutputError(f"{path} cannot be written: {e.strerror}.") from e

    def junit(self) -> bytes:
        """All of it as JUnit's XML; what was not checked is skipped."""
        root = ElementTree.Element("testsuites", name=f"xlgpt check {self.path.name}")
        groups = [("as read", tuple(map(_with_a_case, self.reading))), ("weights", self.weights)]
        groups += [(f"prompt {i}, {p.tokens} tokens", p.sheets) for i, p in enumerate(self.prompts, 1)]
        for title, sheets in groups:
            for sheet in sheets:
                _suite(root, f"{sheet.sheet} ({title})", sheet)
        if self.gaps:
            bands = tuple(BandResult(gap.what, gap=gap.why) for gap in self.gaps)
            _suite(root, "not checked", SheetResult("", bands, 0, 0.0))
        xml: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        return xml


def _with_a_case(sheet: SheetResult) -> SheetResult:
    """A sheet on which no difference was read, as one thing that is well."""
    return sheet if sheet.bands else replace(sheet, bands=(BandResult("all cells", sheet.formulas),))


def _suite(root: ElementTree.Element, name: str, sheet: SheetResult) -> None:
    counts = {"tests": len(sheet.bands), "failures": len(sheet.problems)}
    counts["skipped"] = sum(band.verdict == "not checked" for band in sheet.bands)
    numbers = {key: str(count) for key, count in counts.items()}
    suite = ElementTree.SubElement(root, "testsuite", numbers | {"name": name, "time": f"{sheet.seconds:.3f}"})
    for band in sheet.bands:
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=band.name or "other formulas")
        said = "".join(c if c.isprintable() else "�" for c in band.problem or band.gap)
        if said:
            ElementTree.SubElement(case, "failure" if band.problem else "skipped", message=said)


def merged(bands: list[BandResult]) -> list[BandResult]:
    """The results of each band for several prompts as one: the worst of them."""
    found: dict[str, BandResult] = {}
    for band in bands:
        best = found.get(band.name)
        found[band.name] = band if best is None else _worse(best, band)
    return list(found.values())


def _worse(a: BandResult, b: BandResult) -> BandResult:
    """The worse of two results of a band, with the largest differences of both."""
    worse = max(a, b, key=lambda band: (bool(band.problem), band.relative))
    return replace(worse, absolute=max(a.absolute, b.absolute), relative=max(a.relative, b.relative))


def verdict_of(bands: list[BandResult]) -> Verdict:
    """Of several bands: the worst."""
    verdicts = {band.verdict for band in bands}
    return "FAILED" if "FAILED" in verdicts else "not checked" if "not checked" in verdicts else "ok"


def _differences(bands: list[BandResult]) -> tuple[str, str]:
    absolute, relative = (max((getattr(b, key) for b in bands), default=0.0) for key in ("absolute", "relative"))
    return f"{absolute:.1e}", f"{relative:.1e}"


def _coloured(verdict: Verdict) -> str:
    return f"[{COLOURS[verdict]}]{verdict}[/]"
