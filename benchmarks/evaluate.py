"""Evaluations over many images: throughput on one and more processes, and memory while they run.

    python benchmarks/evaluate.py --images 2000 --json out/evaluate.json

HST-10-384 with random weights (benchmarks/networks.py), 8 bits, synthetic 224 x 224 images, event engine, one thread
per process. A row is one evaluation from the start of its program to the end; ``steady`` leaves starting out. Memory is
the resident set of the program and all of its processes, sampled, at tenths of the time in which images run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

_CHUNK = 100
_SAMPLE_S = 0.25
_RUN = """
import sys, time, json
import qkf_deploy as qd
if __name__ == "__main__":
    network, data, out, jobs = sys.argv[1:]
    def tick(tally):
        print(json.dumps([time.time(), tally.stored]), flush=True)
    # One process has one thread, as each of several has.
    options = {"threads": 1} if jobs == "1" else {"jobs": int(jobs)}
    qd.evaluate(network, data, out, engine="event", tick=tick, **options)
"""


def main() -> None:
    """Parse, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--width", type=int, default=384, help="384, 512 or 768")
    parser.add_argument("--jobs", default="1,2", help="processes, separated by commas")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder, arguments.width, arguments.images)
        jobs = [int(n) for n in arguments.jobs.split(",")]
        rows = [measure(folder, n, f"{r}-{n}") for r in range(arguments.rounds) for n in jobs]
    print(table(rows))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=1))


def prepare(folder: Path, width: int, count: int) -> None:
    """The network and the images."""
    import networks

    import qkf_deploy as qd

    qd.save(networks.make(width, float_models=False).graph, folder / "net.qkf")
    pixels = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, 3, 224, 224))
    for start in range(0, count, _CHUNK):
        some = pixels[start : start + _CHUNK]
        some[:] = networks.images(len(some), seed=1 + start)
    pixels.flush()


def measure(folder: Path, jobs: int, name: str) -> dict[str, Any]:
    """One evaluation in a program of its own."""
    script = folder / "run.py"
    script.write_text(_RUN)
    arguments = [folder / "net.qkf", folder / "images.npy", folder / f"{name}.sqlite", jobs]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    began = time.time()
    with (folder / "ticks").open("w+") as ticks:
        program = subprocess.Popen([sys.executable, str(script), *map(str, arguments)], stdout=ticks, env=env)
        memory = []
        while program.poll() is None:
            memory.append((time.time(), resident(program.pid)))
            time.sleep(_SAMPLE_S)
        if program.returncode:
            raise SystemExit(f"the evaluation ended with {program.returncode}")
        ticks.seek(0)
        told = [json.loads(line) for line in ticks]
    return {"jobs": jobs, "seconds": time.time() - began, **summary(told, memory)}


def resident(pid: int) -> int:
    """Bytes of a program and of all its processes."""
    try:
        program = psutil.Process(pid)
        return sum(p.memory_info().rss for p in (program, *program.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def summary(told: list[tuple[float, int]], memory: list[tuple[float, int]]) -> dict[str, Any]:
    """Throughput between the first stored shard and the last, and memory at tenths of that time."""
    first, already = told[1]  # the first one says that nothing is stored yet
    last, stored = told[-1]
    tenths = [first + (last - first) * k / 10 for k in range(1, 11)]
    held = [max((rss for at, rss in memory if end - (last - first) / 10 <= at <= end), default=0) for end in tenths]
    return {
        "images": stored,
        "steady_per_second": (stored - already) / (last - first),
        "memory_mib": [round(rss / 2**20) for rss in held],
        "most_mib": round(max(rss for _, rss in memory) / 2**20),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """For docs/benchmarks.md."""
    single = max((r["steady_per_second"] for r in rows if r["jobs"] == 1), default=None)
    head = "| processes | images | s in all | images/s | steady images/s | × 1 process | MiB at tenths | most MiB |"
    lines = [head, "|--:|--:|--:|--:|--:|--:|:--|--:|"]
    for r in rows:
        gain = f"{r['steady_per_second'] / single:.2f}" if single else ""
        held = " ".join(map(str, r["memory_mib"]))
        lines.append(
            f"| {r['jobs']} | {r['images']} | {r['seconds']:.1f} | {r['images'] / r['seconds']:.1f} "
            f"| {r['steady_per_second']:.1f} | {gain} | {held} | {r['most_mib']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
