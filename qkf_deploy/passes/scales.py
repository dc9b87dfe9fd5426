"""Scales of an integer graph: which real number one unit of every value stands for.

Where drives meet in an addition their scales are unified, per channel: every drive that takes part (through pools,
views and further additions) gets the largest scale any of them needs. A synapse that does not read spikes but a drive
or pixels has a far finer unit of its own; it keeps it, and a rounding shift follows (:func:`shifts`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Graph, Kind, Node, Operand
from qkf_deploy.ops import Add, Conv, Linear, Mask, MatMul, MaxPool, Neuron, Output, Readout, Scale, Sum, SumPool
from qkf_deploy.ops.synapse import input_channels

Scales = dict[str, np.ndarray]
_MAX_ROUNDS = 64
#: A bias has at most this many bits, so that channels with (almost) no weights keep theirs. Real networks have some:
#: training drives the batch-norm gain of unused channels to 1e-20 and less, and leaves their shift.
_BIAS_BITS = 40
_PASS_THROUGH = (MaxPool, SumPool, Scale, Sum, Readout, Output)


def drive_scales(graph: Graph, bits: Mapping[str, int], input_scale: np.ndarray, *, unify: bool = True) -> Scales:
    """Scale of every value, float64, broadcastable to its per-step shape.

    Args:
        graph: folded float graph.
        bits: per weight of every synapse.
        input_scale: of the input.
        unify: False leaves the operands of additions at their own scales.

    Raises:
        UnsupportedError: spikes are added to a drive, or scales differ where a sum or product needs one scale.
    """
    scales = _forward(graph, bits, input_scale, {})
    if not unify or not any(isinstance(n.op, Add) and not n.type.is_events for n in graph):
        return scales
    for _ in range(_MAX_ROUNDS):
        raised = _forward(graph, bits, input_scale, _required(graph, scales))
        if all(np.array_equal(raised[name], scales[name]) for name in scales):
            return scales
        scales = raised
    raise UnsupportedError("the scales of a membrane shortcut grow without end", hint="is there a neuron in the loop?")


def shifts(graph: Graph, bits: Mapping[str, int], scales: Scales) -> dict[str, np.ndarray]:
    """Bits to shift the result of each synapse that does not read spikes, int64 ``(O,)``; absent where none is needed.

    Its weights keep their resolution: the scale before the shift is ``scale / 2^bits``, at least its own.
    """
    out: dict[str, np.ndarray] = {}
    for node in graph:
        if not isinstance(node.op, Conv | Linear) or graph.input_types(node)[0].kind is Kind.SPIKE:
            continue
        own = _synapse_scale(graph, node, scales, bits[node.name], {})
        amount = np.floor(np.log2(scales[node.name] / own * (1 + 1e-12))).astype(np.int64).reshape(-1)
        if (amount > 0).any():
            out[node.name] = np.maximum(amount, 0)
    return out


def synapse_axis(node: Node) -> int:
    """Axis of the output that counts output channels."""
    return 0 if isinstance(node.op, Conv) else len(node.type.shape) - 1


def seen_scale(graph: Graph, operand: Operand, scales: Mapping[str, np.ndarray]) -> np.ndarray:
    """Scale of a value as an operand sees it, broadcastable to the operand's shape."""
    scale = scales[operand.node]
    rank = len(graph.operand_type(operand).shape)
    if scale.size == 1:
        return scale.reshape((1,) * rank)
    if operand.view is None:
        return scale
    full = np.broadcast_to(scale, graph[operand.node].type.shape)
    return _compact(operand.view.apply(full, lead=0))


def effective_weight(graph: Graph, node: Node, scales: Mapping[str, np.ndarray]) -> np.ndarray:
    """Weights with the input's scale multiplied in, float64."""
    weight = node.params["weight"].astype(np.float64)
    scale = seen_scale(graph, node.inputs[0], scales)
    if (scale == 1.0).all():
        return weight
    axis = 0 if isinstance(node.op, Conv) else scale.ndim - 1
    channels = graph.operand_type(node.inputs[0]).shape[axis]
    per_channel = _uniform(scale, tuple(i for i in range(scale.ndim) if i != axis), node)
    per_channel = np.broadcast_to(per_channel.reshape(-1), (channels,))
    if isinstance(node.op, Conv):
        index = input_channels(weight.shape, node.op.groups)
        return weight * per_channel[index].reshape(*index.shape, *[1] * (weight.ndim - 2))
    return weight * per_channel


def _compact(x: np.ndarray) -> np.ndarray:
    for axis in range(x.ndim):
        first = x.take([0], axis=axis)
        if x.shape[axis] > 1 and (x == first).all():
            x = first
    return x


def _uniform(scale: np.ndarray, axes: tuple[int, ...], node: Node) -> np.ndarray:
    """The scale with ``axes`` cut to size 1, which must not change it."""
    first = scale
    for axis in axes:
        first = first.take([0], axis=axis)
    if (scale != first).any():
        raise UnsupportedError("needs one scale over the elements it combines", where=node.name)
    return first


