"""All that a workbook is made of, before a byte of it is written."""

from dataclasses import dataclass

from xlgpt.bpe import check_vocabulary
from xlgpt.checkpoint import Model
from xlgpt.compile import Formula, formulas
from xlgpt.errors import ContextTooLong, PromptTooLong, UsageError, WorkbookTooLarge
from xlgpt.layout import Layout, lay_out
from xlgpt.matmul import CHOICES, Matmul
from xlgpt.package import LIMIT
from xlgpt.tables import Table, tables
from xlgpt.values import Values, expected

DEFAULT_PROMPT = "If today is Tuesday, tomorrow is"
DEFAULT_CONTEXT = 32
DEFAULT_BYTES, SMALL_BYTES = 256, 128  # of a prompt; the smaller for a model that calculates by itself
MOST_BYTES = 1000  # the sheet Pieces has twice as many columns, and half their square in cells
CELL_TEXT = 32_767  # characters in one cell, counted in UTF-16 (Excel's specifications and limits)
# Measured: a weight's decimal and its tags, compressed, by its significant digits; 0 for the shortest that is exact.
BYTES_A_WEIGHT = {0: 6.1, 1: 2.0, 2: 2.6, 3: 3.3, 4: 3.9, 5: 4.6, 6: 5.2, 7: 5.8, 8: 6.1, 9: 6.1}
LEAST_DIGITS = 3  # of weights that a model still speaks with
MANUAL_FROM = 3_000_000  # weights; above it a recalculation takes long enough to be asked for


@dataclass(frozen=True)
class Plan:
    """A model, a prompt, where everything stands, every formula, and what each band shows."""

    model: Model
    prompt: str
    layout: Layout
    formulas: dict[str, list[Formula]]  # of each band
    values: dict[str, Values]  # of each band: a row for each token in use
    tables: dict[str, Table]  # the long table of constants that a sheet has

    @property
    def manual(self) -> bool:
        """Whether the workbook calculates only when asked to."""
        return self.model.parameters > MANUAL_FROM


def make_plan(
    model: Model, prompt: str | None, context: int | None, max_bytes: int | None, matmul: str = "auto"
) -> Plan:
    """Lay the workbook out and run the reference on the prompt.

    Raises PromptTooLong, ContextTooLong, UsageError, SheetTooSmall, BadCheckpoint, BadVocabulary, TemplateError.
    """
    positions = model.config.n_positions
    context = min(DEFAULT_CONTEXT, positions) if context is None else context
    if context < 1:
        raise UsageError(f"A context of {context} holds no token; give at least 1.")
    if context > positions:
        raise ContextTooLong(
            f"The model knows {positions} positions; a context of {context} rows is too long, {positions} is the most."
        )
    if max_bytes is None:
        max_bytes = DEFAULT_BYTES if model.parameters > MANUAL_FROM else SMALL_BYTES
    if not 1 <= max_bytes <= MOST_BYTES:
        raise UsageError(f"The workbook can hold the steps of 1 to {MOST_BYTES:,} bytes; --max-bytes is {max_bytes:,}.")
    check_vocabulary(model.tokenizer)
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
    _check_size(model)
    layout = lay_out(model.config, context, max_bytes, len(model.tokenizer.merges), _matmul(matmul, model))
    compiled = {
        placed.band.name: list(formulas(layout, sheet, placed)) for sheet in layout.sheets for placed in sheet.bands
    }
    return Plan(model, prompt, layout, compiled, expected(prompt, model, layout), tables(layout, model.tokenizer))


def _matmul(wanted: str, model: Model) -> Matmul:
    """How matrix products become cells. By itself: dot products where a recalculation is worth waiting for less."""
    match wanted:
        case "mmult" | "sumproduct":
            return wanted
        case "auto":
            return "sumproduct" if model.parameters > MANUAL_FROM else "mmult"
    raise UsageError(f"--matmul {wanted}: write {', '.join(CHOICES[:-1])} or {CHOICES[-1]}.")


def _check_size(model: Model) -> None:
    """Fail before the work where the file would surely pass what Excel reads."""
    size = model.parameters * BYTES_A_WEIGHT[model.precision]
    if size > LIMIT:
        fits = [n for n in range(LEAST_DIGITS, 8) if model.parameters * BYTES_A_WEIGHT[n] <= LIMIT]
        raise WorkbookTooLarge(
            f"{model.name} has {model.parameters:,} parameters; its workbook would have about {size / 1e9:.1f} GB, "
            "and beyond 4 GiB Excel does not read it. Build a smaller model"
            + (f", or give --precision {max(fits)}." if fits else ".")
        )


def _encode(prompt: str, model: Model) -> list[int]:
    for character in prompt:
        if character in "\0\ufffe\uffff" or "\ud800" <= character <= "\udfff":
            raise UsageError(
                f"The prompt holds the character U+{ord(character):04X}, which no cell can hold; leave it out."
            )
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
