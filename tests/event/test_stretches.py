"""Many time steps in stretches: every bit of the run of all steps at once, whatever engine, network and stretch."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_event_odd_neurons
from event_cases import Case, assert_equal, cases, self_attention
from hypothesis import HealthCheck, given, settings
from netbuild import Net, random_pixels, signed_network, small_transformer

import qkf_deploy as qd
from qkf_deploy import ops
from qkf_deploy.ir import Graph, GraphBuilder, Operand, View
from qkf_deploy.passes.widths import attach
from qkf_deploy.simulators import engines, event, reference, stretches
from qkf_deploy.simulators import torch as torch_engine
from qkf_deploy.simulators.carried import Carried
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record
from qkf_deploy.simulators.stretches import Stretches


def in_stretches(engine: str, graph: Graph, inputs: np.ndarray, steps: int, record: Record):
    run = {"reference": reference, "event": event, "torch": torch_engine}[engine].run

    def some(part: Graph, x: np.ndarray, kept: Record, carried: Carried):
        assert part.time_steps <= steps
        return run(part, x, kept, carried=carried)

    return Stretches(graph, steps).run(some, inputs, record)


def check(graph: Graph, inputs: np.ndarray, lengths: Sequence[int], engines: Sequence[str] = ()) -> None:
    """Everything seen, in every engine, equals the reference on all steps; float drives in the reference alone."""
    everything = Record.of(graph, "all", "all")
    wanted = reference.run(graph, inputs, everything)
    whole = graph.arithmetic == "integer"
    for engine in engines or (("reference", "event", "torch") if whole else ("reference",)):
        for steps in lengths:
            assert_equal(in_stretches(engine, graph, inputs, steps, everything), wanted)


@given(case=cases())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
def test_random_graphs(case: Case) -> None:
    check(case.graph, case.inputs, [1, 3])


@pytest.mark.parametrize("seed", range(12))
def test_neurons_of_all_kinds(seed: int) -> None:
    """Several spikes, rounding, late and soft resets, floors, initial membranes, decays of their own."""
    graph = test_event_odd_neurons.network(seed)
    check(graph, np.random.default_rng(seed).integers(0, 4, (graph.time_steps, 2, 3, 5, 4)), [1, 2])


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("integer", [False, True])
def test_every_operator(frames: bool, integer: bool) -> None:
    """Attention, gates, pools, residuals, a mean over time; batch norms and scales where the network is not folded."""
    graph = small_transformer(3, frames, time_steps=11)
    graph = qd.quantize(graph, 8) if integer else graph
    x = (
        np.random.default_rng(0).integers(0, 3, (2, 11, 3, 9, 7)).astype(np.uint8)
        if frames
        else random_pixels(1, (3, 9, 7))
    )
    check(graph, encode(graph, x)[0], [1, 4, 11])


@pytest.mark.parametrize("integer", [False, True])
def test_spikes_of_either_polarity(integer: bool) -> None:
    graph = signed_network(2)
    graph = qd.quantize(graph, 8) if integer else graph
    check(graph, encode(graph, random_pixels(4, (2, 3, 3)))[0], [1, 3])


def test_attention_in_one_kernel() -> None:
    graph = self_attention(2, 3, 5, ops.IntegerNeuron(1, 1), 4, steps=9)
    check(graph, np.random.default_rng(1).integers(0, 2, (9, 2, *graph.input.type.shape)), [2, 4])


def readouts(weights: tuple[float, ...], events: bool, integer: bool) -> Graph:
    """A readout with a weight per step, of counts or of drives of either sign."""
    steps, rng = len(weights) or 10, np.random.default_rng(3)
    b = GraphBuilder()
    b.add("input", ops.Input((3, 4), "frames", high=2))
    weight = rng.integers(-7, 8, (5, 3, 1)).astype(np.int8 if integer else np.float64)
    b.add("conv", ops.Conv((1,), (0,), (1,), weight_bits=4 if integer else None), ["input"], {"weight": weight})
    theta = np.full((5, 1), 4)
    lif = ops.IntegerNeuron(1, 0, soft_reset=True, signed=True) if integer else ops.Neuron(None, 4.0, None, signed=True)
    b.add("lif", lif, ["conv"], {"theta": theta} if integer else {})
    b.add("readout", ops.Readout(weights), ["lif" if events else "conv"])
    if not events:
        b.add("second", ops.Readout(), ["lif"])
        b.add("both", ops.Add(), ["readout", "second"])
    b.add("output", ops.Output(), ["readout" if events else "both"], {"scale": np.ones(1)} if integer else {})
    graph = b.build(time_steps=steps, input_encoding="frames", arithmetic="integer" if integer else "float")
    return attach(graph) if integer else graph


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("weights", [(), (0,) * 8 + (1.0,), (3.0, 0, 0, 1, 2, 0, 0, 0, 1), (1.0, -2, 0, 0, 1, 0, -1)])
def test_readouts(weights: tuple[float, ...], events: bool, integer: bool) -> None:
    """The last step, weights of steps of which a stretch has none, two readouts."""
    graph = readouts(weights, events, integer)
    x = np.random.default_rng(5).integers(0, 3, (graph.time_steps, 3, 3, 4))
    check(graph, x if integer else x.astype(np.float64), [1, 2, 4])


def without_readout(leftovers: bool) -> Graph:
    """Spikes of every step as the output; perhaps every step from a stored membrane."""
    rng = np.random.default_rng(0)
    b = GraphBuilder()
    b.add("input", ops.Input((2, 5), "bytes"))
    weight = {"weight": rng.integers(-7, 8, (3, 2, 1)).astype(np.int8)}
    b.add("conv", ops.Conv((1,), (0,), (1,), weight_bits=4), ["input"], weight)
    params = {"theta": np.full((3, 1), 900)}
    stored = {"leftover": rng.integers(-500, 800, (7, 3, 5))} if leftovers else {}
    op = (
        replace(ops.IntegerNeuron(1, 1), carry="stored", time_merged_with_batch=True)
        if leftovers
        else ops.IntegerNeuron(1, 1)
    )
    b.add("lif", op, ["conv"], {**params, **stored})
    b.add("output", ops.Output(), ["lif"])
    return attach(b.build(time_steps=7, arithmetic="integer"))


@pytest.mark.parametrize("leftovers", [False, True])
def test_without_readout(leftovers: bool) -> None:
    graph = without_readout(leftovers)
    check(graph, np.random.default_rng(1).integers(0, 256, (1, 3, 2, 5)), [1, 3, 7])


def test_float_spikes_on_torch_are_the_references() -> None:
    """Where a sum in another order could decide a spike, the image is run again: counts and spikes are equal."""
    graph = small_transformer(5, time_steps=9)
    inputs = encode(graph, random_pixels(2, (3, 9, 7), batch=5))[0]
    record = Record.of(graph, [n.name for n in graph if n.op.kind == "neuron"])
    wanted = reference.run(graph, inputs, record)
    for steps in (2, 5):
        got = in_stretches("torch", graph, inputs, steps, record)
        assert got.ledger == wanted.ledger
        assert all(np.array_equal(got.spikes[n], wanted.spikes[n]) for n in wanted.spikes)


def net(steps: int, integer: bool = True) -> Graph:
    """Membranes from half a threshold, soft reset, as of networks converted from ANNs."""
    net = Net(1, (2, 8, 8))
    x, half = "input", np.full((1, 1, 1), 0.5)
    for name in "ab":
        op = ops.Neuron(None, 1.0, None)
        x = net.add(name, op, net.conv(f"{name}_conv", x, 6), initial=half)
    net.head(x, time_steps=steps)
    return qd.quantize(net.build(steps), 8) if integer else net.build(steps)


IMAGES = random_pixels(3, (2, 8, 8), batch=8)


@pytest.mark.parametrize("integer", [False, True])
def test_engines_run_long_networks_in_stretches(integer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 steps: 32, 32, 32 and 4; nothing that is simulated, recorded or counted tells."""
    graph = net(100, integer)
    seen = {"record": ["a", "readout"], "membranes": ["b"]}
    got = {e: qd.simulate(graph, IMAGES, engine=e, **seen) for e in ("reference", "torch", *["event"] * integer)}
    if integer:
        assert_equal(qd.simulate(graph, IMAGES, engine="event", threads=3, **seen), got["event"])
    monkeypatch.setattr(stretches, "AT_ONCE", 100)
    for engine, run in got.items():
        wanted = qd.simulate(graph, IMAGES, engine=engine, **seen)
        assert run.ledger == wanted.ledger
        if integer or engine == "reference":
            assert_equal(run, wanted)
        assert np.array_equal(run.spikes["a"], wanted.spikes["a"])
        assert np.abs(run.logits - wanted.logits).max() < 1e-12


