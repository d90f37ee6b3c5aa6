"""What the sheets that look inside cost: switched off, beside a workbook without them; then each switched on.

    python bench/inside_cost.py [--model random:gpt2] [--context 16] [--sheets all]

Every row of the context is in use; a random vector and a random autoencoder of 64 features fill Steering and Features.
Times are seconds of the processor that LibreOffice took, so that a busy
machine matters little. Prints two Markdown tables.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from libreoffice_speed import full_prompt
from safetensors.numpy import save_file

import xlgpt
from xlgpt.engines.libreoffice import LibreOffice
from xlgpt.model.checkpoint import load
from xlgpt.workbook.book import Book

Rows = dict[str, float]


class Stopwatch:
    """Counts what the processor does for an engine's processes."""

    def __init__(self, engine: LibreOffice):
        self._processes = engine._started

    def time(self, step: Callable[[], object]) -> float:
        """Seconds that a step takes."""
        before = self._spent()
        step()
        return self._spent() - before

    def _spent(self) -> float:
        """Seconds in user mode so far, of all processes that the engine started."""
        return sum(process.cpu_times().user for process in self._processes if process.is_running())


def measure(path: Path) -> tuple[Rows, Rows]:
    """The seconds of each step with everything off, and of a calculation after each switch is turned on."""
    book = Book(path)
    prompt, settings = book.prompt, book.settings
    switches = [sheet.stage.switch for sheet in book.layout.sheets if sheet.stage.switch]
    off = settings.changed({name: 0 for name in switches})
    last = book.named("token_ids").cell(len(prompt.ids) - 1, 0)
    engine = LibreOffice(book)
    steps: Rows = {"file, MB": path.stat().st_size / 1e6}
    on: Rows = {}

    def note(into: Rows, what: str, step: Callable[[], object]) -> None:
        into[what] = watch.time(step)
        print(f"{what}: {into[what]:.1f}", file=sys.stderr, flush=True)

    try:
        watch = Stopwatch(engine)
        note(steps, "load, s", lambda: engine.read(book.named("n_tokens")))
        note(steps, "calculate everything, s", lambda: engine.calculate(prompt, off))
        note(steps, "calculate after an edit of the last token, s", lambda: engine.write(last, 1.0))
        for name in switches:
            note(on, name, lambda n=name: engine.calculate(prompt, off.changed({n: 1})))
    finally:
        engine.close()
    return steps, on


def directions(model: str, folder: Path) -> dict[str, Path]:
    """A vector and a sparse autoencoder of the model's width, as files."""
    config, random = load(model).config, np.random.default_rng(0)
    width, features = config.n_embd, 64
    shapes = {"W_enc": (width, features), "b_enc": (features,), "W_dec": (features, width), "b_dec": (width,)}
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, folder / "sae_weights.safetensors")
    hook = f"blocks.{config.n_layer // 2}.hook_resid_pre"
    (folder / "cfg.json").write_text(json.dumps({"d_in": width, "d_sae": features, "hook_name": hook}))
    np.save(folder / "vector.npy", weights["b_dec"])
    return {"steering": folder / "vector.npy", "sae": folder}


def main() -> None:
    """Build without and with the sheets, measure both, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="random:gpt2")
    parser.add_argument("--context", type=int, default=16)
    parser.add_argument("--sheets", default="all")
    args = parser.parse_args()
    prompt = full_prompt(args.model, args.context)
    found: list[tuple[Rows, Rows]] = []
    for sheets in ("none", args.sheets):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "book.xlsx"
            shown = directions(args.model, Path(folder)) if sheets == "all" else {}
            built = xlgpt.build(path, args.model, prompt, args.context, sheets=sheets, **shown)
            print(built, file=sys.stderr, flush=True)
            found.append(measure(path))
    (without, _), (with_, on) = found
    print(f"{args.model}, {args.context} tokens")
    print("\n| switched off | without | with | more |\n| --- | ---: | ---: | ---: |")
    for what, value in without.items():
        more = f"{with_[what] / value - 1:+.1%}" if value else ""
        print(f"| {what} | {value:,.1f} | {with_[what]:,.1f} | {more} |")
    print("\n| switched on | seconds |\n| --- | ---: |")
    for name, seconds in on.items():
        print(f"| {name} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
