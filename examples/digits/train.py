"""Train the small QKFormer on scikit-learn's handwritten digits.

    python examples/digits/train.py -o w.safetensors

The same as `qkf-deploy train --arch qkformer-digits --data digits --held-out digits`, with the mean and standard
deviation that the bundled `qkformer_digits.safetensors` has: twenty epochs, random shifts by up to one source pixel.
Takes a few minutes on two CPU cores. The same command with the same library versions and thread count writes the same
file. Progress goes to stderr, one JSON line with the result to stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import qkf_deploy as qd
from qkf_deploy.datasets import digits
from qkf_deploy.training.recipe import recipe_of

ARCH = "qkformer-digits"


def main() -> None:
    """Parse the command line, train, print the result."""
    recipe = recipe_of(ARCH)
    parser = argparse.ArgumentParser(description="Train a small QKFormer on handwritten digits.")
    for name in ("epochs", "seed", "threads"):
        parser.add_argument(f"--{name}", type=int, default=getattr(recipe, name))
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    recipe = replace(recipe, epochs=given.epochs, seed=given.seed, threads=given.threads)
    started = time.perf_counter()
    log = qd.train(
        ARCH, "digits", given.output, held_out="digits", mean=digits.MEAN, std=digits.STD, recipe=recipe, report=show
    )
    seconds = round(time.perf_counter() - started, 1)
    print(json.dumps({"held_out_accuracy": log[-1]["accuracy"], "training_seconds": seconds}))


def show(line: dict[str, Any]) -> None:
    """An epoch, on stderr."""
    print(json.dumps(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
