"""The command line: the same verbs as the Python API."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from xlgpt import __version__
from xlgpt.build import build
from xlgpt.errors import XlgptError
from xlgpt.workbook import Progress as Report


@contextmanager
def progress_bars() -> Iterator[Report]:
    """A bar for the phase at hand, on standard error; it shows only on a terminal and vanishes at the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done, total=total)

        yield report


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xlgpt")
def cli() -> None:
    """GPT-2 as a spreadsheet: every weight in a cell, every step a formula."""


@cli.command("build")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--model",
    default="gpt2",
    show_default=True,
    help="gpt2, tiny, random:gpt2, random:n_layer=2,n_embd=64, a folder, or a Hub id.",
)
@click.option("--prompt", help="The text to go on from.")
@click.option("--context", type=int, help="How many tokens there are rows for.  [default: 32]")
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of a random model.")
def build_command(out: Path, model: str, prompt: str | None, context: int | None, seed: int) -> None:
    """Write the workbook OUT.xlsx from a GPT-2 checkpoint."""
    with progress_bars() as report:
        built = build(out, model, prompt, context, seed, report)
    click.echo(str(built))


def main() -> None:
    """Run the command line; a failure is one sentence on standard error and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except XlgptError as e:
        click.echo(f"xlgpt: {e}", err=True)
        sys.exit(e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("xlgpt: stopped; nothing was written.", err=True)
        sys.exit(130)