@pytest.mark.parametrize("steps", [5, 70])
@pytest.mark.parametrize("engine", ["reference", "event", "torch", "onnx"])
def test_how_often_each_neuron_fired(engine: str, steps: int) -> None:
    """Without the spikes themselves; those of another record stay."""
    graph = net(steps)
    inputs = encode(graph, IMAGES)[0]
    spikes = reference.run(graph, inputs, Record.of(graph, ["a", "b"])).spikes
    run = engines.get(engine, graph, {})(graph, inputs, Record(frozenset({"b"}), fired=frozenset({"a", "b"})), None)
    assert set(run.values) == set(run.spikes) == {"b"}
    for name in "ab":
        assert np.array_equal(run.fired[name], (spikes[name] != 0).sum(axis=0))


def test_doubtful_images_are_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images in which rounding could decide a spike are run again, and take their place in the batch."""
    graph = net(70, integer=False)
    wanted = qd.simulate(graph, IMAGES, engine="reference", record=["a"], membranes=["b"])
    for doubtful in ([True] * 8, [False, True] * 4):

        def doubt(self: Carried, images: np.ndarray, found: Sequence[bool] = doubtful) -> None:
            self.doubtful = np.array(found)

        monkeypatch.setattr(Carried, "doubt", doubt)
        run = qd.simulate(graph, IMAGES, engine="torch", record=["a"], membranes=["b"])
        for image in np.flatnonzero(doubtful):
            assert np.array_equal(run.logits[image], wanted.logits[image])
            assert np.array_equal(run.membranes["b"][:, image], wanted.membranes["b"][:, image])
        assert run.ledger == wanted.ledger


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    work()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("engine", ["reference", "event"])
def test_memory_of_a_counted_run_does_not_grow(engine: str) -> None:
    """T = 64 as a whole, 2,048 in stretches: spikes per step are all that is kept of every step."""
    qd.simulate(net(70), IMAGES[:1], engine=engine)  # kernels are compiled once
    few, many = (peak(lambda t=t: qd.simulate(net(t), IMAGES[:1], engine=engine)) for t in (64, 2048))
    layers = len(net(64).nodes)
    assert many < 1.2 * few + 2 * layers * 2048 * 8


def test_memory_of_an_evaluation_does_not_grow(tmp_path: Path) -> None:
    """Nor that of its look at the first samples."""
    np.savez(tmp_path / "x.npz", images=IMAGES[:3], labels=[0, 1, 2])
    found: list[int] = []
    for steps in (2, 64, 512):  # the first time much is imported
        network, place = tmp_path / f"{steps}.qkf", tmp_path / f"{steps}.sqlite"
        qd.save(net(steps), network)
        found.append(
            peak(lambda n=network, p=place: qd.evaluate(n, tmp_path / "x.npz", p, engine="reference", force=True))
        )
    assert found[2] < 1.2 * found[1]


def test_what_does_not_change_in_time_is_computed_once() -> None:
    """A network without neurons."""
    b = GraphBuilder()
    b.add("input", ops.Input((2, 4), "bytes"))
    b.add("conv", ops.Conv((1,), (0,), (1,), weight_bits=4), ["input"], {"weight": np.ones((3, 2, 1), np.int8)})
    b.add("readout", ops.Readout(), ["conv"])
    b.add("output", ops.Output(), ["readout"], {"scale": np.ones(1)})
    graph, x = attach(b.build(time_steps=300, arithmetic="integer")), np.full((1, 2, 2, 4), 7)
    wanted = reference.run(graph, x)
    for engine in ("reference", "event", "torch"):
        assert_equal(engines.get(engine, graph, {})(graph, x, Record(), None), wanted)


def test_networks_that_need_all_steps_say_so() -> None:
    b = GraphBuilder()
    b.add("input", ops.Input((2, 3, 4), "frames", high=1))
    left, right = (View.of((2, 3, 4), (0, 1, 2), (2, 3, 4)), View.of((2, 3, 4), (0, 2, 1), (2, 4, 3)))
    b.add("kv", ops.MatMul(72), [Operand("input", left), Operand("input", right)])
    b.add("readout", ops.Readout(), ["kv"])
    b.add("output", ops.Output(), ["readout"], {"scale": np.ones(1)})
    graph = attach(b.build(time_steps=72, input_encoding="frames", arithmetic="integer"))
    x = np.ones((1, 72, 2, 3, 4), np.uint8)
    for engine in ("reference", "event", "torch"):
        assert any(
            "memory grows with T = 72: attention over time" in n for n in qd.simulate(graph, x, engine=engine).notices
        )
    chunked = replace(graph, nodes={**graph.nodes, "kv": replace(graph["kv"], op=ops.MatMul(24))})
    assert stretches.length(chunked) == 24
