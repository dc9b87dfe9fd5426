"""Elements of an axis in another order, or more than once: addressing. Pieces of the axis side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from qkf_deploy.converters.torch.trace.capture import Call
from qkf_deploy.converters.torch.trace.lowering import Lowering
from qkf_deploy.converters.torch.trace.rules.beside import side_by_side
from qkf_deploy.converters.torch.trace.rules.table import argument, positive, rule
from qkf_deploy.converters.torch.trace.symbols import Symbol
from qkf_deploy.errors import GraphError, UnsupportedError

#: Pieces of an axis that are put side by side; each costs a copy of what is in front of it.
_MOST = 64
#: Names of the ways to repeat a border, in torch and in NumPy.
_BORDERS = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def gathered(low: Lowering, call: Call, x: Symbol, axis: int, places: Sequence[int], what: str) -> Symbol:
    """The elements of a feature axis at these places, in this order.

    Raises:
        UnsupportedError: along time or batch, no element, or an order of very many pieces.
    """
    if x.layout()[axis] is not None:
        raise UnsupportedError("picks time steps or images", hint="treat images and steps alike")
    if not places:
        raise UnsupportedError("takes no element of an axis")
    strided = _strided(x, axis, places)
    if strided is not None:
        return strided
    runs = [0, *(i for i, (a, b) in enumerate(pairwise(places), start=1) if b != a + 1), len(places)]
    parts = [part for a, b in pairwise(runs) for part in pieces(x, axis, places[a], places[b - 1] + 1)]
    if len(parts) > _MOST:
        raise UnsupportedError(
            f"takes an axis apart into {len(parts)} pieces", hint="write a regular order with reshape and transpose"
        )
    return joined(low, call, parts, axis, what)


def joined(low: Lowering, call: Call, parts: Sequence[Symbol], axis: int, what: str) -> Symbol:
    """Pieces of an axis as one."""
    return side_by_side(low, call, parts, axis, what) if len(parts) > 1 else parts[0]


def pieces(x: Symbol, axis: int, start: int, stop: int) -> list[Symbol]:
    """A range of an axis, in more than one piece where the axis is made of several (windows that were put together)."""
    sizes = [n for first, behind in (x.view.take[a] for a in x.view.groups()[axis]) if (n := behind - first) > 1]
    inner = math.prod(sizes[1:])
    if not start % inner and not stop % inner:
        return [x.narrowed(axis, start, stop)]
    inside = range(-(-start // inner) * inner, stop // inner * inner + 1, inner)
    out: list[Symbol] = []
    for a, b in pairwise(sorted({start, *inside[:1], *inside[-1:], stop})):
        if a % inner or b % inner:  # within one element of the outermost part
            whole = a // inner * inner
            out += pieces(x.narrowed(axis, whole, whole + inner), axis, a - whole, b - whole)
        else:
            out.append(x.narrowed(axis, a, b))
    return out


def _strided(x: Symbol, axis: int, places: Sequence[int]) -> Symbol | None:
    """Every k-th element of an axis that k divides: one of an axis of k; ``None`` for other orders."""
    step = places[1] - places[0] if len(places) > 1 else 1
    if step < 2 or x.shape[axis] % step or list(places) != list(range(places[0], places[-1] + 1, step)):
        return None
    shape, (first, offset) = x.shape, divmod(places[0], step)
    try:
        split = x.reshaped((*shape[:axis], shape[axis] // step, step, *shape[axis + 1 :]))
    except GraphError:  # an axis made of others
        return None
    taken = split.narrowed(axis + 1, offset, offset + 1).narrowed(axis, first, first + len(places))
    return taken.reshaped((*shape[:axis], len(places), *shape[axis + 1 :]))


def mirrored(low: Lowering, call: Call, x: Symbol, pairs: Sequence[tuple[int, int]], mode: str) -> Symbol:
    """A map whose border repeats elements of it; ``pairs``: elements before and behind, of the last axes."""
    for axis, (before, behind) in enumerate(pairs, start=len(x.shape) - len(pairs)):
        if before or behind:
            places = np.pad(np.arange(x.shape[axis]), (before, behind), mode=_BORDERS[mode])  # type: ignore[call-overload]
            x = gathered(low, call, x, axis, places.tolist(), "pad")
    return x


@rule("aten.index_select.default")
def index_select(low: Lowering, call: Call) -> Symbol:
    """Elements of an axis by their numbers."""
    x = low.symbol(call.args[0])
    return _by_numbers(low, call, x, positive(int(call.args[1]), len(x.shape)), low.array(call.args[2]))


@rule("aten.index.Tensor")
def index(low: Lowering, call: Call) -> Symbol:
    """``x[:, numbers]`` with constant numbers, of one axis."""
    x = low.symbol(call.args[0])
    given = [(axis, i) for axis, i in enumerate(call.args[1]) if i is not None]
    if len(given) != 1 or low.array(given[0][1]).ndim != 1:
        raise UnsupportedError("takes elements by several numbers at once", hint="index one axis after the other")
    return _by_numbers(low, call, x, given[0][0], low.array(given[0][1]))


def _by_numbers(low: Lowering, call: Call, x: Symbol, axis: int, numbers: np.ndarray) -> Symbol:
    return gathered(low, call, x, axis, [int(n) for n in numbers % x.shape[axis]], "index")


@rule("aten.flip.default", "aten.roll.default")
def reordered(low: Lowering, call: Call) -> Symbol:
    """Axes backwards, or moved in a circle (shifted windows)."""
    x = low.symbol(call.args[0])
    flips = "flip" in call.target
    axes = call.args[1] if flips else argument(call, 2, "dims", [])
    if not axes:
        raise UnsupportedError("rolls all axes as one", hint="give roll its dims")
    for n, axis in enumerate(axes):
        places = np.arange(x.shape[axis])
        places = places[::-1] if flips else np.roll(places, int(call.args[1][n]))
        x = gathered(low, call, x, positive(int(axis), len(x.shape)), places.tolist(), "flip" if flips else "roll")
    return x
