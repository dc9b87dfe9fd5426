"""The reference engine on another machine: the same values, membranes, logits and counts, by their hashes.

    python tools/other_machine.py net.int.qkf images.npz -o here.json       # here
    python tools/other_machine.py net.int.qkf images.npz --same here.json   # there, or under an emulator

Exits with 1 if a hash differs. `docs/install.md` says how an aarch64 Python runs under `qemu-aarch64`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from pathlib import Path

import numpy as np

import qkf_deploy as qd


def hashes(network: Path, images: Path) -> tuple[dict[str, str], int]:
    """SHA-256 of everything a run computes, and how many numbers that is."""
    with np.load(images) as held:
        run = qd.simulate(qd.load(network), held["images"], engine="reference", record="all", membranes="all")
    arrays = {f"value {name}": array for name, array in run.values.items()}
    arrays |= {f"membrane {name}": array for name, array in run.membranes.items()} | {"logits": run.logits}
    found = {name: _digest(array) for name, array in arrays.items()}
    counts = json.dumps(run.ledger.to_dict(), sort_keys=True, default=str)
    found["counts"] = hashlib.sha256(counts.encode()).hexdigest()
    return found, sum(array.size for array in arrays.values())


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(
        f"{array.dtype.name} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()
    ).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("network", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("-o", dest="output", type=Path)
    parser.add_argument("--same", type=Path)
    given = parser.parse_args()
    found, numbers = hashes(given.network, given.images)
    where = f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}"
    sys.stdout.write(f"{where}: {len(found)} hashes of {numbers:,} numbers\n")
    if given.output:
        given.output.write_text(json.dumps(found, indent=1))
    if not given.same:
        return 0
    wanted = json.loads(given.same.read_text())
    different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    sys.stdout.write(f"different: {len(different)} {different[:5]}\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
