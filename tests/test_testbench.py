"""examples/testbench: written from the text alone, it computes every value and membrane of the digits network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qkf_deploy as qd
from qkf_deploy.datasets.digits import Digits
from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.ops.exact import signed_bits

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "examples" / "testbench" / "testbench.py"
NODE = "patch_embed1.proj_conv"


@pytest.fixture(scope="module")
def folder(digits_int8: Graph, digits_data: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Network, three images (digits, noise, white), golden values of the reference engine, memory files."""
    folder = tmp_path_factory.mktemp("bench")
    first = digits_data.test_images[:1]
    noise = np.random.default_rng(0).integers(0, 256, first.shape, dtype=np.uint8)
    images = np.concatenate([first, noise, np.full_like(first, 255)])
    np.savez(folder / "images.npz", images=images)
    qd.save(digits_int8, folder / "net.int.qkf")
    run = qd.simulate(digits_int8, images, engine="reference", record="all", membranes="all")
    qd.save_arrays(run, folder / "golden.npz")
    qd.export_memory(digits_int8, folder / "memories")
    return folder


def bench(folder: Path, *memories: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(BENCH), "net.int.qkf", "images.npz", "golden.npz", *memories]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_it_imports_nothing_of_the_package() -> None:
    assert set(re.findall(r"^(?:import|from) (\w+)", BENCH.read_text(), re.MULTILINE)) == {"json", "sys", "numpy"}


@pytest.mark.parametrize("memories", [(), ("memories",)])
def test_every_value_and_membrane(folder: Path, memories: tuple[str, ...]) -> None:
    done = bench(folder, *memories)
    assert done.returncode == 0, done.stdout + done.stderr
    recordings, compared = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:recordings|values)", done.stdout))
    assert recordings > 100
    assert compared > 3_000_000


def test_it_can_fail(folder: Path) -> None:
    """One bit of one weight."""
    entry = next(e for e in json.loads((folder / "memories" / "manifest.json").read_text())["files"]
                 if e["node"] == NODE and e["parameter"] == "weight")  # fmt: skip
    path = folder / "memories" / entry["file"]
    before = path.read_text()
    lines = before.splitlines()
    path.write_text("\n".join([f"{int(lines[0], 16) ^ 1:02x}", *lines[1:]]))
    try:
        done = bench(folder, "memories")
    finally:
        path.write_text(before)
    assert done.returncode == 1
    assert f"{NODE}: " in done.stdout


def test_the_example_in_numbers(digits_int8: Graph, folder: Path) -> None:
    """The numbers that the page gives are those of the network."""
    text = (ROOT / "docs" / "integer-semantics.md").read_text()
    weight, bias = digits_int8[NODE].params["weight"][0, 0], digits_int8[NODE].params["bias"]
    said = text.replace("−", "-").replace("\n", " ")
    assert str(weight.tolist()) in said
    assert f"`bias[0, 0, 2]` is {bias[0, 0, 2]}" in said
    golden = np.load(folder / "golden.npz")
    charged = golden["patch_embed1.proj_lif/membrane"][:, 0, 0, 0, 5]
    spikes = golden["patch_embed1.proj_lif"][:, 0, 0, 0, 5]
    shown = re.findall(r"U\[\d\] = (?:[^\n]*= )?(\d+) +[<≥]", text)
    assert [int(n) for n in shown] == charged.tolist()
    assert [int(n) for n in re.findall(r"S = (\d)", text)][:4] == spikes.astype(int).tolist()
    assert f"X = 11102 + 31 · 191 - 15 · 191 = {golden[NODE][0, 0, 0, 0, 5]}" in said
    assert f"Θ = {int(digits_int8['patch_embed1.proj_lif'].params['theta'].reshape(-1)[0])}," in said


def test_widths_of_memory_files() -> None:
    assert [signed_bits(v, v) for v in (0, 1, -1, 127, -128, 128, -129)] == [1, 2, 1, 8, 8, 9, 9]


def test_float_networks_have_no_memories(tmp_path: Path) -> None:
    from netbuild import small_transformer

    with pytest.raises(UsageError, match="integers"):
        qd.export_memory(small_transformer(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
