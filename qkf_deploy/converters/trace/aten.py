"""What every operator of an exported program means in the graph: one small function each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qkf_deploy.converters.trace.capture import NEURON_CALL, Call, Ref
from qkf_deploy.converters.trace.lowering import Lowering, Rule
from qkf_deploy.converters.trace.symbols import BATCH, TIME, Layout, Symbol, place
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ir import Operand, View
from qkf_deploy.ir.values import Kind
from qkf_deploy.ops import Add, BatchNorm, Conv, Linear, Mask, MatMul, MaxPool, Readout, Scale, Sum, SumPool

RULES: dict[str, Rule] = {}


def _rule(*targets: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for target in targets:
            RULES[target] = function
        return function

    return register


def _arg(call: Call, position: int, name: str, default: Any = None) -> Any:
    """An argument by position or keyword."""
    return call.args[position] if len(call.args) > position else call.kwargs.get(name, default)


def _axis(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 else axis


def _per_axis(value: Any, rank: int) -> tuple[int, ...]:
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * rank if len(values) == 1 else values)


# -- synapses --------------------------------------------------------------------------------------------------------


@_rule("aten.conv1d.default", "aten.conv2d.default", "aten.conv1d.padding", "aten.conv2d.padding")
def _conv(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    weight, bias = low.constant(call.args[1]), low.constant(_arg(call, 2, "bias"))
    if weight is None:
        raise UnsupportedError("a convolution without a weight parameter")
    rank = weight.ndim - 2
    layout = _batch_first(x, rank + 1)
    dilation = _per_axis(_arg(call, 5, "dilation", 1), rank)
    padding = _arg(call, 4, "padding", 0)
    if isinstance(padding, str):
        padding = _named_padding(padding, weight.shape[2:], dilation)
    op = Conv(
        _per_axis(_arg(call, 3, "stride", 1), rank), _per_axis(padding, rank), dilation, int(_arg(call, 6, "groups", 1))
    )
    return low.emit(call, "conv", op, (x.operand(),), layout, x.steps, weight=weight, bias=bias)


def _named_padding(padding: str, kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    if padding == "valid":
        return [0] * len(kernel)
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if any(t % 2 for t in total):
        raise UnsupportedError("a 'same' convolution with an even kernel pads one side more than the other")
    return [t // 2 for t in total]


def _batch_first(x: Symbol, features: int) -> Layout:
    """Layout of a tensor whose last ``features`` axes are features and whose first is time and/or batch."""
    layout = x.layout()
    if len(layout) < features or any(lead is not None for lead in layout[-features:]) or None in layout[:-features]:
        raise UnsupportedError("expects the time and batch axes first")
    return layout


@_rule("aten.linear.default")
def _linear(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    layout = x.layout()
    if layout[-1] is not None:
        raise UnsupportedError("a linear layer over the time or batch axis")
    weight, bias = low.constant(call.args[1]), low.constant(_arg(call, 2, "bias"))
    return low.emit(call, "linear", Linear(), (x.operand(),), layout, x.steps, weight=weight, bias=bias)


@_rule("aten.batch_norm.default")
def _batch_norm(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    layout = _batch_first(x, len(x.shape) - 1)
    mean, var = low.constant(call.args[3]), low.constant(call.args[4])
    if mean is None or var is None:
        raise UnsupportedError("a batch norm without running statistics depends on the batch")
    weight, bias = low.constant(call.args[1]), low.constant(call.args[2])
    weight = np.ones_like(mean) if weight is None else weight
    bias = np.zeros_like(mean) if bias is None else bias
    op = BatchNorm(float(call.args[7]))
    return low.emit(call, "bn", op, (x.operand(),), layout, x.steps, mean=mean, var=var, weight=weight, bias=bias)


# -- neurons ---------------------------------------------------------------------------------------------------------


@_rule(NEURON_CALL)
def _neuron(low: Lowering, call: Call) -> Symbol:
    x, path = low.symbol(call.args[0]), str(call.args[1])
    neuron = low.program.neurons[path]
    layout = x.layout()
    op = neuron.op
    if neuron.multi_step:
        lead = layout[0]
        if lead is None or (TIME not in lead and BATCH not in lead):
            raise UnsupportedError("a multi-step neuron whose input has no time axis in front")
        if BATCH in lead:
            op = replace(op, time_merged_with_batch=True)
            low.notices.append(
                f"{path}: the model runs this neuron over a merged time and batch axis, so with more than one image its "
                "membrane carries over from image to image; the graph gives every image its own (batch size 1)"
            )
    elif x.steps is not None and x.steps > 1:
        raise UnsupportedError("a single-step neuron that is given a time axis")
    name = low.add("neuron", op, (x.operand(),), path=path, is_module=True, source=call.source)
    return place(name, layout, low.builder.nodes[name].type.shape, x.steps)


# -- pooling ---------------------------------------------------------------------------------------------------------


@_rule("aten.max_pool1d.default", "aten.max_pool2d.default")
def _max_pool(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    rank = len(_per_axis(call.args[1], 1 if "1d" in call.target else 2))
    kernel = _per_axis(call.args[1], rank)
    stride = _per_axis(_arg(call, 2, "stride", None) or call.args[1], rank)
    if any(d != 1 for d in _per_axis(_arg(call, 4, "dilation", 1), rank)) or _arg(call, 5, "ceil_mode", False):
        raise UnsupportedError("max pooling with dilation or ceil_mode")
    op = MaxPool(kernel, stride, _per_axis(_arg(call, 3, "padding", 0), rank))
    return low.emit(call, "maxpool", op, (x.operand(),), _batch_first(x, rank + 1), x.steps)


@_rule("aten.avg_pool1d.default", "aten.avg_pool2d.default")
def _avg_pool(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    rank = 1 if "1d" in call.target else 2
    kernel = _per_axis(call.args[1], rank)
    stride = _per_axis(_arg(call, 2, "stride", None) or call.args[1], rank)
    padding = _per_axis(_arg(call, 3, "padding", 0), rank)
    if _arg(call, 4, "ceil_mode", False) or (any(padding) and not _arg(call, 5, "count_include_pad", True)):
        raise UnsupportedError("average pooling whose divisor depends on the position")
    divisor = _arg(call, 6, "divisor_override") or math.prod(kernel)
    summed = low.emit(
        call, "avgpool", SumPool(kernel, stride, padding), (x.operand(),), _batch_first(x, rank + 1), x.steps
    )
    return _scaled(low, call, summed, 1.0 / divisor)


@_rule("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default")
def _adaptive_avg_pool(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    rank = 1 if "1d" in call.target else 2
    target = _per_axis(call.args[1], rank)
    spatial = x.shape[-rank:]
    if any(n % t for n, t in zip(spatial, target, strict=True)):
        raise UnsupportedError(f"adaptive pooling from {spatial} to {target} with windows of different size")
    kernel = tuple(n // t for n, t in zip(spatial, target, strict=True))
    op = SumPool(kernel, kernel, (0,) * rank)
    summed = low.emit(call, "avgpool", op, (x.operand(),), _batch_first(x, rank + 1), x.steps)
    return _scaled(low, call, summed, 1.0 / math.prod(kernel))


# -- sums ------------------------------------------------------------------------------------------------------------


@_rule("aten.sum.dim_IntList", "aten.mean.dim")
def _reduce(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    axes = [_axis(a, len(x.shape)) for a in ([call.args[1]] if isinstance(call.args[1], int) else call.args[1])]
    keepdim = bool(_arg(call, 2, "keepdim", False))
    layout = x.layout()
    if any(BATCH in (layout[a] or ()) for a in axes):
        raise UnsupportedError("sums over images")
    over_time = [a for a in axes if layout[a] is not None]
    features = [a for a in axes if layout[a] is None]
    terms = math.prod(x.shape[a] for a in axes)
    if features:
        x = _sum_features(low, call, x, features, keepdim)
    if over_time:
        moved = over_time[0] if keepdim else over_time[0] - sum(f < over_time[0] for f in features)
        x = _sum_time(low, call, x, moved, keepdim)
    return _scaled(low, call, x, 1.0 / terms) if "mean" in call.target else x


def _sum_features(low: Lowering, call: Call, x: Symbol, axes: Sequence[int], keepdim: bool) -> Symbol:
    layout = x.layout()
    position = {a: sum(lead is None for lead in layout[:a]) for a in axes}
    op = Sum(tuple(sorted(position.values())), keepdim)
    kept = layout if keepdim else [lead for a, lead in enumerate(layout) if a not in axes]
    return low.emit(call, "sum", op, (x.operand(),), kept, x.steps)


def _sum_time(low: Lowering, call: Call, x: Symbol, axis: int, keepdim: bool) -> Symbol:
    if keepdim:
        raise UnsupportedError("a sum over time that keeps the time axis")
    layout = [lead for a, lead in enumerate(x.layout()) if a != axis]
    return low.emit(call, "readout", Readout(), (x.operand(),), layout, None)


# -- element by element ----------------------------------------------------------------------------------------------


@_rule("aten.add.Tensor", "aten.add_.Tensor")
def _add(low: Lowering, call: Call) -> Symbol:
    if _arg(call, 2, "alpha", 1) != 1:
        raise UnsupportedError("an addition with a factor")
    a, b = _number(low, call.args[0]), _number(low, call.args[1])
    if a == 0.0 or b == 0.0:
        return low.symbol(call.args[1] if a == 0.0 else call.args[0])
    if a is not None or b is not None or not (low.is_traced(call.args[0]) and low.is_traced(call.args[1])):
        raise UnsupportedError("adds a constant to spikes or drives", hint="only residual additions are understood")
    left, right = low.symbol(call.args[0]), low.symbol(call.args[1])
    layout, steps = _joint_layout(left, right)
    return low.emit(call, "add", Add(), (left.operand(), right.operand()), layout, steps)


def _joint_layout(a: Symbol, b: Symbol) -> tuple[Layout, int | None]:
    """Layout of an element-by-element result; both tensors must have time and batch in the same places."""
    first, second = a.layout(), b.layout()
    longer = first if len(first) >= len(second) else second
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            raise UnsupportedError("combines tensors whose time or batch axes are in different places")
    if len(first) != len(second) and any(lead is not None for lead in longer[: abs(len(first) - len(second))]):
        raise UnsupportedError("combines a tensor with time or batch axes with one without")
    return longer, a.steps or b.steps


def _number(low: Lowering, value: Any) -> float | None:
    """A scalar argument, or a constant tensor with one element."""
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, Ref) and value.name in low.program.tensors:
        tensor = low.program.tensors[value.name]
        return float(tensor) if tensor.numel() == 1 else None
    return None


@_rule("aten.mul.Tensor", "aten.mul.Scalar", "aten.mul_.Tensor", "aten.mul_.Scalar")
def _mul(low: Lowering, call: Call) -> Symbol:
    for value, other in ((call.args[0], call.args[1]), (call.args[1], call.args[0])):
        factor = _number(low, other)
        if factor is not None:
            return _scaled(low, call, low.symbol(value), factor)
    left, right = low.symbol(call.args[0]), low.symbol(call.args[1])
    return _mask(low, call, left, right)


@_rule("aten.div.Tensor", "aten.div.Scalar", "aten.div_.Tensor", "aten.div_.Scalar")
def _div(low: Lowering, call: Call) -> Symbol:
    divisor = _number(low, call.args[1])
    if not divisor:
        raise UnsupportedError("divides by something that is not a constant")
    return _scaled(low, call, low.symbol(call.args[0]), 1.0 / divisor)


def _scaled(low: Lowering, call: Call, x: Symbol, factor: float) -> Symbol:
    """A scale reads the whole value; the tensor's view stays, because scaling element by element commutes with it."""
    if factor == 1.0:
        return x
    name = low.add("scale", Scale(factor), (Operand(x.node),), path=call.path, source=call.source)
    return Symbol(name, x.view, x.steps)


