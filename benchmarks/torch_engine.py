"""The torch engine against the reference on the held-out digits (360): runs interleaved, both on as many threads.

    python benchmarks/torch_engine.py --threads 2

prints the table of docs/benchmarks.md. The engines must agree in every count before anything is timed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # large pages, which numpy asks for by itself
import torch

import qkf_deploy as qd
from qkf_deploy.datasets.digits import load_digits

_CHECKPOINT = Path(__file__).parents[1] / "qkf_deploy" / "models" / "qkformer_digits.safetensors"


def contestants(threads: int, count: int, batch: int | None) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; the reference of each kind of graph first."""
    floating = qd.fold(qd.trace(_CHECKPOINT))
    integer = qd.quantize(floating, 8)
    images = load_digits().test_images[:count]

    def run(graph: qd.Graph, engine: str, **options: Any) -> Callable[[], Any]:
        return lambda: qd.simulate(graph, images, engine=engine, **options)

    return {
        "float64, reference": run(floating, "reference"),
        "float64, torch": run(floating, "torch", threads=threads, batch=batch),
        "float32, torch": run(floating, "torch", threads=threads, precision="float32", batch=batch),
        "8 bits, reference": run(integer, "reference"),
        "8 bits, torch": run(integer, "torch", threads=threads, batch=batch),
        "8 bits, event": run(integer, "event", threads=threads),
    }


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=360)
    parser.add_argument("--batch", type=int, help="of the torch engine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for machines that are shared")
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    running = contestants(options.threads, options.images, options.batch)
    first = {name: run() for name, run in running.items()}
    for kind in ("float64", "8 bits"):
        if first[f"{kind}, torch"].ledger != first[f"{kind}, reference"].ledger:
            raise SystemExit(f"{kind}: the torch engine counts otherwise than the reference")
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(options.rounds):
        for name, run in running.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    print(f"torch {torch.__version__}, {options.threads} threads, {options.clock} clock, seconds: median (minimum)")
    print(f"| run of {options.images} digits | seconds | times the reference |\n|---|---|---|")
    for name, taken in seconds.items():
        base = seconds[("8 bits" if name.startswith("8") else "float64") + ", reference"]
        ratio = np.median(base) / np.median(taken)
        print(f"| {name} | {np.median(taken):.2f} ({min(taken):.2f}) | {ratio:.1f} |")


if __name__ == "__main__":
    main()
