"""Max and sum pooling on a device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qkf_deploy.ir import Node
from qkf_deploy.ops import MaxPool, SumPool
from qkf_deploy.simulators.torch.layout import empty
from qkf_deploy.simulators.torch.setting import Setting, Step, elementwise
from qkf_deploy.simulators.torch.values import Value


def max_pool(s: Setting, node: Node) -> Step:
    """Maxima along one axis after the other, over the taps that are inside."""
    op, shape = node.op, s.operand_shape(node)
    if not isinstance(op, MaxPool):
        raise AssertionError(op)
    axes = op.axes(shape)

    def run(inputs: Sequence[Value]) -> Value:
        (x,) = inputs
        low = -math.inf if x.tensor.dtype.is_floating_point else torch.iinfo(x.tensor.dtype).min
        y = x.tensor
        for dim, axis in enumerate(axes, start=3):
            read, (head, shape) = y, (y.shape[:2], list(y.shape[2:]))
            shape[dim - 2] = axis.out
            y = empty(head, shape, y).fill_(low)
            for tap in range(axis.kernel):
                at = tap - axis.padding
                first = max(0, -(at // axis.stride))
                count = min(axis.out, (axis.size - 1 - at) // axis.stride + 1) - first
                if count > 0:
                    most = y.narrow(dim, first, count)
                    window = _strided(read, dim, first * axis.stride + at, count, axis.stride)
                    torch.maximum(most, window, out=most)
        return s.value(node, y, x.largest, x.error)

    return run


def sum_pool(s: Setting, node: Node) -> Step:
    """Tap by tap, as the reference adds them."""
    op, shape, dtype = node.op, s.operand_shape(node), s.dtype(node)
    if not isinstance(op, SumPool):
        raise AssertionError(op)
    axes, taps = op.axes(shape), math.prod(op.kernel)

    def run(inputs: Sequence[Value]) -> Value:
        (x,) = inputs
        padded = _padded(x.tensor.to(dtype), op.padding, 0)
        y: Tensor | None = None
        for tap in itertools.product(*(range(k) for k in op.kernel)):
            window = padded
            for dim, (t, axis) in enumerate(zip(tap, axes, strict=True), start=3):
                window = _strided(window, dim, t, axis.out, axis.stride)
            y = window.clone() if y is None else y.add_(window)
        if y is None:
            raise AssertionError(op)
        return elementwise(s, node, y, inputs, taps * x.largest, taps)

    return run


def _padded(x: Tensor, padding: tuple[int, ...], fill: float | int) -> Tensor:
    if not any(padding):
        return x
    head, spatial = x.shape[:3], x.shape[3:]
    padded = empty(head[:2], (head[2], *(n + 2 * p for n, p in zip(spatial, padding, strict=True))), x).fill_(fill)
    padded[(..., *(slice(p, p + n) for n, p in zip(spatial, padding, strict=True)))] = x
    return padded


def _strided(x: Tensor, dim: int, start: int, count: int, stride: int) -> Tensor:
    index = [slice(None)] * x.ndim
    index[dim] = slice(start, start + (count - 1) * stride + 1, stride)
    return x[tuple(index)]
