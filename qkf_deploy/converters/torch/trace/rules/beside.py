"""Tensors behind each other along a feature axis; the time steps of one, too."""

from __future__ import annotations

from collections.abc import Sequence

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.symbols import TIME, Symbol
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Concat, Readout


def side_by_side(low: Lowering, call: Call, parts: Sequence[Symbol], axis: int, what: str = "cat") -> Symbol:
    """Tensors of one layout behind each other along a feature axis.

    Raises:
        UnsupportedError: along time or batch, or tensors laid out differently.
    """
    layout = parts[0].layout()
    if layout[axis] is not None:
        raise UnsupportedError(
            "puts tensors together along time or batch", hint="only all steps of a loop, in order, make a time axis"
        )
    if any(p.layout() != layout for p in parts):
        raise UnsupportedError("puts tensors together whose time or batch axes are in different places")
    op = Concat(sum(lead is None for lead in layout[:axis]))
    out = parts[0]
    for part in parts[1:]:
        out = low.emit(call, what, op, (out, part), layout)
    return out


def steps_beside(low: Lowering, call: Call, x: Symbol, last: int) -> Symbol:
    """A tensor among whose ``last`` axes is time, with a feature axis in its place: readouts of single steps, side by
    side, once per image. Any other tensor as it is."""
    if x.steps is None or (TIME,) not in x.layout()[-last:]:
        return x
    layout, steps = x.layout(), low.timed(x.steps)
    axis = layout.index((TIME,))
    rest = layout[:axis] + layout[axis + 1 :]
    parts: list[Symbol] = []
    for t in range(steps):
        picked = Readout(tuple(float(t == s) for s in range(steps)))
        part = low.emit(call, "step", picked, (x,), rest, ends_time=True)
        parts.append(part.reshaped((*part.shape[:axis], 1, *part.shape[axis:])))
    return side_by_side(low, call, parts, axis, "steps")
