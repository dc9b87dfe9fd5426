"""Graph verification: every rule broken once, with its message. Builder, lookups, values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from netbuild import LIF, Net

from qkf_deploy.errors import GraphError
from qkf_deploy.ir import Graph, GraphBuilder, Kind, Node, Operand, Timing, ValueType, View, freeze
from qkf_deploy.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Input,
    IntegerNeuron,
    Linear,
    Mask,
    MatMul,
    MaxPool,
    Neuron,
    Output,
    Readout,
    Scale,
    Sum,
)  # fmt: skip


@pytest.fixture
def graph() -> Graph:
    """input -> conv -> lif -> add(lif, lif) -> conv2 -> output."""
    net = Net(0, (2, 4, 4))
    net.conv("conv", "input", 3)
    net.lif("lif", "conv")
    net.add("add", Add(), "lif", "lif")
    net.conv("conv2", "add", 2)
    net.add("output", Output(), "conv2")
    return net.build(2)


def changed(graph: Graph, name: str, **fields) -> Graph:
    return replace(graph, nodes={**graph.nodes, name: replace(graph[name], **fields)})


def reordered(graph: Graph) -> Graph:
    names = list(graph.nodes)
    names[1], names[2] = names[2], names[1]
    return replace(graph, nodes={n: graph.nodes[n] for n in names})


def without(graph: Graph, name: str) -> Graph:
    return replace(graph, nodes={k: v for k, v in graph.nodes.items() if k != name})


def extra(graph: Graph, node: Node) -> Graph:
    return replace(graph, nodes={**graph.nodes, node.name: node})


BROKEN: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "stored under another name": (
        lambda g: replace(g, nodes={("CONV" if k == "conv" else k): v for k, v in g.nodes.items()}),
        "conv: stored under the name 'CONV'",
    ),
    "too few inputs": (
        lambda g: changed(g, "add", inputs=(Operand("lif"),)),
        "add: add takes 2 inputs, got 1",
    ),
    "unknown input": (
        lambda g: changed(g, "lif", inputs=(Operand("nothing"),)),
        "lif: reads an unknown node: 'nothing'",
    ),
    "wrong order": (reordered, "lif: reads a later node (a cycle or wrong order): 'conv'"),
    "itself": (
        lambda g: changed(g, "lif", inputs=(Operand("lif"),)),
        "lif: reads a later node (a cycle or wrong order): 'lif'",
    ),
    "view of another size": (
        lambda g: changed(g, "lif", inputs=(Operand("conv", View.of((3, 5), (0, 1), (3, 5))),)),
        "lif: view does not fit the shape of 'conv'",
    ),
    "view whose size wraps around": (
        lambda g: changed(
            g,
            "lif",
            inputs=(Operand("conv", View((16, 3 + 2**60), ((0, 16), (0, 3)), (0, 1), (3, 16))),),
        ),
        "lif: view does not fit the shape of 'conv'",
    ),
    "operator that does not fit": (
        lambda g: changed(g, "conv2", inputs=(Operand("input"),)),
        "conv2: weight (2, 3, 3, 3) with 1 groups does not fit input (2, 4, 4)",
    ),
    "missing parameter": (
        lambda g: changed(g, "conv", params={}),
        "conv: a 2-d convolution cannot read a value of shape (2, 4, 4)",
    ),
    "wrong type": (
        lambda g: changed(g, "lif", type=ValueType.spikes((3, 4, 5))),
        "lif: type is ValueType(shape=(3, 4, 5), kind=<Kind.SPIKE: 'spike'>, timing=<Timing.STEP: 'step'>, high=1, "
        "low=0), its operator says ValueType(shape=(3, 4, 4), kind=<Kind.SPIKE: 'spike'>, timing=<Timing.STEP: "
        "'step'>, high=1, low=0)",
    ),
    "no output": (lambda g: without(g, "output"), "a graph has exactly one output node, this one has 0"),
    "two inputs": (
        lambda g: extra(g, replace(g["input"], name="again")),
        "a graph has exactly one input node, this one has 2",
    ),
    "unread value": (
        lambda g: extra(g, replace(g["lif"], name="lif2")),
        "lif2: nothing reads this value\n  try: drop the node before verification",
    ),
    "no time": (lambda g: replace(g, time_steps=0), "time_steps is 0, must be at least 1"),
}


@pytest.mark.parametrize(("breaks", "message"), BROKEN.values(), ids=BROKEN)
def test_every_rule(graph: Graph, breaks: Callable[[Graph], Graph], message: str) -> None:
    assert graph.verify() is graph
    with pytest.raises(GraphError) as caught:
        breaks(graph).verify()
    assert str(caught.value) == message


STEP, IMAGE = Timing.STEP, Timing.IMAGE
SPIKES, REAL = ValueType.spikes((4, 6, 6)), ValueType((4, 6, 6), Kind.REAL, Timing.CONSTANT)
DRIVE = ValueType.drive((4, 6, 6), STEP)
ONES = np.ones((2, 4, 3, 3))
MISFITS = {
    "conv rank": (Conv((1,), (0,), (1,)), (SPIKES,), {"weight": ONES}, "a 1-d convolution cannot read a value"),
    "conv channels": (Conv((1, 1), (0, 0), (1, 1)), (SPIKES,), {"weight": np.ones((2, 3, 3, 3))}, "does not fit input"),
    "conv groups": (Conv((1, 1), (0, 0), (1, 1), 3), (SPIKES,), {"weight": ONES}, "does not fit input"),
    "conv no groups": (Conv((1, 1), (0, 0), (1, 1), 0), (SPIKES,), {"weight": ONES}, "with 0 groups does not fit"),
    "conv bias": (
        Conv((1, 1), (1, 1), (1, 1)),
        (SPIKES,),
        {"weight": ONES, "bias": np.ones((2, 3, 2))},
        "bias (2, 3, 2) fits neither 2 channels nor border cases (3, 3)",
    ),
    "conv window": (
        Conv((1, 1), (0, 0), (4, 4)),
        (SPIKES,),
        {"weight": ONES},
        "a window of 3 does not fit an axis of 6",
    ),
    "conv stride": (
        Conv((0, 1), (0, 0), (1, 1)),
        (SPIKES,),
        {"weight": ONES},
        "a window needs kernel, stride and dilation",
    ),
    "conv padding": (Conv((1, 1), (-1, 0), (1, 1)), (SPIKES,), {"weight": ONES}, "padding of at least 0"),
    "linear": (
        Linear(),
        (SPIKES,),
        {"weight": np.ones((2, 5))},
        "a linear layer cannot read a value of shape (4, 6, 6)",
    ),
    "linear bias": (
        Linear(),
        (SPIKES,),
        {"weight": np.ones((2, 6)), "bias": np.ones(3)},
        "bias (3,) does not fit weight (2, 6)",
    ),
    "norm": (BatchNorm(1e-5), (SPIKES,), {"mean": np.ones(4)}, "batch norm over (4,) channels lacks a fitting 'var'"),
    "add": (Add(), (SPIKES, ValueType.spikes((4, 6, 5))), {}, "cannot add values of shape (4, 6, 6) and (4, 6, 5)"),
    "concat": (Concat(0), (SPIKES, ValueType.spikes((4, 6, 5))), {}, "do not stand side by side along axis 0"),
    "concat axis": (Concat(3), (SPIKES, SPIKES), {}, "do not stand side by side along axis 3"),
    "tail": (
        Conv((1, 1), (1, 1), (1, 1), spread=(2, 1), tail=(1, 1)),
        (SPIKES,),
        {"weight": ONES},
        "spread by 1 cannot have 1 places behind",
    ),
    "spread": (Conv((1, 1), (1, 1), (1, 1), spread=(2,)), (SPIKES,), {"weight": ONES}, "are not of 2 axes"),
    "spread too far": (
        Conv((2**40, 1), (0, 1), (1, 1), spread=(2**40, 1), tail=(2**39, 0)),
        (SPIKES,),
        {"weight": ONES},
        "an axis spread over",
    ),
    "add over time": (
        Add(),
        (SPIKES, ValueType.drive((4, 6, 6), IMAGE)),
        {},
        "one operand is per image, the other per time step",
    ),
    "gate of counts": (Mask(), (ValueType.events((4, 1, 6), 3, STEP), SPIKES), {}, "a gate must be spikes, not count"),
    "gate shape": (
        Mask(),
        (SPIKES, ValueType.spikes((4, 1, 6))),
        {},
        "a gate of shape (4, 6, 6) does not broadcast to (4, 1, 6)",
    ),
    "scale zero": (Scale(0.0), (DRIVE,), {}, "a scale of 0.0 has no meaning"),
    "matmul": (MatMul(), (SPIKES, ValueType.spikes((4, 5, 6))), {}, "cannot multiply values of shape"),
    "matmul heads": (MatMul(), (SPIKES, ValueType.spikes((3, 6, 6))), {}, "cannot multiply values of shape"),
    "matmul readout": (
        MatMul(),
        (SPIKES, ValueType.drive((4, 6, 6), IMAGE)),
        {},
        "a product of activations cannot follow the readout",
    ),
    "pool rank": (MaxPool((2,), (2,), (0,)), (SPIKES,), {}, "a 1-d pool cannot read a value of shape (4, 6, 6)"),
    "pool padding": (MaxPool((2, 2), (2, 2), (2, 1)), (SPIKES,), {}, "pool padding is more than half the window"),
    "sum axis": (Sum((3,)), (SPIKES,), {}, "cannot sum axes (3,) of a value of shape (4, 6, 6)"),
    "sum order": (Sum((2, 1)), (SPIKES,), {}, "cannot sum axes (2, 1)"),
    "sum nothing": (Sum(()), (SPIKES,), {}, "cannot sum axes ()"),
    "readout of nothing": (Readout((0.0, 0.0)), (SPIKES,), {}, "a readout whose weights are all 0"),
    "readout twice": (Readout(), (ValueType.drive((4,), IMAGE),), {}, "the value is per image already"),
    "late neuron": (LIF, (ValueType.drive((4,), IMAGE),), {}, "a neuron cannot follow the readout"),
    "threshold": (Neuron(2.0, 0.0, 0.0), (DRIVE,), {}, "a neuron needs V_th > V_reset and τ > 1"),
    "reset above": (Neuron(2.0, 1.0, 1.5), (DRIVE,), {}, "a neuron needs V_th > V_reset and τ > 1"),
    "tau": (Neuron(1.0, 1.0, 0.0), (DRIVE,), {}, "a neuron needs V_th > V_reset and τ > 1"),
    "no leftover": (Neuron(2.0, 1.0, 0.0, carry="stored"), (DRIVE,), {}, "'stored' and the parameter 'leftover' go"),
    "leftover": (
        Neuron(2.0, 1.0, 0.0, carry="stored"),
        (DRIVE,),
        {"leftover": np.ones((4, 4, 6, 5))},
        "does not fit (4, 6, 6)",
    ),
    "theta": (IntegerNeuron(1, 1), (DRIVE,), {}, "the threshold does not broadcast to (4, 6, 6)"),
    "theta shape": (
        IntegerNeuron(1, 1),
        (DRIVE,),
        {"theta": np.ones(4, int).reshape(2, 2, 1, 1)},
        "does not broadcast",
    ),
    "decay above one": (IntegerNeuron(3, 1), (DRIVE,), {"theta": np.ones((1, 1, 1), int)}, "the decay 3/2^1 exceeds 1"),
    "negative decay": (IntegerNeuron(-1, 1), (DRIVE,), {"theta": np.ones((1, 1, 1), int)}, "multipliers from 0"),
    "huge shift": (IntegerNeuron(1, 10**9), (DRIVE,), {"theta": np.ones((1, 1, 1), int)}, "go from 0 to 32"),
    "huge fraction": (IntegerNeuron(1, 1, 64), (DRIVE,), {"theta": np.ones((1, 1, 1), int)}, "go from 0 to 32"),
    "input": (Input((3, 0, 4)), (), {}, "an input cannot have the shape (3, 0, 4)"),
    "output scale": (
        Output(),
        (ValueType.drive((4,), IMAGE),),
        {"scale": np.ones(3)},
        "scale does not broadcast to (4,)",
    ),
}


@pytest.mark.parametrize(("op", "types", "params", "message"), MISFITS.values(), ids=MISFITS)
def test_operators_refuse_what_does_not_fit(op, types, params, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        op.infer(types, params)
    assert message in str(caught.value)


def test_kinds_follow_the_values(graph: Graph) -> None:
    add, conv = graph["add"].type, graph["conv"].type
    assert (add.kind, add.high, add.low, add.timing) == (Kind.COUNT, 2, 0, Timing.STEP)
    assert (conv.kind, conv.timing) == (Kind.DRIVE, Timing.CONSTANT)
    assert graph["lif"].type == ValueType.spikes((3, 4, 4))


def test_kinds_of_event_operators() -> None:
    spikes, counts = ValueType.spikes((2, 4, 6)), ValueType.events((2, 6, 4), 3, STEP)
    assert MatMul().infer((spikes, counts), {}) == ValueType.events((2, 4, 4), 18, STEP)
    assert Sum((1,), True).infer((counts,), {}) == ValueType((2, 1, 4), Kind.COUNT, STEP, 18, 0)
    assert Sum((0, 2)).infer((counts,), {}) == ValueType((6,), Kind.COUNT, STEP, 24, 0)
    assert Mask().infer((ValueType.spikes((2, 1, 4)), counts), {}) == counts
    assert MaxPool((2, 2), (2, 2), (0, 0)).infer((counts,), {}) == ValueType.events((2, 3, 2), 3, STEP)
    assert Readout().infer((counts,), {}).timing is IMAGE


def test_builder_refuses() -> None:
    net = Net(0, (2, 4, 4))
    with pytest.raises(GraphError, match=r"^input: the name is taken$"):
        net.add("input", Input((1, 2, 2)))
    with pytest.raises(GraphError, match=r"^lif: reads an unknown node: 'conv'$"):
        net.lif("lif", "conv")
    with pytest.raises(GraphError, match=r"^pool: a 1-d pool cannot read"):
        net.add("pool", MaxPool((2,), (2,), (0,)), "input")
    assert list(net.builder.nodes) == ["input"]


def test_builder_drops_views_that_change_nothing() -> None:
    net = Net(0, (2, 4, 4))
    net.lif("lif", Operand("input", View.of((2, 4, 4), (0, 1, 2), (2, 4, 4))))
    net.lif("flat", Operand("input", View.of((2, 4, 4), (0, 1, 2), (2, 16))))
    assert net.builder.nodes["lif"].inputs == (Operand("input"),)
    assert net.builder.nodes["flat"].inputs[0].view is not None
    assert net.builder.nodes["flat"].type.shape == (2, 16)


def test_parameters_are_read_only(graph: Graph) -> None:
    weight = graph["conv"].params["weight"]
    with pytest.raises(ValueError, match="read-only"):
        weight[0] = 1.0
    with pytest.raises(TypeError):
        graph["conv"].params["weight"] = weight  # type: ignore[index]
    own = np.ones(3)
    frozen = freeze({"a": own})
    own[0] = 2.0
    assert frozen["a"][0] == 2.0  # shared, not copied: checkpoints are large
    assert own.flags.writeable


def test_lookups(graph: Graph) -> None:
    with pytest.raises(GraphError, match="absent: no such node\n  try: `qkf-deploy inspect` lists the node names"):
        graph["absent"]
    users = {name: [n.name for n in nodes] for name, nodes in graph.consumers().items()}
    assert users["lif"] == ["add", "add"]
    assert users["output"] == []
    assert graph.parameter_count() == 3 * 2 * 9 + 3 + 2 * 3 * 9 + 2
    assert [n.name for n in graph] == ["input", "conv", "lif", "add", "conv2", "output"]
    assert graph.output.name == "output"


def test_empty_builder() -> None:
    with pytest.raises(GraphError, match="exactly one input node, this one has 0"):
        GraphBuilder().build(time_steps=1)
