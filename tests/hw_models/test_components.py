"""The shipped table of component energies: every row names its call, and the calls give it again."""

from __future__ import annotations

import csv
import os
import subprocess
from decimal import Decimal
from importlib import resources
from pathlib import Path

import pytest

from qkf_deploy.hw_models.architecture.ranges import Range
from qkf_deploy.hw_models.architecture.reading import load_chip

SCRIPT = Path(__file__).parents[2] / "tools" / "component_energies.py"
PYTHON = os.environ.get("QKF_HWCOMPONENTS_PYTHON", "")


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()[1:]))


@pytest.fixture(scope="module")
def shipped() -> str:
    return (resources.files("qkf_deploy.hw_models") / "components.csv").read_text()


def test_every_row_names_its_call(shipped: str) -> None:
    assert shipped.startswith("# tools/component_energies.py with hwcomponents ")
    rows = table(shipped)
    for row in rows:
        assert f"tech_node={row['node_nm']}e-9" in row["call"]
        assert f"width={row['bits']}" in row["call"]
        assert f".{row['action']}(" in row["call"]
        assert float(row["energy_pj"]) > 0
    keys = [(r["component"], r["node_nm"], r["bits"], r["bytes"], r["action"]) for r in rows]
    assert len(set(keys)) == len(keys)


def test_larger_memories_and_older_nodes_cost_more(shipped: str) -> None:
    reads = {
        (int(r["node_nm"]), int(r["bytes"])): float(r["energy_pj"])
        for r in table(shipped)
        if (r["component"], r["action"]) == ("sram", "read")
    }
    for node in (45, 28, 22):
        by_size = [pj for (n, _), pj in sorted(reads.items()) if n == node]
        assert len(by_size) == 8
        assert by_size == sorted(by_size)
    for (node, size), pj in reads.items():
        assert node == 45 or pj < reads[45, size]


@pytest.mark.parametrize("name", ["generic-digital", "generic-large", "fpga-array"])
def test_prices_of_chip_files_are_the_library_s(shipped: str, name: str) -> None:
    """Nominal at 28 nm, low and high the same part at 22 and 45 nm; the sums' memory has sources of its own."""
    found = {
        (r["component"], r["action"], r["bits"], r["bytes"], r["node_nm"]): Decimal(r["energy_pj"])
        for r in table(shipped)
    }

    def library(*part: str) -> Range:
        return Range(*(found[(*part, node)] for node in ("22", "28", "45")))

    chip = load_chip(name)
    (core,) = chip.cores
    compared = set()
    for buffer in (*core.buffers, *chip.buffers):
        if buffer.name != "sums":
            size = str(min(buffer.bytes or 0, 2**20))  # larger ones are banks of 1 MiB
            assert buffer.read_pj == library("sram", "read", "64", size)
            assert buffer.write_pj == library("sram", "write", "64", size)
            compared.add(buffer.name)
    assert len(compared) >= 2
    assert core.operations["accumulate"].pj == library("adder", "add", "32", "")
    assert core.operations["compare"].pj == library("comparator", "compare", "32", "")


@pytest.mark.skipif(not PYTHON, reason="QKF_HWCOMPONENTS_PYTHON names no Python 3.12 with hwcomponents-library")
def test_the_calls_give_the_table(shipped: str, tmp_path: Path) -> None:
    made = tmp_path / "components.csv"
    done = subprocess.run([PYTHON, str(SCRIPT), str(made)], capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert table(made.read_text()) == table(shipped)
