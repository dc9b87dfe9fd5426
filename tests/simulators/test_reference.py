"""The reference engine on a network small enough to follow by hand, and the ways a user asks it for more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from netbuild import Net, random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.ir import Graph, Preprocessing
from qkf_deploy.ops import Conv, Linear, Output, Readout
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record

POINT = Conv((1, 1), (0, 0), (1, 1))


@pytest.fixture
def by_hand() -> Graph:
    """One pixel p; drive p/85 - 1; LIF (τ 2, V_th 1); spikes summed over 3 steps; logits 2n + 1 and -n."""
    net = Net(0, (1, 1, 1))
    net.add("conv", POINT, "input", weight=np.full((1, 1, 1, 1), 3.0), bias=np.array([-1.0]))
    net.lif("lif", "conv")
    net.add("readout", Readout(), "lif")
    net.add("head", Linear(), "readout", weight=np.array([[2.0], [-1.0]]), bias=np.array([1.0, 0.0]))
    net.add("output", Output(), "head")
    return replace(net.build(3), preprocessing=Preprocessing((0.0,), (1.0,)))


def test_by_hand(by_hand: Graph) -> None:
    pixels = np.array([0, 170, 255], np.uint8).reshape(3, 1, 1, 1)
    run = qd.simulate(by_hand, pixels, record="all", membranes="all")
    assert run.values["conv"].ravel().tolist() == [-1.0, 1.0, 2.0]
    membranes = run.membranes["lif"][..., 0, 0, 0].T.tolist()
    assert membranes == [[-0.5, -0.75, -0.875], [0.5, 0.75, 0.875], [1.0, 1.0, 1.0]]
    assert run.spikes["lif"].sum(axis=0).ravel().tolist() == [0, 0, 3]  # it fires at equality, and is reset
    assert run.logits.reshape(3, 2).tolist() == [[1, 0], [1, 0], [7, -3]]
    assert run.ledger["lif"].spikes_per_step.tolist() == [[0, 0, 1]] * 3  # type: ignore[union-attr]


def test_by_hand_in_integers(by_hand: Graph) -> None:
    """8 bits: w 3/255 -> 127, s = 3/255/127; b -1 -> -10795; Θ = ceil(2 / s) = 21590."""
    graph = qd.quantize(by_hand, 8)
    assert graph["conv"].params["weight"].ravel().tolist() == [127]
    assert graph["conv"].params["bias"].ravel().tolist() == [-10795]
    assert graph["lif"].params["theta"].ravel().tolist() == [21590]
    pixels = np.array([0, 170, 255], np.uint8).reshape(3, 1, 1, 1)
    run = qd.simulate(graph, pixels, record="all", membranes="all", engine="reference")
    assert run.values["conv"].ravel().tolist() == [-10795, 10795, 21590]
    membranes = run.membranes["lif"][..., 0, 0, 0].T.tolist()
    assert membranes == [[-10795, -16193, -18892], [10795, 16192, 18891], [21590, 21590, 21590]]
    assert run.spikes["lif"].sum(axis=0).ravel().tolist() == [0, 0, 3]


def test_replaced_values_are_what_later_nodes_read() -> None:
    graph = qd.quantize(small_transformer(0), 8)
    images = encode(graph, random_pixels(0, (3, 9, 7), 2))[0]
    record = Record.of(graph, "all")
    plain = reference.run(graph, images, record)

    def silence(name: str, value: np.ndarray) -> np.ndarray:
        return np.zeros_like(value) if name == "qk_gate" else value

    silenced = reference.run(graph, images, record, replace_value=silence)
    assert np.array_equal(silenced.values["qk_gate"], plain.values["qk_gate"])  # its own output is still shown
    assert not silenced.values["qk_mask"].any()
    assert plain.values["qk_mask"].any()
    stopped = silenced.ledger["qk_mask"]
    assert np.array_equal(stopped.counts["events_stopped"], stopped.counts["gate_ands"])


def test_progress_counts_nodes() -> None:
    graph = small_transformer(0)
    seen: list[tuple[int, int]] = []
    reference.run(graph, encode(graph, random_pixels(0, (3, 9, 7), 1))[0], progress=lambda *s: seen.append(s))
    assert seen == [(i + 1, len(graph.nodes)) for i in range(len(graph.nodes))]


def test_nothing_is_kept_that_was_not_asked_for() -> None:
    graph = small_transformer(0)
    run = reference.run(graph, encode(graph, random_pixels(0, (3, 9, 7), 1))[0])
    assert (run.spikes, run.values, run.membranes) == ({}, {}, {})


@pytest.mark.parametrize("bits", [None, 8])
def test_arithmetic(bits: int | None) -> None:
    """Integer graphs hold int64 everywhere, float graphs float64."""
    graph = small_transformer(0) if bits is None else qd.quantize(small_transformer(0), bits)
    run = qd.simulate(graph, random_pixels(0, (3, 9, 7), 2), record="all", membranes="all", engine="reference")
    expected = np.float64 if bits is None else np.int64
    assert {v.dtype for v in (*run.values.values(), *run.membranes.values())} == {np.dtype(expected)}
    assert run.logits.dtype == np.float64


def test_a_black_image_and_a_white_one() -> None:
    graph = qd.quantize(small_transformer(0), 8)
    black, white = (np.full((1, 3, 9, 7), v, np.uint8) for v in (0, 255))
    runs = [qd.simulate(graph, x, engine="reference") for x in (black, white)]
    assert not np.array_equal(runs[0].raw_output, runs[1].raw_output)
    assert runs[0].ledger["embed_conv"].total("mac_nonzero") == 0
    assert runs[1].ledger["embed_conv"].total("mac_nonzero") > 0
