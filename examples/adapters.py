"""A fine-tune switched on, half on, and off: the bundled model speaks to Luke.

python examples/adapters.py
"""

import xlgpt

PROMPTS = ("Mike pulls out his", "The capital of France is")


def main() -> None:
    xlgpt.build("adapters.xlsx", model="tiny", prompt=PROMPTS[0], context=12, generate=6, sheets="adapters")
    for prompt in PROMPTS:
        for on, scale in ((0, 1), (1, 0.5), (1, 1)):
            cells = {"adapter.on": on, "adapter.scale": scale}
            shown = xlgpt.read("adapters.xlsx", "completion", prompt=prompt, settings=cells, engine="formulas")
            print(f"{on * scale} times obi-wan: {prompt}{shown['completion'][0, 0]}")


if __name__ == "__main__":
    main()
