"""Where does an answer come from? Put one state back, and see how much of the answer comes back with it.

python examples/tracing.py
"""

import numpy as np

import xlgpt

PARTS = {"trace.resid_post": "all that is known", "trace.mlp_out": "the MLP", "trace.attn_out": "attention"}


def main() -> None:
    prompt = "Michael Jordan plays the sport of"
    xlgpt.build("tracing.xlsx", model="tiny", prompt=prompt, context=12, sheets="tracing")
    shown = xlgpt.read("tracing.xlsx", "trace.token", "trace.status", *PARTS, engine="formulas")
    tokens = shown["trace.token"][:, 0]
    print(shown["trace.status"][0, 0])
    for name, part in PARTS.items():
        share = np.array([row for row, token in zip(shown[name], tokens, strict=True) if token], dtype=float)
        token, block = np.unravel_index(share.argmax(), share.shape)
        print(f"{part}: most comes back at {tokens[token]}, block {block}: {share.max():.0%}")
        print(f"    at {tokens[2]} at most {share[2].max():.0%}")


if __name__ == "__main__":
    main()
