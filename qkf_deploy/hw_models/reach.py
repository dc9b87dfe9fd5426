"""Which inputs a piece of a unit reads: followed backwards from its neurons, element by element."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.hw_models.units import Unit
from qkf_deploy.ir import Graph, Node, Operand
from qkf_deploy.ir.values import Kind
from qkf_deploy.ops import (
    Add,
    Concat,
    Conv,
    IntegerNeuron,
    Linear,
    Mask,
    MatMul,
    MaxPool,
    Readout,
    Scale,
    Shift,
    Sum,
    SumPool,
)
from qkf_deploy.ops.geometry import Axis


@dataclass(frozen=True, eq=False)
class Piece:
    """Some elements of a value: those of some channels at some places, which is quick to follow, or any others.

    Attributes:
        channels: bool, along the first axis.
        places: bool, along the others, the same for each of these channels.
        any: bool, all axes; where it is given it stands alone.
    """

    channels: np.ndarray
    places: np.ndarray
    any: np.ndarray | None = None

    @staticmethod
    def of(mask: np.ndarray) -> Piece:
        """Of a mask in the shape of the value."""
        if not mask.ndim:
            return Piece(mask, mask, mask)
        channels, places = (np.asarray(mask.any(axis=axes)) for axes in (tuple(range(1, mask.ndim)), 0))
        product = int(channels.sum()) * int(places.sum()) == int(mask.sum())  # a mask is never more than that
        return Piece(channels, places, None if product else mask)

    @staticmethod
    def block(channels: np.ndarray, places: np.ndarray, shape: tuple[int, ...]) -> Piece:
        """Some channels at some places of a value of that shape."""
        if not shape:
            return Piece.of(np.asarray(channels.any() and places.any()))
        return Piece(channels, places.reshape(shape[1:]))

    @property
    def mask(self) -> np.ndarray:
        """In the shape of the value."""
        return np.multiply.outer(self.channels, self.places) if self.any is None else self.any

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self.channels.sum()) * int(self.places.sum()) if self.any is None else int(self.any.sum())

    def joined(self, other: Piece) -> Piece:
        """The elements of both."""
        if self.any is None and other.any is None:
            if np.array_equal(self.channels, other.channels):
                return Piece(self.channels, self.places | other.places)
            if np.array_equal(self.places, other.places):
                return Piece(self.channels | other.channels, self.places)
        return Piece.of(self.mask | other.mask)

    def behind(self, operand: Operand, shape: tuple[int, ...]) -> Piece:
        """The elements of the operand's value, of that shape, that these of what it shows stand for."""
        view = operand.view
        if view is None:
            return self
        if self.any is None and view.is_reshape and view.shape[:1] == shape[:1]:
            return Piece(self.channels, self.places.reshape(shape[1:]))
        if self.any is None and view.is_reshape and shape and self.channels.all():  # of channels as of heads
            behind, size = self.places.reshape(1, -1), math.prod(shape[1:])
            rows = behind.reshape(-1, size) if behind.size % size == 0 else np.tile(behind, size // behind.size)
            if rows.size and rows.size % size == 0 and (rows == rows[:1]).all():
                return Piece(np.ones(shape[0], bool), rows[0].reshape(shape[1:]))
        return Piece.of(_behind_view(operand, self.mask, shape))


def distinct_inputs(graph: Graph, unit: Unit, channels: slice, positions: slice) -> int:
    """Number of different elements outside a unit that one piece of it reads: input axons of the core that holds it.

    Residual additions of events are routing, so both operands count; a gate stops events where they arise, so only
    what it masks counts.
    """
    shape = graph[unit.name].type.shape
    chosen, places = np.zeros(unit.channels, bool), np.zeros(unit.positions, bool)
    chosen[channels], places[positions] = True, True
    wanted = {unit.name: Piece.block(chosen, places, shape)}
    inside, count = set(unit.nodes), 0
    for node in reversed(list(graph)):
        piece = wanted.pop(node.name, None)
        if piece is None:
            continue
        if node.name not in inside and not _routes(node):
            count += piece.size
            continue
        for operand, read in _reads_piece(graph, node, piece):
            read = read.behind(operand, graph[operand.node].type.shape)
            wanted[operand.node] = read.joined(wanted[operand.node]) if operand.node in wanted else read
    return count


def connections(graph: Graph, unit: Unit, piece: np.ndarray) -> Iterator[tuple[Operand, str, np.ndarray]]:
    """What one piece of a unit reads from outside: how often each element is used.

    Args:
        graph: integer graph.
        unit: one of its units.
        piece: bool ``(channels, positions)``.

    Yields:
        (operand, kind of the reading node's work, int64 array in the shape that the operand shows). The work is
        ``conv`` or ``linear`` (additions), ``multiply`` (the same of real-valued input), ``and`` (products, gates),
        ``compare`` (max pooling), or empty (plain additions).
    """
    wanted = {unit.name: piece.reshape(graph[unit.name].type.shape)}
    inside = set(unit.nodes)
    for node in reversed([graph[name] for name in graph.nodes if name in inside]):
        mask = wanted.pop(node.name, None)
        if mask is None:
            continue
        read = list(_reads(graph, node, mask))
        if isinstance(node.op, Mask):
            read.append((node.inputs[0], _summed_to(mask, graph.input_types(node)[0].shape)))
        for operand, reads in read:
            if operand.node not in inside:
                yield operand, _work(graph, node, operand), reads
                continue
            source = wanted.setdefault(operand.node, np.zeros(graph[operand.node].type.shape, bool))
            source |= _behind_view(operand, reads > 0, source.shape)


def groups_that_read(graph: Graph, unit: Unit, groups: int, source: str) -> np.ndarray:
    """How many groups of channels of a unit read each element of a node, int64 in the shape of its value."""
    shape, channels = graph[source].type.shape, -(-unit.channels // groups)
    out = np.zeros(shape, np.int64)
    for first in range(0, unit.channels, channels):
        piece = np.zeros((unit.channels, unit.positions), bool)
        piece[first : first + channels] = True
        seen = np.zeros(shape, bool)
        for operand, _, counts in connections(graph, unit, piece):
            if operand.node == source:
                seen |= _behind_view(operand, counts > 0, shape)
        out += seen
    return out


def _work(graph: Graph, node: Node, operand: Operand) -> str:
    if isinstance(node.op, Conv | Linear):
        return "multiply" if graph[operand.node].type.kind is Kind.REAL else node.op.kind
    return {"matmul": "and", "mask": "and", "max_pool": "compare"}.get(node.op.kind, "")


def _summed_to(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Number of masked elements behind each element of a value that is repeated over axes of size 1."""
    narrow = (1,) * (mask.ndim - len(shape)) + shape
    axes = tuple(i for i, n in enumerate(narrow) if n == 1)
    return mask.sum(axis=axes, keepdims=True, dtype=np.int64).reshape(shape)


def _routes(node: Node) -> bool:
    return isinstance(node.op, Add | Concat | Mask) and node.type.kind is not Kind.DRIVE


def _behind_view(operand: Operand, seen: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The elements of the operand's value that a mask over what it shows stands for."""
    if operand.view is None:
        return seen
    out = np.zeros(int(np.prod(shape)), bool)
    out[operand.view.apply(np.arange(out.size).reshape(shape), lead=0)[seen]] = True
    return out.reshape(shape)


def _reads(graph: Graph, node: Node, mask: np.ndarray) -> Iterable[tuple[Operand, np.ndarray]]:
    """(operand, how often the masked outputs of a node read each of its elements) of everything they depend on."""
    op, types, shapes = node.op, graph.input_types(node), [t.shape for t in graph.input_types(node)]
    used = mask.astype(np.int64)
    if isinstance(op, Mask):
        return [(node.inputs[1], used)]
    if isinstance(op, Concat):
        return zip(node.inputs, op.parts(used, types), strict=True)
    if isinstance(op, Conv):
        group = used.reshape(op.groups, -1, *mask.shape[1:]).sum(axis=1)
        read = _windows(group, op.axes(types[0].shape, node.params["weight"]))
        counts = [np.repeat(read, shapes[0][0] // op.groups, axis=0)]
    elif isinstance(op, MaxPool | SumPool):
        counts = [_windows(used, op.axes(shapes[0]))]
    elif isinstance(op, Linear):
        counts = [np.broadcast_to(used.sum(axis=-1, keepdims=True), shapes[0])]
    elif isinstance(op, Sum):
        counts = [np.broadcast_to(used if op.keepdims else np.expand_dims(used, op.axes), shapes[0])]
    elif isinstance(op, MatMul):
        rows, columns = used.sum(axis=-1, keepdims=True), used.sum(axis=-2, keepdims=True)
        counts = [np.broadcast_to(rows, shapes[0]), np.broadcast_to(columns, shapes[1])]
    elif isinstance(op, Add | IntegerNeuron | Readout | Scale | Shift):
        counts = [used] * len(node.inputs)
    else:
        raise UnsupportedError(f"no rule for what {op.kind} reads", where=node.name)
    return zip(node.inputs, counts, strict=True)


def _reads_piece(graph: Graph, node: Node, piece: Piece) -> Iterator[tuple[Operand, Piece]]:
    """(operand, what a piece of a node depends on) of :func:`_reads`, channels and places apart where they stay so."""
    op = node.op
    if piece.any is None and isinstance(op, Add | IntegerNeuron | Mask | Readout | Scale | Shift):
        yield from ((operand, piece) for operand in node.inputs[isinstance(op, Mask) :])
    elif piece.any is None and (isinstance(op, MaxPool | SumPool) or (isinstance(op, Conv) and op.groups == 1)):
        shape = graph.operand_type(node.inputs[0]).shape
        axes = op.axes(shape, node.params["weight"]) if isinstance(op, Conv) else op.axes(shape)
        channels = np.full(shape[0], piece.channels.any()) if isinstance(op, Conv) else piece.channels
        yield node.inputs[0], Piece(channels, _windows(piece.places[None], axes)[0] > 0)
    else:
        yield from ((operand, Piece.of(counts > 0)) for operand, counts in _reads(graph, node, piece.mask))


def _windows(used: np.ndarray, axes: tuple[Axis, ...]) -> np.ndarray:
    """How often windows that slide over every axis but the first read each input position.

    Multiplied as float64, many times faster than integers: exact, because no count comes near 2^53.
    """
    read = used.astype(np.float64)
    for number, axis in enumerate(axes, 1):
        read = np.moveaxis(np.tensordot(read, _window(axis), axes=([number], [0])), -1, number)
    return read.astype(np.int64)


@lru_cache(maxsize=64)
def _window(axis: Axis) -> np.ndarray:
    return axis.reads().astype(np.float64)
