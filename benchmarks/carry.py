"""Carry modes of a network that was trained with carry-over, float and in integers, for several orders of the images.

    python benchmarks/carry.py --network w.safetensors --train train.npz --test test.npz

One table per network and seed; a seed draws the order of the test images and the chain that stored leftovers come from.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import qkf_deploy as qd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True, help="a .npz file with images and labels")
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--chain", type=int, default=64)
    parser.add_argument("--average", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    given = parser.parse_args()
    real = qd.trace(given.network)
    with tempfile.TemporaryDirectory() as folder:
        for seed in map(int, given.seeds.split(",")):
            test = shuffled(given.test, Path(folder) / "test.npz", seed)
            for name, graph in (("float", real), (f"{given.bits} bits", qd.quantize(real, bits=given.bits))):
                found = qd.calibrate(
                    graph, given.train, carry="stored", held_out=test, seed=seed, chain=given.chain,
                    average=given.average, batch_size=given.batch_size, engine="torch", threads=1,
                )  # fmt: skip
                print(f"{name}, seed {seed}\n{found.carry}\n", flush=True)


def shuffled(given: Path, made: Path, seed: int) -> Path:
    """The same images in the random order of a seed."""
    with np.load(given) as file:
        order = np.random.default_rng(seed).permutation(len(file["labels"]))
        np.savez(made, images=file["images"][order], labels=file["labels"][order])
    return made


if __name__ == "__main__":
    main()