def _mask(low: Lowering, call: Call, left: Symbol, right: Symbol) -> Symbol:
    layout, steps = _joint_layout(left, right)
    rank = len([lead for lead in layout if lead is None])
    pair = [_ranked(s.operand(), low, rank) for s in (left, right)]
    types = [low.type_of(o) for o in pair]
    # The gate is the operand that broadcasts; of two equal shapes the first one that is spikes.
    order = (0, 1) if types[0].size < types[1].size or types[0].size == types[1].size else (1, 0)
    if types[order[0]].kind is not Kind.SPIKE and types[0].size == types[1].size:
        order = (order[1], order[0])
    if types[order[0]].kind is not Kind.SPIKE:
        kinds = " and ".join(t.kind.value for t in types)
        raise UnsupportedError(f"multiplies {kinds} values element by element; one of them must be spikes (a gate)")
    return low.emit(call, "mask", Mask(), (pair[order[0]], pair[order[1]]), layout, steps)


def _ranked(operand: Operand, low: Lowering, rank: int) -> Operand:
    """The operand with leading axes of size 1 up to ``rank``."""
    type_ = low.type_of(operand)
    if len(type_.shape) == rank:
        return operand
    source = low.builder.nodes[operand.node].type.shape
    view = operand.view or View.of(source, range(len(source)), source)
    return Operand(operand.node, view.then((*[1] * (rank - len(type_.shape)), *type_.shape)))


