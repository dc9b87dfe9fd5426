"""Time: every event is delivered, no bound is undercut, and an event-driven simulation of cores and links agrees."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from digits_network import DigitsNetwork
from netbuild import Net, small_transformer
from timed import LOIHI, frames, pipelined, three_layers, traffic_of

import qkf_deploy as qd
from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.architecture.chip import Chip
from qkf_deploy.hw_models.mapping import map_network
from qkf_deploy.hw_models.timing.latency import REASONS, latency
from qkf_deploy.hw_models.timing.mesh import EAST, NORTH, Mesh, in_order
from qkf_deploy.hw_models.timing.steps import Schedule, step_energy, step_times
from qkf_deploy.hw_models.timing.traffic import Traffic, measured_traffic
from qkf_deploy.ops import Add, Concat

#: Cores with few neurons: units are cut into pieces.
SMALL = replace(LOIHI, cores=(replace(LOIHI.cores[0], neurons_max=48),))


@pytest.fixture(scope="module")
def digits(network: DigitsNetwork) -> Traffic:
    return traffic_of(network.integer_graph, network.pixels[:1], LOIHI)


@pytest.mark.parametrize("chip", [LOIHI, qd.load_chip("loihi1")], ids=lambda chip: chip.id)
def test_golden_three_layers(chip: Chip) -> None:
    """Energy and time of SANA-FE's own formulae, by hand: 3 and 2 neurons, 4 classes, T = 4, on three tiles.

    One position, so an input event meets 3 synapses of conv a, one of a 2 of conv b, one of b is added once.
    """
    graph = three_layers((2, 1, 1), (3, 2), kernel=1)
    values = {
        "input": np.array([[1, 1], [1, 0], [0, 0], [1, 1]]),
        "a": np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
        "b": np.array([[1, 0], [1, 1], [0, 0], [0, 1]]),
    }
    shaped = {name: spikes[:, None, :, None, None] for name, spikes in values.items()}
    traffic = measured_traffic(graph, map_network(graph, chip), shaped)
    assert traffic.unit == ("a", "b", "head", "input")
    # a on tile (0, 0), where the input arrives; b on tile (1, 1), two hops away; the head on tile (1, 0), one from b
    schedule = pipelined(chip, traffic, (0, 36, 4, -1))
    assert schedule.steps == 4 + 3
    assert step_energy(schedule) == {
        "neurons": 7 * 9 * (Fraction("51.2") + Fraction("21.6")) + (6 + 4) * Fraction("69.3"),
        "synapses": 5 * 3 * 24 + 6 * 2 * 24 + 4 * Fraction("33.6"),
        "messages": (5 + 6 + 4) * Fraction(111),
        "hops": 6 * (Fraction("3.0") + Fraction("4.2")) + 4 * Fraction("4.2"),
    }
    update, fire, send, take, conv, add = (Fraction(x) for x in ("9.7", "30", "5.1", "16", "3.1", "4.7"))
    head = 4 * update  # four accumulators at every step
    a, b = take + 3 * conv, take + 2 * conv  # what one event takes at conv a, conv b
    by_hand = [
        max(head, 2 * a),  # two pixels
        max(3 * update + 2 * (fire + send), a, 2 * b),  # a fires twice, one pixel
        max(head, 2 * update + fire + send, take + add),  # a is silent, b fires once
        max(3 * update + 3 * (fire + send), 2 * update + 2 * (fire + send), 3 * b, 2 * (take + add), 2 * a),
        max(head, 3 * update + fire + send, b),
        max(head, 2 * update + fire + send, take + add),
        head,
    ]
    assert step_times(schedule).simple_ns() == [ns + 1000 for ns in by_hand]  # the barrier of three tiles
    in_pj = {"neurons": "5279.4", "synapses": "782.4", "messages": "1665", "hops": "60"}
    assert step_energy(schedule) == {name: Fraction(pj) for name, pj in in_pj.items()}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_messages_sent_are_delivered_however_the_network_is_cut(seed: int) -> None:
    """What is added where does not depend on the cut: as many synaptic additions as the ledger counts."""
    graph = qd.quantize(small_transformer(seed))
    images = np.random.default_rng(seed).integers(0, 256, (1, *graph.input.type.shape), np.uint8)
    ledger = qd.simulate(graph, images, engine="reference").ledger
    whole, cut = (traffic_of(graph, images, chip) for chip in (LOIHI, SMALL))
    assert cut.cores > whole.cores
    for traffic in (whole, cut):
        assert (traffic.sent().sum(axis=1) == traffic.received().sum(axis=1)).all()
        assert traffic.operations("multiply").sum() == sum(layer.total("mac") for layer in ledger)
        synapses = traffic.operations("conv").sum() + traffic.operations("linear").sum()
        # neurons send every spike of a residual sum, the readout has no synapses of its own per event
        assert synapses == sum(layer.total("ac_unary") for layer in ledger)
        assert traffic.fired[:, :-1].sum() >= sum(
            layer.total("events_out_graded") for layer in ledger if layer.op == "integer_neuron"
        )
    assert cut.sent().sum() > whole.sent().sum()
    for kind in ("multiply", "conv", "linear", "and", "compare", ""):
        assert cut.operations(kind).sum() == whole.operations(kind).sum()


def test_each_neuron_sends_once_to_a_core_that_reads_it_twice() -> None:
    """A unit whose drive is the sum of two convolutions of one tensor: one message, the operations of both."""
    net = Net(0, (2, 4, 4), frames=True)
    spikes = net.lif("a", net.conv("first", "input", 3))
    both = net.add("sum", Add(), net.conv("left", spikes, 2, kernel=1, padding=0), net.conv("right", spikes, 2))
    net.head(net.lif("b", both))
    graph = qd.quantize(net.build())
    images = frames(graph)
    traffic = traffic_of(graph, images, LOIHI)
    run = qd.simulate(graph, images, engine="reference", record=["a"])
    into = [s for s in traffic.sends if traffic.unit[s.source] == "a"]
    assert sum(s.events.sum() for s in into) == (run.values["a"] != 0).sum() > 0
    assert sum(s.operations("conv").sum() for s in into) == sum(
        run.ledger[name].total("ac_unary") for name in ("left", "right")
    )


def test_maps_side_by_side_send_what_they_hold() -> None:
    """Two maps along channels, one of them twice: an event of the doubled one is one message that causes both."""
    net = Net(0, (2, 4, 4), frames=True)
    a, b = net.lif("a", net.conv("conv_a", "input", 3)), net.lif("b", net.conv("conv_b", "input", 2))
    both = net.add("both", Concat(0), net.add("ab", Concat(0), a, b), a)
    net.head(net.lif("c", net.conv("conv_c", both, 4)))
    graph = qd.quantize(net.build())
    images = frames(graph)
    run = qd.simulate(graph, images, engine="reference", record=["a", "b"])
    for chip in (LOIHI, SMALL):
        traffic = traffic_of(graph, images, chip)
        into = {name: [s for s in traffic.sends if traffic.unit[s.source] == name] for name in "ab"}
        additions = sum(s.operations("conv").sum() for sends in into.values() for s in sends)
        assert additions == run.ledger["conv_c"].total("ac_unary")
        if chip is LOIHI:
            for name, sends in into.items():
                assert sum(s.events.sum() for s in sends) == (run.values[name] != 0).sum() > 0


def test_events_that_nobody_reads_are_not_sent() -> None:
    """A 1 x 1 convolution with stride 2 reads every second row and column of 4 x 4 positions."""
    net = Net(0, (2, 4, 4), frames=True)
    spikes = net.lif("a", net.conv("first", "input", 3))
    net.head(net.lif("b", net.conv("narrow", spikes, 2, kernel=1, padding=0, stride=2)))
    graph = qd.quantize(net.build())
    images = frames(graph)
    traffic = traffic_of(graph, images, LOIHI)
    spikes_read = qd.simulate(graph, images, engine="reference", record=["a"]).values["a"][:, 0, :, ::2, ::2]
    sent = sum(s.events for s in traffic.sends if traffic.unit[s.source] == "a")
    assert (sent == spikes_read.reshape(4, -1).sum(axis=1)).all()


def test_a_unit_that_is_not_placed_has_no_time(network: DigitsNetwork) -> None:
    with pytest.raises(UsageError, match=r"stage3\.0\.ssa\.matmul"):
        traffic_of(network.integer_graph, network.pixels[:1], qd.load_chip("loihi2"))
    graph = network.integer_graph
    with pytest.raises(UsageError, match="no events of patch_embed1"):
        measured_traffic(graph, map_network(graph, LOIHI), {})


def test_time_is_at_least_every_bound_and_adds_up(digits: Traffic) -> None:
    for schedule in (pipelined(LOIHI, digits), Schedule.layer_by_layer(LOIHI, in_order(LOIHI, digits), digits)):
        found, times = latency(schedule), step_times(schedule)
        barrier = times.barrier / times.per_ns
        assert (found.step_ns >= found.bound_ns).all()
        assert (found.bound_ns >= times.generate.max(axis=1) / times.per_ns + barrier - 1e-6).all()
        assert (found.bound_ns >= times.receive.max(axis=1) / times.per_ns + barrier - 1e-6).all()
        assert (found.bound_ns >= times.links.max(axis=1) / times.per_ns + barrier - 1e-6).all()
        assert set(found.reason_ns) == set(REASONS)
        assert sum(found.reason_ns.values()) == pytest.approx(found.latency_ns, rel=1e-12)
        assert found.left_out == ()
        assert 0 < found.busy.max() <= 1
        assert found.period_ns <= found.latency_ns


def test_a_pipeline_overlaps_what_layers_do_one_after_another(digits: Traffic) -> None:
    """Both do the same work: the same operations, messages and hops; only updates and barriers grow with the steps."""
    mesh = in_order(LOIHI, digits)
    line, layers = Schedule.pipelined(LOIHI, mesh, digits), Schedule.layer_by_layer(LOIHI, mesh, digits)
    assert (line.steps, layers.steps) == (4 + digits.stage.max(), 4 * (digits.stage.max() + 1))
    assert latency(line).latency_ns < latency(layers).latency_ns
    for name in ("synapses", "messages", "hops"):
        assert step_energy(line)[name] == step_energy(layers)[name]
    assert (line.received().sum(axis=0) == layers.received().sum(axis=0)).all()
    assert (digits.wrapped().received().sum(axis=0) == line.received().sum(axis=0)).all()


def test_hops_of_a_message(digits: Traffic) -> None:
    """Along the row, then along the column; with multicast a common link is crossed once."""
    assert LOIHI.network is not None
    mesh = Mesh(LOIHI.network, 128, (0, 4 * 10, 4 * 18, -1))
    assert [mesh.tile(core) for core in range(4)] == [(0, 0), (2, 1), (2, 2), (0, 0)]
    send = replace(digits.sends[0], source=0, targets=(1, 2), fan_out={"conv": (1, 1)})
    to_1 = [(EAST, 0, 0), (EAST, 1, 0), (NORTH, 2, 0)]
    assert mesh.links(send) == [*to_1, *to_1, (NORTH, 2, 1)]
    tree = replace(mesh, network=replace(LOIHI.network, multicast=True))
    assert tree.links(send) == [*to_1, (NORTH, 2, 1)]
    assert (mesh.messages(send), tree.messages(send)) == (2, 1)
    assert replace(mesh, place=(0, 128, 4)).tile(1) == (8, 0)  # a second chip stands beside the first
    assert replace(mesh, place=(0, 128, 4)).chips == 2


def test_what_has_no_time_is_named(digits: Traffic) -> None:
    core = LOIHI.cores[0]
    without = {name: op for name, op in core.operations.items() if name not in ("and", "neuron_fire")}
    chip = replace(LOIHI, cores=(replace(core, operations=without),))
    assert latency(pipelined(chip, digits)).left_out == ("and",)  # firing is on top of an update that has a time
    silent = replace(LOIHI, network=replace(LOIHI.network, links={}))
    assert latency(pipelined(silent, digits)).left_out == ("hop",)
    with pytest.raises(UsageError, match="nothing is known of the network"):
        in_order(replace(LOIHI, network=None), digits)


FAST = {name: replace(LOIHI.cores[0].operations[name], ns=Decimal("0.05")) for name in ("accumulate_conv", "multiply")}
FAST_CORES = (replace(LOIHI.cores[0], operations={**LOIHI.cores[0].operations, **FAST}),)
#: Where the time goes in each: synapses; neurons; links.
CHIPS = {
    "loihi": LOIHI,
    "fast synapses": replace(LOIHI, cores=FAST_CORES),
    "slow links": replace(
        LOIHI,
        cores=FAST_CORES,
        network=replace(
            LOIHI.network, links={n: replace(k, ns=k.ns * 20) for n, k in LOIHI.network.links.items() if k.ns}
        ),
    ),
}


def agreement(chip: Chip, traffic: Traffic) -> float:
    """Analytic time of an image over what cores and links take that are processes with queues, barriers aside."""
    from event_network import simulate_step

    schedule = pipelined(chip, traffic)
    found, barrier = latency(schedule), float(schedule.barrier_ns)
    simulated = [simulate_step(schedule, step, LOIHI.network.queue_messages) for step in range(schedule.steps)]
    assert [s.sent for s in simulated] == [s.delivered for s in simulated] == schedule.sent().sum(axis=1).tolist()
    for bound, step in zip(found.bound_ns, simulated, strict=True):
        assert step.finished >= (bound - barrier) * (1 - 1e-9)
    return (found.latency_ns - barrier * schedule.steps) / sum(step.finished for step in simulated)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CHIPS)
def test_an_event_driven_simulation_agrees(name: str, seed: int) -> None:
    """Within 15 %; every message is delivered there too, and no step is shorter than its bound."""
    pytest.importorskip("simpy", reason="simpy is not installed: pip install 'qkf-deploy[test-hardware]'")
    graph = qd.quantize(small_transformer(seed))
    images = np.random.default_rng(seed).integers(0, 256, (1, *graph.input.type.shape), np.uint8)
    assert agreement(CHIPS[name], traffic_of(graph, images, LOIHI)) == pytest.approx(1, abs=0.15)


@pytest.mark.skipif("QKF_LONG" not in os.environ, reason="minutes: QKF_LONG=1 pytest -s shows the numbers")
@pytest.mark.parametrize("name", CHIPS)
def test_an_event_driven_simulation_agrees_on_digits(name: str, digits: Traffic) -> None:
    pytest.importorskip("simpy")
    share = agreement(CHIPS[name], digits)
    sys.stdout.write(f"{name}: analytic / event-driven = {share:.3f}\n")
    assert share == pytest.approx(1, abs=0.15)
