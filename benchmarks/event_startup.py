"""Start-up and memory of the event engine, each measured in a process of its own.

    python benchmarks/event_startup.py

- warm start: import, load and run one digit with kernels from the cache;
- cold compile: the same process with an empty cache, for HST-10-384;
- peak memory of HST-10-768 at 384 x 384, T = 4, one image, beside the weights.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_DIGITS = Path(__file__).parents[1] / "qkf_deploy" / "models" / "qkformer_digits.safetensors"


def _child(task: str, graph: Path, cache: str | None = None) -> str:
    """Run one task of this file in a fresh process; its output."""
    environment = {**os.environ, **({"NUMBA_CACHE_DIR": cache} if cache else {})}
    command = [sys.executable, __file__, "--task", task, "--graph", str(graph)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def run_once(graph_path: Path) -> float:
    """Seconds from the start of the imports to the first result."""
    start = time.perf_counter()
    import numpy as np

    from qkf_deploy import bundle
    from qkf_deploy.simulators import event

    graph = bundle.load_graph(graph_path)
    shape = (1, 1, *graph.input.type.shape)
    event.run(graph, np.random.default_rng(0).integers(0, 256, shape))
    return time.perf_counter() - start


def peak_memory(graph_path: Path) -> float:
    """Peak resident size of a run in MiB, beyond a process that holds the graph and its packed weights (Linux)."""
    import numpy as np

    from qkf_deploy import bundle
    from qkf_deploy.simulators.event.engine import Engine

    graph = bundle.load_graph(graph_path)
    engine = Engine(graph)
    x = np.random.default_rng(0).integers(0, 256, (1, 1, *graph.input.type.shape))
    engine.run(x)  # packs the weights
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    engine.run(x)
    return _status("VmHWM") - before


def _status(key: str) -> float:
    """A size of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def main() -> None:
    """Build the networks, then measure each figure in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=["run", "memory"])
    parser.add_argument("--graph", type=Path)
    options = parser.parse_args()
    if options.task == "run":
        print(f"{run_once(options.graph):.2f}")
        return
    if options.task == "memory":
        print(f"{peak_memory(options.graph):.0f}")
        return
    import networks

    import qkf_deploy as qd
    from qkf_deploy import bundle

    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        bundle.save_graph(qd.quantize(qd.trace(_DIGITS), 8), place / "digits.qkf")
        bundle.save_graph(networks.make(384, float_models=False).graph, place / "384.qkf")
        bundle.save_graph(networks.make(768, size=384, float_models=False).graph, place / "768.qkf")
        _child("run", place / "digits.qkf")
        print("warm start, digits, s:", _child("run", place / "digits.qkf"))
        print("cold start, HST-10-384, s:", _child("run", place / "384.qkf", str(place / "cache")))
        print("warm start, HST-10-384, s:", _child("run", place / "384.qkf", str(place / "cache")))
        print("peak memory of a run, HST-10-768 at 384 x 384, MiB:", _child("memory", place / "768.qkf"))


if __name__ == "__main__":
    main()
