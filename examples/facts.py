"""Where does the model know from that Michael Jordan plays basketball? Ablate neurons, and see how sure it stays.

python examples/facts.py
"""

import xlgpt


def main() -> None:
    xlgpt.build("facts.xlsx", model="tiny", prompt="Michael Jordan plays the sport of", context=8, sheets="facts")
    with xlgpt.OpenWorkbook("facts.xlsx", engine="formulas") as book:
        neurons, promotes = book.read("facts.neuron", "facts.promotes", settings={"facts.token": 2}).values()
        print("The neurons of block 0 that fire most at ␣Jordan, and what they write:")
        for neuron, tokens in zip(neurons[:4, 0], promotes, strict=False):
            print(f"{neuron:5.0f}  {' '.join(tokens)}")
        for strongest in (0, 20, 384):
            shown = book.read("facts.answer", "facts.sure", settings={"facts.strongest": strongest})
            answer, sure = (value[0, 0] for value in shown.values())
            print(f"Without the {strongest} strongest of each token's 384 neurons: {answer} ({sure:.0%})")


if __name__ == "__main__":
    main()
