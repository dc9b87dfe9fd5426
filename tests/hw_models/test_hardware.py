"""A network on a chip: components add up, ranges carry through, the twin and what is varied."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from netbuild import random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.cli import run as command
from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.activity import Activity
from qkf_deploy.hw_models.architecture.chip import DATAFLOWS, Chip
from qkf_deploy.hw_models.hardware import Hardware
from qkf_deploy.hw_models.timing.use import NetworkUse
from qkf_deploy.ir import Graph
from qkf_deploy.report.hardware_table import render_hardware, sweep_sheet
from qkf_deploy.report.hardware_view import read_view, views_sheet

CHIPS = ("fpga-array", "generic-digital")


@pytest.fixture(scope="module")
def case() -> tuple[Graph, Activity]:
    graph = qd.quantize(small_transformer(2))
    return graph, qd.measure_activity(graph, random_pixels(2, (3, 9, 7), 2), engine="reference")


@pytest.fixture(scope="module")
def use(case: tuple[Graph, Activity]) -> NetworkUse:
    return qd.measure_network_use(case[0], random_pixels(2, (3, 9, 7), 2), "generic-digital", engine="reference")


@pytest.mark.parametrize("name", CHIPS)
def test_components_add_up_to_the_last_digit(case: tuple[Graph, Activity], use: NetworkUse, name: str) -> None:
    found = qd.hardware(*case, name, use=use if name == "generic-digital" else None)
    assert found.unpriced == found.untimed == ()
    assert found.static is not None
    for bound in ("low", "nominal", "high"):
        parts = [p.pj.at(bound) for p in found.parts if p.pj is not None]  # type: ignore[arg-type]
        assert sum(parts, Decimal(0)) + found.static.at(bound) == found.pj.at(bound)  # type: ignore[arg-type]
        assert sum((c.at(bound) for c in found.components.values()), Decimal(0)) == found.pj.at(bound)  # type: ignore[arg-type]
    assert found.pj.low < found.pj.nominal < found.pj.high
    powers = {  # mW of the chip, and the leakage of what lies in every core and beside them
        "fpga-array": "500" + " 0.00564164" * 32 + " 0.000916626" * 16 + " 0.3212116",
        "generic-digital": "64" + " 0.0205431" * 64 + " 0.000916626" * 64,
    }
    power = sum(map(Fraction, powers[name].split()), Fraction(0))
    assert abs(Fraction(found.static.nominal) - power * found.ns) < 1
    assert abs(sum(found.waits_ns.values()) - found.ns) < 1
    assert ("network" in found.components) == (name == "generic-digital")


def test_messages_are_those_of_both_images(case: tuple[Graph, Activity], use: NetworkUse) -> None:
    """A neuron's events are sent once where cores share the message; images add up, and follow each other faster."""
    graph, pixels = case[0], random_pixels(2, (3, 9, 7), 2)
    each = [qd.measure_network_use(graph, pixels[i : i + 1], "generic-digital", engine="reference") for i in (0, 1)]
    assert each[0] + each[1] == use
    assert use.images == 2
    assert use.messages["receive", "digital"] >= use.messages["send", "digital"] > 0
    assert use.period_ns < use.latency_ns
    network = {p.what: p for p in qd.hardware(*case, "generic-digital", use=use).network}
    assert network["hops east_west"].pj is not None
    assert network["hops east_west"].pj.nominal == Decimal("0.05") * 32 * use.hops["east_west"]


def test_what_has_no_place_is_named_and_left_out(case: tuple[Graph, Activity]) -> None:
    found = qd.hardware(*case, "loihi1")
    assert {"pool_lif", "ssa_q"} <= set(found.left_out)
    assert not {u.name for u in found.units} & set(found.left_out)
    assert found.left_out["ssa_q"] == "not supported: matmul (of counts: no AND)"
    assert "ssa_kv" not in found.left_out  # a product of spikes: ANDs and their sum
    assert "compute: multiply" in found.unpriced  # pixels that are numbers
    chip = qd.load_chip("fpga-array")
    (core,) = chip.cores
    chip = replace(chip, cores=(replace(core, supports=core.supports - {"matmul"}),))
    assert qd.hardware(*case, chip).left_out == {n: "not supported: matmul" for n in ("ssa_kv", "ssa_q")}
    text = render_hardware(found, qd.dense_twin(*case, found), "table")
    assert "not on this chip" in text
    assert "no verdict about the dense twin: no price for its compute: multiply" in text


