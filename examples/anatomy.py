"""Where a model's numbers are, and how one token's vector grows on its way, read from the workbook's own formulas.

python examples/anatomy.py
"""

import xlgpt


def main() -> None:
    xlgpt.build("anatomy.xlsx", model="tiny", prompt="If today is Tuesday, tomorrow is", sheets="anatomy")
    names = ("anatomy.part", "anatomy.numbers", "anatomy.share", "anatomy.mlp_share", "anatomy.into", "anatomy.out")
    shown = xlgpt.read("anatomy.xlsx", *names, engine="formulas")
    parts, numbers, shares, mlp, into, out = (cells[:, 0] for cells in shown.values())
    for part, number, share in zip(parts, numbers, shares, strict=True):
        print(f"{part:16}  {number:9,.0f}  {share:6.1%}")
    print(f"Of the blocks' numbers {mlp[0]:.1%} are MLP.")
    for block, (before, after) in enumerate(zip(into, out, strict=True)):
        print(f"The last token's vector is {before:.1f} long before block {block}, and {after:.1f} behind it.")


if __name__ == "__main__":
    main()
