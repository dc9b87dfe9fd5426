"""Convolution, linear layer, batch norm, matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.rules import chunks
from qkf_deploy.converters.torch.trace.rules.axes import channels_first, is_plain, separated
from qkf_deploy.converters.torch.trace.rules.padding import without_zeros
from qkf_deploy.converters.torch.trace.rules.table import argument, batch_first, per_axis, rule
from qkf_deploy.converters.torch.trace.symbols import Layout, Symbol
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import BatchNorm, Conv, Linear, MatMul


@rule("aten.conv1d.default", "aten.conv2d.default", "aten.conv1d.padding", "aten.conv2d.padding", "aten.conv3d.default")
def conv(low: Lowering, call: Call) -> Symbol:
    """Convolution, 1-d or 2-d: ``(lead, C, *spatial)``; 3-d where the kernel leaves the depth axis alone."""
    weight, bias = low.constant(call.args[1]), low.constant(argument(call, 2, "bias"))
    if weight is None:
        raise UnsupportedError("a convolution without a weight parameter")
    rank = weight.ndim - 2
    x, zeros = without_zeros(low, call.args[0], rank)
    dilation = per_axis(argument(call, 5, "dilation", 1), rank)
    padding = argument(call, 4, "padding", 0)
    if isinstance(padding, str):
        padding, weight = _named_padding(padding, weight, dilation)
    stride = per_axis(argument(call, 3, "stride", 1), rank)
    around = tuple(p + z for p, z in zip(per_axis(padding, rank), zeros, strict=True))
    groups = int(argument(call, 6, "groups", 1))
    if rank < 3 and is_plain(x, rank + 1):
        op = Conv(stride, around, dilation, groups)
        return low.emit(call, "conv", op, (x,), batch_first(x, rank + 1), weight=weight, bias=bias)
    channel = len(x.shape) - rank - 1
    if rank == 3:
        if (weight.shape[2], stride[0], around[0]) != (1, 1, 0):
            raise UnsupportedError(
                "a convolution over depth or time", hint="a kernel of (1, k, k) is a 2-d convolution"
            )
        if x.layout()[2] is None:
            raise UnsupportedError(
                "a 3-d convolution whose depth axis is not time", hint="fold the depth into the batch"
            )
        weight, stride, around, dilation = weight[:, :, 0], stride[1:], around[1:], dilation[1:]
    pointwise = all(n == 1 for n in (*weight.shape[2:], *stride)) and not any(around)
    z, layout, joined, restore = channels_first(x, channel, "space" if pointwise else "channels")
    if not pointwise and joined > 1:  # every window has the same weights, and channels of its own
        groups *= joined
        weight = np.tile(weight, (joined, *[1] * (weight.ndim - 1)))
        bias = None if bias is None else np.tile(bias, joined)
    op = Conv(stride, around, dilation, groups)
    out = low.emit(call, "conv", op, (z,), layout, weight=weight, bias=bias)
    return restore(out, low.program.shapes[call.name])


def _named_padding(padding: str, weight: np.ndarray, dilation: Sequence[int]) -> tuple[list[int], np.ndarray]:
    """Padding of ``valid`` and ``same``, and the weight, with a tap of zeros in front where the sides differ by one."""
    kernel = weight.shape[2:]
    if padding == "valid":
        return [0] * len(kernel), weight
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if any(t % 2 and d > 1 for t, d in zip(total, dilation, strict=True)):
        raise UnsupportedError("a dilated 'same' convolution with an even kernel pads one side more than the other")
    front = [(t % 2, 0) for t in total]
    return [t - t // 2 for t in total], np.pad(weight, [(0, 0), (0, 0), *front]) if any(
        t % 2 for t in total
    ) else weight


@rule("aten.linear.default")
def linear(low: Lowering, call: Call) -> Symbol:
    """Linear layer over the last axis."""
    weight, bias = low.constant(call.args[1]), low.constant(argument(call, 2, "bias"))
    return _linear(low, call, low.symbol(call.args[0]), weight, bias)


def _linear(low: Lowering, call: Call, x: Symbol, weight: np.ndarray | None, bias: np.ndarray | None) -> Symbol:
    y = separated(x)
    layout = y.layout()
    if layout[-1] is not None:
        raise UnsupportedError("a linear layer over the time or batch axis")
    out = low.emit(call, "linear", Linear(), (y,), layout, weight=weight, bias=bias)
    return out.reshaped((*x.shape[:-1], out.shape[-1]))


@rule("aten.batch_norm.default")
def batch_norm(low: Lowering, call: Call) -> Symbol:
    """Batch norm with running statistics, channel axis behind time and batch."""
    x = low.symbol(call.args[0])
    mean, var = low.constant(call.args[3]), low.constant(call.args[4])
    if mean is None or var is None:
        raise UnsupportedError("a batch norm without running statistics depends on the batch")
    weight, bias = low.constant(call.args[1]), low.constant(call.args[2])
    weight = np.ones_like(mean) if weight is None else weight
    bias = np.zeros_like(mean) if bias is None else bias
    op = BatchNorm(float(call.args[7]))

    def normed(z: Symbol, layout: Layout) -> Symbol:
        return low.emit(call, "bn", op, (z,), layout, mean=mean, var=var, weight=weight, bias=bias)

    if is_plain(x, len(x.shape) - 1):
        return normed(x, x.layout())
    z, layout, _, restore = channels_first(x, 1, "space")
    return restore(normed(z, layout), x.shape)


@rule("aten.matmul.default", "aten.bmm.default", "aten.mm.default")
def matmul(low: Lowering, call: Call) -> Symbol:
    """Product of two activations with equal leading axes; with a constant matrix a linear layer."""
    if not low.is_traced(call.args[1]):
        return _linear(low, call, low.symbol(call.args[0]), _matrix(low, call.args[1]).T, None)
    if not low.is_traced(call.args[0]):
        x = low.symbol(call.args[1])
        swapped = [*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2]
        return _linear(low, call, x.transposed(swapped), _matrix(low, call.args[0]), None).transposed(swapped)
    first, second = low.symbol(call.args[0]), low.symbol(call.args[1])
    over_time = chunks.product(low, call, first, second)
    if over_time is not None:
        return over_time
    left, right = separated(first), separated(second)
    layout = left.layout()
    if layout != right.layout() or layout[-2:] != [None, None]:
        raise UnsupportedError("a matrix product over time or batch, or of tensors laid out differently")
    out = low.emit(call, "matmul", MatMul(), (left, right), layout)
    return out.reshaped(low.program.shapes[call.name])


def _matrix(low: Lowering, value: Any) -> np.ndarray:
    """A constant matrix, the same for every image, step and head."""
    matrix = low.array(value)
    if matrix.ndim < 2 or any(n != 1 for n in matrix.shape[:-2]):
        raise UnsupportedError(
            f"a matrix product with a constant of shape {matrix.shape}", hint="one matrix is understood"
        )
    return matrix.reshape(matrix.shape[-2:])
