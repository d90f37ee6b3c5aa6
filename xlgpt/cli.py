"""The command line: the same verbs as the Python API."""

import io
import json
import signal
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from xlgpt import __version__
from xlgpt.compiler.matmul import CHOICES
from xlgpt.engines import NAMES
from xlgpt.engines.run import Answer, Session
from xlgpt.errors import UsageError, XlgptError
from xlgpt.interp.circuit import ABLATIONS, Ablation, find_circuit, read_cases
from xlgpt.interp.circuit import tables as circuit_tables
from xlgpt.interp.edit import TOKENS, edit
from xlgpt.interp.steering import steer, write_vectors
from xlgpt.interp.steering import table as vector_table
from xlgpt.model.checkpoint import load
from xlgpt.model.tokenize import tables, tokenize
from xlgpt.progress import Progress as Report
from xlgpt.verify.check import check
from xlgpt.view import PageServer, export, site
from xlgpt.workbook.book import Book
from xlgpt.workbook.build import build
from xlgpt.workbook.fill import check_fillable, fill


@contextmanager
def progress_bars() -> Iterator[Report]:
    """A bar for the phase at hand, on standard error; it shows only on a terminal and vanishes at the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def report(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                for earlier in tasks.values():
                    bars.update(earlier, visible=False)
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done, total=total)

        yield report


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="xlgpt")
def cli() -> None:
    """GPT-2 as a spreadsheet: every weight in a cell, every step a formula."""


cluster_option = click.option(
    "--cluster", default="", metavar="ADDRESS", help="A Dask scheduler, tcp://…, whose workers do it instead."
)


@cli.command("build")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--model",
    default="gpt2",
    show_default=True,
    help="gpt2, tiny, random:gpt2, random:n_layer=2,n_embd=64, a folder, or a Hub id.",
)
@click.option("--prompt", help="The text to go on from.")
@click.option("--context", type=int, help="How many tokens there are rows for.  [default: 40; 48 for a small model]")
@click.option("--max-bytes", type=int, help="How many bytes a prompt may have.  [default: 256; 128 for a small model]")
@click.option("--generate", type=int, help="How many tokens it can write.  [default: 8; 32 for a small model]")
@click.option(
    "--matmul",
    type=click.Choice(CHOICES),
    default="auto",
    show_default=True,
    help="How a matrix product becomes cells: sumproduct is faster in LibreOffice and takes more of them.",
)
@click.option(
    "--precision", type=int, help="Significant digits of a weight; in .xlsb as bits.  [default: all, bit for bit]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of a random model.")
@click.option("--sheets", default="all", show_default=True, help="Those that look inside: all, none, or NAME,NAME,…")
@click.option("--steering", type=click.Path(path_type=Path), help="A file of vectors: .npy, .npz or .safetensors.")
@click.option("--sae", type=click.Path(path_type=Path), help="The folder of a sparse autoencoder that SAELens saved.")
@click.option("--features", help="Which of its features: N,N,…  [default: the most active in the prompt]")
@click.option(
    "--adapter", type=click.Path(path_type=Path), multiple=True, help="The folder of a LoRA adapter; several times."
)
@click.option("--subject", help="What the prompt is about, to trace where the answer comes from.")
@click.option("--jobs", type=int, help="How many processes pack a large model's weights.  [default: one on each core]")
@cluster_option
def build_command(out: Path, **options: Any) -> None:
    """Write the workbook OUT (.xlsx, or the smaller .xlsb) from a GPT-2 checkpoint."""
    with progress_bars() as report:
        built = build(out, progress=report, **options)
    click.echo(str(built))


@cli.command("tokenize")
@click.argument("text")
@click.option("--model", default="gpt2", show_default=True, help="Whose vocabulary: gpt2, tiny, a folder, or a Hub id.")
def tokenize_command(text: str, model: str) -> None:
    """Show how TEXT becomes token ids, step by step."""
    for table in tables(tokenize(text, model)):
        Console().print(table)


@cli.command("check")
@click.argument("book", type=click.Path(path_type=Path))
@click.option("--engine", type=click.Choice(NAMES), default="formulas", show_default=True, help="What calculates.")
@click.option("--rows", help="A quick look: `last` token's rows, or the last so many.")
@click.option("--prompt", "prompts", multiple=True, help="What to try; may be given several times.")
@click.option("--model", help="Also hold weights, vocabulary, vectors and means against this checkpoint, bit for bit.")
@click.option(
    "--steering", type=click.Path(path_type=Path), help="With --model: the file of vectors that it was built with."
)
@click.option("--sae", type=click.Path(path_type=Path), help="With --model: the folder of the sparse autoencoder.")
@click.option(
    "--adapter", type=click.Path(path_type=Path), multiple=True, help="With --model: the folder of a LoRA adapter."
)
@click.option(
    "--allow-changed", is_flag=True, help="List cells that are not as the templates make them; check the rest."
)
@click.option("--jobs", type=int, help="How many processes calculate, with the engine formulas.  [default: one a core]")
@cluster_option
@click.option("--json", "as_json", is_flag=True, help="Print all that was found as JSON.")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write a JUnit file too.")
@click.option("--start-timeout", type=float, default=60, show_default=True, help="Seconds LibreOffice has to start.")
@click.option("-v", "--verbose", is_flag=True, help="A line for every named range, and for all that was not checked.")
def check_command(book: Path, as_json: bool, junit: Path | None, verbose: bool, **options: Any) -> None:
    """Read every formula of BOOK (.xlsx or .xlsb), calculate it from end to end, and hold every cell against NumPy."""
    with progress_bars() as bars:
        report = check(book, progress=bars, **options)
    if junit:
        report.write_junit(junit)
    if as_json:
        click.echo(as_line(report.as_dict()))
    else:
        Console().print(report.table(verbose))
        click.echo("\n".join(report.sentences(verbose)))
    if not report.passed:
        sys.exit(1)


@cli.command("run")
@click.argument("book", type=click.Path(path_type=Path))
@click.option("--prompt", help="The text to go on from.  [default: the prompt in the file]")
@click.option("--tokens", type=int, help="How many tokens to write.  [default: what the file says]")
@click.option("--temperature", type=float, help="0: the most likely token; more: sampling.")
@click.option("--top-k", type=int, help="Sample among so many of the most likely tokens; 0: no limit.")
@click.option("--top-p", type=float, help="Sample among the most likely tokens that together have this probability.")
@click.option("--seed", type=int, help="The seed of the random numbers.")
@click.option("--interactive", is_flag=True, help="Answer one line after the other; the workbook stays loaded.")
@click.option("--engine", type=click.Choice(NAMES), default="libreoffice", show_default=True, help="What calculates.")
@click.option("--json", "as_json", is_flag=True, help="Print each answer as a line of JSON.")
@click.option("--start-timeout", type=float, default=60, show_default=True, help="Seconds LibreOffice has to start.")
def run_command(
    book: Path,
    prompt: str | None,
    tokens: int | None,
    interactive: bool,
    engine: str,
    as_json: bool,
    start_timeout: float,
    **options: float | None,
) -> None:
    """Calculate what BOOK (.xlsx or .xlsb) says comes next."""
    sampling = {name: value for name, value in options.items() if value is not None}
    with Session(book, engine, start_timeout) as session:
        if prompt is not None or not interactive:
            show_answer(session.answer(prompt, tokens, sampling), as_json)
        for line in typed_lines() if interactive else ():
            try:
                show_answer(session.answer(line, tokens, sampling), as_json)
            except UsageError as e:
                click.echo(f"xlgpt: {e}", err=True)


@cli.command("circuit")
@click.argument("book", type=click.Path(path_type=Path))
@click.option(
    "--prompts", type=click.Path(path_type=Path), required=True, help="A file: a prompt a line, or prompt<TAB>target."
)
@click.option("--target", help="The token that should come next, for lines without one of their own.")
@click.option(
    "--ablate", type=click.Choice(ABLATIONS), default="mean", show_default=True, help="What a switched-off part gives."
)
@click.option("--out", type=click.Path(path_type=Path), help="A copy of BOOK to write, with all else off.")
@click.option("--jobs", type=int, help="How many processes try sets of components.  [default: one a core]")
@cluster_option
@click.option("--json", "as_json", is_flag=True, help="Print the circuit as JSON.")
def circuit_command(
    book: Path,
    prompts: Path,
    target: str | None,
    ablate: Ablation,
    out: Path | None,
    jobs: int | None,
    cluster: str,
    as_json: bool,
) -> None:
    """Find the few heads and MLPs of BOOK (.xlsx or .xlsb) that keep the answer right on all prompts."""
    if out:
        check_fillable(Book(book), out, "circuit.heads")
    with progress_bars() as report:
        model = Book(book).model
        found = find_circuit(model, read_cases(prompts, target, model), ablate, report, jobs, cluster)
    written = str(fill(book, out, found.cells())) if out else ""
    if as_json:
        click.echo(as_line(found.as_dict()))
        return
    for table in circuit_tables(found):
        Console().print(table)
        click.echo()
    click.echo(str(found))
    if written:
        click.echo(written)


@cli.command("steer")
@click.option("--model", default="gpt2", show_default=True, help="Whose vectors: gpt2, tiny, a folder, or a Hub id.")
@click.option("--positive", multiple=True, help="A text that has it, or @FILE with one a line; several times.")
@click.option("--negative", multiple=True, help="A text that lacks it, or @FILE with one a line; several times.")
@click.option("--block", type=int, required=True, help="The block before which the vector is to be added.")
@click.option("--coefficient", type=float, help="What the vector is to be multiplied with, to go into the file.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default="vectors.safetensors", show_default=True,
    help="The file to write, for build --steering.",
)  # fmt: skip
def steer_command(
    model: str, positive: tuple[str, ...], negative: tuple[str, ...], block: int, coefficient: float | None, out: Path
) -> None:
    """Make steering vectors from texts that have something and texts that lack it."""
    found = load(model)
    made = steer(found, texts_of(positive), texts_of(negative), block)
    write_vectors(out, tuple(replace(vector, coefficient=coefficient) for vector in made))
    Console().print(vector_table(made, found))
    click.echo(f"\n{out}: {len(made)} vectors of {found.config.n_embd} numbers, for block {block}")


@cli.command("edit")
@click.option("--model", default="gpt2", show_default=True, help="Whose fact: gpt2, tiny, a folder, or a Hub id.")
@click.option("--prompt", required=True, help="What is said of the subject, with {} in its place.")
@click.option("--subject", required=True, help="Whom or what the fact is about.")
@click.option("--target", required=True, help="The token that should come next, with its space.")
@click.option("--block", type=int, help="Whose MLP to change.  [default: by causal tracing]")
@click.option("--token", type=click.Choice(TOKENS), help="For which token.  [default: by causal tracing]")
@click.option(
    "--text", type=click.Path(path_type=Path, dir_okay=False), help="Documents, one a line, that should stay as known."
)
@click.option(
    "--relations", type=click.Path(path_type=Path, dir_okay=False), help="A file of facts to take the shares of."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default="edit", show_default=True,
    help="The folder to write, for build --adapter.",
)  # fmt: skip
@click.option("--jobs", type=int, help="How many processes run the model.  [default: one a core]")
@cluster_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def edit_command(as_json: bool, **options: Any) -> None:
    """Rewrite one fact by a rank-one change of one block's MLP (ROME), written as a LoRA adapter."""
    with progress_bars() as report:
        edited = edit(progress=report, **options)
    if as_json:
        click.echo(as_line(edited.as_dict()))
        return
    Console().print(edited.table())
    click.echo(f"\n{edited}")


