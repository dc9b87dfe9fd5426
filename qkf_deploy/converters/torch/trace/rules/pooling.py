"""Pooling, and sums and means over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.rules.axes import channels_first, is_plain, last_feature
from qkf_deploy.converters.torch.trace.rules.table import argument, batch_first, per_axis, positive, rule
from qkf_deploy.converters.torch.trace.symbols import BATCH, Symbol
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import MaxPool, Readout, Sum, SumPool


@rule("aten.max_pool1d.default", "aten.max_pool2d.default", "aten.max_pool3d.default")
def max_pool(low: Lowering, call: Call) -> Symbol:
    """Max pooling of drives or spikes."""
    rank, kernel, stride, padding = _window(call)
    if any(d != 1 for d in per_axis(argument(call, 4, "dilation", 1), 1)) or argument(call, 5, "ceil_mode", False):
        raise UnsupportedError("max pooling with dilation or ceil_mode")
    return _pooled(low, call, "maxpool", MaxPool(kernel, stride, padding), rank)


def _window(call: Call) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Spatial axes, kernel, stride and padding; of a 3-d pool the last two axes, if it leaves the first alone."""
    rank = int(call.target.partition("d.")[0][-1])
    kernel = per_axis(call.args[1], rank)
    stride = per_axis(argument(call, 2, "stride", None) or call.args[1], rank)
    padding = per_axis(argument(call, 3, "padding", 0), rank)
    if rank == 3:
        if (kernel[0], stride[0], padding[0]) != (1, 1, 0):
            raise UnsupportedError("3-d pooling over depth or time", hint="a kernel of (1, k, k) is a 2-d pool")
        return 2, kernel[1:], stride[1:], padding[1:]
    return rank, kernel, stride, padding


def _pooled(low: Lowering, call: Call, what: str, op: MaxPool | SumPool, rank: int) -> Symbol:
    """A pool over the last axes; all other feature axes are channels to it."""
    x = low.symbol(call.args[0])
    if is_plain(x, rank + 1):
        return low.emit(call, what, op, (x,), batch_first(x, rank + 1))
    z, layout, _, restore = channels_first(x, last_feature(x, len(x.shape) - rank), "channels")
    return restore(low.emit(call, what, op, (z,), layout), low.program.shapes[call.name])


@rule("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default")
def avg_pool(low: Lowering, call: Call) -> Symbol:
    """Average pooling: a sum and a scale."""
    rank, kernel, stride, padding = _window(call)
    if argument(call, 4, "ceil_mode", False) or (any(padding) and not argument(call, 5, "count_include_pad", True)):
        raise UnsupportedError("average pooling whose divisor depends on the position")
    divisor = argument(call, 6, "divisor_override") or math.prod(kernel)
    return low.scaled(call, _pooled(low, call, "avgpool", SumPool(kernel, stride, padding), rank), 1.0 / divisor)


@rule("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default", "aten.adaptive_avg_pool3d.default")
def adaptive_avg_pool(low: Lowering, call: Call) -> Symbol:
    """Average pooling to a given size, where all windows are equal; a 3-d pool that leaves its first axis alone."""
    x = low.symbol(call.args[0])
    rank = int(call.target.partition("d.")[0][-1])
    spatial = x.shape[-rank:]
    target = tuple(n if t is None else t for n, t in zip(spatial, per_axis(call.args[1], rank), strict=True))
    if rank == 3:
        if target[0] != spatial[0]:
            raise UnsupportedError("3-d pooling over depth or time", hint="an output of (None, h, w) is a 2-d pool")
        rank, spatial, target = 2, spatial[1:], target[1:]
    if any(n % t for n, t in zip(spatial, target, strict=True)):
        raise UnsupportedError(
            f"adaptive pooling from {spatial} to {target} with windows of different size",
            hint="choose an image size whose last feature map is a multiple of the pool's output",
        )
    kernel = tuple(n // t for n, t in zip(spatial, target, strict=True))
    if math.prod(kernel) == 1:
        return x
    summed = _pooled(low, call, "avgpool", SumPool(kernel, kernel, (0,) * rank), rank)
    return low.scaled(call, summed, 1.0 / math.prod(kernel))


@rule("aten.sum.dim_IntList", "aten.mean.dim")
def reduce(low: Lowering, call: Call) -> Symbol:
    """Sum or mean over features (tokens, a head), over time, or both."""
    x = low.symbol(call.args[0], weighted=True)
    weights, x = x.weights, replace(x, weights=())
    axes = [positive(a, len(x.shape)) for a in ([call.args[1]] if isinstance(call.args[1], int) else call.args[1])]
    keepdim = bool(argument(call, 2, "keepdim", False))
    layout = x.layout()
    if any(BATCH in (layout[a] or ()) for a in axes):
        raise UnsupportedError("sums over images")
    over_time = [a for a in axes if layout[a] is not None]
    if weights and not over_time:
        raise UnsupportedError("sums values that have a weight for each time step", hint="sum them over time first")
    features = [a for a in axes if layout[a] is None]
    terms = math.prod(x.shape[a] for a in axes)
    if features:
        x = _sum_features(low, call, x, features, keepdim)
    if over_time:
        moved = over_time[0] if keepdim else over_time[0] - sum(f < over_time[0] for f in features)
        x = _sum_time(low, call, x, moved, keepdim, weights)
    return low.scaled(call, x, 1.0 / terms) if "mean" in call.target else x


def _sum_features(low: Lowering, call: Call, x: Symbol, axes: Sequence[int], keepdim: bool) -> Symbol:
    layout = x.layout()
    position = sorted(sum(lead is None for lead in layout[:a]) for a in axes)
    kept = layout if keepdim else [lead for a, lead in enumerate(layout) if a not in axes]
    return low.emit(call, "sum", Sum(tuple(position), keepdim), (x,), kept)


def _sum_time(low: Lowering, call: Call, x: Symbol, axis: int, keepdim: bool, weights: tuple[float, ...]) -> Symbol:
    layout = [lead for a, lead in enumerate(x.layout()) if a != axis]
    summed = low.emit(call, "readout", Readout(weights), (x,), layout, ends_time=True)
    return summed.reshaped((*summed.shape[:axis], 1, *summed.shape[axis:])) if keepdim else summed
