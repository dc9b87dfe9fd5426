"""Where a time axis appears: repeating an image, stacking the steps of a loop."""

from __future__ import annotations

from collections.abc import Sequence

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.rules.axes import part_starts, separated
from qkf_deploy.converters.torch.trace.rules.beside import side_by_side
from qkf_deploy.converters.torch.trace.rules.joining import repeated
from qkf_deploy.converters.torch.trace.rules.table import argument, positive, rule
from qkf_deploy.converters.torch.trace.symbols import BATCH, Symbol
from qkf_deploy.errors import UnsupportedError


@rule("aten.repeat.default")
def repeat(low: Lowering, call: Call) -> Symbol:
    """Repeating an image over time."""
    x = low.symbol(call.args[0])
    factors = [int(n) for n in call.args[1]]
    if len(factors) > len(x.shape):
        x = x.reshaped((*[1] * (len(factors) - len(x.shape)), *x.shape))
    return repeated(low, call, x, factors)


@rule("aten.expand.default")
def expand(low: Lowering, call: Call) -> Symbol:
    """Repeating an image over time, without a copy."""
    x, target = low.symbol(call.args[0]), low.program.shapes[call.name]
    x = x.reshaped((*[1] * (len(target) - len(x.shape)), *x.shape))
    return repeated(low, call, x, [t // n for t, n in zip(target, x.shape, strict=True)])


@rule("aten.stack.default")
def stack(low: Lowering, call: Call) -> Symbol:
    """The steps of a loop, stacked; other tensors side by side along a new axis."""
    parts = [low.symbol(a) for a in call.args[0]]
    axis = positive(argument(call, 1, "dim", 0), len(parts[0].shape) + 1)
    if _are_steps(parts) or len(parts) == 1:
        return _steps(low, parts, axis)
    lifted = [p.reshaped((*p.shape[:axis], 1, *p.shape[axis:])) for p in parts]
    return side_by_side(low, call, lifted, axis, "stack")


@rule("aten.cat.default")
def cat(low: Lowering, call: Call) -> Symbol:
    """The steps of a loop, or an image as often as there are steps, along the batch; steps along an axis of size 1;
    other tensors side by side."""
    parts = [low.symbol(a) for a in call.args[0]]
    axis = positive(argument(call, 1, "dim", 0), len(parts[0].shape))
    if len(parts) == 1:
        return parts[0]
    if all(p == parts[0] for p in parts) and parts[0].layout()[axis] == (BATCH,):
        return repeated(low, call, parts[0], [len(parts) if a == axis else 1 for a in range(len(parts[0].shape))])
    steps = _are_steps(parts) and all(p.at for p in parts)
    if steps and parts[0].layout()[axis] == (BATCH,):
        shape = parts[0].shape
        return _steps(low, parts, axis).reshaped((*shape[:axis], len(parts) * shape[axis], *shape[axis + 1 :]))
    if not steps or any(p.shape[axis] != 1 or BATCH in (p.layout()[axis] or ()) for p in parts):
        return side_by_side(low, call, parts, axis)
    return _steps(low, [p.reshaped([n for a, n in enumerate(p.shape) if a != axis]) for p in parts], axis)


def _are_steps(parts: Sequence[Symbol]) -> bool:
    """True for one value at the steps of a loop, or several times without time."""
    first, steps = parts[0], {p.at for p in parts}
    if any(p.node != first.node or p.view != first.view or p.steps is not None for p in parts):
        return len(steps - {()}) > 1  # which is refused, with the reason
    return len(steps) == len(parts) or steps == {()}


def _steps(low: Lowering, parts: Sequence[Symbol], axis: int) -> Symbol:
    """A time axis out of all steps of a loop, in order (or of one constant value, several times)."""
    first = parts[0]
    same = all(p.node == first.node and p.view == first.view and p.steps is None for p in parts)
    in_order = [p.at for p in parts] == [(t,) for t in range(len(parts))]
    if not same or not (in_order or not any(p.at for p in parts)):
        raise UnsupportedError(
            "stacks tensors that are not the time steps of one value, in order",
            hint="only the steps of a loop over time can be put together",
        )
    shape = (*first.shape[:axis], len(parts), *first.shape[axis:])
    return separated(first).over_time(part_starts(first)[axis], low.timed(len(parts))).reshaped(shape)
