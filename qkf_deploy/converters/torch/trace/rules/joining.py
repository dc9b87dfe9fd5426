"""Tensors side by side, repeated elements, enlarged maps: addressing, and the fixed weights of bilinear maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.rules.beside import side_by_side
from qkf_deploy.converters.torch.trace.rules.synapse import transposed_conv
from qkf_deploy.converters.torch.trace.rules.table import argument, batch_first, positive, rule
from qkf_deploy.converters.torch.trace.symbols import Symbol
from qkf_deploy.errors import UnsupportedError


def interleaved(low: Lowering, call: Call, x: Symbol, axis: int, factor: int, what: str) -> Symbol:
    """Every element of a feature axis ``factor`` times in a row."""
    if factor == 1:
        return x
    split = x.reshaped((*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
    out = side_by_side(low, call, [split] * factor, axis + 1, what)
    return out.reshaped(tuple(n * factor if a == axis else n for a, n in enumerate(x.shape)))


@rule("aten.repeat_interleave.self_int")
def repeat_interleave(low: Lowering, call: Call) -> Symbol:
    """Every element of an axis several times in a row."""
    x, factor = low.symbol(call.args[0]), int(call.args[1])
    axis = argument(call, 2, "dim")
    if axis is None:
        raise UnsupportedError("repeats the elements of all axes", hint="give repeat_interleave an axis")
    axis = positive(int(axis), len(x.shape))
    if x.layout()[axis] is not None or x.shape[axis] == 1:  # an image over time, too
        ones = [factor if a == axis else 1 for a in range(len(x.shape))]
        return repeated(low, call, x, ones)
    return interleaved(low, call, x, axis, factor, "repeat")


def repeated(low: Lowering, call: Call, x: Symbol, factors: Sequence[int]) -> Symbol:
    """A tensor several times along its axes: over time where an axis is new, else side by side."""
    axes = [a for a, n in enumerate(factors) if n != 1]
    if not axes:  # T = 1: repeating once still makes the first axis time
        return x.repeated(0, low.timed(1)) if x.steps is None and not x.at and x.shape[0] == 1 else x
    layout, timed = x.layout(), x.steps is not None or bool(x.at)
    for axis in axes:
        if layout[axis] is None and (timed or x.shape[axis] != 1):
            x = side_by_side(low, call, [x] * factors[axis], axis, "repeat")
        elif len([a for a in axes if layout[a] is not None or x.shape[a] == 1]) > 1:
            raise UnsupportedError("repeats more than one axis")
        else:
            x = x.repeated(axis, low.timed(factors[axis]))
    return x


@rule(
    "aten.upsample_nearest1d.vec", "aten.upsample_nearest2d.vec", "aten.upsample_nearest1d.default",
    "aten.upsample_nearest2d.default", "aten._upsample_nearest_exact1d.vec", "aten._upsample_nearest_exact2d.vec",
    "aten._upsample_nearest_exact1d.default", "aten._upsample_nearest_exact2d.default",
)  # fmt: skip
def upsample_nearest(low: Lowering, call: Call) -> Symbol:
    """A map enlarged by whole factors: every element several times."""
    x, target = low.symbol(call.args[0]), low.program.shapes[call.name]
    for axis, factor in enlarged(x, target):
        x = interleaved(low, call, x, axis, factor, "upsample")
    return x


@rule("aten.upsample_linear1d.vec", "aten.upsample_bilinear2d.vec")
def upsample_linear(low: Lowering, call: Call) -> Symbol:
    """A map enlarged by whole factors, linear between its elements: the edge repeated, then a transposed convolution
    with a triangle of weights for every channel."""
    x, target = low.symbol(call.args[0]), low.program.shapes[call.name]
    if call.args[2]:
        raise UnsupportedError(
            "linear upsampling with align_corners=True gives every position weights of its own",
            hint="use align_corners=False",
        )
    factors = dict(enlarged(x, target))
    batch_first(x, len(x.shape) - 1)
    for axis in factors:
        edges = x.narrowed(axis, 0, 1), x.narrowed(axis, x.shape[axis] - 1, x.shape[axis])
        x = side_by_side(low, call, (edges[0], x, edges[1]), axis, "edge")
    by_axis = [factors.get(a, 1) for a in range(2, len(x.shape))]
    weight = np.ones((x.shape[1], 1, *[1] * len(by_axis)))
    for axis, factor in enumerate(by_axis):
        triangle = _triangle(factor)
        weight = weight * triangle.reshape([-1 if a == axis + 2 else 1 for a in range(weight.ndim)])
    padding = tuple(f + (weight.shape[a + 2] - f) // 2 if f > 1 else 0 for a, f in enumerate(by_axis))
    none, one = (0,) * len(by_axis), (1,) * len(by_axis)
    window = (tuple(by_axis), padding, none, one)
    return transposed_conv(low, call, x, weight, None, window, x.shape[1], "upsample")


def _triangle(factor: int) -> np.ndarray:
    """Weight of an element at each place it reaches: 1 at its centre, 0 at the centres of its neighbours."""
    places = (np.arange(2 * factor - factor % 2) + 0.5 + factor % 2 / 2) / factor - 1
    return 1.0 - np.abs(places)


def enlarged(x: Symbol, target: Sequence[int]) -> list[tuple[int, int]]:
    """(axis, whole factor) of the axes that an interpolation enlarges."""
    if any(t % n for t, n in zip(target, x.shape, strict=True)):
        raise UnsupportedError(
            f"resizes a map from {x.shape[2:]} to {tuple(target[2:])}, not by a whole factor",
            hint="choose an image size for which all factors are whole",
        )
    return [(a, t // n) for a, (n, t) in enumerate(zip(x.shape, target, strict=True)) if t != n]
