"""A fine-tune switched on, half on, and off: the bundled model speaks to Luke.

python examples/adapters.py
"""

import xlgpt

PROMPTS = ("Mike pulls out his", "The capital of France is")


def main() -> None:
    xlgpt.build("adapters.xlsx", model="tiny", prompt=PROMPTS[0], context=12, generate=6, sheets="adapters")
    with xlgpt.OpenWorkbook("adapters.xlsx", engine="formulas") as book:
        for prompt in PROMPTS:
            for on, scale in ((0, 1), (1, 0.5), (1, 1)):
                cells = {"adapter.on": on, "adapter.scale": scale}
                shown = book.read("completion", prompt=prompt, settings=cells)["completion"]
                print(f"{on * scale} times obi-wan: {prompt}{shown[0, 0]}")


if __name__ == "__main__":
    main()
