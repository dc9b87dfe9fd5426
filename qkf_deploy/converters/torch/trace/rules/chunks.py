"""Matrix products over time: attention over chunks of time steps, whose tokens are those of all steps of a chunk.

``(T, B, heads, N, d)`` becomes ``(T / c, B, heads, c N, d)``; K^T V sums over c steps, Q (K^T V) gives each step its
own result. In the graph both are products per step, the first one with ``chunk`` = c.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qkf_deploy.converters.torch.trace.capture import TRACE_BATCH, Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.symbols import BATCH, TIME, Layout, Symbol
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Operand, View
from qkf_deploy.ops import MatMul, Scale

#: An axis: the time and batch atoms that it is made of, and how many elements its features have.
_Axis = tuple[tuple[int, ...], int]


@dataclass(frozen=True)
class _Side:
    """One operand of a product.

    Attributes:
        symbol: the tensor.
        times: sizes of the parts of its time axis.
        lead: axes in front of the matrix, those of size 1 left out.
        rows, columns: the matrix.
    """

    symbol: Symbol
    times: tuple[int, ...]
    lead: tuple[_Axis, ...]
    rows: _Axis
    columns: _Axis

    @staticmethod
    def of(x: Symbol) -> _Side:
        count = x.time_atoms
        axes = [_axis(x, group, count) for group in x.view.groups()]
        lead = tuple(a for a in axes[:-2] if a[0] or a[1] > 1)
        if any(atoms and features > 1 for atoms, features in lead):
            raise UnsupportedError("merges time or batch with features in one axis")
        return _Side(x, x.view.split[:count], lead, axes[-2], axes[-1])

    @property
    def whole(self) -> bool:
        """True if every time step is there."""
        return sum(len([a for a in atoms if a < len(self.times)]) for atoms, _ in self._axes) == len(self.times)

    @property
    def _axes(self) -> tuple[_Axis, ...]:
        return (*self.lead, self.rows, self.columns)

    def operand(self) -> Operand:
        """What one step reads."""
        view, drop = self.symbol.view, len(self.times) + 1
        shape = (*(n for atoms, n in self.lead if not atoms), self.rows[1], self.columns[1])
        perm = tuple(a - drop for a in view.perm if a >= drop)
        return Operand(self.symbol.node, View(view.split[drop:], view.take[drop:], perm, shape))


def _axis(x: Symbol, group: Sequence[int], times: int) -> _Axis:
    sizes = {a: x.view.take[a][1] - x.view.take[a][0] for a in group}
    atoms = tuple(a for a in group if a <= times and sizes[a] > 1)
    real = [a for a in group if sizes[a] > 1]
    if tuple(real[: len(atoms)]) != atoms:
        raise UnsupportedError("merges features with time, features in front")
    return atoms, math.prod(n for a, n in sizes.items() if a > times)


def product(low: Lowering, call: Call, left: Symbol, right: Symbol) -> Symbol | None:
    """The product of tensors whose time axis is parted or lies in a matrix; ``None`` for all others."""
    if not (_parted(left) or _parted(right)):
        return None
    a, b = _Side.of(left), _Side.of(right)
    if a.times != b.times or [x for x in a.lead if x[0] != ()] != [x for x in b.lead if x[0] != ()]:
        raise UnsupportedError("a matrix product of tensors whose time axes are parted differently")
    if a.columns[0] or b.rows[0]:
        return _summed(low, call, a, b)
    if a.rows[0] and b.columns[0]:
        raise UnsupportedError(
            "a map of every time step against every other", hint="multiply K^T V first: Q (K^T V) is the same number"
        )
    chunk = math.prod(a.times[i] for i in (*a.rows[0], *b.columns[0]))
    for side in (a, b):
        if not side.whole and not _same_in_chunk(low, side.symbol, chunk):
            raise UnsupportedError("takes some of the time steps", hint="treat steps alike")
    if not a.whole and not b.whole:
        raise UnsupportedError("a product of two sums over chunks of time steps")
    return _emitted(low, call, a, b, 1)


def _parted(x: Symbol) -> bool:
    if x.steps is None or x.steps == 1:
        return False
    view = x.view
    if view.split[TIME] != x.steps or view.take[TIME] != (0, x.steps):
        return True
    return any(TIME in group for group in view.groups()[-2:])


def _same_in_chunk(low: Lowering, x: Symbol, chunk: int) -> bool:
    """True for what is the same at every step of a chunk: a sum over it, with a factor or without."""
    node = low.builder.nodes[x.node]
    while isinstance(node.op, Scale):
        node = low.builder.nodes[node.inputs[0].node]
    return chunk > 1 and node.op.steps_awaited == chunk


def _summed(low: Lowering, call: Call, a: _Side, b: _Side) -> Symbol:
    """A product whose sum runs over time."""
    inner = a.columns[0]
    if inner != b.rows[0] or a.columns[1] != b.rows[1] or a.rows[0] or b.columns[0] or not (a.whole and b.whole):
        raise UnsupportedError("a matrix product over time in one operand and over something else in the other")
    if inner != tuple(range(len(a.times) - len(inner), len(a.times))):
        raise UnsupportedError(
            "a sum over time steps that do not follow each other", hint="chunks are of steps one after the other"
        )
    chunk = math.prod(a.times[i] for i in inner)
    low.notices.append(
        f"{call.path or 'the model'}: attention over chunks of {chunk} time steps, not causal: a chip that works step "
        "by step must wait for the last one"
    )
    return _emitted(low, call, a, b, chunk)


def _emitted(low: Lowering, call: Call, a: _Side, b: _Side, chunk: int) -> Symbol:
    """The node, laid out as torch has it; of a sum over a chunk the chunk's first step."""
    operands = (a.operand(), b.operand())
    features = [n for atoms, n in a.lead if not atoms] + [a.rows[1], b.columns[1]]
    layout: Layout = [(TIME,), (BATCH,), *([None] * len(features))]
    out = low.emit(call, "matmul", MatMul(chunk), (a.symbol, b.symbol), layout, operands=operands)
    count = len(a.times)
    out = out.reshaped((*a.times, TRACE_BATCH, *features))
    dropped = a.columns[0]
    for atom in dropped:
        out = out.narrowed(atom, 0, 1)
    order, feature = list(dropped), count + 1
    for atoms, n in (*a.lead, a.rows, b.columns):
        order += atoms
        if not atoms or (atoms, n) in (a.rows, b.columns):
            order.append(feature)
            feature += 1
    if len(order) != len(out.shape):
        raise UnsupportedError("a matrix product over the batch")
    return out.transposed(order).reshaped(low.program.shapes[call.name])
