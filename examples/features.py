"""Which of an autoencoder's features does a Jedi wake? Turn that one up where there is no Jedi.

python examples/features.py
"""

import xlgpt


def main() -> None:
    prompt = "Mike is a Jedi. He pulls out his"
    xlgpt.build("features.xlsx", "tiny", prompt, context=12, sheets="steering,features", features="2,251,52,182")
    names = ("features.number", "features.activation", "features.promotes")
    with xlgpt.OpenWorkbook("features.xlsx", engine="formulas") as book:
        numbers, active, promotes = book.read(*names).values()
        print("Before block 2, at the last token:")
        for number, activation, tokens in zip(numbers[:, 0], active[:, 8], promotes, strict=True):
            print(f"feature {number:3.0f}  {activation:5.2f}  promotes {' '.join(tokens)}")
        cells = {"steering.on": 1, "steering.vector": "feature 2"}
        prompt = "Mike pulls out his"
        token = book.read("next_token", prompt=prompt, settings=cells)["next_token"]
        print(f"With feature 2 turned up: {prompt}{token[0, 0]}")


if __name__ == "__main__":
    main()
