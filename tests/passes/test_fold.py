"""Folding: batch norms and scales disappear, the spikes stay the same to the last one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from netbuild import Net, random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.errors import GraphError
from qkf_deploy.ir import Graph, Operand, View
from qkf_deploy.ops import Add, BatchNorm, Conv, Linear, MaxPool, Output, Scale, Sum


def neurons(graph: Graph) -> list[str]:
    return [n.name for n in graph if n.op.kind == "neuron"]


def assert_same_spikes(graph: Graph, folded: Graph, images: np.ndarray) -> None:
    """Every neuron, every step, and the logits up to rounding; each neuron must fire and rest."""
    names = neurons(graph)
    assert names == neurons(folded)
    before, after = (qd.simulate(g, images, record=names) for g in (graph, folded))
    for name in names:
        assert np.array_equal(before.spikes[name], after.spikes[name]), name
        assert 0 < before.spikes[name].mean() < 1, name
    assert np.allclose(before.logits, after.logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_spikes_stay(seed: int) -> None:
    graph = small_transformer(seed)
    folded = qd.fold(graph)
    kinds = {n.op.kind for n in folded}
    assert "batch_norm" not in kinds
    assert [n.name for n in folded if n.op.kind == "scale"] == ["ssa_scale"]  # in front of a neuron
    assert_same_spikes(graph, folded, random_pixels(seed, (3, 9, 7), 5))
    assert folded.provenance["fold"] == "float64"


def test_event_frames() -> None:
    graph = small_transformer(6, frames=True)
    frames = np.random.default_rng(0).integers(0, 4, (3, 4, 3, 9, 7))
    assert_same_spikes(graph, qd.fold(graph), frames)


def test_digits(digits_float: Graph, digits_data) -> None:
    assert_same_spikes(digits_float, qd.fold(digits_float), digits_data.test_images[:12])


def test_folding_twice_changes_nothing() -> None:
    once = qd.fold(small_transformer(1))
    twice = qd.fold(once)
    assert list(once.nodes) == list(twice.nodes)
    for node in once:
        assert all(np.array_equal(node.params[k], twice[node.name].params[k]) for k in node.params)


def test_the_formula() -> None:
    net = Net(3, (2, 5, 5))
    net.conv("conv", "input", 3)
    net.bn("bn", "conv")
    net.lif("lif", "bn")
    net.head("lif")
    graph = net.build()
    folded = qd.fold(graph)
    conv, bn = graph["conv"].params, graph["bn"].params
    gain = bn["weight"] / np.sqrt(bn["var"] + 1e-5)
    assert np.array_equal(folded["conv"].params["weight"], conv["weight"] * gain.reshape(3, 1, 1, 1))
    assert np.allclose(folded["conv"].params["bias"], (conv["bias"] - bn["mean"]) * gain + bn["bias"], rtol=1e-15)
    assert folded["lif"].inputs == (Operand("conv"),)


def awkward(case: str) -> Graph:
    """Batch norms that no synapse can take in."""
    net = Net(4, (2, 6, 6))
    x = net.conv("conv", "input", 4)
    if case == "behind a pool":
        x = net.add("pool", MaxPool((2, 2), (2, 2), (0, 0)), x)
    elif case == "behind a neuron":
        x = net.lif("first", x)
    elif case == "behind an addition":
        x = net.add("sum", Add(), x, net.conv("other", "input", 4))
    elif case == "behind a shared synapse":
        net.lif("reader", x)
    elif case == "behind another norm":
        x = net.bn("bn0", net.add("pool", MaxPool((2, 2), (2, 2), (0, 0)), x))
    elif case == "behind a linear layer with positions":
        rng = np.random.default_rng(0)
        x = net.add("linear", Linear(), net.lif("first", x), weight=rng.normal(size=(6, 6)))
    net.bn("bn", x)
    net.lif("lif", "bn")
    if case == "behind a shared synapse":
        net.add("join", Add(), "lif", "reader")
        net.head("join")
    else:
        net.head("lif")
    return net.build()


AWKWARD = [
    "behind a pool", "behind a neuron", "behind an addition", "behind a shared synapse", "behind another norm",
    "behind a linear layer with positions",
]  # fmt: skip


@pytest.mark.parametrize("case", AWKWARD)
def test_norms_that_follow_no_synapse_become_depthwise(case: str) -> None:
    graph = awkward(case)
    folded = qd.fold(graph)
    first = "bn0" if case == "behind another norm" else "bn"
    conv = folded[first]
    assert isinstance(conv.op, Conv)
    assert (conv.op.groups, conv.params["weight"].shape[1:]) == (conv.type.shape[0], (1, 1, 1))
    assert any(note.startswith(f"{first}: this batch norm follows no synapse") for note in folded.notices)
    assert "batch_norm" not in {n.op.kind for n in folded}
    assert_same_spikes(graph, folded, random_pixels(1, (2, 6, 6), 6))


def test_norm_over_channels_that_a_view_made() -> None:
    """The view moves channels, so the norm's channels are not the synapse's: no folding into the weights."""
    net = Net(5, (2, 6, 6))
    net.conv("conv", "input", 4)
    moved = View.of((4, 6, 6), (1, 0, 2), (6, 4, 6))
    rng = np.random.default_rng(2)
    params = {k: rng.uniform(0.5, 2, 6) for k in ("mean", "var", "weight", "bias")}
    net.add("bn", BatchNorm(1e-5), Operand("conv", moved), **params)
    net.lif("lif", "bn")
    net.head("lif")
    graph = net.build()
    folded = qd.fold(graph)
    assert folded["bn"].op.kind == "conv"
    assert_same_spikes(graph, folded, random_pixels(2, (2, 6, 6), 6))


def test_norm_behind_a_reshape_folds() -> None:
    net = Net(6, (2, 6, 6))
    net.conv("conv", "input", 4)
    params = {k: np.full(4, 0.7) for k in ("mean", "var", "weight", "bias")}
    net.add("bn", BatchNorm(1e-5), Operand("conv", View.of((4, 6, 6), (0, 1, 2), (4, 36))), **params)
    net.lif("lif", Operand("bn", View.of((4, 36), (0, 1), (4, 6, 6))))
    net.head("lif")
    graph = net.build()
    folded = qd.fold(graph)
    assert "bn" not in folded.nodes
    assert folded.notices == ()
    assert_same_spikes(graph, folded, random_pixels(3, (2, 6, 6), 6))


def test_scales_move_into_the_next_weights() -> None:
    net = Net(7, (2, 4, 4))
    net.lif("lif", net.conv("conv", "input", 3))
    net.add("half", Scale(4.0), "lif")
    net.add("third", Scale(1 / 3), "half")
    net.add("sum", Sum((2,)), "third")
    net.conv("next", "sum", 2, kernel=3)
    net.lif("lif2", "next")
    net.head("lif2")
    graph = net.build()
    folded = qd.fold(graph)
    assert not {"half", "third", "head_scale"} & set(folded.nodes)
    expected = graph["next"].params["weight"] * (4.0 * (1 / 3))
    assert np.allclose(folded["next"].params["weight"], expected, rtol=1e-15)
    assert_same_spikes(graph, folded, random_pixels(4, (2, 4, 4), 6))


def test_a_scale_that_a_neuron_reads_too_stays() -> None:
    net = Net(8, (2, 4, 4))
    net.lif("lif", net.conv("conv", "input", 3))
    net.add("twice", Scale(2.0), "lif")
    net.lif("gate", "twice")
    net.lif("lif2", net.conv("next", "twice", 3))
    net.add("join", Add(), "gate", "lif2")
    net.head("join")
    graph = net.build()
    folded = qd.fold(graph)
    assert "twice" in folded.nodes
    before, after = (qd.simulate(g, random_pixels(5, (2, 4, 4), 6), record="all") for g in (graph, folded))
    assert all(np.array_equal(before.spikes[n], after.spikes[n]) for n in ("lif", "gate", "lif2"))


def test_a_norm_behind_nothing_foldable_is_refused() -> None:
    net = Net(9, (2, 4, 4))
    net.lif("lif", net.conv("conv", "input", 3))
    net.add("total", Sum((1, 2)), "lif")
    net.bn("bn", "total")
    net.add("output", Output(), "bn")
    with pytest.raises(GraphError, match="bn: this batch norm follows no synapse and cannot be folded"):
        qd.fold(net.build())


def test_integer_graphs_are_refused(digits_int8: Graph) -> None:
    with pytest.raises(GraphError, match="an integer graph is folded already"):
        qd.fold(digits_int8)


def test_the_float_graph_is_left_alone() -> None:
    graph = small_transformer(2)
    weights = {n.name: {k: v.copy() for k, v in n.params.items()} for n in graph}
    qd.fold(graph)
    for node in graph:
        assert all(np.array_equal(weights[node.name][k], v) for k, v in node.params.items())
    assert replace(graph).verify() is not None
