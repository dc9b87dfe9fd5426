"""Views: addressing, no node."""

from __future__ import annotations

import math
from typing import Any

from qkf_deploy.converters.torch.trace.capture import Call, Ref
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.rules import padding
from qkf_deploy.converters.torch.trace.rules.axes import part_starts, separated
from qkf_deploy.converters.torch.trace.rules.gathering import gathered, joined, pieces
from qkf_deploy.converters.torch.trace.rules.table import argument, positive, rule
from qkf_deploy.converters.torch.trace.symbols import TIME, Symbol
from qkf_deploy.errors import UnsupportedError


@rule(
    "aten.reshape.default", "aten.view.default", "aten._unsafe_view.default", "aten.flatten.using_ints",
    "aten.unflatten.int", "aten.squeeze.dim", "aten.squeeze.dims", "aten.squeeze.default", "aten.unsqueeze.default",
    "aten.squeeze_.dim", "aten.squeeze_.dims", "aten.squeeze_.default", "aten.unsqueeze_.default",
    "aten.view_as.default", "aten.reshape_as.default",
)  # fmt: skip
def reshape(low: Lowering, call: Call) -> Symbol:
    """Any change of shape that keeps the order of elements."""
    return low.symbol(call.args[0]).reshaped(low.program.shapes[call.name])


@rule("aten.permute.default")
def permute(low: Lowering, call: Call) -> Symbol:
    """Axes in another order."""
    x = low.symbol(call.args[0])
    return x.transposed([positive(a, len(x.shape)) for a in call.args[1]])


@rule(
    "aten.transpose.int", "aten.swapaxes.default", "aten.transpose_.int", "aten.transpose_.default",
    "aten.swapaxes_.default", "aten.movedim.int",
)  # fmt: skip
def transpose(low: Lowering, call: Call) -> Symbol:
    """Two axes exchanged, or one moved."""
    x = low.symbol(call.args[0])
    order = list(range(len(x.shape)))
    a, b = (positive(v, len(order)) for v in call.args[1:3])
    if "movedim" in call.target:
        order.insert(b, order.pop(a))
    else:
        order[a], order[b] = order[b], order[a]
    return x.transposed(order)


@rule("aten.t.default", "aten.t_.default", "aten.mT.default", "aten.adjoint.default")
def swap_last(low: Lowering, call: Call) -> Symbol:
    """The last two axes exchanged."""
    x = low.symbol(call.args[0])
    return x.transposed([*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2])


@rule(
    "aten.contiguous.default", "aten.clone.default", "aten.detach.default", "aten.alias.default",
    "aten.dropout.default", "aten.to.dtype", "aten.to.dtype_layout", "aten._to_copy.default", "aten.detach_.default",
    "aten.identity.default", "aten.lift_fresh_copy.default", "aten.feature_dropout.default", "aten.dropout_.default",
    "aten.to.device", "aten.to.other", "aten.type_as.default",
)  # fmt: skip
def same(low: Lowering, call: Call) -> Symbol:
    """What changes nothing in evaluation mode."""
    return low.symbol(call.args[0], inverted=True)


@rule("aten.slice.Tensor", "aten.narrow.default")
def cut(low: Lowering, call: Call) -> Symbol | padding.Region:
    """A range of one axis."""
    region = padding.cut(low, call) if "slice" in call.target else None
    if region is not None:
        return region
    x = low.symbol(call.args[0])
    axis = positive(argument(call, 1, "dim", 0), len(x.shape))
    start, stop, step = argument(call, 2, "start") or 0, argument(call, 3, "end"), argument(call, 4, "step", 1)
    if "narrow" in call.target:
        stop = start + stop
    start, stop, step = slice(start, stop, step).indices(x.shape[axis])
    if step != 1:
        return gathered(low, call, x, axis, range(start, stop, step), "slice")
    return x if (start, stop) == (0, x.shape[axis]) else _range(low, call, x, axis, start, stop)


def _range(low: Lowering, call: Call, x: Symbol, axis: int, start: int, stop: int) -> Symbol:
    """Part of an axis; of the time axis one step, which keeps an axis of size 1."""
    if stop - start == 1 and (x.steps or 1) > 1 and x.layout()[axis] == (TIME,):
        step = x.at_step(axis, start)
        return step.reshaped((*step.shape[:axis], 1, *step.shape[axis:]))
    return joined(low, call, pieces(x, axis, start, stop), axis, "slice")


@rule("aten.select.int")
def select(low: Lowering, call: Call) -> Symbol | padding.Region:
    """One element of an axis; of the time axis, one step."""
    region = padding.cut(low, call)
    if region is not None:
        return region
    x = low.symbol(call.args[0])
    axis = positive(call.args[1], len(x.shape))
    return _one(x, axis, positive(int(call.args[2]), x.shape[axis]))


def _one(x: Symbol, axis: int, index: int) -> Symbol:
    """One element of an axis; of the time axis, one step."""
    rest = [n for a, n in enumerate(x.shape) if a != axis]
    if x.steps is not None:
        parted, place = separated(x), part_starts(x)[axis]  # windows may be merged with the batch
        if parted.layout()[place] == (TIME,):
            return parted.at_step(place, index).reshaped(rest)
    return pieces(x, axis, index, index + 1)[0].reshaped(rest)


@rule("aten.unbind.int")
def unbind(low: Lowering, call: Call) -> Any:
    """All elements of an axis."""
    x = low.symbol(call.args[0])
    axis = positive(argument(call, 1, "dim", 0), len(x.shape))
    return [_one(x, axis, i) for i in range(x.shape[axis])]


@rule("aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default")
def split(low: Lowering, call: Call) -> Any:
    """An axis cut into parts."""
    x = low.symbol(call.args[0])
    axis = positive(argument(call, 2, "dim", 0), len(x.shape))
    n = x.shape[axis]
    if isinstance(call.args[1], list):
        sizes = [int(s) for s in call.args[1]]
    else:
        size = math.ceil(n / call.args[1]) if "chunk" in call.target else int(call.args[1])
        sizes = [min(size, n - s) for s in range(0, n, size)]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [_range(low, call, x, axis, s, s + k) for s, k in zip(starts, sizes, strict=True)]


@rule("getitem")
def getitem(low: Lowering, call: Call) -> Symbol:
    """One of several results."""
    source = call.args[0]
    parts = low.symbols.get(source.name) if isinstance(source, Ref) else None
    if not isinstance(parts, list):
        raise UnsupportedError("indexes something that is not a list of tensors")
    return parts[int(call.args[1])]