@cli.command("view")
@click.argument("book", type=click.Path(path_type=Path))
@click.option("--no-open", is_flag=True, help="Only say where the page is.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Where to serve it.  [default: any free one]")
@click.option("--export", "folder", type=click.Path(path_type=Path), help="Write the page into this folder instead.")
def view_command(book: Path, no_open: bool, port: int, folder: Path | None) -> None:
    """Show BOOK.xlsx on a web page that calculates it, to this machine only; Ctrl+C ends it."""
    files = site(book)
    if folder:
        size = export(files, folder)
        click.echo(
            f"{folder}: {size / 1e6:.1f} MB to load; open {folder / 'index.html'}, or put the folder on any server."
        )
        return
    with PageServer(files, port) as server:
        click.echo(f"{book} is at {server.url} (Ctrl+C to end)")
        if not no_open:
            webbrowser.open(server.url)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def texts_of(given: tuple[str, ...]) -> list[str]:
    """The texts of an option: as they stand, or the lines of the file that one names with @."""
    texts: list[str] = []
    for text in given:
        if not text.startswith("@"):
            texts.append(text)
            continue
        try:
            lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise UsageError(
                f"{text[1:]} cannot be read as UTF-8 text; write @FILE for a file with a text a line."
            ) from e
        texts += [line for line in lines if line]
    return texts


