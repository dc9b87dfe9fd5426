"""Neurons that cannot fire, by interval arithmetic: a sign that a file was written for another time step or gain."""

from __future__ import annotations

import numpy as np

from qkf_deploy.ir import Graph, Node, Operand
from qkf_deploy.ops import Add, Conv, Linear, Neuron, Scale, SumPool

#: Input values are taken to lie within this magnitude: normalized pixels, rates, single events.
INPUT_BOUND = 1.0
_Range = tuple[np.ndarray, np.ndarray]


def silent_neurons(graph: Graph) -> list[str]:
    """Neuron nodes of a float graph none of whose neurons can fire within its time steps, whatever the input.

    The drive of a neuron is bounded from the weights, for inputs within :data:`INPUT_BOUND`; a membrane that gains its
    largest drive in every step and does not leak gains no less than any other.
    """
    ranges: dict[str, _Range] = {}
    silent = []
    for node in graph:
        if node.op.kind in ("readout", "output"):
            break
        ranges[node.name] = _range(graph, node, [_seen(ranges[o.node], o) for o in node.inputs])
        if isinstance(node.op, Neuron) and not ranges[node.name][1].any():
            silent.append(node.name)
    return silent


def _seen(value: _Range, operand: Operand) -> _Range:
    return value if operand.view is None else (operand.view.apply(value[0], lead=2), operand.view.apply(value[1], 2))


def _range(graph: Graph, node: Node, inputs: list[_Range]) -> _Range:
    """Lowest and highest value of a node, ``(1, 1, *shape)`` each."""
    op = node.op
    if isinstance(op, Conv | Linear):
        return _synapse(node, *inputs[0])
    if isinstance(op, Neuron):
        return _neuron(graph, op, node, inputs[0][1])
    if isinstance(op, Scale) and op.factor < 0:
        inputs = [(high, low) for low, high in inputs]
    if isinstance(op, Add | SumPool | Scale):
        return op.run([low for low, _ in inputs], node.params, 1), op.run([high for _, high in inputs], node.params, 1)
    bound = np.full((1, 1, *node.type.shape), INPUT_BOUND)
    return -bound, bound


def _synapse(node: Node, low: np.ndarray, high: np.ndarray) -> _Range:
    weight, op = node.params["weight"], node.op
    up, down = {"weight": np.maximum(weight, 0)}, {"weight": np.minimum(weight, 0)}
    biased = {k: v for k, v in node.params.items() if k == "bias"}
    lowest = op.run([low], {**up, **biased}, 1) + op.run([high], down, 1)
    return lowest, op.run([high], {**up, **biased}, 1) + op.run([low], down, 1)


def _neuron(graph: Graph, op: Neuron, node: Node, drive: np.ndarray) -> _Range:
    levels = op.levels(node.params)
    gain = 1.0 if levels.tau is None or not op.decay_input else 1.0 / levels.tau
    start = np.maximum(node.params.get("initial", np.zeros(())), 0.0)
    highest = start + graph.time_steps * np.maximum(drive * gain, 0.0) + levels.base
    most = op.max_spikes or np.inf
    spikes = np.minimum(np.where(highest >= levels.v_threshold, np.ceil(highest / levels.v_threshold), 0.0), most)
    return np.zeros_like(spikes), spikes
