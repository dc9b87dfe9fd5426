"""Products of drives and spikes (SpikingResformer, arXiv 2403.14302): one scale along the summed axis, every engine."""

from __future__ import annotations

from dataclasses import replace

import event_cases
import numpy as np
import pytest
from netbuild import Net

import qkf_deploy as qd
from qkf_deploy import ops
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Operand, View
from qkf_deploy.options import QuantizeOptions
from qkf_deploy.passes.quantize import prepare
from qkf_deploy.passes.scales import seen_scale
from qkf_deploy.simulators import onnx as onnx_engine
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record

HEADS, DIM, SIZE = 2, 3, 4
CHANNELS, PIXELS, PLACES = HEADS * DIM, SIZE * SIZE, 4


def dual_attention(seed: int, spread: float = 30.0) -> Net:
    """Y1^T X, a neuron, Y2 A, a neuron: Y is a strided convolution of the spikes X, whose channels' weights differ in
    size by up to ``spread``."""
    net = Net(seed, (3, SIZE, SIZE))
    x = net.lif("x", net.conv("stem", "input", CHANNELS))
    net.conv("y", x, 2 * CHANNELS, 2, stride=2, padding=0)
    grow(net, "y", spread)
    both = View.of((HEADS, 2, DIM, PLACES), (0, 1, 2, 3), (HEADS, 2, DIM, PLACES))
    y1, y2 = (both.narrowed(1, i, i + 1).then((HEADS, DIM, PLACES)) for i in range(2))
    spikes = View.of((HEADS, DIM, PIXELS), (0, 1, 2), (HEADS, DIM, PIXELS))
    net.add("map", ops.MatMul(), Operand("y", y1.transposed((0, 2, 1))), Operand(x, spikes))
    net.lif("map_lif", net.add("map_scale", ops.Scale(1.37), "map"))
    net.add("out", ops.MatMul(), Operand("y", y2), "map_lif")
    whole = View.of((HEADS, DIM, SIZE, SIZE), (0, 1, 2, 3), (CHANNELS, SIZE, SIZE))
    net.add("out_scale", ops.Scale(1.21), "out")
    net.last = "out_scale"
    net.shortcut = Operand("out_scale", whole)  # type: ignore[attr-defined]
    return net


def grow(net: Net, name: str, spread: float) -> None:
    """Output channels of very different size."""
    node = net.builder.nodes[name]
    gain = np.exp(net.rng.uniform(0, np.log(spread), len(node.params["weight"])))
    gain /= np.sqrt(spread)
    params = {k: v * gain.reshape(-1, *[1] * (v.ndim - 1)) for k, v in node.params.items()}
    net.builder.nodes[name] = replace(node, params=params)


def finished(net: Net, drive: Operand | str) -> Graph:
    net.head(net.lif("out_lif", drive))
    return net.build()


def pixels(seed: int) -> np.ndarray:
    """Noise, and the extremes."""
    x = np.random.default_rng(seed).integers(0, 256, (4, 3, SIZE, SIZE)).astype(np.uint8)
    x[0], x[1] = 0, 255
    return x


def test_one_scale_along_the_summed_axis_alone() -> None:
    """The channels of a head that are summed over share one scale, other heads and channels keep their own."""
    net = dual_attention(0)
    graph = finished(net, net.shortcut)  # type: ignore[attr-defined]
    made = prepare(graph, QuantizeOptions(bits=8))
    left, right = (seen_scale(made.graph, o, made.scale) for o in made.graph["map"].inputs)
    assert left.shape == (HEADS, 1, 1)
    assert len(np.unique(left)) == HEADS
    assert right.shape == (1, 1, 1)
    assert seen_scale(made.graph, made.graph["out"].inputs[0], made.scale).shape == (HEADS, DIM, 1)
    assert made.scale["out"].shape == (HEADS, DIM, 1)
    shifts = made.shift["y"].reshape(HEADS, 2, DIM)
    assert (shifts[:, 0].min(axis=1) == 0).all()  # the largest channel of a head sets its scale
    assert shifts[:, 0].any()
    assert not shifts[:, 1].any()


