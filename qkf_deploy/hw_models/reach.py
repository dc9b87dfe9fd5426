"""Which inputs a piece of a unit reads: followed backwards from its neurons, element by element."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.hw_models.units import Unit
from qkf_deploy.ir import Graph, Node, Operand
from qkf_deploy.ir.values import Kind
from qkf_deploy.ops import Add, Conv, IntegerNeuron, Linear, Mask, MatMul, MaxPool, Readout, Scale, Shift, Sum, SumPool
from qkf_deploy.ops.geometry import Axis


def distinct_inputs(graph: Graph, unit: Unit, channels: slice, positions: slice) -> int:
    """Number of different elements outside a unit that one piece of it reads: input axons of the core that holds it.

    Residual additions of events are routing, so both operands count; a gate stops events where they arise, so only
    what it masks counts.
    """
    piece = np.zeros((unit.channels, unit.positions), bool)
    piece[channels, positions] = True
    wanted = {unit.name: piece.reshape(graph[unit.name].type.shape)}
    inside, count = set(unit.nodes), 0
    for node in reversed(list(graph)):
        mask = wanted.pop(node.name, None)
        if mask is None:
            continue
        if node.name not in inside and not _routes(node):
            count += int(mask.sum())
            continue
        for operand, seen in _reads(graph, node, mask):
            source = wanted.setdefault(operand.node, np.zeros(graph[operand.node].type.shape, bool))
            source |= _behind_view(operand, seen, source.shape)
    return count


def _routes(node: Node) -> bool:
    return isinstance(node.op, Add | Mask) and node.type.kind is not Kind.DRIVE


def _behind_view(operand: Operand, seen: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The elements of the operand's value that a mask over what it shows stands for."""
    if operand.view is None:
        return seen
    out = np.zeros(int(np.prod(shape)), bool)
    out[operand.view.apply(np.arange(out.size).reshape(shape), lead=0)[seen]] = True
    return out.reshape(shape)


def _reads(graph: Graph, node: Node, mask: np.ndarray) -> Iterable[tuple[Operand, np.ndarray]]:
    """(operand, mask over its elements) of everything that the masked outputs of a node depend on."""
    op, types, shapes = node.op, graph.input_types(node), [t.shape for t in graph.input_types(node)]
    if isinstance(op, Mask):
        return [(node.inputs[1], mask)]
    if isinstance(op, Conv):
        group = np.asarray(mask.reshape(op.groups, -1, *mask.shape[1:]).any(axis=1))
        read = _windows(group, op.axes(types[0].shape, node.params["weight"]))
        masks = [np.repeat(read, shapes[0][0] // op.groups, axis=0)]
    elif isinstance(op, MaxPool | SumPool):
        masks = [_windows(mask, op.axes(shapes[0]))]
    elif isinstance(op, Linear):
        masks = [np.broadcast_to(np.asarray(mask.any(axis=-1, keepdims=True)), shapes[0])]
    elif isinstance(op, Sum):
        masks = [np.broadcast_to(mask if op.keepdims else np.expand_dims(mask, op.axes), shapes[0])]
    elif isinstance(op, MatMul):
        rows, columns = mask.any(axis=-1, keepdims=True), mask.any(axis=-2, keepdims=True)
        masks = [np.broadcast_to(rows, shapes[0]), np.broadcast_to(columns, shapes[1])]
    elif isinstance(op, Add | IntegerNeuron | Readout | Scale | Shift):
        masks = [mask] * len(node.inputs)
    else:
        raise UnsupportedError(f"no rule for what {op.kind} reads", where=node.name)
    return zip(node.inputs, masks, strict=True)


def _windows(mask: np.ndarray, axes: tuple[Axis, ...]) -> np.ndarray:
    """Input positions of windows that slide over every axis but the first."""
    for number, axis in enumerate(axes, 1):
        mask = np.moveaxis(np.tensordot(mask.astype(np.int64), axis.reads(), axes=([number], [0])), -1, number) > 0
    return mask