def _forward(graph: Graph, bits: Mapping[str, int], input_scale: np.ndarray, floor: Scales) -> Scales:
    scales: Scales = {}
    for node in graph:
        one = np.ones((1,) * len(node.type.shape))
        if node.op.kind == "input":
            scales[node.name] = input_scale
        elif isinstance(node.op, Neuron):
            scales[node.name] = one
        elif isinstance(node.op, Conv | Linear):
            scales[node.name] = _synapse_scale(graph, node, scales, bits[node.name], floor)
        else:
            scales[node.name] = _derived(graph, node, [seen_scale(graph, o, scales) for o in node.inputs])
    return scales


def _synapse_scale(graph: Graph, node: Node, scales: Scales, bits: int, floor: Scales) -> np.ndarray:
    """s_c = max|w_c| / (2^(bits-1) - 1), or what the bias needs; without weights the bias is the unit."""
    weight = effective_weight(graph, node, scales)
    largest: np.ndarray = np.abs(weight).reshape(weight.shape[0], -1).max(axis=1)
    least = np.zeros_like(largest)
    if "bias" in node.params:
        bias = np.abs(node.params["bias"].astype(np.float64)).reshape(weight.shape[0], -1).max(axis=1)
        largest = np.where(largest == 0, bias, largest)
        least = bias / 2.0**_BIAS_BITS
    scale = np.maximum(np.where(largest == 0, 1.0, largest) / (2 ** (bits - 1) - 1), least)
    axis = synapse_axis(node)
    scale = scale.reshape([-1 if i == axis else 1 for i in range(len(node.type.shape))])
    return np.maximum(scale, floor[node.name]) if node.name in floor else scale


def _derived(graph: Graph, node: Node, seen: list[np.ndarray]) -> np.ndarray:
    """Scale of what is neither a synapse nor a neuron."""
    op = node.op
    if isinstance(op, Add):
        return _compact(np.maximum(*np.broadcast_arrays(*seen)))
    if isinstance(op, Mask):
        return seen[1]
    if isinstance(op, MatMul):
        left, right = (_uniform(s, tuple(range(s.ndim)), node) for s in seen)
        return left * right
    if isinstance(op, Scale):
        if op.factor <= 0:
            raise UnsupportedError(f"a scale of {op.factor} turns thresholds around", where=node.name)
        return seen[0] * op.factor
    if isinstance(op, Sum):
        kept = _uniform(seen[0], op.axes, node)
        return kept if op.keepdims else kept.reshape([n for i, n in enumerate(kept.shape) if i not in op.axes])
    if isinstance(op, MaxPool | SumPool):
        return _uniform(seen[0], tuple(range(1, seen[0].ndim)), node)
    if isinstance(op, Readout | Output):
        return seen[0]
    raise UnsupportedError(f"{op.kind} has no integer form", where=node.name, hint="fold the graph first")


def _required(graph: Graph, scales: Scales) -> Scales:
    """Smallest scale every synapse must have so that all additions of drives meet at one scale."""
    wanted: Scales = {}
    floor: Scales = {}
    for node in reversed(list(graph.nodes.values())):
        unify = isinstance(node.op, Add) and not node.type.is_events
        if not unify and node.name not in wanted:
            continue
        need = np.maximum(np.broadcast_to(scales[node.name], node.type.shape), wanted.get(node.name, 0.0))
        if isinstance(node.op, Conv | Linear):
            axis = synapse_axis(node)
            floor[node.name] = need.max(axis=tuple(i for i in range(need.ndim) if i != axis), keepdims=True)
        elif unify or isinstance(node.op, (*_PASS_THROUGH, Mask)):
            for operand in node.inputs[1:] if isinstance(node.op, Mask) else node.inputs:
                _push(graph, node, operand, need, wanted)
        else:  # its unit is one spike or pixel value: far too coarse for the weights it would be imposed on
            raise UnsupportedError(
                f"{node.type.kind.value} values are added to a drive; their scales cannot be unified", where=node.name
            )
    return floor


def _push(graph: Graph, node: Node, operand: Operand, need: np.ndarray, wanted: Scales) -> None:
    """Ask the operand's value for at least this scale, element by element through the view."""
    if isinstance(node.op, Scale):
        need = need / node.op.factor
    seen_shape = graph.operand_type(operand).shape
    if isinstance(node.op, MaxPool | SumPool):
        need = np.broadcast_to(need.max(axis=tuple(range(1, need.ndim)), keepdims=True), seen_shape)
    elif isinstance(node.op, Sum):
        kept = need if node.op.keepdims else np.expand_dims(need, node.op.axes)
        need = np.broadcast_to(kept, seen_shape)
    shape = graph[operand.node].type.shape
    target = wanted.setdefault(operand.node, np.zeros(shape))
    if operand.view is None:
        np.maximum(target, need, out=target)
        return
    index = operand.view.apply(np.arange(target.size).reshape(shape), lead=0).reshape(-1)
    flat = target.reshape(-1)
    flat[index] = np.maximum(flat[index], need.reshape(-1))
