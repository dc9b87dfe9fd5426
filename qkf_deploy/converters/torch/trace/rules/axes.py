"""Axes beside time, batch, channels and space: windows or blocks in the batch axis, steps as a depth axis.

At batch size 1 they are feature axes of the value. Where an operator has no place for them they join the axis that
makes no difference to it: the channels of a pool, the first spatial axis of a pointwise convolution or a norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby

from qkf_deploy.converters.torch.trace.symbols import BATCH, TIME, Layout, Symbol
from qkf_deploy.errors import UnsupportedError

Restore = Callable[[Symbol, Sequence[int]], Symbol]


def separated(x: Symbol) -> Symbol:
    """The tensor with every axis that merges time or batch with features split into its parts."""
    shape = [n for parts in _parts(x) for n in parts]
    return x if tuple(shape) == x.shape else x.reshaped(shape)


def _parts(x: Symbol) -> list[list[int]]:
    """Sizes of the runs of time and batch, and of features, that make up each axis."""
    out: list[list[int]] = []
    for n, group in zip(x.shape, x.view.groups(), strict=True):
        sizes = [(atom in (TIME, BATCH), x.view.take[atom][1] - x.view.take[atom][0]) for atom in group]
        runs = [math.prod(n for _, n in run) for _, run in groupby([s for s in sizes if s[1] > 1], key=lambda s: s[0])]
        out.append(runs if len(runs) > 1 else [n])
    return out


def part_starts(x: Symbol) -> list[int]:
    """Of every axis, and of the place behind the last, the first of the axes that :func:`separated` makes of it."""
    return list(accumulate((len(parts) for parts in _parts(x)), initial=0))


def is_aligned(x: Symbol) -> bool:
    """True if every axis is time, batch or features, and none a mixture."""
    try:
        x.layout()
    except UnsupportedError:
        return False
    return True


def is_plain(x: Symbol, features: int) -> bool:
    """True for time and batch axes in front of as many feature axes."""
    if not is_aligned(x):
        return False
    layout = x.layout()
    leads = layout[: len(layout) - features]
    return len(layout) >= features and None not in leads and all(lead is None for lead in layout[len(leads) :])


def last_feature(x: Symbol, before: int) -> int:
    """The last axis in front of ``before`` that is features alone."""
    for axis in reversed(range(before)):
        if not any(atom in (TIME, BATCH) for atom in x.view.groups()[axis]):
            return axis
    raise UnsupportedError("expects a channel axis")


def channels_first(x: Symbol, channel: int, into: str) -> tuple[Symbol, Layout, int, Restore]:
    """A tensor as ``(time and batch, channels, *space)``, its other feature axes joined to one of these.

    Args:
        x: the tensor.
        channel: its channel axis; what lies behind, time and batch apart, is space.
        into: ``channels`` (in front of them) or ``space`` (in front of the first spatial axis).

    Returns:
        The tensor, its layout, how many elements the joined axes have, and what brings a result of that layout, with
        other channels or space, into the shape that torch gives it.
    """
    place = part_starts(x)[channel]
    y = separated(x)
    layout = y.layout()
    leads = [a for a, lead in enumerate(layout) if lead is not None]
    extra = [a for a in range(place) if layout[a] is None]
    space = [a for a in range(place + 1, len(layout)) if layout[a] is None]
    if layout[place] is not None or not leads:
        raise UnsupportedError("expects the time and batch axes first")
    order = [*leads, *extra, place, *space] if into == "channels" else [*leads, place, *extra, *space]
    joined = math.prod(y.shape[a] for a in extra)
    sizes = [y.shape[a] for a in space]
    channels = y.shape[place]
    if into == "channels":
        merged = [joined * channels, *sizes]
    else:
        merged = [channels, joined * sizes[0], *sizes[1:]] if sizes else [channels, joined]
    z = y.transposed(order).reshaped([*(y.shape[a] for a in leads), *merged])

    def restore(out: Symbol, shape: Sequence[int]) -> Symbol:
        lead = [y.shape[a] for a in leads]
        rest = list(out.shape[len(lead) :])
        outer = [y.shape[a] for a in extra]
        if into == "channels":
            split = [*lead, *outer, rest[0] // joined, *rest[1:]]
        else:
            split = [*lead, rest[0], *outer, *([rest[1] // joined, *rest[2:]] if sizes else [])]
        back = out.reshaped(split).transposed([order.index(a) for a in range(len(order))])
        return back.reshaped(shape)

    return z, z.layout(), joined, restore
