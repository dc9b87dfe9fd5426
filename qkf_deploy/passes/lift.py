"""Spikes that are added to a drive enter through a synapse of their own, so that both have one scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from qkf_deploy.ir import Graph, GraphBuilder, Node, Operand, View, identity
from qkf_deploy.ops import Add, Concat, Conv, Linear, Mask, MaxPool, Scale, Sum, SumPool
from qkf_deploy.passes.scales import Scales, seen_scale

_PASS_THROUGH = (MaxPool, SumPool, Scale, Sum)


def lift_events(graph: Graph, scales: Scales) -> Graph:
    """The float graph with an identity synapse wherever spikes, counts or pixels are added to a drive.

    The unit of a spike cannot be changed, that of a drive is set by its weights. A depthwise 1x1 convolution with
    weight 1 turns the spikes into a drive: one addition per spike, which is what adding it to a membrane costs.

    Args:
        graph: folded float graph.
        scales: of its values, before any are unified; say along which axes the scale of a drive varies.
    """
    fixed = _fixed(graph)
    builder = GraphBuilder()
    lifted: list[str] = []
    for node in graph:
        inputs = list(node.inputs)
        if isinstance(node.op, Add) and not node.type.is_events:
            for port in _to_lift(graph, node, fixed, scales):
                inputs[port] = _lift(graph, builder, node, port, scales)
                lifted.append(f"{node.name} ({inputs[port].node})")
        builder.add(node.name, node.op, inputs, node.params, node.source)
    if not lifted:
        return graph
    notice = "spikes are added to a drive, through an identity synapse: " + ", ".join(lifted)
    return replace(graph, nodes=dict(builder.nodes), notices=(*graph.notices, notice)).verify()


def _fixed(graph: Graph) -> Mapping[str, bool]:
    """True for every value whose scale no weight can change."""
    out: dict[str, bool] = {}
    for node in graph:
        if isinstance(node.op, Conv | Linear):
            out[node.name] = False
        elif isinstance(node.op, Concat):
            out[node.name] = any(out[o.node] for o in node.inputs)
        elif isinstance(node.op, Add):  # an operand that is fixed will be lifted if the other one is not
            out[node.name] = all(out[o.node] for o in node.inputs)
        elif isinstance(node.op, Mask):
            out[node.name] = out[node.inputs[1].node]
        else:
            out[node.name] = not isinstance(node.op, _PASS_THROUGH) or out[node.inputs[0].node]
    return out


def _to_lift(graph: Graph, node: Node, fixed: Mapping[str, bool], scales: Scales) -> list[int]:
    ports = [port for port, operand in enumerate(node.inputs) if fixed[operand.node]]
    if len(ports) < len(node.inputs):
        return ports
    first, second = (seen_scale(graph, o, scales) for o in node.inputs)
    return [] if bool((first == second).all()) else ports


def _lift(graph: Graph, builder: GraphBuilder, node: Node, port: int, scales: Scales) -> Operand:
    """The operand behind a depthwise convolution; its channels are the axes along which the other's scale varies."""
    operand, other = node.inputs[port], node.inputs[1 - port]
    shape = graph.operand_type(operand).shape
    varies = [axis for axis, n in enumerate(seen_scale(graph, other, scales).shape) if n > 1] or [0]
    order = [*varies, *(axis for axis in range(len(shape)) if axis not in varies)]
    channels = int(np.prod([shape[axis] for axis in varies]))
    rows = (channels, int(np.prod(shape)) // channels)
    view = operand.view or identity(graph[operand.node].type.shape)
    name = f"{node.name}.identity" if port == 0 else f"{node.name}.identity{port}"
    op = Conv((1,), (0,), (1,), groups=channels)
    flat = Operand(operand.node, view.transposed(order).then(rows))
    builder.add(name, op, (flat,), {"weight": np.ones((channels, 1, 1))}, node.source)
    back = View.of([shape[axis] for axis in order], [order.index(axis) for axis in range(len(shape))], shape)
    return Operand(name, back)
