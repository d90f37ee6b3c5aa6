"""Which head goes from the end of the sentence to the day that is known? Ask the workbook.

python examples/attention.py
"""

import xlgpt


def main() -> None:
    xlgpt.build("attention.xlsx", model="tiny", prompt="If today is Tuesday, tomorrow is", sheets="attention")
    shown = xlgpt.read(
        "attention.xlsx", "attention.attends_to", "attention.most", "attention.same_head", engine="formulas"
    )
    attends_to, most, same = shown.values()
    print("Where each head looks most from the last token:")
    for block, (tokens, shares) in enumerate(zip(attends_to, most, strict=True)):
        heads = (f"{token} {share:.0%}" for token, share in zip(tokens, shares, strict=True))
        print(f"block {block}:  " + "  ".join(f"{head:14}" for head in heads))
    print(f"The head that looks most at the same token: {same[0, 0]}.")


if __name__ == "__main__":
    main()
