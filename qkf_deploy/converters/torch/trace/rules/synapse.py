"""Convolution, linear layer, batch norm, matrix product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.rules.padding import without_zeros
from qkf_deploy.converters.torch.trace.rules.table import argument, batch_first, per_axis, rule
from qkf_deploy.converters.torch.trace.symbols import Symbol
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import BatchNorm, Conv, Linear, MatMul


@rule("aten.conv1d.default", "aten.conv2d.default", "aten.conv1d.padding", "aten.conv2d.padding")
def conv(low: Lowering, call: Call) -> Symbol:
    """Convolution, 1-d or 2-d: ``(lead, C, *spatial)``."""
    weight, bias = low.constant(call.args[1]), low.constant(argument(call, 2, "bias"))
    if weight is None:
        raise UnsupportedError("a convolution without a weight parameter")
    rank = weight.ndim - 2
    x, zeros = without_zeros(low, call.args[0], rank)
    layout = batch_first(x, rank + 1)
    dilation = per_axis(argument(call, 5, "dilation", 1), rank)
    padding = argument(call, 4, "padding", 0)
    if isinstance(padding, str):
        padding = _named_padding(padding, weight.shape[2:], dilation)
    stride = per_axis(argument(call, 3, "stride", 1), rank)
    around = tuple(p + z for p, z in zip(per_axis(padding, rank), zeros, strict=True))
    op = Conv(stride, around, dilation, int(argument(call, 6, "groups", 1)))
    return low.emit(call, "conv", op, (x,), layout, weight=weight, bias=bias)


def _named_padding(padding: str, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    if padding == "valid":
        return [0] * len(kernel)
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if any(t % 2 for t in total):
        raise UnsupportedError("a 'same' convolution with an even kernel pads one side more than the other")
    return [t // 2 for t in total]


@rule("aten.linear.default")
def linear(low: Lowering, call: Call) -> Symbol:
    """Linear layer over the last axis."""
    x = low.symbol(call.args[0])
    layout = x.layout()
    if layout[-1] is not None:
        raise UnsupportedError("a linear layer over the time or batch axis")
    weight, bias = low.constant(call.args[1]), low.constant(argument(call, 2, "bias"))
    return low.emit(call, "linear", Linear(), (x,), layout, weight=weight, bias=bias)


@rule("aten.batch_norm.default")
def batch_norm(low: Lowering, call: Call) -> Symbol:
    """Batch norm with running statistics, channel axis behind time and batch."""
    x = low.symbol(call.args[0])
    layout = batch_first(x, len(x.shape) - 1)
    mean, var = low.constant(call.args[3]), low.constant(call.args[4])
    if mean is None or var is None:
        raise UnsupportedError("a batch norm without running statistics depends on the batch")
    weight, bias = low.constant(call.args[1]), low.constant(call.args[2])
    weight = np.ones_like(mean) if weight is None else weight
    bias = np.zeros_like(mean) if bias is None else bias
    op = BatchNorm(float(call.args[7]))
    return low.emit(call, "bn", op, (x,), layout, mean=mean, var=var, weight=weight, bias=bias)


@rule("aten.matmul.default", "aten.bmm.default")
def matmul(low: Lowering, call: Call) -> Symbol:
    """Product of two activations with equal leading axes."""
    if not (low.is_traced(call.args[0]) and low.is_traced(call.args[1])):
        raise UnsupportedError("a matrix product with a constant", hint="write it as a linear layer")
    left, right = low.symbol(call.args[0]), low.symbol(call.args[1])
    layout = left.layout()
    if layout != right.layout() or layout[-2:] != [None, None]:
        raise UnsupportedError("a matrix product over time or batch, or of tensors laid out differently")
    return low.emit(call, "matmul", MatMul(), (left, right), layout)
