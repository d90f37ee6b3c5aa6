"""Formulas as IronCalc 0.8 calculates them, where it takes one cell for many."""

import re

from xlgpt.workbook.book import Book
from xlgpt.xlsx.ranges import Range
from xlgpt.xlsx.worksheet import a1_range

CAPITAL = "\ue000"  # behind each capital letter: a private character, which no token has
FORMULA = re.compile(rb"<f\b[^>]*>[^<]*?(?:ROW|COLUMN)\([^<]*</f>")
NUMBERS = re.compile(rb"\b(ROW|COLUMN)\(([^()]+)\)")
LOOKED_UP = re.compile(rb"EXACT\(((?:[^()]|\([^()]*\))+),vocabulary\.shown\)")


def with_numbers(book: Book, xml: bytes) -> bytes:
    """Formulas with {9,10,11} for COLUMN(I21:K21), and alike for ROW: IronCalc 0.8 has them of one cell only."""

    def spelt_out(call: re.Match[bytes]) -> bytes:
        said = call[2].decode()
        cells = book.named(said) if book.has(said) else a1_range("", said.rpartition("!")[2])
        if cells is None:
            return call[0]
        first, count = (cells.row, cells.height) if call[1] == b"ROW" else (cells.column, cells.width)
        numbers = (";" if call[1] == b"ROW" else ",").join(str(first + i + 1) for i in range(count))
        return b"{%b}" % numbers.encode() if count > 1 else call[0]

    return FORMULA.sub(lambda formula: NUMBERS.sub(spelt_out, formula[0]), xml)


def with_marks(book: Book, xml: bytes) -> bytes:
    """Formulas that compare a text with all tokens by =, which takes A for a, and so with a mark behind capitals.

    IronCalc 0.8 has EXACT for single cells only.
    """
    letters, tokens = capitals(book), marked_tokens(book)

    def compared(call: re.Match[bytes]) -> bytes:
        text = call[1].decode()
        for letter in letters:
            text = f'SUBSTITUTE({text},"{letter}","{letter}{CAPITAL}")'
        return f"({text}={tokens.absolute})".encode()

    return LOOKED_UP.sub(compared, xml)


def marked(text: str, letters: str) -> str:
    """A text with a mark behind each of these capital letters."""
    return "".join(letter + CAPITAL if letter in letters else letter for letter in text)


def capitals(book: Book) -> str:
    """The letters of the vocabulary, all as capitals; those without a small one left out."""
    texts = (str(text) for text in book.column(book.named("vocabulary.shown")))
    found = {letter.upper() for text in texts for letter in text}
    return "".join(sorted(letter for letter in found if len(letter) == 1 and letter.lower() != letter))


def marked_tokens(book: Book) -> Range:
    """Cells behind the vocabulary for its tokens with their capitals marked."""
    tokens = book.named("vocabulary.shown")
    last = max(column for _, column in book.cells(tokens.sheet).constants)
    return Range(tokens.sheet, tokens.row, last + 2, tokens.height)


def chosen_vector(book: Book) -> str:
    """The row of the steering vector whose name was chosen, with an EXACT for each name."""
    names = book.named("steering.names")
    rows = (f"EXACT(steering.vector,{names.cell(i, 0).first})*{i + 1}" for i in range(names.height))
    return f'=IF(N(steering.on)=0,"",MAX({",".join(rows)}))'
