"""Which parts of the model know what day tomorrow is? Find them, switch all others off, and ask the workbook.

python examples/circuit.py
"""

from pathlib import Path

import xlgpt
from xlgpt.interp.circuit import find_circuit, read_cases
from xlgpt.workbook.book import Book
from xlgpt.workbook.fill import fill

PROMPTS = Path(__file__).parent / "weekdays.txt"


def main() -> None:
    xlgpt.build("tiny.xlsx", model="tiny", context=8, max_bytes=40, generate=1, sheets="circuit")
    model = Book("tiny.xlsx").model
    found = find_circuit(model, read_cases(PROMPTS, None, model))
    print(found)
    print("On are", ", ".join(map(str, found.components)) + ".")
    print(fill("tiny.xlsx", "weekdays.xlsx", found.cells()))
    names = ("circuit.answer", "circuit.logit", "circuit.total")
    answer, logit, total = (cells[0, 0] for cells in xlgpt.read("weekdays.xlsx", *names, engine="formulas").values())
    print(f"If today is Tuesday, tomorrow is{answer.replace('␣', ' ')}: logit {logit:.6f}, its parts {total:.6f}")


if __name__ == "__main__":
    main()
