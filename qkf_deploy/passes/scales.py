"""Scales of an integer graph: which real number one unit of every value stands for.

Where drives meet in an addition their scales are unified, per channel: every drive that takes part (through pools,
views and further additions) gets the largest scale any of them needs. So do the channels of a drive that a product
with spikes sums over (the attention of SpikingResformer, arXiv 2403.14302), and those that are positions to what
reads them (rows of a wavelet transform, arXiv 2403.11138, in front of a norm per channel): one scale along that axis. A
synapse whose own unit is finer keeps it, so that its weights keep the bits asked, and a rounding shift follows
(:func:`shifts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from qkf_deploy.errors import ProofError, UnsupportedError
from qkf_deploy.ir import Graph, Kind, Node, Operand
from qkf_deploy.ops import (
    Add,
    Concat,
    Conv,
    Linear,
    Mask,
    MatMul,
    MaxPool,
    Neuron,
    Output,
    Readout,
    Scale,
    Sum,
    SumPool,
)
from qkf_deploy.ops.synapse import input_channels
from qkf_deploy.passes.compact import compact, viewed
from qkf_deploy.passes.grid import find_grid, unit
from qkf_deploy.passes.reach import weight_reach

Scales = dict[str, np.ndarray]
_MAX_ROUNDS = 64
#: A channel whose weights cannot move its bias by this part of it is constant, and its bias sets the scale. Real
#: networks have some: training drives the batch-norm gain of unused channels to 1e-20 and less, and leaves their shift.
_CONSTANT_BITS = 40
_MOST_BITS = 61
_PASS_THROUGH = (MaxPool, SumPool, Scale, Sum, Readout, Output)


@dataclass(frozen=True)
class ScaleRules:
    """What the scales of a graph must allow.

    Attributes:
        bits: per weight of every synapse.
        keep_grids: weights that lie on a grid keep its step.
        bias_bits: a bias may have this many, so that sums over time and fraction bits stay below 62.
        reach: largest magnitude of every value (:func:`qkf_deploy.passes.reach.reaches`).
        joined: synapses whose drives meet others in an addition (:func:`joined`): none may impose a coarse step.
    """

    bits: Mapping[str, int]
    keep_grids: bool
    bias_bits: int
    reach: Mapping[str, float]
    joined: frozenset[str] = frozenset()


def drive_scales(graph: Graph, rules: ScaleRules, input_scale: np.ndarray, *, unify: bool = True) -> Scales:
    """Scale of every value, float64, broadcastable to its per-step shape.

    Args:
        graph: folded float graph.
        rules: what the scales must allow.
        input_scale: of the input.
        unify: False leaves the operands of additions at their own scales.

    Raises:
        UnsupportedError: spikes are added to a drive, or scales differ where a sum or product needs one scale.
        ProofError: a synapse on a drive that cannot have the bits asked.
    """
    scales = _forward(graph, rules, input_scale, {})
    if not unify:
        return scales
    floor: Scales = {}
    for _ in range(_MAX_ROUNDS):
        for name, need in _required(graph, scales).items():
            floor[name] = np.maximum(need, floor.get(name, 0.0))
        raised = _forward(graph, rules, input_scale, floor) if floor else scales
        if all(np.array_equal(raised[name], scales[name]) for name in scales):
            _check_combined(graph, scales)
            return scales
        scales = raised
    raise UnsupportedError("the scales of a membrane shortcut grow without end", hint="is there a neuron in the loop?")


def joined(graph: Graph) -> frozenset[str]:
    """Synapses whose drives are added to other drives, through pools, views and further additions, or summed over in a
    product with spikes.

    Raises:
        UnsupportedError: something whose scale cannot be changed is added to a drive.
    """

    def apart(node: Node, _: Scales) -> np.ndarray:  # any scales that differ from channel to channel
        axis, rank = synapse_axis(node), len(node.type.shape)
        return np.arange(1.0, node.type.shape[axis] + 1).reshape([-1 if i == axis else 1 for i in range(rank)])

    return frozenset(_required(graph, _derive(graph, np.ones((1,) * len(graph.input.type.shape)), apart)))


def shifts(graph: Graph, rules: ScaleRules, scales: Scales) -> dict[str, np.ndarray]:
    """Bits to shift the result of each synapse whose own unit is finer, int64 ``(O,)``; absent where none is needed.

    Its weights keep their resolution: the scale before the shift is ``scale / 2^bits``, at least its own. One spike
    through one weight (the identity synapses of :mod:`qkf_deploy.passes.lift`) gains nothing from it.
    """
    out: dict[str, np.ndarray] = {}
    for node in graph:
        if not isinstance(node.op, Conv | Linear) or node.name not in rules.joined:
            continue
        single = node.params["weight"][0].size == 1 and "bias" not in node.params
        if single and graph.input_types(node)[0].kind is Kind.SPIKE:
            continue
        own = _synapse_scale(graph, node, scales, replace(rules, keep_grids=False), {})  # the finest that fits
        amount = np.floor(np.log2(scales[node.name] / own * (1 + 1e-12))).astype(np.int64).reshape(-1)
        if (amount > 0).any():
            out[node.name] = np.maximum(amount, 0)
    return out


#: Bits of the weights of time steps that are not whole numbers.
_STEP_BITS = 16


def step_unit(op: Readout) -> float:
    """What one unit of the weights of the time steps stands for: 1 where they are whole numbers."""
    if all(w == int(w) for w in op.weights):
        return 1.0
    return max(map(abs, op.weights)) / (2 ** (_STEP_BITS - 1) - 1)


def synapse_axis(node: Node) -> int:
    """Axis of the output that counts output channels."""
    return 0 if isinstance(node.op, Conv) else len(node.type.shape) - 1


def computes_events(graph: Graph, node: Node) -> bool:
    """True if spikes or counts come of nothing but spikes and counts: integers already, whatever the operator."""
    return all(t.is_events for t in (node.type, *graph.input_types(node)))


def seen_scale(graph: Graph, operand: Operand, scales: Mapping[str, np.ndarray]) -> np.ndarray:
    """Scale of a value as an operand sees it, broadcastable to the operand's shape."""
    scale = scales[operand.node]
    rank = len(graph.operand_type(operand).shape)
    if scale.size == 1:
        return scale.reshape((1,) * rank)
    if operand.view is None:
        return scale
    return viewed(scale, graph[operand.node].type.shape, operand.view)


