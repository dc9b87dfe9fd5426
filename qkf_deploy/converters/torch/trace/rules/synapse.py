"""Convolution, linear layer, batch norm, matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.rules import chunks
from qkf_deploy.converters.torch.trace.rules.axes import channels_first, is_aligned, is_plain, part_starts, separated
from qkf_deploy.converters.torch.trace.rules.beside import steps_beside
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
        padding, weight, dilation = _named_padding(padding, weight, dilation)
    stride = per_axis(argument(call, 3, "stride", 1), rank)
    around = tuple(p + z for p, z in zip(per_axis(padding, rank), zeros, strict=True))
    groups = int(argument(call, 6, "groups", 1))
    x = steps_beside(low, call, x, rank) if rank < 3 and is_aligned(x) else x
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


@rule("aten.conv_transpose1d.default", "aten.conv_transpose2d.input")
def conv_transpose(low: Lowering, call: Call) -> Symbol:
    """Transposed convolution: one with the kernel turned round, of a map with nothing between its elements."""
    weight, bias = low.constant(call.args[1]), low.constant(argument(call, 2, "bias"))
    if weight is None:
        raise UnsupportedError("a transposed convolution without a weight parameter")
    rank = weight.ndim - 2
    x = low.symbol(call.args[0])
    if not is_plain(x, rank + 1):
        raise UnsupportedError("a transposed convolution of windows or blocks", hint="put them together before it")
    stride, padding, tail, dilation = (
        per_axis(argument(call, place, name, default), rank)
        for place, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "output_padding", 0), (7, "dilation", 1))
    )
    groups = int(argument(call, 6, "groups", 1))
    return transposed_conv(low, call, x, weight, bias, (stride, padding, tail, dilation), groups)


def transposed_conv(
    low: Lowering, call: Call, x: Symbol, weight: np.ndarray, bias: np.ndarray | None,
    window: Sequence[tuple[int, ...]], groups: int, what: str = "conv_transpose",
) -> Symbol:  # fmt: skip
    """The node of a transposed convolution; ``weight`` and ``window`` (stride, padding, tail, dilation) as in torch."""
    stride, padding, tail, dilation = window
    kernel = weight.shape[2:]
    around = tuple(d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True))
    if min(around) < 0:
        raise UnsupportedError(
            "a transposed convolution that cuts off more than its kernel adds", hint="use less padding"
        )
    if any(t >= s for t, s in zip(tail, stride, strict=True)):
        raise UnsupportedError("a transposed convolution whose output padding is not below its stride")
    inner, outer = weight.shape[0] // groups, weight.shape[1]
    turned = np.flip(weight, axis=tuple(range(2, weight.ndim))).reshape(groups, inner, outer, *kernel)
    turned = np.ascontiguousarray(turned.swapaxes(1, 2)).reshape(groups * outer, inner, *kernel)
    ones = (1,) * len(kernel)
    spread, behind = (stride, tail) if stride != ones else ((), ())
    op = Conv(ones, around, dilation, groups, spread=spread, tail=behind if any(behind) else ())
    return low.emit(call, what, op, (x,), batch_first(x, len(kernel) + 1), weight=turned, bias=bias)


def _named_padding(
    padding: str, weight: np.ndarray, dilation: Sequence[int]
) -> tuple[list[int], np.ndarray, tuple[int, ...]]:
    """Padding of ``valid`` and ``same``, the weight and the dilation.

    Where the sides differ by one, the weight gets a tap of zeros in front, and zeros between taps that are dilated.
    """
    dilation = tuple(dilation)
    if padding == "valid":
        return [0] * len(dilation), weight, dilation
    for axis, (k, d) in enumerate(zip(weight.shape[2:], dilation, strict=True), start=2):
        if d * (k - 1) % 2:
            apart = np.zeros((*weight.shape[:axis], d * (k - 1) + 2, *weight.shape[axis + 1 :]))
            np.moveaxis(apart, axis, 0)[1::d] = np.moveaxis(weight, axis, 0)
            weight, dilation = apart, (*dilation[: axis - 2], 1, *dilation[axis - 1 :])
    return [d * (k - 1) // 2 for k, d in zip(weight.shape[2:], dilation, strict=True)], weight, dilation


@rule("aten.linear.default")
def linear(low: Lowering, call: Call) -> Symbol:
    """Linear layer over the last axis."""
    weight, bias = low.constant(call.args[1]), low.constant(argument(call, 2, "bias"))
    return _linear(low, call, low.symbol(call.args[0]), weight, bias)


def _linear(low: Lowering, call: Call, x: Symbol, weight: np.ndarray | None, bias: np.ndarray | None) -> Symbol:
    x = steps_beside(low, call, x, 1) if is_aligned(x) else x
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
    """Product of two activations with equal leading axes; with constant matrices a linear layer, or one per block."""
    if not low.is_traced(call.args[1]):
        return _constant_product(low, call, low.symbol(call.args[0]), low.array(call.args[1]))
    if not low.is_traced(call.args[0]):
        x = low.symbol(call.args[1])
        swapped = [*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2]
        matrices = np.swapaxes(np.atleast_2d(low.array(call.args[0])), -1, -2)
        return _constant_product(low, call, x.transposed(swapped), matrices).transposed(swapped)
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


def _constant_product(low: Lowering, call: Call, x: Symbol, matrices: np.ndarray) -> Symbol:
    """``x @ matrices``: one matrix, or one for each place along axes in front (blocks, heads)."""
    if matrices.ndim < 2:
        raise UnsupportedError("a product with a constant vector", hint="use a linear layer")
    blocks = [a - matrices.ndim for a, n in enumerate(matrices.shape[:-2]) if n != 1]
    if not blocks:
        return _linear(low, call, x, matrices.reshape(matrices.shape[-2:]).T, None)
    if matrices.ndim > len(x.shape):
        raise UnsupportedError("a product of one tensor with several constant matrices", hint="use one wider matrix")
    y, starts = separated(x), part_starts(x)
    layout = y.layout()
    places = [starts[len(x.shape) + a] for a in blocks]
    inner = len(layout) - 1
    if any(layout[a] is not None for a in (*places, inner)):
        raise UnsupportedError("a product with another constant matrix for each time step or image")
    if any(x.shape[a] != matrices.shape[a] for a in blocks):
        raise UnsupportedError("a product of one tensor with several constant matrices", hint="use one wider matrix")
    leads = [a for a, lead in enumerate(layout) if lead is not None]
    rest = [a for a in range(inner) if a not in (*places, *leads)]
    order = [*leads, *places, inner, *rest]
    lead, sizes, around = ([y.shape[a] for a in axes] for axes in (leads, places, rest))
    count = math.prod(sizes)
    z = y.transposed(order).reshaped([*lead, count * y.shape[inner], math.prod(around)])
    weight = np.swapaxes(matrices, -1, -2).reshape(-1, y.shape[inner], 1)
    op = Conv((1,), (0,), (1,), count)
    out = low.emit(call, "blocks", op, (z,), z.layout(), weight=weight)
    split = out.reshaped([*lead, *sizes, matrices.shape[-1], *around])
    back = split.transposed([order.index(a) for a in range(len(order))])
    return back.reshaped((*x.shape[:-1], matrices.shape[-1]))
