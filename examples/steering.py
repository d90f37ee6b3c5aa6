"""Mike pulls out his phone, unless a Jedi is on the model's mind: add a vector on the way, more and more of it.

python examples/steering.py
"""

import xlgpt


def main() -> None:
    xlgpt.build("steering.xlsx", model="tiny", prompt="Mike pulls out his", context=5, sheets="steering")
    with xlgpt.OpenWorkbook("steering.xlsx", engine="formulas") as book:
        for coefficient in (0, 1, 3):
            cells = {"steering.on": 1, "steering.vector": "Jedi", "steering.coefficient": coefficient}
            token, probability = book.read("steering.token", "steering.probability", settings=cells).values()
            print(f"{coefficient} times Jedi: Mike pulls out his{token[0, 0]} ({probability[0, 0]:.0%})")


if __name__ == "__main__":
    main()
