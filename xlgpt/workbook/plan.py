"""All that a workbook is made of, before a byte of it is written."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from xlgpt.compiler.compile import lines
from xlgpt.compiler.layout import Layout, Placed, Sheet, lay_out
from xlgpt.compiler.settings import Settings, defaults
from xlgpt.compiler.template import Matmul, Room
from xlgpt.errors import ContextTooLong, PromptTooLong, TooLongForExcel, UsageError, WorkbookTooLarge
from xlgpt.interp import sae
from xlgpt.interp.adapters import adapted, adapter_cells, find_adapters
from xlgpt.interp.mean_activations import usual_means
from xlgpt.interp.traces import ToTrace, most_tokens, to_trace, trace_cells
from xlgpt.interp.vectors_and_features import Directions, find_directions
from xlgpt.model.adapter import Adapter
from xlgpt.model.bpe import check_vocabulary
from xlgpt.model.checkpoint import Model
from xlgpt.model.notation import BINARY, DECIMAL, Notation
from xlgpt.model.precision import in_cells
from xlgpt.model.tokenizer import check_text
from xlgpt.oracle.values import Values, look_inside, run_with_cache
from xlgpt.oracle.views import Run
from xlgpt.oracle.views.adapters import plain_answers
from xlgpt.oracle.views.proof import as_built
from xlgpt.workbook.options import Options
from xlgpt.workbook.tables import Table, tables
from xlgpt.xlsx.formula import Formulas
from xlgpt.xlsx.package import LIMIT, XLSB

DEFAULT_PROMPT = "If today is Tuesday, tomorrow is"
PROMPT_TOKENS, SMALL_PROMPT_TOKENS = 32, 16  # rows for a prompt, unless told; those for what is written come on top
NEW_TOKENS, SMALL_NEW_TOKENS = 8, 32  # that it can write; more where a row is calculated quickly
DEFAULT_BYTES, SMALL_BYTES = 256, 128  # of a prompt; the smaller for a model that calculates by itself
MOST_BYTES = 1000  # the sheet BPE merges has twice as many columns, and half their square in cells
CELL_TEXT = 32_767  # characters in one cell, counted in UTF-16 (Excel's specifications and limits)
MOST_CHARACTERS = 8192  # of a formula (Excel's specifications and limits)
LONGEST_CORNER = len("$XFD$1048576")
NAME = re.compile(r"[A-Za-z_][\w.]*")
MANUAL_FROM = 3_000_000  # weights; above it a recalculation takes long enough to be asked for
BARE_FROM = 10_000_000  # weights; above it a reference in each cell would make the file half as large again


@dataclass(frozen=True)
class Plan:
    """A model, a prompt, and where everything stands; the rest follows from these, and is made when first asked for.

    notation: of the file that it is for. traced: the prompts to trace for the sheet Tracing. is_read: whether it was
    read from a workbook: `given` then holds all that its cells to change do, and the weights are those in its cells.
    """

    model: Model
    prompt: str
    layout: Layout
    given: Settings
    notation: Notation = DECIMAL
    traced: tuple[ToTrace, ...] = ()
    is_read: bool = False

    @cached_property
    def settings(self) -> Settings:
        """What stands in the cells that a person may change. Raises BadCheckpoint."""
        if self.is_read:
            return self.given
        sheets = self.layout.room.sheets
        means = usual_means(self.model).cells() if "circuit" in sheets else {}
        proven = as_built(self._run) if "proof" in sheets else {}
        plain = plain_answers(self._known_runs) if "adapters" in sheets else {}
        return self.given.changed({**means, **proven, **plain, **trace_cells(self._run_model, self.traced)})

    @cached_property
    def _run(self) -> Run:
        """The forward pass with the weights as the cells hold them; for all else the model's own are near enough."""
        run = run_with_cache(self.prompt, self._run_model, self.layout, self.given)
        return replace(run, model=self.model)

    @cached_property
    def _run_model(self) -> Model:
        return self.model if self.is_read else in_cells(self.model, self.notation)

    @property
    def _known_runs(self) -> list[Run]:
        """The plain model on the prompts whose answers the sheet Adapters keeps."""
        others = known_prompts(self.prompt, self.model, self.layout.room)[1:]
        return [self._run, *(run_with_cache(text, self._run_model, self.layout, self.given) for text in others)]

    @cached_property
    def formulas(self) -> dict[str, list[Formulas]]:
        """Every formula of each band. Raises TemplateError, TooLongForExcel."""
        return {
            placed.band.name: self._formulas(sheet, placed) for sheet in self.layout.sheets for placed in sheet.bands
        }

    def _formulas(self, sheet: Sheet, placed: Placed) -> list[Formulas]:
        found = list(lines(self.layout, sheet, placed))
        longest = max(map(self._length, found), default=0)
        if longest > MOST_CHARACTERS:
            raise TooLongForExcel(
                f"With {self.model.config.n_layer} blocks a formula of {placed.band.name} has {longest:,} characters, "
                f"and Excel takes {MOST_CHARACTERS:,}: leave the sheet {sheet.name} out with --sheets."
            )
        return found

    def _length(self, formulas: Formulas) -> int:
        """How many characters the longest has; in an .xlsb, where they refer to cells in place of names.

        Of those that are far from too long, about as many.
        """
        about = sum(len(piece) if isinstance(piece, str) else LONGEST_CORNER for piece in formulas.pieces)
        if about < MOST_CHARACTERS / 4:
            return about
        if self.notation is DECIMAL:
            return max(map(len, formulas.texts()))
        names = self.layout.names
        longer = (
            NAME.sub(lambda found: names[found[0]].absolute if found[0] in names else found[0], text)
            for text in formulas.texts()
        )
        return max(map(len, longer))

    @cached_property
    def values(self) -> dict[str, Values]:
        """What each band shows, from the reference: a row for each token in use. Raises BadCheckpoint."""
        run = replace(self._run, settings=self.settings)
        return {**run.shows, **self.settings.cells, **look_inside(run)}

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The long table of constants that a sheet has."""
        return tables(self.layout, self.model.tokenizer)

    @property
    def is_bare(self) -> bool:
        """Whether the sheets of weights hold nothing but numbers, which do not say where they stand.

        So they take a third less of the file. Excel and LibreOffice count along; Gnumeric and IronCalc do not in .xlsx,
        but neither could hold so many cells; calamine and pyxlsb do not in .xlsb, and lose them.
        """
        return self.model.parameters > BARE_FROM

    @property
    def manual(self) -> bool:
        """Whether the workbook calculates only when asked to."""
        return self.model.parameters > MANUAL_FROM


def make_plan(model: Model, options: Options, notation: Notation = DECIMAL) -> Plan:
    """Lay the workbook out for a prompt; Steering, Features, Adapters, Tracing only where there is something for them.

    notation: of the file that it is to become.

    Raises PromptTooLong, ContextTooLong, UsageError, SheetTooSmall, WorkbookTooLarge, BadVocabulary, BadVectors,
    BadAutoencoder, BadAdapter, BadSubject, BadRelations, TemplateError.
    """
    room = _room(model, options)
    positions, context, max_bytes = model.config.n_positions, room.context, room.max_bytes
    check_vocabulary(model.tokenizer)
    prompt = options.prompt
    if prompt is None:
        prompt = _shortened(DEFAULT_PROMPT, model, context, max_bytes)
    ids = _encode(prompt, model)
    size = len(prompt.encode())
    if size > max_bytes:
        raise PromptTooLong(
            f"The prompt has {size:,} bytes and the workbook rows for {max_bytes:,}; "
            f"shorten it, or give --max-bytes {size} (at most {MOST_BYTES:,})."
        )
    if len(ids) > context:
        raise PromptTooLong(
            f"The prompt has {len(ids)} tokens and the workbook rows for {context}; "
            f"shorten it, or give --context {len(ids)} or more (at most {positions})."
        )
    _check_size(model, notation)
    directions = find_directions(model, ids, options.asked, room.sheets)
    adapters = find_adapters(model, options.adapters, room.sheets)
    known = known_prompts(prompt, model, room)
    traced = to_trace(model, known, options.subject) if "tracing" in room.sheets else ()
    room = replace(room, traced=len(traced), traced_tokens=most_tokens(model, traced))
    room = _with(room, directions, len(ids), len(adapters))
    if adapters:
        room = replace(room, adapted=adapted(adapters, model.config.n_layer), known_prompts=len(known))
    layout = lay_out(model.config, room, len(model.tokenizer.merges))
    settings = filled_in(defaults(layout, model.parameters > MANUAL_FROM), directions, adapters, model)
    return Plan(model, prompt, layout, settings, notation, traced)


def known_prompts(prompt: str, model: Model, room: Room) -> list[str]:
    """What the plain model's answers are kept for: the prompt, and of a small model those that come with it."""
    others = () if model.parameters > MANUAL_FROM else model.companions.prompts
    fit = [text for text in others if len(text.encode()) <= room.max_bytes and text != prompt]
    return [prompt, *(text for text in fit if len(model.tokenizer.encode(text)) <= room.context)]


