"""Operators of an integer graph on whole numbers in floating point, with gradients: one function per kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from qkf_deploy.ir import Node, View
from qkf_deploy.ops import Concat, Conv, Mask, Readout, Shift, Sum
from qkf_deploy.ops.pool import MaxPool, SumPool
from qkf_deploy.simulators.torch.products import over_chunks
from qkf_deploy.simulators.torch.synapses import laid_out
from qkf_deploy.simulators.torch.values import Value

#: ``(node, operands (T or 1, B, *shape), T) -> (T or 1, B, *shape)``
Step = Callable[[Node, Sequence[Tensor], int], Tensor]


def read(x: Tensor, view: View | None) -> Tensor:
    """A value as an operand sees it; two axes before the per-step shape."""
    return Value(x, 0.0).read(view).tensor


def conv(op: Conv, x: Tensor, weight: Tensor) -> Tensor:
    """Convolution without bias."""
    function = F.conv1d if len(op.stride) == 1 else F.conv2d
    y = function(laid_out(op, x).flatten(0, 1), weight, None, op.stride, op.padding, op.dilation, op.groups)  # type: ignore[operator]
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _add(node: Node, xs: Sequence[Tensor], steps: int) -> Tensor:
    return xs[0] + xs[1]


def _concat(node: Node, xs: Sequence[Tensor], steps: int) -> Tensor:
    op = node.op
    if not isinstance(op, Concat):
        raise AssertionError(op)
    most = max(len(x) for x in xs)
    return torch.cat([x.expand(most, *x.shape[1:]) for x in xs], dim=op.axis + 2)


def _mask(node: Node, xs: Sequence[Tensor], steps: int) -> Tensor:
    op = node.op
    return xs[1] * (1 - xs[0]) if isinstance(op, Mask) and op.invert else xs[1] * xs[0]


def _matmul(node: Node, xs: Sequence[Tensor], steps: int) -> Tensor:
    return over_chunks(xs[0] @ xs[1], node.op.steps_awaited)


def _sum(node: Node, xs: Sequence[Tensor], steps: int) -> Tensor:
    op = node.op
    if not isinstance(op, Sum):
        raise AssertionError(op)
    return xs[0].sum([a + 2 for a in op.axes], keepdim=op.keepdims)


def _readout(node: Node, xs: Sequence[Tensor], steps: int) -> Tensor:
    op = node.op
    if isinstance(op, Readout) and op.weights:
        weights = xs[0].new_tensor(op.weights).reshape(-1, *[1] * (xs[0].ndim - 1))
        return (xs[0] * weights).sum(0, keepdim=True)
    return xs[0].sum(0, keepdim=True) * (steps // xs[0].shape[0])


def _max_pool(node: Node, xs: Sequence[Tensor], steps: int) -> Tensor:
    op = node.op
    if not isinstance(op, MaxPool):
        raise AssertionError(op)
    pool = F.max_pool1d if len(op.kernel) == 1 else F.max_pool2d
    y = pool(xs[0].flatten(0, 1), op.kernel, op.stride, op.padding)
    return y.reshape(*xs[0].shape[:2], *y.shape[1:])


def _sum_pool(node: Node, xs: Sequence[Tensor], steps: int) -> Tensor:
    op = node.op
    if not isinstance(op, SumPool):
        raise AssertionError(op)
    lead = (1,) * (2 - len(op.kernel))
    flat = xs[0].reshape(-1, xs[0].shape[2], *lead, *xs[0].shape[3:])
    y = F.avg_pool2d(
        flat, (*lead, *op.kernel), (*lead, *op.stride), (*(0 for _ in lead), *op.padding), divisor_override=1
    )
    return y.reshape(*xs[0].shape[:2], *node.type.shape)


def _shift(node: Node, xs: Sequence[Tensor], steps: int) -> Tensor:
    op = node.op
    if not isinstance(op, Shift):
        raise AssertionError(op)
    unit = torch.tensor([math.ldexp(1.0, -b) for b in op.bits], dtype=xs[0].dtype)
    shape = [1] * len(node.type.shape)
    shape[op.axis] = -1
    exact = xs[0] * unit.reshape(shape)
    return exact + ((exact + 0.5).floor() - exact).detach()


def _output(node: Node, xs: Sequence[Tensor], steps: int) -> Tensor:
    return xs[0]


STEPS: Mapping[str, Step] = {
    "add": _add,
    "concat": _concat,
    "mask": _mask,
    "matmul": _matmul,
    "sum": _sum,
    "readout": _readout,
    "max_pool": _max_pool,
    "sum_pool": _sum_pool,
    "shift": _shift,
    "output": _output,
}
