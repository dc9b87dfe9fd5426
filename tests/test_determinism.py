"""The same inputs give the same bytes: over hash seeds, processes, shards and engines. No file has a time in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from netbuild import random_pixels

import qkf_deploy as qd

#: What a user does with a checkpoint, in a folder of its own; prints nothing.
WORK = """
import sys
from qkf_deploy.cli import run
commands = '''
trace CHECKPOINT -o net.qkf
quantize net.qkf --bits 8 -o int.qkf
simulate int.qkf data.npz -o simulated.sqlite
evaluate net.qkf data.npz -o sweep.sqlite --steps 2,4 --bits 4 --engine reference
evaluate int.qkf data.npz -o run.sqlite EXTRA
report run.sqlite -o report.html
report sweep.sqlite -o sweep.html
export int.qkf --to onnx -o int.onnx
export int.qkf --to nir --annotated -o int.nir
'''
texts = '''
evaluate --resume run.sqlite --format json
evaluate --resume run.sqlite --format csv
evaluate --resume sweep.sqlite --format json
energy run.sqlite --format json
compare run.sqlite simulated.sqlite --format json
widths int.qkf --format json
'''
sys.argv = ["qkf-deploy"]
for line in (commands + texts).replace("EXTRA", sys.stdin.readline()).replace("CHECKPOINT", CHECKPOINT).split("\\n"):
    if line and run(line.split()):
        raise SystemExit(line)
"""
#: Hash seed and what else must not matter.
WAYS = {"first": ("0", ""), "other": ("4242", "--engine reference --batch 2 --shard 4")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, digits_checkpoint: Path, digits_data) -> dict[str, Path]:
    """Folders with everything, and what was printed in ``texts``."""
    found = {}
    for name, (seed, extra) in WAYS.items():
        found[name] = folder = tmp_path_factory.mktemp(name)
        np.savez(folder / "data.npz", images=digits_data.test_images[:9], labels=digits_data.test_labels[:9])
        done = subprocess.run(
            [sys.executable, "-c", f"CHECKPOINT = {str(digits_checkpoint)!r}\n{WORK}"], cwd=folder, text=True,
            input=f"{extra}\n", capture_output=True, env={**os.environ, "PYTHONHASHSEED": seed}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (folder / "texts").write_text(done.stdout)
    return found


@pytest.mark.parametrize("name", ["net.qkf", "int.qkf", "report.html", "sweep.html", "int.onnx", "int.nir", "texts"])
def test_the_same_bytes(made: dict[str, Path], name: str) -> None:
    files = {way: (folder / name).read_bytes() for way, folder in made.items()}
    assert len(files["first"]) > 1000
    assert [way for way, data in files.items() if data != files["first"]] == []


def test_the_same_rows(made: dict[str, Path]) -> None:
    for name in ("run.sqlite", "simulated.sqlite"):
        runs = [qd.load_run(folder / name) for folder in made.values()]
        assert all(run.ledger == runs[0].ledger and run.top == runs[0].top for run in runs)


def test_order_of_images_moves_rows_and_changes_no_mean(digits_int8: qd.Graph) -> None:
    """Means, deviations and accuracy of a set of images do not depend on their order."""
    pixels, order = random_pixels(3, digits_int8.input.type.shape, 12), np.random.default_rng(0).permutation(12)
    found = [qd.price(qd.simulate(digits_int8, images).ledger, "exact-fp32") for images in (pixels, pixels[order])]
    assert (found[0].mean_energy_pj, found[0].sd_energy_pj) == (found[1].mean_energy_pj, found[1].sd_energy_pj)
