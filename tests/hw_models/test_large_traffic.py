"""What makes following events fast on large networks, against the same written plainly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, replace

import numpy as np
import pytest
from netbuild import Net, small_transformer
from timed import LOIHI, frames

import qkf_deploy as qd
from qkf_deploy.hw_models import reach
from qkf_deploy.hw_models.mapping import map_network
from qkf_deploy.hw_models.timing import traffic
from qkf_deploy.hw_models.timing.traffic import Emission, Send, alike, measured_traffic, weighted_counts
from qkf_deploy.hw_models.units import units
from qkf_deploy.ir import Graph
from qkf_deploy.ops import Add, Concat, Mask
from qkf_deploy.ops.geometry import Axis

CUT = replace(LOIHI, cores=(replace(LOIHI.cores[0], neurons_max=24),))


class Plain(traffic._Builder):
    """Element by element, column by column."""

    def spread(self, emission: Emission, counts: np.ndarray) -> np.ndarray:
        out = np.zeros((len(counts), self.graph[emission.node].type.size), np.int64)
        for target, row in enumerate(counts):
            np.add.at(out[target], emission.elements[emission.elements >= 0], row[emission.elements >= 0])
        return out

    def sends(self, emission: Emission, kinds: Mapping[str, np.ndarray], targets: range) -> Iterator[Send]:
        columns: dict[tuple[int, ...], np.ndarray] = {}
        held = self.cores_of(emission.node).reshape(-1)
        for element, happened in enumerate(emission.events.T.astype(np.int64)):
            key = (int(held[element]), *(int(row[element]) for counts in kinds.values() for row in counts))
            columns[key] = columns.get(key, 0) + happened
        for (source, *counts), events in sorted(columns.items()):
            of = {w: counts[i * len(targets) : (i + 1) * len(targets)] for i, w in enumerate(kinds)}
            met = [i for i in range(len(targets)) if any(row[i] for row in of.values())]
            if met:
                fan_out = {work: tuple(row[i] for i in met) for work, row in of.items()}
                yield Send(source, tuple(targets[i] for i in met), fan_out, events)


def plain_where(self: Emission, opened: np.ndarray) -> Emission:
    passed = np.zeros_like(self.events)
    for step, *place in np.argwhere(self.seen() & opened).tolist():
        passed[step, self.elements[tuple(place)]] = True
    return replace(self, events=passed)


def gates_of_sums() -> Graph:
    """Gates of a sum and of a concatenation with the same operand twice."""
    net = Net(5, (2, 4, 4), frames=True)
    a, b, gate = (net.lif(name, net.conv(f"{name}_conv", "input", 8 if name != "gate" else 1)) for name in
                  ("a", "b", "gate"))  # fmt: skip
    of_sum = net.add("of_sum", Mask(), gate, net.add("ab", Add(), a, b))
    of_twice = net.add("of_twice", Mask(), gate, net.add("beside", Concat(), a, a))
    ends = [net.lif(f"{x}_lif", net.conv(f"{x}_end", x, 2)) for x in (of_sum, of_twice)]
    net.head(net.add("all", Add(), *ends))
    return qd.quantize(net.build())


@pytest.mark.parametrize("case", ["gates", 0, 1, 2])
def test_every_send(case: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sends in the same order: who, to whom, what they cause, how many at each step."""
    graph = gates_of_sums() if isinstance(case, str) else qd.quantize(small_transformer(case, True))
    run = qd.simulate(graph, frames(graph, 1), engine="reference", record=["events", "input"])
    mapping = map_network(graph, CUT)
    assert mapping.cores > len(mapping.placements)
    found = measured_traffic(graph, mapping, run.values)
    monkeypatch.setattr(traffic, "_Builder", Plain)
    monkeypatch.setattr(Emission, "where", plain_where)
    expected = measured_traffic(graph, mapping, run.values)
    assert len(found.sends) == len(expected.sends) > 0
    for one, other in zip(found.sends, expected.sends, strict=True):
        assert astuple(one)[:3] == astuple(other)[:3]
        assert np.array_equal(one.events, other.events)
    held = {core: 0 for core in range(found.cores)}
    for placement in mapping.placements:
        pieces = traffic.pieces(placement)
        for core in range(placement.first_core, placement.first_core + placement.cores):
            held[core] = int((pieces == core).sum()) * placement.unit.neurons_per_output
    assert found.neurons.tolist() == list(held.values())


@pytest.mark.parametrize("seed", range(4))
def test_inputs_of_pieces(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels and places apart, or every element: the same inputs of every piece of every unit."""
    graph = gates_of_sums() if seed == 3 else qd.quantize(small_transformer(seed, seed == 1))
    rng, pieces = np.random.default_rng(seed), []
    for unit in units(graph):
        for _ in range(12):
            cut = (np.sort(rng.integers(0, n + 1, 2)) for n in (unit.channels, unit.positions))
            pieces.append((unit, *(slice(int(a), max(int(a) + 1, int(b))) for a, b in cut)))
    found = [reach.distinct_inputs(graph, *piece) for piece in pieces]
    monkeypatch.setattr(reach.Piece, "of", staticmethod(lambda mask: reach.Piece(mask, mask, mask)))
    block = staticmethod(lambda channels, places, shape: reach.Piece.of(np.outer(channels, places).reshape(shape)))
    monkeypatch.setattr(reach.Piece, "block", block)
    assert found == [reach.distinct_inputs(graph, *piece) for piece in pieces]
    assert len(set(found)) > 10


@pytest.mark.parametrize("most", [1, 2, 300, 2**40, 2**61])
def test_columns_that_are_alike(most: int) -> None:
    """Also where the numbers of many rows do not fit one code."""
    rng = np.random.default_rng(most % 1000)
    for rows in (1, 2, 7, 40):
        found = rng.integers(0, most, (rows, 50))
        found = np.concatenate([found, found[:, ::3], np.full((rows, 2), most - 1)], axis=1)
        expected, which = np.unique(found, axis=1, return_inverse=True)
        columns, group = alike(found)
        assert np.array_equal(columns, expected)
        assert np.array_equal(group, which.reshape(-1))


def test_sums_are_exact() -> None:
    """Weights at elements, and windows, are whole numbers whatever computes them."""
    rng = np.random.default_rng(0)
    elements, weights = rng.integers(0, 9, 200), rng.integers(0, 2**40, 200)
    expected = np.zeros(11, np.int64)
    np.add.at(expected, elements, weights)
    assert np.array_equal(weighted_counts(elements, weights, 11), expected)
    axes = (Axis(9, 3, stride=2, padding=1), Axis(7, 2, dilation=2))
    used = rng.integers(0, 2**30, (4, axes[0].out, axes[1].out))
    by_hand = np.einsum("cyx,yh,xw->chw", used, axes[0].reads(), axes[1].reads())
    read = reach._windows(used, axes)
    assert read.dtype == np.int64
    assert np.array_equal(read, by_hand)
