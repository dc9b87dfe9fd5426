"""Dataflows by hand on three layers, and what holds for every one of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from netbuild import Net, random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.hw_models.activity import Activity, measure_activity
from qkf_deploy.hw_models.architecture.chip import DATAFLOWS, Buffer, Chip, Core, Operation
from qkf_deploy.hw_models.architecture.ranges import Range
from qkf_deploy.hw_models.architecture.reading import load_chip
from qkf_deploy.hw_models.dataflow.execution import Execution
from qkf_deploy.hw_models.dataflow.network import execute, layers, setting
from qkf_deploy.hw_models.dataflow.plan import Plan, fits_core, plans
from qkf_deploy.hw_models.dataflow.pricing import total, unit_ns, unit_parts
from qkf_deploy.hw_models.work import Accesses, Place, UnitWork
from qkf_deploy.ir import Graph
from qkf_deploy.simulators.inputs import encode

ALL = tuple(DATAFLOWS)


def buffer(name: str, holds: set[str], size: int | None, word: int, price: str) -> Buffer:
    return Buffer(name, frozenset(holds), size, word, Range.of(price), Range.of(price), None, Decimal(word), "by hand")


def small_chip() -> Chip:
    prices = {"accumulate": "1", "and": "0.125", "multiply": "3", "neuron": "2", "neuron_fire": "5"}
    core = Core(
        "c", 1, frozenset(), True, 100, 8, 32, "by hand",
        {name: Operation(Range.of(pj), 4, None, "by hand") for name, pj in prices.items()},
        (
            buffer("W", {"weights"}, 64, 8, "10"), buffer("S", {"state"}, 4096, 16, "20"),
            buffer("P", {"partial-sums"}, 4096, 16, "0.5"), buffer("E", {"events"}, 64, 8, "4"),
        ),
        dataflows=ALL,
    )  # fmt: skip
    dram = buffer("DRAM", {"weights", "events"}, None, 64, "1000")
    return Chip("c", "c", "c", "", "28", "layer-by-layer", (core,), dram=dram, clock_mhz=Decimal(1000))


def three_layers() -> tuple[Graph, Activity]:
    """1 x 4 x 2 pixels -> 2 channels -> 3 x 3 convolution to 4 channels -> 1 x 1 convolution to 2; two time steps.

    The spikes are written down, not simulated: one event in the corner (channel 0) at both steps, one in the opposite
    corner (channel 1) at the second; two events of the second layer at the second step.
    """
    net = Net(0, (1, 4, 2))
    a = net.lif("a", net.conv("conv_a", "input", 2, kernel=1, bias=False))
    b = net.lif("b", net.conv("conv_b", a, 4, bias=False))
    net.head(net.lif("c", net.conv("conv_c", b, 2, kernel=1, bias=False)), time_steps=2)
    graph = qd.quantize(net.build(2), 8)
    values = {n.name: np.zeros((1 if n.type.timing.value != "step" else 2, 1, *n.type.shape), int) for n in graph}
    values["a"][:, 0, 0, 0, 0] = 1
    values["a"][1, 0, 1, 3, 1] = 1
    values["b"][1, 0, :2, 2, 0] = 1
    return graph, measure_activity(graph, values)


def worked(unit: str, plan: Plan) -> tuple[UnitWork, int]:
    """Work of a unit, and bits of one of its membranes."""
    graph, activity = three_layers()
    chip = small_chip()
    found = layers(graph, activity)
    layer = next(x for x in found if x.unit.name == unit)
    run = Execution(setting(graph, activity, chip, found), layer, chip.cores[0], 1)
    return run.work(plan), layer.unit.state_bits


#: Reads of W, writes of W, reads of DRAM; read-modify-writes of sums and where; additions; ANDs.
BY_HAND = {
    # 4 pairs of event and tap, then 8; 2 groups, each a row of 2 weights
    "event-scatter": (12 * 2 * 2, 12 * 2 * 2, 12 * 2 * 2 * 8 // 64, 12 * 2 * 2, "S", 48, 0),
    # channel 0 is active in the first band, then channels 0 and 1 in a band each: 9 taps of 4 weights;
    # sums: 32 of 11 bits are 22 words, cleared and taken out at each step
    "output-stationary": (3 * 9 * 4, 18 * 4, 9, 12 * 2 * 2 + 44, "P", 48, 3 * 9 * 4 * 4),
    "output-stationary-t": (2 * 9 * 4, 18 * 4, 9, 12 * 2 * 2 + 44, "P", 48, 2 * 2 * 9 * 4 * 4),
    "weight-stationary": (2 * 9 * 4, 18 * 4, 9, 12 * 2 * 2 + 44, "S", 48, 0),
    # 10 x 4 taps exist, 2 x 4 channels; both bands read all weights
    "dense": (2 * 2 * 9 * 4, 18 * 4, 9, 2 * 80 * 2 * 2 + 44, "P", 640, 0),
}


@pytest.mark.parametrize("dataflow", ALL)
def test_the_middle_layer_by_hand(dataflow: str) -> None:
    bands = 1 if dataflow == "weight-stationary" else 2
    work, state_bits = worked("b", Plan(dataflow, bands, 2))
    reads, writes, dram, sums, where, additions, ands = BY_HAND[dataflow]
    membranes = 2 * 2 * state_bits  # 32 of them in words of 16 bits, two steps
    beside = "S" if dataflow in ("event-scatter", "output-stationary") else "P"
    operand = {"S": "state", "P": "partial-sums"}
    touched: Counter[str] = Counter()
    touched[where] += sums
    touched[beside] += membranes
    window = {1: 16, 2: 24}[bands] // 8  # bits of spikes under two bands of three rows, or under one of four
    assert work.accesses() == {
        Place("W", "weights"): Accesses(reads, writes),
        Place("DRAM", "weights"): Accesses(dram, 0),
        Place("E", "events"): Accesses(2 * 2 * window, 2 * 32 // 8),
        **{Place(name, operand[name]): Accesses(n, n) for name, n in touched.items()},
    }
    expected = {"accumulate": additions, "neuron": 64, "neuron_fire": 2} | ({"and": ands} if ands else {})
    assert work.operations() == expected
    pj = (
        Decimal(additions) + Decimal("0.125") * ands + 2 * 64 + 5 * 2 + 10 * (reads + writes) + 1000 * dram
        + 4 * (4 * window + 8) + 2 * (20 * touched["S"] + Decimal("0.5") * touched["P"])
    )  # fmt: skip
    parts = unit_parts(work, small_chip())
    assert total(tuple(p.pj for p in parts if p.pj)).nominal == pj


def test_the_first_and_the_last_layer_by_hand() -> None:
    first, state_bits = worked("a", Plan())
    assert first.operations() == {"multiply": 16, "accumulate": 16, "neuron": 32, "neuron_fire": 3}  # a bias
    assert first.accesses()[Place("DRAM", "events")] == Accesses(1, 0)  # 8 pixels of 8 bits, once
    assert first.accesses()[Place("E", "events")] == Accesses(8, 8 + 2 * 2)
    drive = -(-16 * state_bits // 16)  # written once, read at both steps, beside 16 membranes
    assert first.accesses()[Place("S", "state")] == Accesses(2 * drive + 2 * drive, drive + 2 * drive)
    last, _ = worked("c", Plan("event-scatter"))
    assert last.operations() == {"accumulate": 4, "neuron": 32}
    assert last.accesses()[Place("W", "weights")] == Accesses(2 * 2, 2 * 2)


def test_time_of_the_middle_layer_by_hand() -> None:
    """Dense: 320 additions on 4 lanes are 80 ns a step; every word of sums takes a nanosecond each way."""
    work, state_bits = worked("b", Plan("dense", 2, 2))
    sums = 2 * (80 * 2 * 2 + 22 + 2 * state_bits)
    assert unit_ns(work, small_chip()) == (2 * sums, ())


def measured(seed: int) -> tuple[Graph, Activity]:
    graph, pixels = qd.quantize(small_transformer(seed)), random_pixels(seed, (3, 9, 7), 3)
    run = qd.simulate(graph, pixels, engine="reference", record="all")
    return graph, measure_activity(graph, {**run.values, graph.input.name: encode(graph, pixels)[0]})


def all_work(graph: Graph, activity: Activity, chip: Chip) -> list[UnitWork]:
    """Every unit under every plan that fits."""
    found = layers(graph, activity)
    common, core = setting(graph, activity, chip, found), chip.cores[0]
    return [
        Execution(common, layer, core, core.count).work(plan)
        for layer in found
        for plan in plans(layer, core, core.count, activity.time_steps)
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_read_was_written_and_less_moves_further_out(seed: int) -> None:
    graph, activity = measured(seed)
    chip = load_chip("fpga-array")
    (core,) = chip.cores
    tiny = tuple(replace(b, bytes=64) if b.name == "weights" else b for b in core.buffers)
    chip = replace(chip, cores=(replace(core, buffers=tiny),))
    outermost = {"weights": "shared", "events": "DRAM"}  # the weights of this network fit there
    order = {name: i for i, name in enumerate(("weights", "state", "sums", "events", "shared", "DRAM"))}
    flows = set()
    for work in all_work(graph, activity, chip):
        flows.add(work.dataflow)
        moved: dict[str, list[tuple[int, int]]] = {}
        for place, words in work.accesses().items():
            if place.buffer != outermost.get(place.operand):
                assert words.writes > 0, (work.unit, place)
            moved.setdefault(place.operand, []).append((order[place.buffer], words.reads + words.writes))
        for levels in moved.values():
            sizes = [words for _, words in sorted(levels)]
            assert sizes == sorted(sizes, reverse=True), (work.unit, work.dataflow, moved)
    assert flows == {"", *ALL}


def test_weights_are_read_once_for_all_steps() -> None:
    """One step after the other reads every active row again; over all steps no row is read twice for a tile."""
    graph, activity = measured(1)
    chip = load_chip("fpga-array")
    place = Place("weights", "weights")
    reads = {
        (w.unit, w.dataflow, w.bands, w.groups): [s.accesses.get(place, Accesses()).reads for s in w.steps]
        for w in all_work(graph, activity, chip)
        if w.dataflow.startswith("output-stationary")
    }  # fmt: skip
    compared = 0
    for (unit, dataflow, *cut), steps in reads.items():
        other = reads.get((unit, "output-stationary", *cut))
        if dataflow == "output-stationary-t" and other is not None:
            assert steps[1:] == [0, 0, 0]
            assert max(other) <= steps[0] <= sum(other)
            compared += 1
    assert compared > 10


def test_a_gate_spares_the_projection_of_what_it_stops() -> None:
    graph, activity = measured(1)
    found = {w.dataflow: w for w in all_work(graph, activity, load_chip("fpga-array")) if w.unit == "qk_k_lif"}
    bias = activity.nodes["qk_k_conv"].total("bias_adds")
    live, every = (activity.nodes["qk_k_conv"].total(c) for c in ("ac_graded_live", "ac_graded"))
    done = {name: w.operations()["accumulate"] + w.operations()["multiply"] - bias for name, w in found.items()}
    assert done["output-stationary-t"] == live < every == done["output-stationary"] == done["weight-stationary"]


def test_counts_are_repeated_or_multiplied() -> None:
    graph, activity = measured(1)
    scatter = [w for w in all_work(graph, activity, load_chip("fpga-array")) if w.dataflow == "event-scatter"]
    node = activity.nodes["qk_q_conv"]
    bias = node.total("bias_adds")
    for work in (w for w in scatter if w.unit == "qk_q_lif"):
        done = work.operations()
        if work.repeated:
            assert done["accumulate"] - bias == node.total("ac_unary")
            assert "multiply" not in done
        else:
            assert done["multiply"] == node.total("ac_graded_above_one") > 0
            assert done["accumulate"] - bias == node.total("ac_graded") - done["multiply"]
    assert {w.repeated for w in scatter if w.unit == "qk_q_lif"} == {True, False}


def test_products_are_bit_rows_where_a_core_can() -> None:
    """K and V are spikes: 2 heads x 4 x 6 x 4 ANDs a step; Q times the counts is done pair by pair."""
    graph, activity = measured(1)
    found = {w.unit: w.operations() for w in all_work(graph, activity, load_chip("fpga-array"))}
    assert found["ssa_kv"] == {"and": 2 * 4 * 6 * 4 * 4 * 3}
    assert found["ssa_q"] == {"accumulate": activity.nodes["ssa_q"].total("coincidences")}


@pytest.mark.parametrize("goal", ["energy", "delay", "product"])
def test_the_best_is_chosen(goal: str) -> None:
    graph, activity = measured(0)
    chip = load_chip("fpga-array")
    for choice in execute(graph, activity, chip, goal=goal):  # type: ignore[arg-type]
        costs = {name: c.cost(goal) for name, c in choice.by_dataflow.items()}  # type: ignore[arg-type]
        assert choice.best.cost(goal) == min(costs.values())  # type: ignore[arg-type]
        parts = unit_parts(choice.best.work, chip)
        priced = [p.pj for p in parts if p.pj is not None]
        assert len(priced) == len(parts)
        assert Decimal(0) < total(tuple(priced)).low < total(tuple(priced)).high


def test_tiles_fit_and_one_channel_more_does_not() -> None:
    graph, activity = measured(0)
    (core,), steps = load_chip("fpga-array").cores, activity.time_steps
    tight = Core(**{**vars(core), "buffers": tuple(Buffer(**{**vars(b), "bytes": 64}) for b in core.buffers)})
    for layer in layers(graph, activity):
        for plan in plans(layer, tight, 1, steps):
            if layer.synapses:
                assert fits_core(layer, tight, plan, steps)
                fewer = Plan(plan.dataflow, plan.bands, plan.groups - 1)
                assert plan.groups == 1 or not fits_core(layer, tight, fewer, steps), (layer.unit.name, plan)
