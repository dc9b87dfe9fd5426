"""Messages of a mapping, from the sums of a ledger, against every event followed from core to core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from digits_network import DigitsNetwork
from netbuild import Net, small_transformer
from timed import LOIHI, frames

import qkf_deploy as qd
from qkf_deploy.hw_models.architecture.chip import Chip
from qkf_deploy.hw_models.mapping import map_network
from qkf_deploy.hw_models.timing.traffic import measured_traffic
from qkf_deploy.ir import Graph
from qkf_deploy.ops import Add, Concat, Mask

SMALL = replace(LOIHI, cores=(replace(LOIHI.cores[0], neurons_max=48),))
Flows = Mapping[tuple[str, str], Fraction]


def both(graph: Graph, images: np.ndarray, chip: Chip) -> tuple[Flows, Flows]:
    """(source, target) -> messages of one image: summed by the mapping, and followed."""
    run = qd.simulate(graph, images, engine="reference", record=["events", "input"])
    mapping = map_network(graph, chip, run.ledger)
    traffic = measured_traffic(graph, mapping, run.values)
    followed: Counter[tuple[str, str]] = Counter()
    for send in traffic.sends:
        for target in send.targets:
            followed[traffic.unit[send.source], traffic.unit[target]] += int(send.events.sum())
    summed = {(t.source, t.target): t.messages for t in mapping.traffic if t.messages}
    return summed, {pair: Fraction(count) for pair, count in followed.items() if count}


@pytest.mark.parametrize("chip", [LOIHI, qd.load_chip("generic-digital")], ids=lambda chip: chip.id)
def test_digits(network: DigitsNetwork, chip: Chip) -> None:
    """Shortcuts of stride 2 read a quarter of the positions; gates go to the cores of their head alone."""
    summed, followed = both(network.integer_graph, network.pixels[:1], chip)
    assert summed.keys() == followed.keys()
    assert sum(summed.values()) == sum(followed.values()) > 0
    narrow = [pair for pair in summed if summed[pair] != followed[pair]]  # how they share what was read is a mean
    assert {target for _, target in narrow} <= {"patch_embed2.proj_res_lif", "patch_embed3.proj_res_lif"}


@pytest.mark.parametrize("chip", [LOIHI, SMALL], ids=["whole", "cut"])
@pytest.mark.parametrize("event_frames", [False, True], ids=["pixels", "frames"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_operator(seed: int, event_frames: bool, chip: Chip) -> None:
    """Groups of channels get only what they read, frames send only what is there."""
    graph = qd.quantize(small_transformer(seed, event_frames))
    pixels = np.random.default_rng(seed).integers(0, 256, (1, *graph.input.type.shape), np.uint8)
    summed, followed = both(graph, frames(graph, seed) if event_frames else pixels, chip)
    if chip is LOIHI:
        assert summed == followed
    assert summed.keys() == followed.keys()


def test_events_that_nobody_reads() -> None:
    """Stride 2 behind a node, behind the sum of two, behind a node twice, and behind event frames."""
    net = Net(0, (2, 4, 4), frames=True)
    kind: dict[str, Any] = dict(kernel=1, padding=0, stride=2)
    a, b = net.lif("a", net.conv("conv_a", "input", 3)), net.lif("b", net.conv("conv_b", "input", 3))
    one = net.lif("one", net.conv("narrow", a, 2, **kind))
    two = net.lif("two", net.conv("of_two", net.add("ab", Add(), a, b), 2, **kind))
    twice = net.lif("twice", net.conv("doubled", net.add("aa", Add(), a, a), 2, **kind))
    first = net.lif("first", net.conv("of_frames", "input", 2, **kind))
    net.head(net.add("all", Add(), net.add("left", Add(), one, two), net.add("right", Add(), twice, first)))
    summed, followed = both(qd.quantize(net.build()), frames(qd.quantize(net.build())), LOIHI)
    for pair in (("a", "one"), ("a", "twice"), ("input", "first"), ("input", "a")):
        assert summed[pair] == followed[pair] > 0, pair
    assert summed["a", "two"] + summed["b", "two"] == followed["a", "two"] + followed["b", "two"] > 0


@pytest.mark.parametrize("chip", [LOIHI, SMALL], ids=["whole", "cut"])
def test_gates_of_what_several_units_hold(chip: Chip) -> None:
    """A gate goes to every unit behind a sum and behind a concatenation, once where one is behind it twice."""
    net = Net(5, (2, 4, 4), frames=True)  # of this seed the gate opens
    a, b, gate = (net.lif(name, net.conv(f"{name}_conv", "input", 8 if name != "gate" else 1)) for name in
                  ("a", "b", "gate"))  # fmt: skip
    of_sum = net.add("of_sum", Mask(), gate, net.add("ab", Add(), a, b))
    of_both = net.add("of_both", Mask(), gate, net.add("beside", Concat(), a, b))
    of_twice = net.add("of_twice", Mask(), gate, net.add("aa", Add(), a, a))
    two_gates = net.add("two_gates", Mask(), net.add("gates", Concat(), a, b), of_both)
    ends = [net.lif(f"{x}_lif", net.conv(f"{x}_end", x, 2)) for x in (of_sum, of_both, of_twice, two_gates)]
    net.head(net.add("all", Add(), net.add("l", Add(), *ends[:2]), net.add("r", Add(), *ends[2:])))
    graph = qd.quantize(net.build())
    summed, followed = both(graph, frames(graph), chip)
    assert summed.keys() == followed.keys()
    assert ("a", "b") not in summed  # a concatenation masks a concatenation: part by part
    for pair in (("gate", "a"), ("gate", "b"), ("a", "a"), ("b", "b")):
        assert summed[pair] == followed[pair] > 0, pair
    for mask in ("of_sum", "of_both", "of_twice", "two_gates"):  # how they share what passed is a mean
        passed = [sum(flows.get((x, f"{mask}_lif"), 0) for x in "ab") for flows in (summed, followed)]
        assert passed[0] == passed[1] > 0, mask