def test_time_is_no_less_than_compute_and_dram(case: tuple[Graph, Activity]) -> None:
    found = qd.hardware(*case, "fpga-array")
    chip = found.chip
    (core,) = chip.cores
    for unit in found.units:
        done = unit.choice.best.work.operations()
        compute = Fraction(0)
        for name, items in done.items():
            operation = core.operations[name]
            compute += Fraction(items, (operation.lanes or 1) * core.count) * (5 if operation.ns is None else 0)
        assert unit.ns >= compute
        moved = unit.choice.best.work.accesses()
        for place, words in moved.items():
            if place.buffer == "DRAM":
                assert unit.ns >= (words.reads + words.writes) * 64 / Fraction("153.6")


def without(chip: Chip, operation: str) -> Chip:
    (core,) = chip.cores
    return replace(
        chip, cores=(replace(core, operations={n: o for n, o in core.operations.items() if n != operation}),)
    )


def test_what_has_no_price_is_named(case: tuple[Graph, Activity]) -> None:
    chip = without(qd.load_chip("fpga-array"), "compare")
    whole, found = qd.hardware(*case, "fpga-array"), qd.hardware(*case, chip)
    assert (found.unpriced, found.untimed) == (("compute: compare",), ("compare",))
    assert found.components["compute"].nominal < whole.components["compute"].nominal


def test_goals_are_met(case: tuple[Graph, Activity]) -> None:
    by_goal = {goal: qd.hardware(*case, "fpga-array", goal) for goal in ("energy", "delay", "product")}

    def dynamic(found: Hardware) -> Decimal:
        return sum((u.pj.nominal for u in found.units), Decimal(0))

    assert dynamic(by_goal["energy"]) == min(dynamic(f) for f in by_goal.values())
    assert by_goal["delay"].ns == min(f.ns for f in by_goal.values()) < by_goal["energy"].ns


def test_break_even_is_where_both_need_the_same(case: tuple[Graph, Activity]) -> None:
    found = qd.hardware(*case, "fpga-array")
    verdict = qd.dense_twin(*case, found)
    for bound in ("low", "nominal", "high"):
        rate = verdict.break_even[bound]  # type: ignore[index]
        quiet, now, twin = (Fraction(x.pj.at(bound)) for x in (verdict.silent, found, verdict.twin))  # type: ignore[arg-type]
        assert rate is not None
        assert quiet + rate * (now - quiet) == twin
        assert quiet < now
        assert verdict.wins[bound] == (rate > 1)  # type: ignore[index]


@pytest.mark.parametrize("name", CHIPS)
def test_the_twin_computes_once(case: tuple[Graph, Activity], name: str) -> None:
    graph, activity = case
    verdict = qd.dense_twin(graph, activity, qd.hardware(graph, activity, name))
    assert verdict.twin.unpriced == ()
    twin = {u.name: u.choice.best.work for u in verdict.twin.units}
    assert {w.dataflow for w in twin.values()} <= {"", "dense"}
    assert all(len(w.steps) == 1 for w in twin.values())
    dense = sum(s.dense for s in next(u.choice.layer for u in verdict.twin.units if u.name == "qk_q_lif").synapses)
    assert twin["qk_q_lif"].operations()["multiply"] == dense * activity.images == 8 * 8 * 6 * 2
    assert twin["ssa_kv"].operations() == {"accumulate": 2 * 4 * 6 * 4 * 2}
    silent = verdict.silent.units
    for unit in silent:
        done = unit.choice.best.work.operations()
        assert "multiply" not in done or unit.name in ("embed_lif", "head")