def typed_lines() -> Iterator[str]:
    """The lines of standard input, asked for with a sign where a person types them."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a byte that is no UTF-8 spoils its line only
    while True:
        if sys.stdin.isatty():
            click.echo("> ", nl=False)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.removesuffix("\n")


def show_answer(answer: Answer, as_json: bool) -> None:
    """Print the prompt and what comes next: what was written, or the next token, and the ten most likely."""
    if as_json:
        click.echo(as_line(answer.as_dict()))
        return
    click.echo(f"{answer.prompt}{click.style(answer.completion or answer.next_token, bold=True)}\n")
    Console().print(answer.table())
    click.echo(f"\n{len(answer.ids)} tokens, {answer.seconds:.1f} s")


def as_line(value: dict[str, Any]) -> str:
    """A line of JSON, in which letters beyond ASCII are escaped where standard output has not all of them."""
    return json.dumps(value, ensure_ascii=sys.stdout.encoding.lower() != "utf-8")


def printable() -> None:
    """Show a letter that standard output or error has not as a question mark: Windows' old code pages lack ␣."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main() -> None:
    """Run the command line; a failure is one sentence on standard error and an exit code."""
    printable()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended politely, it leaves nothing behind either
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.exceptions.NoArgsIsHelpError as e:
        e.show()
        sys.exit(e.exit_code)
    except click.ClickException as e:
        click.echo(f"xlgpt: {e.format_message()} See `xlgpt --help`.", err=True)
        sys.exit(e.exit_code)
    except MemoryError:
        click.echo("xlgpt: The memory of this machine is not enough for this model; try a smaller one.", err=True)
        sys.exit(1)
    except XlgptError as e:
        click.echo(f"xlgpt: {e}", err=True)
        sys.exit(e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("xlgpt: stopped; nothing was written.", err=True)
        sys.exit(130)
