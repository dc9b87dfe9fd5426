"""Time per image and start-up of the Lava backend against the event engine; every run is compared, too.

    python benchmarks/lava_time.py qkformer-digits qkformer-4-384-cifar10 qkformer-10-384

Networks have random weights (seeded), 8 bits, T = 4; Lava and the reference compute densely, so weights do not matter
to them. One thread everywhere.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time

import numpy as np
import torch

import qkf_deploy as qd
from qkf_deploy.ir import Graph
from qkf_deploy.models import BUILDS, QKFormer
from qkf_deploy.simulators import event
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.lava import bridge
from qkf_deploy.simulators.run import Run

TIME_STEPS = 4
IMAGES = {"qkformer-digits": 20, "qkformer-4-384-cifar10": 4}
REPEATS = 3


def network(name: str) -> Graph:
    """A network of this build with random weights and live neurons."""
    torch.manual_seed(0)
    config = BUILDS[name]
    model = QKFormer(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias, 0.2, 0.5)
            torch.nn.init.constant_(module.running_var, 0.05)
    size, channels = config.image_size, config.in_channels
    return qd.quantize(qd.trace(model, time_steps=TIME_STEPS, image_size=size, in_channels=channels))


def same(a: Run, b: Run) -> bool:
    """Equal logits and counts."""
    return np.array_equal(a.raw_output, b.raw_output) and a.ledger.to_dict() == b.ledger.to_dict()


def measure(name: str) -> None:
    """Print one row per engine: the best of a few runs."""
    graph = network(name)
    count = IMAGES.get(name, 1)
    images = np.random.default_rng(0).integers(0, 256, (count, *graph.input.type.shape)).astype(np.uint8)
    inputs, _ = encode(graph, images)
    expected = event.run(graph, inputs, threads=1)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        event.run(graph, inputs, threads=1)
        seconds.append(time.perf_counter() - started)
    print(f"| {name} | {len(graph.nodes)} | event | 1 | | {min(seconds) / count:.3f} | |")
    for granularity in ("block", "operator"):
        runs = [bridge.simulate(graph, inputs, granularity=granularity) for _ in range(REPEATS)]
        best = min(runs, key=lambda r: r.seconds["total"])
        start = best.seconds["total"] - best.seconds["run"]
        verdict = "equal" if all(same(r.run, expected) for r in runs) else "DIFFERS"
        print(
            f"| {name} | {len(graph.nodes)} | lava, {granularity} | {best.processes} | {start:.1f} "
            f"| {best.seconds['run'] / count:.2f} | {verdict} |"
        )


if __name__ == "__main__":
    print("| network | nodes | engine | processes | start and stop (s) | per image (s) | against event |")
    print("|---|---|---|---|---|---|---|")
    for build in sys.argv[1:] or ("qkformer-digits", "qkformer-4-384-cifar10"):
        measure(build)
