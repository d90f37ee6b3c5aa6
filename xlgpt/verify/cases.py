"""What check tries: prompts and settings that together fill every row and change every setting."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from xlgpt.compiler.layout import Placed
from xlgpt.compiler.settings import Settings, input_bands
from xlgpt.compiler.template import size
from xlgpt.oracle.given import typed_cells
from xlgpt.workbook.book import Book, Prompt
from xlgpt.workbook.plan import MANUAL_FROM

PASSAGE = (
    "The rain had stopped by Monday morning, and the children ran out to see the river. It was higher than before; "
    'two ducks swam where the path had been. "Tomorrow," said the oldest, "we will build a boat." And so they did.'
)
# Contractions and what only looks like one, numbers, white space of several kinds, characters of 1, 2, 3 and 4 bytes.
MIXTURE = "'x 漢é😀½ I'll 42's we're\n\n I'm  I've he'd can't \u2003!? x3 \u00a0."
WRITTEN = 4  # tokens that are written where the text is not what matters
SAMPLING: dict[str, tuple[float, ...]] = {
    "temperature": (1, 0.7, 1.3),
    "top_k": (0, 20, 0),
    "top_p": (0.8, 0.9, 1),
    "seed": (7, 2**31 - 1, 12345),
}
CHOSEN: dict[str, tuple[float | str, ...]] = {
    "shown_position": ("", 0, 1),
    "steering.coefficient": ("", 3.5, -2, 0.5),
    "steering.to": ("", 40, 3, 1),
    "adapter.scale": (1, 0.5, -1, ""),
    "facts.ablate": ("", 1, ""),
    "facts.strongest": (0, 5, 10),
}
NO_SETTINGS: tuple[dict[str, float], ...] = (
    {"max_new_tokens": -1},
    {"temperature": -1},
    {"top_k": 99},
    {"top_p": 0},
    {"seed": 2.0**31},
)
WILD: dict[str, float] = {"temperature": 1000, "top_k": 0, "top_p": 1, "seed": 3}  # any token is as likely as any other
TOO_WIDE: dict[str, float] = {"temperature": 1000, "top_k": 0, "top_p": 0.999, "seed": 3}
NO_SUCH = 999  # block, head or position


@dataclass(frozen=True)
class Case:
    """What is calculated and compared: a prompt, and what stands in the other cells that a person fills in."""

    prompt: Prompt
    settings: Settings
    about: str = ""


def usual(book: Book, brief: bool, sorts: bool = True) -> list[list[Case]]:
    """What is tried unasked, in groups of cases that are like the one before, of which then little is calculated.

    Each group is calculated afresh, in whichever process. They are parted where next to nothing would stay as it was,
    so that this costs little (4 % of a check of the bundled model), and not by how many processes there are, so that
    the same is found with one and with seven.
    brief: few cases, for an engine or a model that takes long: the file's own, one that fills every row with all looks
    inside switched on and another choice in each, two of its tokens typed, and one of a single token with all off.
    sorts: whether the engine can choose among the most likely tokens.
    """
    choices = _Choices(book, sorts)
    one = book.prompt_of(beginning(book, PASSAGE, 1))
    own = [Case(book.prompt, book.settings)] if book.prompt.ids else []
    single = [choices.off(one)]
    if brief or book.model.parameters > MANUAL_FROM:
        groups = [own, [_filled_and_typed(book, choices)], single]
        return [group for group in groups if group]
    filled = [choices.case(filling(book, book.context - 1), 1, "every row, sampling")]
    typed = list(_typed(book)) if own else []
    chosen = [choices.case(book.prompt, number, f"choices {number}") for number in (2, 0, 3)]
    written = filling(book, max(1, book.context - book.new_tokens // 2))
    long, *strange = (Case(prompt, book.settings, about) for prompt, about in _strange(book))
    single += choices.odd(one)
    wild = [choices.wild(written, 4)]
    groups = [[*own, *typed[:-1]], [*typed[-1:], *chosen], strange, [long], single, wild, filled]
    return [group for group in groups if group]


def rows_in_use(group: list[Case]) -> float:
    """Of all its cases, those of tokens and those that are written: what a group takes goes roughly with it."""
    return sum(len(case.prompt.ids) + max(0, case.settings.counted("max_new_tokens")) for case in group)


def unchanged(book: Book, cases: list[Case]) -> list[str]:
    """The input bands that hold the same in all cases."""
    names = [placed.band.name for placed in input_bands(book.layout) if placed.band.kind == "input"]
    kinds = {name: {tuple(case.settings.cells[name].flat) for case in cases} for name in names}
    return [name for name, found in kinds.items() if len(found) == 1]


def beginning(book: Book, text: str, count: int) -> str:
    """The longest beginning of a text that has at most so many tokens, and no more bytes than there are rows for."""
    ends = range(1, len(text) + 1)
    fit = (
        i for i in ends if len(text[:i].encode()) <= book.max_bytes and len(book.tokenizer.encode(text[:i])) <= count
    )
    return text[: max(fit, default=1)]


def filling(book: Book, count: int) -> Prompt:
    """A prompt of so many tokens, with characters of one to four bytes."""
    text = beginning(book, f"{MIXTURE}{PASSAGE} {PASSAGE}", max(1, count))
    missing = count - len(book.tokenizer.encode(text))  # a character may be several tokens
    return book.prompt_of(beginning(book, text + " a" * missing, max(1, count)))


def _strange(book: Book) -> Iterator[tuple[Prompt, str]]:
    """Prompts that make the tokenizer work: of long tokens, of many words, of none, of more tokens than there are rows.

    Of the last two no token is read, so all but the tokenizer is empty.
    """
    known = (i for i in range(len(book.tokenizer.tokens)) if i not in book.tokenizer.special)
    texts = sorted({book.tokenizer.text(i) for i in known}, key=lambda text: (-len(text), text))
    long = "".join(text for text in texts[: book.max_bytes] if text.isascii() and text[:1] == " ")
    yield book.prompt_of(beginning(book, long, book.context)), "long tokens"
    words = ("a1" * book.max_bytes)[: book.max_bytes]
    for count in (book.max_bytes, book.context + 1):
        if book.context < count <= book.max_bytes:
            yield Prompt(words[:count], tuple(book.tokenizer.encode(words[:count]))), "too many tokens"
    yield book.prompt_of(""), "no token"


def _typed(book: Book) -> Iterator[Case]:
    """Tokens typed into rows: over one and behind the last, in every way in which a token can be meant, and wrongly."""
    last = len(book.prompt.ids)
    if "typed_tokens" not in book.settings.cells or last + 4 > book.context:
        return
    word, other = (text for text in islice(_words(book), 2))

    def case(about: str, tokens: dict[int, str]) -> Case:
        cells = typed_cells(tokens, book.context)
        writes = min(WRITTEN, book.new_tokens)
        return Case(book.prompt, book.settings.changed({"typed_tokens": cells, "max_new_tokens": writes}), about)

    yield case("typed over and behind", {last // 2: word, last: other})
    yield case("typed in every way", {0: word, 1: f" {word}", 2: f'"{word}"', last: f"␣{other}", last + 1: "!"})
    yield case("no such token typed", {last // 2: "no such token"})
    yield case("typed below an empty row", {last + 2: word})
    yield Case(Prompt("", ()), case("", {row: word for row in range(3)}).settings, "all typed, and no prompt")


def _filled_and_typed(book: Book, choices: "_Choices") -> Case:
    """A prompt that leaves two rows: one for a typed token, one to write; another is typed over."""
    if "typed_tokens" not in book.settings.cells or book.context < 4:
        return choices.case(filling(book, book.context - 1), 1, "every row, sampling")
    prompt = filling(book, book.context - 2)
    last = len(prompt.ids)
    word, other = (text for text in islice(_words(book), 2))
    tokens = typed_cells({last // 2: word, last: other}, book.context)
    settings = choices.case(prompt, 1, "").settings.changed({"typed_tokens": tokens})
    return Case(prompt, settings, "every row, sampling, two tokens typed")


def _words(book: Book) -> Iterator[str]:
    """Words that are tokens with a space in front, and without."""
    known = book.tokenizer.ids_shown
    yield from (text for text in known if text.isalpha() and text.isascii() and f"␣{text}" in known)
    yield from ("a", "I")


class _Choices:
    """Other settings than the file's, in every input band."""

    def __init__(self, book: Book, sorts: bool):
        self._book, self._settings = book, book.settings
        self._sampling = SAMPLING if sorts else {name: SAMPLING[name] for name in ("temperature", "seed")}
        self._bands = [p for p in input_bands(book.layout) if p.band.kind == "input" or p.band.list]
        self._switches = {sheet.stage.switch for sheet in book.layout.sheets if sheet.stage.switch}

    def off(self, prompt: Prompt) -> Case:
        """Every look inside switched off."""
        return Case(prompt, self._changed({name: 0 for name in self._switches}), "all switched off")

    def case(self, prompt: Prompt, number: int, about: str, writes: int = WRITTEN) -> Case:
        """All switched on, and another choice in each: the one of that number, over and over."""
        bands = (placed for placed in self._bands if placed.band.name != "max_new_tokens")
        cells = {placed.band.name: self._choice(placed, number, len(prompt.ids)) for placed in bands}
        cells |= {name: values[number % len(values)] for name, values in self._sampling.items()}
        return Case(prompt, self._changed(cells, writes), about)

    def wild(self, prompt: Prompt, number: int) -> Case:
        """All switched on, and any token as likely as any other: rare ones are written, to the last row."""
        made = self.case(prompt, number, "any token as likely").settings
        return Case(prompt, made.changed({"max_new_tokens": self._book.new_tokens, **WILD}), "any token as likely")

    def odd(self, prompt: Prompt) -> Iterator[Case]:
        """What there is not: blocks, heads, positions, tokens, and settings that cannot be; and wild sampling."""
        blocks, heads, positions = (self._of(kind) for kind in ("n_layer", "n_head", "token"))
        yield self._odd(prompt, 0, dict.fromkeys(blocks, NO_SUCH), "no such block")
        yield self._odd(prompt, 1, dict.fromkeys(heads, NO_SUCH) | {"facts.ablate": -1}, "no such head or neuron")
        yield self._odd(prompt, 2, dict.fromkeys((*positions, "lens.chosen"), NO_SUCH), "no such position")
        names = ("lens.target", "circuit.target", "steering.vector", "adapter.name")
        yield self._odd(
            prompt, 3, dict.fromkeys((*names, "lens.chosen"), "no such"), "no such token, vector or adapter"
        )
        yield self._odd(prompt, 4, dict.fromkeys(names, ""), "no token, vector or adapter asked for")
        for cells in NO_SETTINGS:
            yield Case(prompt, self._changed(cells), f"{next(iter(cells))} that cannot be")
        yield Case(prompt, self._changed(TOO_WIDE), "top p that is not reached")
        yield self.wild(prompt, 5)

    def _of(self, kind: str) -> list[str]:
        return [placed.band.name for placed in self._bands if placed.band.list == kind]

    def _odd(self, prompt: Prompt, number: int, cells: dict[str, Any], about: str) -> Case:
        return Case(prompt, self.case(prompt, number, "", 0).settings.changed(self._known(cells)), about)

    def _known(self, cells: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in cells.items() if name in self._settings.cells}

    def _changed(self, cells: dict[str, Any], writes: int = WRITTEN) -> Settings:
        return self._settings.changed(self._known({"max_new_tokens": min(writes, self._book.new_tokens)} | cells))

    def _choice(self, placed: Placed, number: int, tokens: int) -> Any:
        """What stands in a band's cells for a choice of that number."""
        band, now = placed.band, self._settings.cells[placed.band.name]
        if band.name in self._switches:
            return 1
        if band.name == "typed_tokens":
            return now
        if now.size > 1:
            return _pattern(now, number, bool(band.list))
        if band.name in CHOSEN:
            return CHOSEN[band.name][number % len(CHOSEN[band.name])]
        offered = self._offered(placed, tokens)
        offered = ["", *offered] if offered and now[0, 0] == "" else offered
        return offered[number % len(offered)] if offered else now

    def _offered(self, placed: Placed, tokens: int) -> list[Any]:
        """What a list in the cell offers; where that is calculated, what is like it."""
        listed = placed.band.list
        if isinstance(listed, tuple):
            return list(listed)
        if listed == "token":
            return list(range(max(1, tokens)))
        if listed in self._settings.cells:
            return list(self._settings.cells[listed][:, 0])
        if listed == "lens.choices":
            return ["last", *range(max(1, tokens))]
        if listed == "top.token":
            ids = self._book.tokenizer.encode(PASSAGE)
            return [self._book.tokenizer.shown(i) for i in ids]
        return list(range(size(listed, self._book.config))) if listed and listed not in self._book.layout.names else []


def _pattern(now: Any, number: int, is_switch: bool) -> Any:
    """Switches of which some are off or down; or other numbers than there are."""
    if not is_switch:
        return np.array([[float(v or 0) * (number + 1) / 2 + 0.01 for v in row] for row in now], dtype=object)
    steps = np.arange(now.size).reshape(now.shape) * (number + 2) % 5
    return np.where(steps == 1, 0.0, np.where(steps == 3, 0.5, 1.0)).astype(object)