def test_exploring_varies_one_thing(case: tuple[Graph, Activity]) -> None:
    found = qd.explore_hardware(*case, "fpga-array", ("dataflow",))
    by_flow = {v.dataflow: v.found for v in found}
    assert set(by_flow) == {"best", *DATAFLOWS}
    best = by_flow["best"]
    assert best is not None
    for name, other in by_flow.items():
        assert other is not None
        flows = {u.choice.best.work.dataflow for u in other.units} - {""}
        assert name == "best" or flows == {name}
        assert sum(u.pj.nominal for u in best.units) <= sum(u.pj.nominal for u in other.units)
    cores = qd.explore_hardware(*case, "fpga-array", ("cores",))
    assert [v.found.cores for v in cores if v.found] == [4, 8, 16, 32, 64]
    with pytest.raises(UsageError, match="nothing to explore is called 'lanes'"):
        qd.explore_hardware(*case, "fpga-array", ("lanes",))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = qd.quantize(small_transformer(2))
    net, images, table = (str(tmp_path / name) for name in ("net.qkf", "images.npy", "sweep.csv"))
    qd.save(graph, net)
    np.save(images, random_pixels(2, (3, 9, 7), 2))
    assert command(["hardware", net, images, "--chip", "fpga-array", "--engine", "reference", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    found = qd.hardware(graph, qd.measure_activity(graph, np.load(images), engine="reference"), "fpga-array")
    assert sum(c["nominal_energy_pj"] for c in shown["components"]) == pytest.approx(float(found.pj.nominal) / 2)
    assert len(shown["units"]) == len(found.units)
    line = ["hardware", net, images, "--chip", "fpga-array", "--engine", "reference"]
    assert command([*line, "--explore", "buffers", "-o", table]) == 0
    rows = list(csv.DictReader(Path(table).read_text().splitlines()))
    assert [float(row["buffers"]) for row in rows] == [0.25, 0.5, 1, 2, 4]
    assert all(bool(row["problem"]) != bool(row["energy_pj"]) for row in rows)
    assert command([*line, "-o", f"{table}.csv"]) == 2
    assert command(line) == 0
    text = capsys.readouterr().out
    assert "break-even firing" in text
    assert "output-stationary-t" in text


def test_the_view_in_reports_and_comparisons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph, pixels = qd.quantize(small_transformer(2)), random_pixels(2, (3, 9, 7), 2)
    activity = qd.measure_activity(graph, pixels, engine="reference")
    found = qd.hardware(graph, activity, "fpga-array")
    shown, run, page = tmp_path / "mine.json", str(tmp_path / "run.sqlite"), tmp_path / "page.html"
    shown.write_text(render_hardware(found, qd.dense_twin(graph, activity, found), "json"))
    other = str(tmp_path / "other.sqlite")
    for place in (run, other):
        qd.save_run(graph, qd.simulate(graph, pixels, engine="reference"), place)
    view = read_view(shown)
    assert view.energy_pj is not None
    assert view.energy_pj[1] == pytest.approx(float(found.pj.nominal) / 2)
    parts = [view.part(name) for name in ("compute", "buffers", "DRAM", "static")]
    assert sum(pj for pj in parts if pj is not None) == pytest.approx(float(found.pj.nominal) / 2)
    assert view.part("network") is None  # the array has none, and no zero is said
    assert command(["report", run, "--hardware", str(shown), "-o", str(page)]) == 0
    assert '<section id="hardware">' in page.read_text()
    assert "fpga-array" in page.read_text()
    assert command(["compare", run, other, "--hardware", str(shown)]) == 0
    assert "On chips, one image" in capsys.readouterr().out
    assert command(["compare", run, other, "--hardware", str(shown), "--format", "json"]) == 2
    text = shown.read_text()
    for bad in (
        "",
        "[]",
        "[" * 100000,
        "{}",
        text.replace('"cores": 16', '"cores": NaN'),
        text.replace("hardware", "x"),
        text.replace('"images": 2', '"images": 0'),
        text.replace('"images": 2,', ""),
    ):
        assert bad != text
        shown.write_text(bad)
        assert command(["compare", run, other, "--hardware", str(shown)]) == 3
        assert "no result of the hardware model" in capsys.readouterr().err
        assert command(["report", run, "--hardware", str(shown), "-o", str(page), "--force"]) == 3
        assert "no result of the hardware model" in capsys.readouterr().err


def test_what_has_no_place_or_price_is_empty_in_the_view(tmp_path: Path) -> None:
    graph, pixels = qd.quantize(small_transformer(2)), random_pixels(2, (3, 9, 7), 2)
    activity = qd.measure_activity(graph, pixels, engine="reference")
    for chip in ("loihi1", "speck"):
        path = tmp_path / f"{chip}.json"
        path.write_text(render_hardware(qd.hardware(graph, activity, chip), None, "json"))
    loihi, speck = (read_view(tmp_path / f"{chip}.json") for chip in ("loihi1", "speck"))
    assert (speck.energy_pj, speck.latency_ns, speck.edp_js, speck.part("compute"), speck.part("buffers")) == (
        None,
    ) * 5
    assert speck.left_out[0].endswith("units without a place")
    assert loihi.energy_pj is not None
    assert loihi.part("compute") == loihi.energy_pj[1] > 0
    assert loihi.part("static") is loihi.part("DRAM") is None
    text = render_hardware(qd.hardware(graph, activity, "speck"), None, "table")
    assert "one image: no energy known, no time known; 0 cores" in text
    assert " 0 " not in text.split("one image:")[0]
    (alone,) = sweep_sheet(qd.explore_hardware(graph, activity, "speck", [])).records()
    assert [alone[key] for key in ("energy_pj", "latency_ns", "images_per_s", "edp_pj_ns")] == [None] * 4
    rows = views_sheet([loihi, speck]).for_people()
    assert rows[1][2:] == ("0", *[""] * 12, "; ".join(speck.left_out))
    assert rows[0][-1] == "; ".join(loihi.left_out) != ""
