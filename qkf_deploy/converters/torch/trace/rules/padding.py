"""Padding: zeros, constants or elements of the map itself around a map.

A pad is kept back until something reads it: a convolution takes zeros as its own padding. What else reads it, and pads
whose border the model writes (what a zero would be behind a batch norm), become a depthwise convolution with weight 1
whose bias stands where no element is; folding merges it with its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qkf_deploy.converters.torch.trace.capture import Call, Ref
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.rules.gathering import mirrored
from qkf_deploy.converters.torch.trace.rules.table import argument, batch_first, positive, rule
from qkf_deploy.converters.torch.trace.symbols import Symbol
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Conv

Index = tuple[slice | int, ...]


@dataclass(eq=False)
class Padded:
    """A tensor with constants around its last axes; not in the graph until it is read.

    Attributes:
        low, call: what made it.
        source: the tensor inside, time and batch axes first.
        amounts: elements before and behind, per spatial axis.
        border: what stands around it, ``(C, *spatial)`` of the padded tensor, 0 inside.
    """

    low: Lowering
    call: Call
    source: Symbol
    amounts: tuple[tuple[int, int], ...]
    border: np.ndarray
    made: Symbol | None = field(default=None, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the padded tensor."""
        return (*self.source.shape[: -len(self.amounts)], *self.border.shape[1:])

    @property
    def zeros(self) -> tuple[int, ...] | None:
        """Zeros on both sides of each axis, where that is all there is and nothing has read it."""
        plain = not self.border.any() and all(before == behind for before, behind in self.amounts)
        return tuple(before for before, _ in self.amounts) if plain else None

    def symbol(self) -> Symbol:
        """The tensor in the graph."""
        if self.made is None:
            op, weight = _identity(self.amounts, self.border.shape[0])
            inside = self.source.operand().view.shape  # type: ignore[union-attr] - a symbol's operand has a view
            bias = _by_case(op, weight, inside, self.border)
            layout = batch_first(self.source, len(inside))
            self.made = self.low.emit(self.call, "pad", op, (self.source,), layout, weight=weight, bias=bias)
        return self.made

    def write(self, index: Index, value: np.ndarray) -> None:
        """Put constants into a part of the border.

        Raises:
            UnsupportedError: the part reaches inside, was read before, or differs between images or steps.
        """
        if self.made is not None:
            raise UnsupportedError("writes into a padded tensor that was read before", hint="write the border first")
        spatial = index[-len(self.amounts) :]
        lead = len(index) - len(self.amounts) - 1
        outside = any(
            _outside(part, before, size - before - behind, size)
            for part, (before, behind), size in zip(spatial, self.amounts, self.border.shape[1:], strict=True)
        )
        if not outside or any(part != slice(0, n) for part, n in zip(index[:lead], self.shape, strict=False)):
            raise UnsupportedError(
                "writes into a part of a tensor that is no border", hint="only the border of a padded tensor is written"
            )
        first = value[(0,) * lead]
        if (value != first).any():
            raise UnsupportedError("writes a border that differs from image to image")
        self.border[index[lead:]] = first


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a padded tensor: one entry per axis of it, a range or one index."""

    padded: Padded
    index: Index

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the part."""
        return tuple(part.stop - part.start for part in self.index if isinstance(part, slice))

    def symbol(self) -> Symbol:
        """The part in the graph."""
        out = self.padded.symbol()
        for axis, part in enumerate(self.index):
            start, stop = (part.start, part.stop) if isinstance(part, slice) else (part, part + 1)
            out = out if (start, stop) == (0, out.shape[axis]) else out.narrowed(axis, start, stop)
        return out.reshaped(self.shape)

    def cut(self, axis: int, part: slice | int) -> Region:
        """A part of the part; ``axis`` counts the axes that are left."""
        place = [a for a, p in enumerate(self.index) if isinstance(p, slice)][axis]
        base = self.index[place]
        start = base.start if isinstance(base, slice) else 0
        moved = part + start if isinstance(part, int) else slice(part.start + start, part.stop + start)
        return replace(self, index=tuple(moved if a == place else p for a, p in enumerate(self.index)))


def region_of(low: Lowering, value: Any) -> Region | None:
    """The part of a padded tensor that an argument is, if it is one."""
    found = low.symbols.get(value.name) if isinstance(value, Ref) else None
    if isinstance(found, Padded):
        return Region(found, tuple(slice(0, n) for n in found.shape))
    return found if isinstance(found, Region) else None


def without_zeros(low: Lowering, value: Any, rank: int) -> tuple[Symbol, tuple[int, ...]]:
    """A tensor, and the zeros around each spatial axis that whoever reads it must add."""
    found = low.symbols.get(value.name) if isinstance(value, Ref) else None
    if isinstance(found, Padded) and found.made is None and len(found.amounts) == rank and found.zeros is not None:
        return found.source, found.zeros
    return low.symbol(value), (0,) * rank