def _with(room: Room, directions: Directions, tokens: int, adapters: int) -> Room:
    """Rows for vectors, features, adapters and the prompt's tokens; no sheet for them where there are none."""
    count = {"steering": len(directions.vectors), "features": len(directions.features), "proof": tokens}
    count |= {"adapters": adapters, "tracing": room.traced}
    sheets = tuple(name for name in room.sheets if count.get(name, 1))
    proven = tokens if "proof" in sheets else 0
    room = replace(room, sheets=sheets, vectors=count["steering"], features=count["features"], proven=proven)
    return replace(room, adapters=adapters)


def _room(model: Model, options: Options) -> Room:
    """How many rows there are to be: what is asked for, or what suits the model."""
    context, max_bytes, new_tokens = options.context, options.max_bytes, options.generate
    positions, is_large = model.config.n_positions, model.parameters > MANUAL_FROM
    matmul = _matmul(options, is_large)
    usual = 1 if matmul == "sumproduct" else NEW_TOKENS if is_large else SMALL_NEW_TOKENS
    if context is None:
        context = min((PROMPT_TOKENS if is_large else SMALL_PROMPT_TOKENS) + (new_tokens or usual), positions)
    if new_tokens is None:
        new_tokens = max(1, min(usual, context * 2 // 3))
    if context < 1:
        raise UsageError(f"A context of {context} holds no token; give at least 1.")
    if context > positions:
        raise ContextTooLong(
            f"The model knows {positions} positions; a context of {context} rows is too long, {positions} is the most."
        )
    if not 1 <= new_tokens < max(2, context):
        raise UsageError(
            f"--generate {new_tokens}: a workbook with rows for {context} tokens can make room for 1 to "
            f"{max(1, context - 1)} that it writes."
        )
    if max_bytes is None:
        max_bytes = DEFAULT_BYTES if is_large else SMALL_BYTES
    if not 1 <= max_bytes <= MOST_BYTES:
        raise UsageError(f"The workbook can hold the steps of 1 to {MOST_BYTES:,} bytes; --max-bytes is {max_bytes:,}.")
    return Room(context, max_bytes, new_tokens, options.views, matmul)


def _matmul(options: Options, is_large: bool) -> Matmul:
    """How matrix products become cells. By itself: dot products in a large model that need not write on.

    With dot products LibreOffice needs more memory, and calculates on all cores only where no row waits for a token.
    """
    if options.matmul == "auto":
        return "sumproduct" if is_large and options.generate == 1 else "mmult"
    return "sumproduct" if options.matmul == "sumproduct" else "mmult"


def _check_size(model: Model, notation: Notation) -> None:
    """Fail before the work where the file would surely pass what Excel reads, and say what would not."""
    parameters, digits = model.parameters, model.precision
    size = notation.size(parameters, digits)
    if size <= LIMIT:
        return
    ways = ["Build a smaller model"]
    ways += [f"give --precision {n}" for n in notation.digits_that_fit(parameters, LIMIT)[:1]]
    if notation is DECIMAL:
        fits = BINARY.digits_that_fit(parameters, LIMIT)[:1]
        ways += [f"write an {XLSB}{f' with --precision {n}' if n else ''}" for n in fits]
    raise WorkbookTooLarge(
        f"{model.name} has {parameters:,} parameters; at {notation.bytes_a_weight[digits]} bytes each its workbook "
        f"would have about {size / 1e9:.1f} GB, and beyond 4 GiB Excel does not read it. {', or '.join(ways)}."
    )


def _encode(prompt: str, model: Model) -> list[int]:
    check_text(prompt)
    length = len(prompt.encode("utf-16-le")) // 2
    if length > CELL_TEXT:
        raise PromptTooLong(f"The prompt has {length:,} characters; a cell holds {CELL_TEXT:,}.")
    return model.tokenizer.encode(prompt)


def _shortened(prompt: str, model: Model, context: int, max_bytes: int) -> str:
    """The first words of a prompt that fit the rows."""
    words = prompt.split(" ")
    while words and (len(model.tokenizer.encode(" ".join(words))) > context or len(" ".join(words)) > max_bytes):
        words.pop()
    return " ".join(words)


def filled_in(settings: Settings, found: Directions, adapters: tuple[Adapter, ...], model: Model) -> Settings:
    """With the numbers in the cells of Steering, Features and Adapters, and the first vector and adapter chosen."""
    cells: dict[str, Any] = adapter_cells(adapters, model.config.n_layer)
    if "steering.vectors" in settings.cells:
        cells |= {
            "steering.vector": found.vectors[0].name,
            "steering.names": np.array([[vector.name] for vector in found.vectors], dtype=object),
            "steering.blocks": np.array([[vector.block] for vector in found.vectors], dtype=object),
            "steering.coefficients": np.array([[vector.coefficient] for vector in found.vectors], dtype=object),
            "steering.vectors": np.array([vector.values for vector in found.vectors]).astype(object),
        }
    if found.autoencoder:
        cells |= sae.cells(found.autoencoder, list(found.features))
    return settings.changed(cells)
