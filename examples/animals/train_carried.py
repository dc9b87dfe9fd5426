"""Train `qkformer_animals16_carried.safetensors`: a small QKFormer whose membranes go from image to image of a batch.

    python examples/animals/train_carried.py train.npz test.npz -o w.safetensors

As published, the last neuron of self-attention takes the images of a batch for time steps (docs/carry-over.md); neurons
are the published ones (tau = 2, threshold 1). Two stages. In the first, five of six epochs, queries, keys and values
start with norms whose mean is high enough for them to fire at a single time step. In the second, three epochs, the norm
before the neuron that is carried over starts at a mean of 0.8 and a deviation of 0.4: from rest it would have to reach
twice the threshold at once, in a batch it adds to what other images left.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from qkf_deploy.ir import Preprocessing
from qkf_deploy.models import QKFormer, build_config
from qkf_deploy.training.checkpoint import write_checkpoint
from qkf_deploy.training.examples import ArrayExamples
from qkf_deploy.training.loop import Task, train
from qkf_deploy.training.processes import joined
from qkf_deploy.training.recipe import Recipe

CONFIG = build_config(
    "qkformer-digits", embed_dim=32, heads=1, depths=(1, 1, 3), attention=("qkta", "ssa", "ssa"), mlp_ratio=1.0,
    time_steps=1, merge_batch_into_time=True,
)  # fmt: skip
_ALWAYS: dict[str, Any] = dict(batch_size=64, shift=1, flip=0.5, label_smoothing=0.1, carry="official")
FIRST = Recipe(epochs=6, learning_rate=4e-3, warmup_epochs=0.5, threads=1, **_ALWAYS)
FIRST_EPOCHS = 5
SECOND = Recipe(epochs=3, learning_rate=3e-3, warmup_epochs=0.2, threads=2, **_ALWAYS)
NORMALIZATION = Preprocessing((0.2735,), (0.3884,))


class _EnoughError(Exception):
    """The first stage is over."""


def start_norms(model: QKFormer, name: str, mean: float, deviation: float = 1.0) -> None:
    """Where the norms of this name in self-attention start."""
    for path, module in model.named_modules():
        if path.endswith(f".ssa.{name}") and isinstance(module, nn.BatchNorm1d):
            nn.init.constant_(module.bias, mean)
            nn.init.constant_(module.weight, deviation)


def untrained() -> QKFormer:
    """As it is before the first stage."""
    model = QKFormer(CONFIG)
    for name, mean in (("q_bn", 1.5), ("k_bn", 1.5), ("v_bn", 1.5), ("proj_bn", 1.0)):
        start_norms(model, name, mean)
    return model


def half_trained(images: Path, test: Path, state: Path) -> dict[str, Tensor]:
    """Weights after the first stage."""
    made: list[QKFormer] = []

    def build() -> QKFormer:
        made.append(untrained())
        return made[0]

    def report(line: dict[str, Any]) -> None:
        show(line)
        if line["epoch"] == FIRST_EPOCHS:
            raise _EnoughError

    task = Task(CONFIG, FIRST, examples(images), examples(test), NORMALIZATION, build)
    with contextlib.suppress(_EnoughError), joined("cpu") as group:
        train(task, group, state, report)
    state.unlink()
    return made[0].state_dict()


def show(line: dict[str, Any]) -> None:
    """An epoch, on stderr."""
    print(line, file=sys.stderr, flush=True)


def examples(path: Path) -> ArrayExamples:
    """Images and labels of a file."""
    with np.load(path) as file:
        return ArrayExamples(file["images"], file["labels"].astype(np.int64), ())


def main() -> None:
    """Train, measure, write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    state = given.output.with_name(given.output.name + ".training")
    weights = half_trained(given.train, given.test, state)

    def build() -> QKFormer:
        model = QKFormer(CONFIG)
        model.load_state_dict(weights)
        start_norms(model, "proj_bn", 0.8, 0.4)
        return model

    task = Task(CONFIG, SECOND, examples(given.train), examples(given.test), NORMALIZATION, build)
    with joined("cpu") as group:
        model, log = train(task, group, state, show)
    if not isinstance(model, QKFormer):
        raise AssertionError(model)
    write_checkpoint(given.output, model, SECOND, NORMALIZATION, (), log[-1]["accuracy"])
    state.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