def effective_weight(graph: Graph, node: Node, scales: Mapping[str, np.ndarray]) -> np.ndarray:
    """Weights with the input's scale multiplied in, float64."""
    weight = node.params["weight"].astype(np.float64)
    scale = seen_scale(graph, node.inputs[0], scales)
    if (scale == 1.0).all():
        return weight
    axis = 0 if isinstance(node.op, Conv) else scale.ndim - 1
    channels = graph.operand_type(node.inputs[0]).shape[axis]
    per_channel = _one_scale(scale, tuple(i for i in range(scale.ndim) if i != axis))
    per_channel = np.broadcast_to(per_channel.reshape(-1), (channels,))
    if isinstance(node.op, Conv):
        index = input_channels(weight.shape, node.op.groups)
        return weight * per_channel[index].reshape(*index.shape, *[1] * (weight.ndim - 2))
    return weight * per_channel


def _combined(graph: Graph, node: Node) -> list[tuple[Operand, tuple[int, ...]]]:
    """The drives a node reads, with the axes along which each needs one scale."""
    if isinstance(node.op, MatMul):
        axes = [(-1,), (-2,)]
    elif isinstance(node.op, Sum):
        axes = [node.op.axes]
    elif isinstance(node.op, MaxPool | SumPool | Conv | Linear):
        rank = len(graph.operand_type(node.inputs[0]).shape)
        channel = rank - 1 if isinstance(node.op, Linear) else 0
        axes = [tuple(i for i in range(rank) if i != channel)]
    else:
        return []
    pairs = zip(node.inputs, axes, strict=True)
    return [(o, along) for o, along in pairs if graph.operand_type(o).kind is Kind.DRIVE]


