"""What a check found, as a table, as JSON and as JUnit's XML."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rich.table import Table

from xlgpt.errors import OutputError


@dataclass(frozen=True)
class BandResult:
    """One band of cells, or all formulas of a sheet that belong to none, for one prompt.

    absolute, relative: the largest difference from the reference, the latter among numbers above 1e-6, for next to 0
    any rounding is a large share. worst: the cell that is furthest off.
    problem: a sentence; empty when all is well.
    """

    name: str
    cells: int = 0
    absolute: float = 0.0
    relative: float = 0.0
    worst: str = ""
    problem: str = ""


@dataclass(frozen=True)
class SheetResult:
    """One sheet for one prompt; for a sheet of weights, its tensors stand for bands."""

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
    """

    text: str
    tokens: int
    sheets: tuple[SheetResult, ...]
    next_token: str
    expected_token: str
    about: str = ""


@dataclass(frozen=True)
class Report:
    """The outcome of a check."""

    path: Path
    engine: str
    weights: tuple[SheetResult, ...]
    prompts: tuple[PromptResult, ...]
    compared_with: str = ""  # the checkpoint whose float32 the weights were held against
    left_out: str = ""  # what --rows skipped
    seconds: float = 0.0
    peak_memory: int = 0
    tolerance: float = 1e-6
    without_saved_value: int = (
        0  # formulas that were saved uncalculated, so that no saved value could be held against them
    )

    @property
    def passed(self) -> bool:
        """Whether nothing was found and something was looked at."""
        return bool(self.prompts) and not any(sheet.problems for sheet in self.all_sheets())

    def all_sheets(self) -> Iterator[SheetResult]:
        """Every sheet's result, weights first, then prompt by prompt."""
        yield from self.weights
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
        """The sheet and band with the largest difference, relative to what the tolerance allows."""
        bands = [(s.sheet, b) for prompt in self.prompts for s in prompt.sheets for b in s.bands if b.worst]
        return max(bands, key=lambda item: item[1].absolute, default=None)

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
        for title in ("bands", "formulas", "difference", "relative", "seconds"):
            table.add_column(title, justify="right")
        table.add_column("")
        if self.weights:
            table.add_row(*self._weights_row())
        for name, results in self.by_sheet().items():
            bands = merged([band for result in results for band in result.bands])
            named = [band for band in bands if band.name]
            formulas, seconds = sum(r.formulas for r in results), sum(r.seconds for r in results)
            table.add_row(
                name, str(len(named)), f"{formulas:,}", *_differences(bands), f"{seconds:.2f}", _verdict(bands)
            )
            for band in bands if verbose else []:
                title = f"  {band.name or 'labels and the like'}"
                table.add_row(title, "", f"{band.cells:,} cells", *_differences([band]), "", _verdict([band]))
        return table

    def _weights_row(self) -> list[str]:
        tensors = [band for sheet in self.weights for band in sheet.bands]
        seconds = sum(sheet.seconds for sheet in self.weights)
        return ["weights", f"{len(tensors)}", "", "", "", f"{seconds:.2f}", _verdict(tensors)]

    def sentences(self) -> Iterator[str]:
        """What stands below the table: the problems, the worst band, the next token on both sides."""
        for sheet, band in self.problems()[:20]:
            yield f"{sheet} ▸ {band.name or 'a formula outside the bands'}: {band.problem}"
        if len(self.problems()) > 20:
            yield f"… and {len(self.problems()) - 20} more."
        numbers = sum(band.cells for sheet in self.weights for band in sheet.bands)
        if self.compared_with and not any(sheet.problems for sheet in self.weights):
            yield f"All {numbers:,} weights are those of {self.compared_with}, bit for bit."
        worst = self.worst()
        if worst:
            yield f"The largest difference is {worst[1].absolute:.1e}, in {worst[1].name} at {worst[1].worst}."
        for prompt in self.prompts:
            text = prompt.text if len(prompt.text) <= 40 else f"{prompt.text[:39]}…"
            ours, theirs = repr(prompt.next_token), repr(prompt.expected_token)
            both = (
                f"{ours} in the workbook and in NumPy"
                if ours == theirs
                else f"{ours} in the workbook, {theirs} in NumPy"
            )
            about = f", {prompt.about}" if prompt.about else ""
            yield f"{text!r} ({prompt.tokens} tokens{about}): {both}."
        if self.left_out:
            yield self.left_out
        if self.without_saved_value:
            yield f"{self.without_saved_value:,} formulas have no saved value: what saved them did not calculate."
        formulas = sum(sheet.formulas for sheet in self.all_sheets())
        verdict = "Passed" if self.passed else "FAILED"
        yield (
            f"{verdict}: {formulas:,} formulas calculated by {self.engine} for {len(self.prompts)} prompts "
            f"in {self.seconds:.1f} s, {self.peak_memory / 1e6:,.0f} MB of memory at the peak."
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self) | {"path": str(self.path), "passed": self.passed}

    def write_junit(self, path: Path) -> None:
        """Write a JUnit file, a test case for each band and prompt. Raises OutputError."""
        try:
            path.write_bytes(self.junit())
        except OSError as e:
            raise OutputError(f"{path} cannot be written: {e.strerror}.") from e

    def junit(self) -> bytes:
        """All of it as JUnit's XML."""
        root = ElementTree.Element("testsuites", name=f"xlgpt check {self.path.name}")
        groups = [("weights", self.weights)]
        groups += [(f"prompt {i}, {p.tokens} tokens", p.sheets) for i, p in enumerate(self.prompts, 1)]
        for title, sheets in groups:
            for sheet in sheets:
                _suite(root, f"{sheet.sheet} ({title})", sheet)
        xml: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        return xml


def _suite(root: ElementTree.Element, name: str, sheet: SheetResult) -> None:
    tests, failures = str(len(sheet.bands)), str(len(sheet.problems))
    seconds = f"{sheet.seconds:.3f}"
    suite = ElementTree.SubElement(root, "testsuite", name=name, tests=tests, failures=failures, time=seconds)
    for band in sheet.bands:
        case = ElementTree.SubElement(suite, "testcase", classname=name, name=band.name or "other formulas")
        if band.problem:
            printable = "".join(c if c.isprintable() else "�" for c in band.problem)
            ElementTree.SubElement(case, "failure", message=printable)


def merged(bands: list[BandResult]) -> list[BandResult]:
    """The results of each band for several prompts as one: the worst of them."""
    found: dict[str, BandResult] = {}
    for band in bands:
        best = found.get(band.name)
        if best is None or (bool(band.problem), band.absolute) > (bool(best.problem), best.absolute):
            found[band.name] = band
    return list(found.values())


def _differences(bands: list[BandResult]) -> tuple[str, str]:
    absolute, relative = (max((getattr(b, key) for b in bands), default=0.0) for key in ("absolute", "relative"))
    return f"{absolute:.1e}", f"{relative:.1e}"


def _verdict(bands: list[BandResult], well: str = "ok") -> str:
    return "[bold red]FAILED[/]" if any(band.problem for band in bands) else f"[green]{well}[/]"
