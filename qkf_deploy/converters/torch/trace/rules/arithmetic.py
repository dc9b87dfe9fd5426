"""Element by element: additions, gates, constant factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.rules.axes import separated
from qkf_deploy.converters.torch.trace.rules.beside import side_by_side
from qkf_deploy.converters.torch.trace.rules.table import argument, rule
from qkf_deploy.converters.torch.trace.symbols import TIME, Layout, Symbol, place
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Operand, ValueType, View, compose
from qkf_deploy.ir.values import Kind
from qkf_deploy.ops import Add, BatchNorm, Mask


@rule("aten.add.Tensor", "aten.add_.Tensor")
def add(low: Lowering, call: Call) -> Symbol:
    """Residual addition, a running sum over time, or a constant per channel."""
    if argument(call, 2, "alpha", 1) != 1:
        raise UnsupportedError("an addition with a factor")
    a, b = low.number(call.args[0]), low.number(call.args[1])
    if a == 0.0 or b == 0.0:
        return low.symbol(call.args[1] if a == 0.0 else call.args[0])
    for value, other in ((call.args[0], call.args[1]), (call.args[1], call.args[0])):
        if low.is_traced(value) and not low.is_traced(other):
            return _affine(low, call, low.symbol(value), None, low.array(other))
    left, right = separated(low.symbol(call.args[0])), separated(low.symbol(call.args[1]))
    if left.at and right.at and left.at != right.at:
        return low.accumulated(call, left, right)
    out = low.emit(call, "add", Add(), (left, right), joint_layout(left, right))
    return out.reshaped(low.program.shapes[call.name])


def joint_layout(a: Symbol, b: Symbol) -> Layout:
    """Layout of an element-by-element result; both tensors must have time and batch in the same places."""
    first, second = a.layout(), b.layout()
    longer = first if len(first) >= len(second) else second
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            raise UnsupportedError("combines tensors whose time or batch axes are in different places")
    if len(first) != len(second) and any(lead is not None for lead in longer[: abs(len(first) - len(second))]):
        raise UnsupportedError("combines a tensor with time or batch axes with one without")
    return longer


@rule("aten.rsub.Scalar", "aten.rsub.Tensor")
def one_minus(low: Lowering, call: Call) -> Symbol:
    """``1 - spikes``."""
    return _complement(low, low.symbol(call.args[0], inverted=True), low.number(call.args[1]))


@rule("aten.logical_not.default", "aten.bitwise_not.default")
def negated(low: Lowering, call: Call) -> Symbol:
    """``~spikes``, of the booleans of a hand-written neuron."""
    return _complement(low, low.symbol(call.args[0], inverted=True), 1.0)


@rule("aten.sub.Tensor", "aten.sub_.Tensor", "aten.sub.Scalar")
def sub(low: Lowering, call: Call) -> Symbol:
    """``1 - spikes``, or a constant subtracted."""
    if low.number(call.args[1]) == 0.0:
        return low.symbol(call.args[0])
    if low.is_traced(call.args[0]) and not low.is_traced(call.args[1]):
        return _affine(low, call, low.symbol(call.args[0]), None, -low.array(call.args[1]))
    if low.is_traced(call.args[0]):
        raise UnsupportedError("subtracts", hint="additions, and 1 - spikes as a gate, are understood")
    return _complement(low, low.symbol(call.args[1], inverted=True), low.number(call.args[0]))


def _complement(low: Lowering, x: Symbol, number: float | None) -> Symbol:
    if number != 1.0 or low.type_of(x.operand()).kind is not Kind.SPIKE:
        raise UnsupportedError("subtracts", hint="additions, and 1 - spikes as a gate, are understood")
    return replace(x, inverted=not x.inverted)


@rule("aten.mul.Tensor", "aten.mul.Scalar", "aten.mul_.Tensor", "aten.mul_.Scalar")
def mul(low: Lowering, call: Call) -> Symbol:
    """A constant factor, or a gate."""
    for value, other in ((call.args[0], call.args[1]), (call.args[1], call.args[0])):
        factor = low.number(other)
        if factor is not None:
            return low.scaled(call, low.symbol(value), factor)
        if low.is_traced(value) and not low.is_traced(other):
            return _affine(low, call, low.symbol(value), low.array(other), None)
    left, right = (separated(low.symbol(a, inverted=True)) for a in call.args[:2])
    gated = _inverted_gate if left.inverted or right.inverted else _mask
    return gated(low, call, left, right).reshaped(low.program.shapes[call.name])


@rule("aten.div.Tensor", "aten.div.Scalar", "aten.div_.Tensor", "aten.div_.Scalar")
def div(low: Lowering, call: Call) -> Symbol:
    """Division by a constant."""
    divisor = low.number(call.args[1])
    if not divisor:
        raise UnsupportedError("divides by something that is not a constant number")
    return low.scaled(call, low.symbol(call.args[0]), 1.0 / divisor)


@rule("aten.relu.default", "aten.relu_.default")
def relu(low: Lowering, call: Call) -> Symbol:
    """Changes nothing on spikes and counts; between drives it has no spiking form."""
    x = low.symbol(call.args[0])
    if not low.type_of(x.operand()).is_counts:
        raise UnsupportedError("ReLU of a drive has no spiking form", hint="put a spiking neuron in its place")
    return x


def _affine(low: Lowering, call: Call, x: Symbol, factor: np.ndarray | None, shift: np.ndarray | None) -> Symbol:
    """``x * factor[c] + shift[c]`` with one value per channel: a batch norm with mean 0 and variance 1."""
    layout = x.layout()
    constant = factor if factor is not None else shift
    shape = () if constant is None else constant.shape
    wide = [a for a, n in enumerate((1,) * (len(x.shape) - len(shape)) + shape) if n != 1]
    if not wide and None in layout:  # one number for all: the same for every channel
        wide = [layout.index(None)]
    if shift is None and constant is not None and len(wide) == 1 and layout[wide[0]] == (TIME,):
        return replace(x, weights=tuple(float(w) for w in constant.reshape(-1)))
    if len(wide) != 1 or layout[wide[0]] is not None or x.inverted:
        what = "multiplies by" if shift is None else "adds"
        raise UnsupportedError(
            f"{what} a constant that differs from element to element",
            hint="one value per channel is understood; a position embedding of drives has no integer form here; a bias"
            " for each pair of tokens, (Q Kᵀ + B) V, can be written Q (Kᵀ V) + B V",
        )
    axis = wide[0]
    leads = [a for a, lead in enumerate(layout) if lead is not None]
    order = [*leads, axis, *(a for a in range(len(layout)) if layout[a] is None and a != axis)]
    moved = x.transposed(order)
    ones = np.ones(x.shape[axis])
    weight = ones if factor is None else factor.reshape(-1) * ones
    bias = 0.0 * ones if shift is None else shift.reshape(-1) * ones
    what = "scale" if shift is None else "shift"
    params = {"mean": 0.0 * ones, "var": ones, "weight": weight, "bias": bias}
    out = low.emit(call, what, BatchNorm(0.0), (moved,), moved.layout(), **params)
    return out.transposed([order.index(a) for a in range(len(order))])


def _mask(low: Lowering, call: Call, left: Symbol, right: Symbol) -> Symbol:
    layout = joint_layout(left, right)
    pair, types = _ranked(low, left, right, layout)
    # The gate is the operand that broadcasts; of two equal shapes the first one that is spikes.
    order = (0, 1) if types[0].size <= types[1].size else (1, 0)
    if not _gates(types[order[0]]) and types[0].size == types[1].size:
        order = (order[1], order[0])
    if not _gates(types[order[0]]):
        split = _split(low, call, left, right) or _split(low, call, right, left)
        if split is not None:
            return split
        kinds = " and ".join(t.kind.value for t in types)
        raise UnsupportedError(
            f"multiplies {kinds} values element by element; one must be spikes (a gate) and not the larger one",
            hint="put a spiking neuron in front of one operand",
        )
    return low.emit(call, "mask", Mask(), (left, right), layout, operands=(pair[order[0]], pair[order[1]]))


def _split(low: Lowering, call: Call, gates: Symbol, x: Symbol) -> Symbol | None:
    """``(a + b) * x`` as ``a * x + b * x`` where the sum is one of spikes; ``None`` where there is nothing to split.

    A gate is not the larger operand: where ``x`` broadcasts, it stands side by side as often as it is read.
    """
    terms = _terms(low, gates)
    if not all(_gates(low.type_of(term.operand())) for term in terms):
        return None
    wide = _widened(low, call, x, gates.shape)
    if len(terms) == 1 and wide is x:
        return None
    out: Symbol | None = None
    for term in terms:
        part = _mask(low, call, term, wide)
        out = part if out is None else low.emit(call, "add", Add(), (out, part), joint_layout(out, part))
    return out


def _widened(low: Lowering, call: Call, x: Symbol, shape: Sequence[int]) -> Symbol:
    """A tensor as often along its feature axes of size 1 as another one of that rank is large."""
    if len(x.shape) != len(shape):
        return x
    for axis, wanted in enumerate(shape):
        while 1 < wanted > x.shape[axis] and x.layout()[axis] is None:
            more = x.narrowed(axis, 0, min(x.shape[axis], wanted - x.shape[axis]))
            x = side_by_side(low, call, [x, more], axis, "repeat")
    return x


def _terms(low: Lowering, x: Symbol) -> list[Symbol]:
    """What is added up to a value."""
    node = low.builder.nodes[x.node]
    if not isinstance(node.op, Add):
        return [x]
    layout, view = x.layout(), x.operand().view
    features = [n for n, lead in zip(x.shape, layout, strict=True) if lead is None]
    parts = (place(o.node, layout, features, x.steps, compose(o.view, view), x.at) for o in node.inputs)
    return [term for part in parts for term in _terms(low, part)]


def _gates(type_: ValueType) -> bool:
    """True for spikes, also of either polarity."""
    return type_.kind is Kind.SPIKE or (type_.is_signed and type_.high == 1)


def _inverted_gate(low: Lowering, call: Call, left: Symbol, right: Symbol) -> Symbol:
    """``x * (1 - gate)``: the IAND connection of SEW-ResNet (arXiv 2102.04159, Table 1)."""
    gate, x = (left, right) if left.inverted else (right, left)
    if x.inverted:
        raise UnsupportedError("multiplies two complements", hint="use 1 - (a + b - a * b) or a neuron")
    gate = replace(gate, inverted=False)
    layout = joint_layout(gate, x)
    pair, _ = _ranked(low, gate, x, layout)
    return low.emit(call, "mask", Mask(invert=True), (gate, x), layout, operands=pair)


def _ranked(
    low: Lowering, left: Symbol, right: Symbol, layout: Layout
) -> tuple[tuple[Operand, Operand], list[ValueType]]:
    """Both operands with as many feature axes as the result."""
    rank = sum(lead is None for lead in layout)
    pair = (_with_rank(left.operand(), low, rank), _with_rank(right.operand(), low, rank))
    return pair, [low.type_of(o) for o in pair]


def _with_rank(operand: Operand, low: Lowering, rank: int) -> Operand:
    type_ = low.type_of(operand)
    if len(type_.shape) == rank:
        return operand
    source = low.builder.nodes[operand.node].type.shape
    view = operand.view or View.of(source, range(len(source)), source)
    return Operand(operand.node, view.then((*[1] * (rank - len(type_.shape)), *type_.shape)))
