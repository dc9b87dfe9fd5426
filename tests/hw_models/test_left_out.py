"""What is not in an energy is said with its amount: by chip and kind of work, and in every variant of a chip."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from netbuild import random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.display.numbers import si
from qkf_deploy.hw_models.activity import Activity
from qkf_deploy.hw_models.architecture.chip import OPERATIONS, Chip
from qkf_deploy.hw_models.timing.use import NetworkUse
from qkf_deploy.ir import Graph
from qkf_deploy.report.hardware_table import render_hardware, sweep_sheet

PIXELS = random_pixels(2, (3, 9, 7), 3)[2:]


@pytest.fixture(scope="module")
def case() -> tuple[Graph, Activity]:
    graph = qd.quantize(small_transformer(2))
    return graph, qd.measure_activity(graph, PIXELS, engine="reference")


def unpriced(chip: Chip, operation: str) -> Chip:
    cores = tuple(
        replace(c, operations={n: replace(o, pj=None if n == operation else o.pj) for n, o in c.operations.items()})
        for c in chip.cores
    )
    return replace(chip, cores=cores)


@pytest.mark.parametrize("name", ["fpga-array", "generic-digital", "loihi1", "loihi2"])
def test_every_operation_without_a_price_is_counted(case: tuple[Graph, Activity], name: str) -> None:
    chip = qd.load_chip(name)
    for operation in OPERATIONS:
        found = qd.hardware(*case, unpriced(chip, operation))
        done = sum(u.choice.best.work.operations().get(operation, 0) for u in found.units)
        assert found.unpriced_counts.get(f"compute: {operation}", 0) == done
        text = render_hardware(found, None, "table")
        for what, count in found.unpriced_counts.items():
            assert f"{what} ({si(Fraction(count, 1))})" in text
        line = next((line for line in text.splitlines() if line.startswith("not in the energy:")), "")
        assert ("work without a price" in line) == bool(found.unpriced_counts)
        record = json.loads(render_hardware(found, None, "json"))
        assert record["unpriced_counts"] == {k: v for k, v in found.unpriced_counts.items()}
        assert record["not_in_the_energy"] == list(found.excluded)


def test_loihi_1_says_what_its_file_does_not_know(case: tuple[Graph, Activity]) -> None:
    """ANDs of gates, comparisons, ANDs and ORs made of neurons, pixels, static power, messages."""
    found = qd.hardware(*case, "loihi1")
    gates = case[1].nodes["qk_mask"].total("gate_ands")
    assert found.unpriced_counts["compute: and"] == gates > 0
    assert found.unpriced_counts["compute: multiply"] >= case[1].nodes["embed_conv"].total("mac") > 0
    assert [how.partition(":")[0] for how in found.stand_ins] == ["ssa_kv"]  # the OR's unit has a drive behind it
    assert found.excluded == (
        "2 units without a place",
        "the network between cores",
        "neurons that stand for other operations",
        "work without a price",
        "static power of neuro cores, synapses, compartments",
    )
    text = render_hardware(found, None, "table")
    assert f"not in the energy: {'; '.join(found.excluded)}" in text
    assert "AND neurons and their sums" in text


def test_nothing_is_left_out_where_all_is_known(case: tuple[Graph, Activity]) -> None:
    found = qd.hardware(*case, "fpga-array")
    assert found.excluded == ()
    assert "not in the energy" not in render_hardware(found, None, "table")
    assert qd.hardware(*case, "generic-digital").excluded == ("the network between cores",)


def test_variants_have_the_network_that_the_chip_has(case: tuple[Graph, Activity]) -> None:
    """Dataflows change no message; more cores lie on more rows of the mesh."""
    graph, activity = case
    chip = qd.load_chip("generic-digital")
    meshes = []

    def follow(variant: Chip) -> NetworkUse | None:
        assert variant.network is not None
        meshes.append((variant.cores_per_chip, variant.network.columns, variant.network.rows))
        small = variant.cores_per_chip < chip.cores_per_chip / 2
        return None if small else qd.measure_network_use(graph, PIXELS, variant, engine="reference")

    found = qd.explore_hardware(graph, activity, chip, ("dataflow", "cores"), follow=follow)
    assert [m[0] for m in meshes] == [16, 32, 64, 128, 256]
    assert all(cores <= columns * rows < cores + columns for cores, columns, rows in meshes)
    assert len(found) == len(meshes) * 3
    mine = qd.hardware(graph, activity, chip, use=follow(chip))
    same = next(v.found for v in found if v.dataflow == "best" and v.cores == 1)
    assert same is not None
    assert (same.pj, same.ns, same.period_ns, same.edp) == (mine.pj, mine.ns, mine.period_ns, mine.edp)
    for variant in found:
        if variant.found is None:
            continue
        assert ("network" in variant.found.components) == (variant.cores > Fraction(1, 4))
        if variant.cores == 1:
            assert variant.found.components["network"] == mine.components["network"]
    rows = sweep_sheet(found).records()
    said = {row["dataflow"] + f" {v.cores}": row["excluded"] for row, v in zip(rows, found, strict=True)}
    assert said["best 1/4"] == "the network between cores"
    assert said["best 1"] == ""
    assert rows[2]["images_per_s"] == pytest.approx(float(10**9 / mine.period_ns))
