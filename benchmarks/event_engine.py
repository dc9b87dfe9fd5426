"""Event engine against torch and SpikingJelly: same network, images and threads, runs interleaved.

    python benchmarks/event_engine.py --json out/event_engine.json

prints the table of docs/benchmarks.md. Medians and minima of several rounds; a round runs every contestant once (the
event engine three times, it is short).
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import networks
import numpy as np
import peaks
import torch

from qkf_deploy.simulators.event import cpu
from qkf_deploy.simulators.event.engine import Engine
from qkf_deploy.simulators.inputs import encode

_EVENT_RUNS = 3
_SETUPS = {"1 image, 1 thread": (1, 1), "8 images, 2 threads": (8, 2)}


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name")), platform.processor()
    )
    import llvmlite.binding as binding
    import numba

    return {
        "date": date.today().isoformat(),
        "cpu": f"{model} ({binding.get_host_cpu_name()})",
        "isa": cpu.select().name,
        "torch": torch.__version__,
        "numba": numba.__version__,
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def time_rounds(
    contestants: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of every run, contestants in turn."""
    for run in contestants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            for _ in range(_EVENT_RUNS if name.startswith("event") else 1):
                start = clock()
                run()
                seconds[name].append(clock() - start)
    return seconds


def measure(embed_dim: int, setup: str, rounds: int, clock: str, threshold_scale: float) -> dict[str, Any]:
    """One network in one setup."""
    batch, threads = _SETUPS[setup]
    # CPU time leaves out the time that other processes took; with several threads it is shared evenly among them.
    now = time.perf_counter if clock == "wall" else lambda: time.process_time() / threads
    torch.set_num_threads(threads)
    network = networks.make(embed_dim, threshold_scale=threshold_scale)
    pixels = networks.images(batch, seed=9)
    x = networks.normalized(pixels)
    encoded, _ = encode(network.graph, pixels)
    engine = Engine(network.graph)
    dense_only = Engine(network.graph, tier=replace(engine.isa, dense_crossover=0.0))
    reference = engine.run(encoded, threads=threads)
    if not np.array_equal(dense_only.run(encoded, threads=threads).raw_output, reference.raw_output):
        raise SystemExit("the dense kernels disagree with the event kernels")
    seconds = time_rounds(
        {
            "torch": lambda: networks.forward(network.torch, x),
            "torch, oneDNN forced": lambda: networks.forward_onednn(network.torch, x),
            "SpikingJelly QKFormer": lambda: networks.forward(network.spikingjelly, x),
            "event": lambda: engine.run(encoded, threads=threads),
            "event, dense kernels only": lambda: dense_only.run(encoded, threads=threads),
        },
        rounds,
        now,
    )
    rates = peaks.measure(engine.isa)
    ledger = reference.ledger
    floors = {
        name: peaks.roofline_seconds(list(ledger), ledger.time_steps, batch, rate) * batch / threads
        for name, rate in (("roofline", rates), ("nominal roofline", peaks.NOMINAL))
    }
    return {
        "network": f"HST-10-{embed_dim}",
        "setup": setup,
        "seconds": seconds,
        "floors": floors,
        "peaks": asdict(rates),
        "synaptic_operations": ledger.total("ac_graded") / batch,
        "dense_macs": sum(layer.dense_macs for layer in ledger) * ledger.time_steps,
    }


def summarize(result: dict[str, Any]) -> dict[str, float]:
    """Milliseconds and ratios, by median and by minimum."""
    out: dict[str, float] = {}
    for name, f in (("median", np.median), ("min", np.min)):
        ms = {k: 1e3 * float(f(v)) for k, v in result["seconds"].items()}
        out |= {f"{k} {name} ms": v for k, v in ms.items()}
        for rival in ("torch", "torch, oneDNN forced", "SpikingJelly QKFormer"):
            out[f"times {rival} {name}"] = ms[rival] / ms["event"]
        out[f"from int8 and fusion {name}"] = ms["torch"] / ms["event, dense kernels only"]
        out[f"from sparsity {name}"] = ms["event, dense kernels only"] / ms["event"]
        out |= {f"times {floor} {name}": ms["event"] / (1e3 * t) for floor, t in result["floors"].items()}
    return out


_HEAD = (
    "| network | setup | torch ms | oneDNN ms | SpikingJelly ms | event ms | × torch | × oneDNN | × SpikingJelly | "
    "int8+fusion | sparsity | roofline ms | event / roofline | nominal ms | event / nominal |"
)


def row(result: dict[str, Any]) -> str:
    """One line of the table: median (minimum)."""
    s = summarize(result)

    def both(key: str, digits: int) -> str:
        unit = " ms" if digits == 0 else ""
        return f"{s[f'{key} median{unit}']:.{digits}f} ({s[f'{key} min{unit}']:.{digits}f})"

    times = [both(k, 0) for k in ("torch", "torch, oneDNN forced", "SpikingJelly QKFormer", "event")]
    ratios = [both(f"times {k}", 1) for k in ("torch", "torch, oneDNN forced", "SpikingJelly QKFormer")]
    shares = [both("from int8 and fusion", 1), both("from sparsity", 1)]
    floors = [x for name, t in result["floors"].items() for x in (f"{1e3 * t:.0f}", both(f"times {name}", 2))]
    return "| " + " | ".join([result["network"], result["setup"], *times, *ratios, *shares, *floors]) + " |"


def main() -> None:
    """Measure, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[384, 512, 768])
    parser.add_argument("--setups", nargs="+", choices=list(_SETUPS), default=list(_SETUPS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for machines that are shared")
    parser.add_argument("--threshold-scale", type=float, default=1.0, help="below 1: more active networks")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = {**machine(), "clock": options.clock, "threshold scale": options.threshold_scale}
    print(", ".join(f"{k}: {v}" for k, v in about.items()))
    print(_HEAD)
    print("|" + "---|" * _HEAD.count(" | ") + "---|")
    results = []
    for width in options.widths:
        for setup in options.setups:
            results.append(measure(width, setup, options.rounds, options.clock, options.threshold_scale))
            print(row(results[-1]), flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        data = {"machine": about, "results": [{**r, "summary": summarize(r)} for r in results]}
        options.json.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
