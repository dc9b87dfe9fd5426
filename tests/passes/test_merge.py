"""Chains of synapses without a neuron between them: one synapse, the same spikes, the bits asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netbuild import Net, random_pixels

import qkf_deploy as qd
from qkf_deploy.errors import ProofError, UnsupportedError
from qkf_deploy.ir import Graph, Operand, View
from qkf_deploy.ops import Add, Conv, Linear, MaxPool, Scale, SumPool
from qkf_deploy.passes.fold import fold

SHAPE = (3, 9, 8)


def chain_net(seed: int, body, pixels: bool = False) -> Graph:
    """conv, LIF, body, LIF, head; with ``pixels`` the body reads the image."""
    net = Net(seed, SHAPE)
    x = body(net, "input" if pixels else net.lif("l0", net.conv("c0", "input", 6)))
    net.lif("l1", x)
    net.head("l1")
    return net.build()


def synapses(graph: Graph) -> list[str]:
    return [n.name for n in graph if isinstance(n.op, Conv | Linear)]


def reparameterized(net: Net, x: str) -> str:
    x = net.bn("b1", net.conv("c1", x, 12, 1, bias=False))
    return net.bn("b2", net.conv("c3", net.conv("dw", x, 12, 3, groups=12, bias=False), 8, 1, bias=False))


def pooled(net: Net, x: str, kernel: int = 2, padding: int = 0) -> str:
    return net.add("pool", SumPool((kernel,) * 2, (2, 2), (padding,) * 2), x)


def transposed(net: Net, x: str) -> str:
    """A gain per channel, and between its elements nothing."""
    return net.conv("up", x, net.read(x)[0], 1, groups=net.read(x)[0], padding=0, spread=(2, 2))


BODIES = {
    "re-parameterized block": (reparameterized, {"dw"}),
    "norm in front": (lambda n, x: n.conv("c1", n.bn("b", x), 8), {"c1"}),
    "norm in front, stride": (lambda n, x: n.conv("c1", n.bn("b", x), 8, stride=2, dilation=2), {"c1"}),
    "no padding": (lambda n, x: n.conv("c2", n.conv("c1", x, 4), 8, padding=0, stride=2), {"c1"}),
    "padding behind a window": (lambda n, x: n.conv("c2", n.conv("c1", x, 4), 8, dilation=2), {"c1", "c2"}),
    "norm behind a sum pool": (lambda n, x: n.bn("b", pooled(n, n.conv("c1", x, 4))), {"c1"}),
    "norm behind a mean": (lambda n, x: n.bn("b", n.add("s", Scale(0.25), pooled(n, n.conv("c1", x, 4)))), {"c1"}),
    "mean, then 1x1": (lambda n, x: n.conv("c2", n.add("s", Scale(0.25), pooled(n, n.conv("c1", x, 4))), 6, 1), {"c1"}),
    "strides": (lambda n, x: n.conv("c3", n.conv("c2", n.conv("c1", x, 4, 1, stride=2), 4), 6, 1, stride=2), {"c2"}),
    "transposed 1x1": (lambda n, x: n.conv("c1", transposed(n, x), 8, stride=2, padding=0), {"up", "c1"}),
    "groups": (lambda n, x: n.conv("c2", n.conv("c1", x, 6, 1, groups=3), 12, groups=3), {"c2"}),
}  # fmt: skip


def assert_same(graph: Graph, other: Graph, seed: int) -> None:
    images = random_pixels(seed, SHAPE, 3)
    names = [n.name for n in graph if n.op.kind == "neuron"]
    a, b = (qd.simulate(g, images, record=names, membranes=names, engine="reference") for g in (graph, other))
    for name in names:
        assert np.array_equal(a.spikes[name], b.spikes[name]), name
        if other.arithmetic == "float":
            assert np.abs(a.membranes[name] - b.membranes[name]).max() < 1e-12


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("case", BODIES)
def test_merged_chains_give_the_same_spikes(case: str, pixels: bool) -> None:
    body, left = BODIES[case]
    graph = chain_net(1, body, pixels)
    folded = qd.fold(graph)
    assert set(synapses(folded)) == left | {"head"} | (set() if pixels else {"c0"})
    assert_same(graph, folded, 1)
    if len(left) == 1:
        assert_same(graph, qd.quantize(graph, 32), 1)
        assert not any("depthwise" in text for text in folded.notices)


def test_merged_chains_are_said_so() -> None:
    folded = qd.fold(chain_net(0, reparameterized))
    assert folded.notices == ("dw: no neuron stands between c1, dw, c3; merged into one synapse",)
    assert folded["dw"].params["bias"].shape == (8, 3, 3)  # the norm's shift is missing where the 3x3 is padded
    assert qd.fold(folded).notices == folded.notices


def test_operations_are_those_of_the_single_convolution() -> None:
    """A re-parameterized block costs what the 3x3 convolution costs that it is."""
    block = qd.fold(chain_net(0, reparameterized))
    single = replace(qd.fold(chain_net(0, lambda n, x: n.conv("dw", x, 8))), preprocessing=block.preprocessing)
    images = random_pixels(0, SHAPE, 3)
    counts = []
    for graph in (chain_net(0, reparameterized), block, single):  # a traced network is counted as what it folds to
        layers = {layer.name: layer for layer in qd.simulate(graph, images).ledger.layers}
        counts.append({k: v.tolist() for k, v in layers["dw"].counts.items() if k.startswith(("ac", "mac", "bias"))})
    assert counts[0] == counts[1] == counts[2]
    assert sum(counts[0]["ac_unary"]) > 0
    assert "mac" not in counts[0]


def test_a_mean_between_neurons_stays_a_count() -> None:
    folded = qd.fold(chain_net(0, lambda n, x: n.conv("c1", n.add("s", Scale(0.25), pooled(n, x)), 6, 1)))
    assert "pool" in folded.nodes
    assert folded["pool"].type.is_events


def test_a_chain_that_would_cost_more_stays() -> None:
    """A bottleneck of one channel is far cheaper than the full matrix."""
    folded = qd.fold(chain_net(0, lambda n, x: n.conv("c2", n.conv("c1", x, 1, 1), 64, 1), pixels=True))
    assert {"c1", "c2"} <= set(synapses(folded))


def test_a_norm_goes_into_every_synapse_that_reads_it() -> None:
    def body(net: Net, x: str) -> str:
        net.bn("b", x)
        flat = View.of((6, 9, 8), (0, 1, 2), (6, 72))
        tokens = net.conv("q", Operand("b", flat), 6, 1)
        gate = net.lif("gate", Operand(tokens, View.of((6, 72), (0, 1), (6, 9, 8))))
        return net.conv("k2", net.add("sum", Add(), gate, net.lif("kl", net.conv("k", "b", 6))), 4)

    graph = chain_net(2, body)
    folded = qd.fold(graph)
    assert "b" not in folded.nodes
    assert_same(graph, folded, 2)


def test_without_borders() -> None:
    """Formats with one bias per channel keep the norm as a layer of its own where the convolution pads."""
    graph = chain_net(0, lambda n, x: n.conv("c1", n.bn("b", x), 8))
    assert "b" in fold(graph, borders=False).nodes
    unpadded = chain_net(0, lambda n, x: n.conv("c1", n.bn("b", x), 8, padding=0))
    assert "b" not in fold(unpadded, borders=False).nodes


def bits_kept(graph: Graph) -> dict[str, int]:
    """Fewest bits that the largest weight of any channel has."""
    out = {}
    for node in graph:
        if isinstance(node.op, Conv | Linear) and not node.name.split(".")[-1].startswith("identity"):
            largest = np.abs(node.params["weight"].astype(np.int64)).reshape(len(node.params["weight"]), -1).max(axis=1)
            out[node.name] = int(largest.min()).bit_length() + 1
    return out


@st.composite
def bodies(draw):
    """Random chains: convolutions, norms, pools and scales in any order, and membrane shortcuts."""
    kinds = draw(
        st.lists(st.sampled_from(["conv", "wide", "dw", "bn", "sum", "max", "shortcut"]), min_size=1, max_size=4)
    )

    def body(net: Net, x: str) -> str:
        for i, kind in enumerate(kinds):
            name = f"{kind}{i}"
            if kind in ("conv", "wide"):
                x = net.conv(name, x, 6, 1 if kind == "conv" else 3, bias=bool(i % 2))
            elif kind == "dw":
                x = net.conv(name, x, net.shape(x)[0], 3, groups=net.shape(x)[0])
            elif kind == "bn":
                x = net.bn(name, x)
            elif kind in ("sum", "max") and min(net.shape(x)[1:]) > 2:
                pool = SumPool if kind == "sum" else MaxPool
                x = net.add(name, pool((2, 2), (1, 1), (0, 0)), x)
            elif kind == "shortcut":
                a, b = net.conv(f"{name}.a", x, 6), net.conv(f"{name}.b", x, 6, 1)
                x = net.add(name, Add(), a, b)
        if net.builder.nodes[x].type.kind.value != "drive":
            x = net.conv("last", x, 6, 1)
        return x

    return body


@settings(max_examples=25, deadline=None, derandomize=True)
@given(body=bodies(), seed=st.integers(0, 2**16), bits=st.sampled_from([4, 8, 16, 24, 32]), pixels=st.booleans())
def test_no_synapse_gets_fewer_bits_than_asked(body, seed: int, bits: int, pixels: bool) -> None:
    try:
        graph = chain_net(seed, body, pixels)
        assert_same(graph, qd.fold(graph), seed)
        integer = qd.quantize(graph, bits, first_bits=bits)
    except ProofError as refusal:
        if not refusal.where or bits < 16:
            raise
        return
    except UnsupportedError:
        assert pixels  # pixels that a pool reads
        return
    assert all(kept >= bits for kept in bits_kept(integer).values()), (bits_kept(integer), integer.notices)
    assert not any("bits at least" in text for text in integer.notices)


def test_weights_too_small_for_their_bias_are_said_so() -> None:
    net = Net(0, SHAPE)
    net.lif("l0", net.conv("c0", "input", 6))
    net.conv("c1", "l0", 4)
    node = net.builder.nodes["c1"]
    weight = node.params["weight"].copy()
    weight[0] *= 2.0**-28
    net.builder.nodes["c1"] = replace(node, params={**node.params, "weight": weight})
    net.lif("l1", "c1")
    net.head("l1")
    integer = qd.quantize(net.build(), 32)
    (text,) = [t for t in integer.notices if "bits at least" in t]
    assert text.startswith("c1: 1 of 4 channels keep ")
