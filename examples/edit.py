"""A fact rewritten: Michael Jordan plays soccer, and Tiger Woods golf, as before.

python examples/edit.py
"""

import xlgpt

PROMPT = "{} plays the sport of"


def main() -> None:
    edited = xlgpt.edit("tiny", PROMPT, "Michael Jordan", " soccer", out="soccer")
    for share in edited.shares:
        print(f"{share.name}: {share.of(share.before):.1%} before, {share.of(share.after):.1%} after")
    room = {"context": 12, "generate": 2, "sheets": "adapters"}
    xlgpt.build("edit.xlsx", model="tiny", prompt="Michael Jordan likes", adapter="soccer", **room)
    with xlgpt.OpenWorkbook("edit.xlsx", engine="formulas") as book:
        for prompt in ("Michael Jordan likes", PROMPT.format("Tiger Woods")):
            for on in (0, 1):
                cells = {"adapter.on": on, "adapter.name": "soccer", "max_new_tokens": 1}
                shown = book.read("next_token", prompt=prompt, settings=cells)["next_token"]
                print(f"{'rewritten' if on else 'plain'}: {prompt}{shown[0, 0]}")


if __name__ == "__main__":
    main()