@pytest.mark.parametrize(("seed", "bits"), [(0, 8), (1, 4), (5, 2), (3, 16), (4, 8)])
def test_every_engine(seed: int, bits: int) -> None:
    net = dual_attention(seed)
    integer = qd.quantize(finished(net, net.shortcut), bits)  # type: ignore[attr-defined]
    x, _ = encode(integer, pixels(seed))
    event_cases.check(integer, x)
    record = Record.of(integer, "all", "all")
    wanted, found = (run(integer, x, record) for run in (reference.run, onnx_engine.run))
    for name, value in wanted.values.items():
        assert np.array_equal(found.values[name], value), name
    assert found.ledger == wanted.ledger
    assert wanted.spikes["map_lif"].any()
    assert wanted.spikes["out_lif"].any()


@pytest.mark.parametrize("seed", range(4))
def test_many_bits_give_the_float_spikes(seed: int) -> None:
    net = dual_attention(seed)
    graph = finished(net, net.shortcut)  # type: ignore[attr-defined]
    integer = qd.quantize(graph, 24, scales="max", fraction_bits=12)
    names = ["x", "map_lif", "out_lif"]
    runs = [reference.run(g, encode(g, pixels(seed))[0], Record.of(g, names)) for g in (graph, integer)]
    for name in names:
        assert np.array_equal(runs[0].spikes[name], runs[1].spikes[name]), name


def test_a_product_that_is_added_to_a_drive() -> None:
    """The shortcut around attention: the product enters through an identity synapse, as all that is no synapse does."""
    net = dual_attention(6)
    skip = net.conv("skip", "x", CHANNELS, 1)
    graph = finished(net, net.add("sum", ops.Add(), net.shortcut, skip))  # type: ignore[attr-defined]
    integer = qd.quantize(graph, 8)
    event_cases.check(integer, encode(integer, pixels(6))[0])
    names = ["x", "map_lif", "out_lif"]
    fine = qd.quantize(graph, 24, scales="max", fraction_bits=12)
    runs = [reference.run(g, encode(g, pixels(6))[0], Record.of(g, names)) for g in (graph, fine)]
    for name in names:
        assert np.array_equal(runs[0].spikes[name], runs[1].spikes[name]), name


def test_products_of_two_drives_have_one_scale_too() -> None:
    net = Net(9, (3, SIZE, SIZE))
    x = net.lif("x", net.conv("stem", "input", CHANNELS))
    for name in "ab":
        net.conv(name, x, CHANNELS, 1)
        grow(net, name, 20.0)
    rows = View.of((CHANNELS, PIXELS), (0, 1), (CHANNELS, PIXELS))
    y = net.add("product", ops.MatMul(), Operand("a", rows.transposed((1, 0))), Operand("b", rows))
    net.head(net.lif("y_lif", net.add("y_scale", ops.Scale(0.05), y)))
    graph = net.build()
    integer = qd.quantize(graph, 8)
    event_cases.check(integer, encode(integer, pixels(9))[0])
    fine = qd.quantize(graph, 16, scales="max")
    runs = [reference.run(g, encode(g, pixels(9))[0], Record.of(g, ["y_lif"])) for g in (graph, fine)]
    assert (runs[0].spikes["y_lif"] != runs[1].spikes["y_lif"]).mean() < 2e-3


def test_a_product_of_a_product() -> None:
    """What the second one sums over is asked of the first one, and so of the synapse behind it."""
    net = dual_attention(0)
    turned = View.of((HEADS, DIM, PIXELS), (0, 2, 1), (HEADS, PIXELS, DIM))
    spikes = View.of((HEADS, DIM, PIXELS), (0, 1, 2), (HEADS, DIM, PIXELS))
    graph = finished(net, net.add("again", ops.MatMul(), Operand("out_scale", turned), Operand("x", spikes)))
    assert len(np.unique(prepare(graph, QuantizeOptions(bits=8)).scale["out"])) == HEADS
    integer = qd.quantize(graph, 8)
    event_cases.check(integer, encode(integer, pixels(0))[0])


def test_a_product_of_drives_in_a_product_is_refused() -> None:
    net = Net(1, (3, SIZE, SIZE))
    net.conv("y", net.lif("x", net.conv("stem", "input", CHANNELS)), CHANNELS, 1)
    grow(net, "y", 20.0)
    rows = View.of((CHANNELS, PIXELS), (0, 1), (CHANNELS, PIXELS))
    square = net.add("square", ops.MatMul(), Operand("y", rows), Operand("y", rows.transposed((1, 0))))
    wide = net.add("wide", ops.MatMul(), square, Operand("y", rows))
    net.head(net.lif("wide_lif", wide))
    with pytest.raises(UnsupportedError, match=r"square: a product of drives"):
        qd.quantize(net.build(), 8)
