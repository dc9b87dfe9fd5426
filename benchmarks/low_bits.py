"""Accuracy at few bits: the largest weight as the end of the range, integers fitted to images, and fine-tuning.

    python benchmarks/low_bits.py --network w.safetensors --train train.npz --test test.npz --bits 4,2 --seeds 0,1,2

One JSON line per result. Seeds choose the images that integers are fitted to, and the order of training. `--methods`
names what is measured: `float`; `max`; `scale`, `rounding`, `bias` fitted alone; `calibrated`, all three; `finetuned`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import qkf_deploy as qd
from qkf_deploy.ir import Graph

#: What `calibrate` fits.
FITTED = {"scale": ["scale"], "rounding": ["rounding"], "bias": ["bias"], "calibrated": None}
METHODS = ("float", "max", *FITTED, "finetuned")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--train", required=True, help="images with labels, as `simulate` takes them")
    parser.add_argument("--test", required=True, help="likewise")
    parser.add_argument("--bits", default="8,6,4,3,2")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--sample", type=int, default=128)
    parser.add_argument("--start", type=int, default=64, help="images that fine-tuning's first integers are fitted to")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--recipe", type=json.loads, default={}, help="further settings of fine-tuning, as JSON")
    parser.add_argument("--limit", type=int, help="training images of fine-tuning")
    given = parser.parse_args()
    graph = qd.fold(qd.trace(given.network))
    if "float" in given.methods:
        print(json.dumps({"method": "float", "accuracy_percent": accuracy(graph, given.test)}), flush=True)
    for bits in map(int, given.bits.split(",")):
        for line in measured(graph, bits, given):
            print(json.dumps({"bits": bits, **line}), flush=True)


def measured(graph: Graph, bits: int, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    methods = given.methods.split(",")
    if "max" in methods:
        yield {"method": "max", "accuracy_percent": accuracy(qd.quantize(graph, bits=bits), given.test)}
    for seed in map(int, given.seeds.split(",")):
        for method in methods:
            if method not in (*FITTED, "finetuned"):
                continue
            start = time.process_time()
            tuned = method == "finetuned"
            network = finetuned(bits, seed, given) if tuned else calibrated(graph, bits, seed, method, given)
            seconds = round(time.process_time() - start, 1)
            yield {
                "method": method, "seed": seed, "accuracy_percent": accuracy(network, given.test), "cpu_s": seconds,
            }  # fmt: skip


def calibrated(graph: Graph, bits: int, seed: int, method: str, given: argparse.Namespace) -> Graph:
    found = qd.calibrate(graph, given.train, bits=bits, seed=seed, sample=given.sample, methods=FITTED[method])
    return found.graph


def finetuned(bits: int, seed: int, given: argparse.Namespace) -> Graph:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "w.safetensors"
        recipe = {"epochs": given.epochs, "learning_rate": given.learning_rate, "seed": seed, "threads": 1}
        recipe |= given.recipe
        qd.finetune(given.network, given.train, output, bits=bits, recipe=recipe, limit=given.limit, start=given.start)
        return qd.quantize(qd.trace(output), bits=bits)


def accuracy(graph: Graph, test: str) -> float:
    images = qd.load_images(test, graph)
    run = qd.simulate(graph, images.array, engine="torch", threads=1)
    return round(100 * float(np.mean(run.outputs.argmax(1) == images.labels)), 2)


if __name__ == "__main__":
    main()