def _one_scale(scale: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The scale with ``axes`` cut to size 1: along these it is one, or will be."""
    return scale.max(axis=axes, keepdims=True)


def _derive(graph: Graph, input_scale: np.ndarray, of_synapse: Callable[[Node, Scales], np.ndarray]) -> Scales:
    """Scale of every value, given those of synapses."""
    scales: Scales = {}
    for node in graph:
        if node.op.kind == "input":
            scales[node.name] = input_scale
        elif isinstance(node.op, Neuron):
            scales[node.name] = np.ones((1,) * len(node.type.shape))
        elif isinstance(node.op, Conv | Linear):
            scales[node.name] = of_synapse(node, scales)
        else:
            scales[node.name] = _derived(graph, node, [seen_scale(graph, o, scales) for o in node.inputs])
    return scales


def _forward(graph: Graph, rules: ScaleRules, input_scale: np.ndarray, floor: Scales) -> Scales:
    return _derive(graph, input_scale, lambda node, scales: _synapse_scale(graph, node, scales, rules, floor))


def _synapse_scale(graph: Graph, node: Node, scales: Scales, rules: ScaleRules, floor: Scales) -> np.ndarray:
    """The scale the synapse has, else the step of its weights' grid, else max|w_c| / (2^(bits-1) - 1); of a constant
    channel what its bias needs."""
    axis = synapse_axis(node)
    shape = [-1 if i == axis else 1 for i in range(len(node.type.shape))]
    scale = node.params.get("scale")
    if scale is None:
        scale = _fitting_scale(graph, node, scales, rules)
    scale = scale.astype(np.float64).reshape(shape)
    return np.maximum(scale, floor[node.name]) if node.name in floor else scale


def _fitting_scale(graph: Graph, node: Node, scales: Scales, rules: ScaleRules) -> np.ndarray:
    """Scale of each channel of a synapse that has none of its own, ``(O,)``."""
    weight = effective_weight(graph, node, scales)
    bias = node.params.get("bias")
    limit = 2 ** (rules.bits[node.name] - 1) - 1
    largest: np.ndarray = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    offset = np.zeros_like(largest) if bias is None else np.abs(bias.astype(np.float64)).reshape(len(bias), -1).max(1)
    reference = np.where(largest == 0, offset, largest)
    scale = np.where(reference == 0, 1.0, reference) / limit
    if rules.keep_grids:
        step = unit(find_grid(weight, limit), weight, bias, limit, finest=node.name in rules.joined)
        scale = np.where(np.isnan(step), scale, step)
    return np.maximum(scale, _least_scale(graph, node, rules, offset, scale))


def _least_scale(graph: Graph, node: Node, rules: ScaleRules, offset: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What the biases ask of the scale of each channel: nothing, as long as they fit.

    The weights of a synapse on spikes may become coarser than asked where their bias passes ``bias_bits``: its unit is
    then below what float64 resolves, or nearly so. On a drive that would take bits that count.
    """
    constant = weight_reach(node, rules.reach[node.inputs[0].node]) < offset * 2.0**-_CONSTANT_BITS
    on_drive = graph.input_types(node)[0].kind is Kind.DRIVE
    most = _MOST_BITS if on_drive else rules.bias_bits
    wide = ~constant & (offset > scale * 2.0**most)
    if wide.any() and on_drive:
        bits = rules.bits[node.name]
        raise ProofError(
            f"reads a drive: beside {bits}-bit weights in the unit of that drive its bias passes {most} bits",
            where=node.name,
            hint=f"use fewer bits there: --layer-bits {node.name}=16",
        )
    return np.where(constant, offset * 2.0**-_CONSTANT_BITS, np.where(wide, offset * 2.0**-most, 0.0))


def _derived(graph: Graph, node: Node, seen: list[np.ndarray]) -> np.ndarray:
    """Scale of what is neither a synapse nor a neuron."""
    op = node.op
    if isinstance(op, Add):
        return compact(np.maximum(*np.broadcast_arrays(*seen)))
    if isinstance(op, Concat):
        return compact(op.joined(seen, graph.input_types(node)))
    if isinstance(op, Mask):
        return seen[1]
    if isinstance(op, MatMul):
        left, right = seen
        return compact(_one_scale(left, (-1,)) * _one_scale(right, (-2,)))
    if isinstance(op, Scale):
        if op.factor <= 0:
            raise UnsupportedError(f"a scale of {op.factor} turns thresholds around", where=node.name)
        return seen[0] * op.factor
    if isinstance(op, Sum):
        kept = _one_scale(seen[0], op.axes)
        return kept if op.keepdims else kept.reshape([n for i, n in enumerate(kept.shape) if i not in op.axes])
    if isinstance(op, MaxPool | SumPool):
        return _one_scale(seen[0], tuple(range(1, seen[0].ndim)))
    if isinstance(op, Readout):
        return seen[0] * step_unit(op)
    if isinstance(op, Output):
        return seen[0]
    if computes_events(graph, node):
        return np.ones((1,) * len(node.type.shape))
    raise UnsupportedError(f"{op.kind} has no integer form", where=node.name, hint="fold the graph first")


def _required(graph: Graph, scales: Scales) -> Scales:
    """Smallest scale every synapse must have so that drives meet at one scale wherever they are added or combined."""
    wanted: Scales = {}
    floor: Scales = {}
    for node in reversed(list(graph.nodes.values())):
        if isinstance(node.op, MatMul) and not node.type.is_events:
            _push_product(graph, node, scales, wanted)
            continue
        for operand, axes in _combined(graph, node):
            seen = seen_scale(graph, operand, scales)
            one = _one_scale(seen, axes)
            if (seen != one).any():
                need = np.broadcast_to(one, graph.operand_type(operand).shape)
                _push_into(graph, operand, need, wanted)
        unify = isinstance(node.op, Add) and not node.type.is_events
        if not unify and node.name not in wanted:
            continue
        need = np.maximum(np.broadcast_to(scales[node.name], node.type.shape), wanted.get(node.name, 0.0))
        if isinstance(node.op, Conv | Linear):
            axis = synapse_axis(node)
            floor[node.name] = need.max(axis=tuple(i for i in range(need.ndim) if i != axis), keepdims=True)
        elif isinstance(node.op, Concat):
            for operand, part in zip(node.inputs, node.op.parts(need, graph.input_types(node)), strict=True):
                _push(graph, node, operand, part, wanted)
        elif unify or isinstance(node.op, (*_PASS_THROUGH, Mask)):
            for operand in node.inputs[1:] if isinstance(node.op, Mask) else node.inputs:
                _push(graph, node, operand, need, wanted)
        else:  # its unit is one spike or pixel value: far too coarse for the weights it would be imposed on
            raise UnsupportedError(
                f"{node.type.kind.value} values are added to a drive; their scales cannot be unified", where=node.name
            )
    return floor


def _check_combined(graph: Graph, scales: Scales) -> None:
    """Raises UnsupportedError for what combines values of different scales."""
    for node in graph:
        for operand, axes in _combined(graph, node):
            seen = seen_scale(graph, operand, scales)
            if (seen != _one_scale(seen, axes)).any():
                raise UnsupportedError("needs one scale over the elements it combines", where=node.name)


def _push_product(graph: Graph, node: Node, scales: Scales, wanted: Scales) -> None:
    """Ask each drive of a product for one scale along the summed axis, and for what is asked of the product."""
    asked, own = wanted.get(node.name), np.broadcast_to(scales[node.name], node.type.shape)
    types = graph.input_types(node)
    drives = [port for port, type_ in enumerate(types) if type_.kind is Kind.DRIVE]
    if asked is not None and len(drives) != 1 and (asked > own).any():
        raise UnsupportedError(
            "a product of drives is added to a drive; their scales cannot be unified", where=node.name,
            hint="put a spiking neuron in front of one operand",
        )  # fmt: skip
    for port in drives:
        axis = -1 - port  # what is summed; of the product, the axis of the other factor
        seen = np.broadcast_to(seen_scale(graph, node.inputs[port], scales), types[port].shape)
        need = seen.max(axis=axis, keepdims=True)
        if asked is not None:
            need = np.maximum(need, asked.max(axis=axis, keepdims=True))
        _push(graph, node, node.inputs[port], np.broadcast_to(need, seen.shape), wanted)


def _push(graph: Graph, node: Node, operand: Operand, need: np.ndarray, wanted: Scales) -> None:
    """Ask the operand's value for at least this scale, element by element through the view."""
    if isinstance(node.op, Scale):
        need = need / node.op.factor
    if isinstance(node.op, Readout):
        need = need / step_unit(node.op)
    seen_shape = graph.operand_type(operand).shape
    if isinstance(node.op, MaxPool | SumPool):
        need = np.broadcast_to(need.max(axis=tuple(range(1, need.ndim)), keepdims=True), seen_shape)
    elif isinstance(node.op, Sum):
        kept = need if node.op.keepdims else np.expand_dims(need, node.op.axes)
        need = np.broadcast_to(kept, seen_shape)
    _push_into(graph, operand, need, wanted)


def _push_into(graph: Graph, operand: Operand, need: np.ndarray, wanted: Scales) -> None:
    """As :func:`_push`, of what is needed as the operand sees it."""
    shape = graph[operand.node].type.shape
    target = wanted.setdefault(operand.node, np.zeros(shape))
    if operand.view is None:
        np.maximum(target, need, out=target)
        return
    index = operand.view.apply(np.arange(target.size).reshape(shape), lead=0).reshape(-1)
    flat = target.reshape(-1)
    flat[index] = np.maximum(flat[index], need.reshape(-1))
