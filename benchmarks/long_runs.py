"""Memory of networks with many time steps: peak resident memory of whole commands, per engine and T.

    python benchmarks/long_runs.py --steps 1,64,256,2048

An ANN of two convolutions on images of 3 x 8 x 8, converted by SpikingJelly's `ann2snn` and quantized to 8 bits.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from spikingjelly.activation_based import ann2snn
from torch import nn

import qkf_deploy as qd

SHAPE = (3, 8, 8)


def converted() -> nn.Module:
    """The network of spiking neurons, thresholds from random images."""
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip
    images = [(torch.rand(8, *SHAPE), torch.zeros(8)) for _ in range(2)]
    return ann2snn.FXConverter(ann2snn.RateCodingRecipe(images, mode="Max", half_threshold=True)).convert(ann)


#: Runs a command and tells its own peak: what a parent measures has the parent's memory in it.
_TOLD = """
import atexit, pathlib, runpy
atexit.register(lambda: print(*[line for line in pathlib.Path("/proc/self/status").open() if "VmHWM" in line]))
runpy.run_module("qkf_deploy", run_name="__main__")
"""


def peak(arguments: list[str]) -> float:
    """Largest resident memory of a command, MB (Linux)."""
    command = [sys.executable, "-c", _TOLD, *arguments]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(shown.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="1,64,256,2048")
    parser.add_argument("--images", type=int, default=64)
    given = parser.parse_args()
    graph = qd.trace(converted(), time_steps=1, input="step", image_size=SHAPE[1])
    engines = ("reference", "event", "torch")
    print(f"| T |{''.join(f' `{c}`, {e} |' for c in ('simulate', 'evaluate') for e in engines)}")
    print(f"|--:|{'--:|' * 6}")
    with tempfile.TemporaryDirectory() as folder:
        images, network = Path(folder) / "images.npz", Path(folder) / "net.qkf"
        pixels = np.random.default_rng(0).random((given.images, *SHAPE)).astype(np.float32)
        np.savez(images, images=pixels, labels=np.zeros(given.images, int))
        for steps in map(int, given.steps.split(",")):
            qd.save(qd.quantize(qd.with_time_steps(graph, steps), 8), network)
            row: list[float] = []
            for command in ("simulate", "evaluate"):
                for engine in engines:
                    stored = Path(folder) / f"{command}-{engine}-{steps}.sqlite"
                    row.append(peak([command, str(network), str(images), "--engine", engine, "-o", str(stored)]))
            print(f"| {steps:,} |{''.join(f' {mb:.0f} MB |' for mb in row)}", flush=True)


if __name__ == "__main__":
    main()