@_rule("aten.matmul.default", "aten.bmm.default")
def _matmul(low: Lowering, call: Call) -> Symbol:
    left, right = low.symbol(call.args[0]), low.symbol(call.args[1])
    a, b = left.layout(), right.layout()
    if a != b or a[-2:] != [None, None]:
        raise UnsupportedError("a matrix product over time or batch, or of tensors laid out differently")
    return low.emit(call, "matmul", MatMul(), (left.operand(), right.operand()), a, left.steps or right.steps)


# -- views -----------------------------------------------------------------------------------------------------------


@_rule(
    "aten.reshape.default", "aten.view.default", "aten._unsafe_view.default", "aten.flatten.using_ints", "aten.unflatten.int",
    "aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze.default", "aten.unsqueeze.default",
)  # fmt: skip
def _reshape(low: Lowering, call: Call) -> Symbol:
    return low.symbol(call.args[0]).reshaped(low.program.shapes[call.name])


@_rule("aten.permute.default")
def _permute(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    return x.transposed([_axis(a, len(x.shape)) for a in call.args[1]])


@_rule("aten.transpose.int", "aten.swapaxes.default", "aten.transpose_.int")
def _transpose(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    order = list(range(len(x.shape)))
    a, b = (_axis(v, len(order)) for v in call.args[1:3])
    order[a], order[b] = order[b], order[a]
    return x.transposed(order)


@_rule("aten.t.default", "aten.mT.default")
def _swap_last(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    return x.transposed([*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2])


@_rule(
    "aten.contiguous.default", "aten.clone.default", "aten.detach.default", "aten.alias.default", "aten.dropout.default",
    "aten.to.dtype", "aten.to.dtype_layout", "aten._to_copy.default", "aten.detach_.default", "aten.identity.default",
    "aten.lift_fresh_copy.default", "aten.feature_dropout.default",
)  # fmt: skip
def _same(low: Lowering, call: Call) -> Symbol:
    return low.symbol(call.args[0])


@_rule("aten.repeat.default")
def _repeat(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    factors = [int(n) for n in call.args[1]]
    if len(factors) > len(x.shape):
        x = x.reshaped((*[1] * (len(factors) - len(x.shape)), *x.shape))
    return _over_time(low, x, factors)


@_rule("aten.expand.default")
def _expand(low: Lowering, call: Call) -> Symbol:
    x, target = low.symbol(call.args[0]), low.program.shapes[call.name]
    x = x.reshaped((*[1] * (len(target) - len(x.shape)), *x.shape))
    return _over_time(low, x, [t // n for t, n in zip(target, x.shape, strict=True)])


def _over_time(low: Lowering, x: Symbol, factors: Sequence[int]) -> Symbol:
    axes = [a for a, n in enumerate(factors) if n != 1]
    if not axes:  # T = 1: repeating once still makes the first axis time
        return x.repeated(0, low.timed(1)) if x.steps is None and x.shape[0] == 1 else x
    if len(axes) > 1:
        raise UnsupportedError("repeats more than one axis")
    return x.repeated(axes[0], low.timed(factors[axes[0]]))


@_rule("aten.slice.Tensor")
def _slice(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    axis = _axis(_arg(call, 1, "dim", 0), len(x.shape))
    n = x.shape[axis]
    start, stop, step = _arg(call, 2, "start") or 0, _arg(call, 3, "end"), _arg(call, 4, "step", 1)
    start, stop, _ = slice(start, stop).indices(n)
    if step != 1:
        raise UnsupportedError("a slice with a step")
    return x if (start, stop) == (0, n) else x.narrowed(axis, start, stop)


@_rule("aten.select.int")
def _select(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    axis, index = _axis(call.args[1], len(x.shape)), int(call.args[2])
    cut = x.narrowed(axis, *((index, index + 1) if index >= 0 else (x.shape[axis] + index, x.shape[axis] + index + 1)))
    return cut.reshaped(low.program.shapes[call.name])


@_rule("aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default", "aten.unbind.int")
def _split(low: Lowering, call: Call) -> Symbol:
    x = low.symbol(call.args[0])
    unbind = "unbind" in call.target
    axis = _axis(_arg(call, 1 if unbind else 2, "dim", 0), len(x.shape))
    n = x.shape[axis]
    if unbind:
        sizes = [1] * n
    elif isinstance(call.args[1], list):
        sizes = [int(s) for s in call.args[1]]
    else:
        size = math.ceil(n / call.args[1]) if "chunk" in call.target else int(call.args[1])
        sizes = [min(size, n - s) for s in range(0, n, size)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [x.narrowed(axis, s, s + k) for s, k in zip(starts, sizes, strict=True)]
    if unbind:
        parts = [p.reshaped([m for a, m in enumerate(p.shape) if a != axis]) for p in parts]
    return parts  # type: ignore[return-value]  # a list of symbols; only getitem reads it


@_rule("getitem")
def _getitem(low: Lowering, call: Call) -> Symbol:
    source = call.args[0]
    parts = low.symbols.get(source.name) if isinstance(source, Ref) else None
    if not isinstance(parts, list):
        raise UnsupportedError("indexes something that is not a list of tensors")
    return parts[int(call.args[1])]
