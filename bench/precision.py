"""What fewer digits of the weights save, and how far they move the logits.

    python bench/precision.py [--model tiny] [--context 16] [--ending xlsb] [--digits 5]

Logits are the reference's, float64, of the last token of a passage as long as the context, on the rounded weights and
on the exact ones. Prints a Markdown table.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import xlgpt
from xlgpt.model import reference
from xlgpt.model.checkpoint import load
from xlgpt.model.notation import BINARY, DECIMAL
from xlgpt.model.precision import rounded

PASSAGE = "If today is Tuesday, tomorrow is Wednesday. Mike is quick. He moves quickly. The cow says moo. " * 20


def main() -> None:
    """Build with 4, 5, 6 and all digits, or with those that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--context", type=int, default=16)
    parser.add_argument("--ending", default="xlsx", choices=("xlsx", "xlsb"))
    parser.add_argument("--digits", type=int, action="append", help="0: all")
    args = parser.parse_args()
    notation = BINARY if args.ending == "xlsb" else DECIMAL
    model = load(args.model)
    ids = model.tokenizer.encode(PASSAGE)[: args.context]
    exact = reference.forward(ids, model.weights, model.config)["logits"][-1]
    print(f"{args.model}: logits from {exact.min():.2f} to {exact.max():.2f}\n")
    print("| digits | MB | bytes a weight | build, seconds | largest difference of a logit | mean | same next token |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for digits in args.digits or (4, 5, 6, 0):
            path = Path(folder) / f"book.{args.ending}"
            built = xlgpt.build(path, args.model, context=args.context, precision=digits)
            coarse = rounded(model, digits, notation)
            logits = reference.forward(ids, coarse.weights, model.config)["logits"][-1]
            gap = np.abs(logits - exact)
            same = "yes" if logits.argmax() == exact.argmax() else "no"
            print(
                f"| {digits or 'exact'} | {built.size / 1e6:.1f} | {built.size / model.parameters:.2f} | "
                f"{built.seconds:.1f} | {gap.max():.1e} | {gap.mean():.1e} | {same} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