@rule("aten.pad.default", "aten.constant_pad_nd.default")
def pad(low: Lowering, call: Call) -> Padded | Symbol:
    """Constants around the last one or two axes, or elements of the map again; negative amounts cut."""
    mode = argument(call, 2, "mode", "constant") if "constant" not in call.target else "constant"
    value = argument(call, 3 if "constant" not in call.target else 2, "value", None) or 0.0
    if not math.isfinite(value):
        raise UnsupportedError(f"pads with {value}, which no value of a network is", hint="give the pool its padding")
    x = low.symbol(call.args[0])
    flat = [int(n) for n in call.args[1]]
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)][::-1]
    for axis, (before, behind) in enumerate(pairs, start=len(x.shape) - len(pairs)):
        if before < 0 or behind < 0:
            x = x.narrowed(axis, max(0, -before), x.shape[axis] - max(0, -behind))
    pairs = [(max(0, before), max(0, behind)) for before, behind in pairs]
    if mode != "constant":
        return mirrored(low, call, x, pairs, mode)
    features = sum(lead is None for lead in x.layout())
    rank = features - 1
    outer, inner = pairs[: len(pairs) - rank], pairs[max(0, len(pairs) - rank) :]
    if any(n for pair in outer for n in pair) or rank not in (1, 2):
        raise UnsupportedError("pads channels, images or time steps", hint="pad the map's own axes")
    return padded(low, call, x, [(0, 0)] * (rank - len(inner)) + inner, float(value))


def padded(low: Lowering, call: Call, x: Symbol, amounts: Sequence[tuple[int, int]], value: float) -> Padded | Symbol:
    """A tensor with a constant around its spatial axes."""
    rank = len(amounts)
    batch_first(x, rank + 1)
    if not any(n for pair in amounts for n in pair):
        return x
    channels, *inside = x.shape[-rank - 1 :]
    border = np.full((channels, *(n + sum(pair) for n, pair in zip(inside, amounts, strict=True))), value)
    core = tuple(slice(before, before + n) for n, (before, _) in zip(inside, amounts, strict=True))
    border[(slice(None), *core)] = 0.0
    return Padded(low, call, x, tuple(amounts), border)


@rule("aten.copy_.default", "aten.fill_.Scalar", "aten.fill_.Tensor", "aten.zero_.default")
def write(low: Lowering, call: Call) -> Region:
    """Constants written into the border of a padded tensor."""
    region = region_of(low, call.args[0])
    if region is None or any(low.is_traced(a) for a in call.args[1:]):
        raise UnsupportedError(
            "writes into a slice of a tensor",
            hint="only constants in the border of a padded tensor; put time steps together with torch.stack",
        )
    value = low.array(call.args[1]) if len(call.args) > 1 else np.zeros(())
    region.padded.write(region.index, np.broadcast_to(value, region.shape))
    return region


def cut(low: Lowering, call: Call) -> Region | None:
    """A slice or one index of a padded tensor, ``None`` for any other tensor."""
    region = region_of(low, call.args[0])
    if region is None:
        return None
    axis = positive(int(argument(call, 1, "dim", 0)), len(region.shape))
    n = region.shape[axis]
    if "select" in call.target:
        return region.cut(axis, positive(int(call.args[2]), n))
    given = (argument(call, place, name) for place, name in ((2, "start"), (3, "end"), (4, "step")))
    start, stop, step = slice(*given).indices(n)
    return None if step != 1 or stop <= start else region.cut(axis, slice(start, stop))


def _identity(amounts: Sequence[tuple[int, int]], channels: int) -> tuple[Conv, np.ndarray]:
    """A depthwise convolution that pads: both sides by the larger amount, the tap moved where they differ."""
    kernel = tuple(1 + abs(before - behind) for before, behind in amounts)
    most = tuple(max(pair) for pair in amounts)
    weight = np.zeros((channels, 1, *kernel))
    weight[(slice(None), 0, *(p - before for p, (before, _) in zip(most, amounts, strict=True)))] = 1.0
    ones = (1,) * len(amounts)
    return Conv(ones, most, ones, channels), weight


def _by_case(op: Conv, weight: np.ndarray, inside: Sequence[int], border: np.ndarray) -> np.ndarray | None:
    """The border as a bias per border case.

    Raises:
        UnsupportedError: positions of one case have different values.
    """
    if not border.any():
        return None
    axes = op.axes(inside, weight)
    first = [np.unique(axis.cases()[1], return_index=True)[1] for axis in axes]
    bias = border[(slice(None), *np.ix_(*first))]
    if (op.bias_map(bias, axes) != border).any():
        raise UnsupportedError("a border whose values differ from side to side", hint="give all sides one value")
    return bias


def _outside(part: slice | int, before: int, inside: int, size: int) -> bool:
    """True if a range of a padded axis lies in its border."""
    start, stop = (part.start, part.stop) if isinstance(part, slice) else (part, part + 1)
    return stop <= before or (start >= before + inside and stop <= size)
