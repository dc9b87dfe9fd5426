"""Two linear maps in a row as one: exact in real arithmetic, at padded borders too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from qkf_deploy.ir import Node, Params, View
from qkf_deploy.ops import Conv, Linear, SumPool
from qkf_deploy.ops.geometry import Axis
from qkf_deploy.ops.synapse import input_channels

Array = np.ndarray
Synapse = Conv | Linear


def affine_params(op: Synapse, params: Params, shape: Sequence[int], scale: Array, shift: Array) -> dict[str, Array]:
    """Parameters of a synapse that reads x where it read ``scale * x + shift``.

    Padding is zero *after* the affine map, so near a padded border fewer taps see the shift and the bias has one value
    per border case (nine for a padded 3×3).

    Args:
        op, params: the synapse.
        shape: of its input.
        scale, shift: per input channel (of a linear layer: per feature).
    """
    weight = params["weight"].astype(np.float64)
    bias = params.get("bias", np.zeros(len(weight))).astype(np.float64)
    if isinstance(op, Linear):
        return {"weight": weight * scale, "bias": bias + weight @ shift}
    index = input_channels(weight.shape, op.groups)
    extra = (1,) * (weight.ndim - 2)
    taps = np.zeros(len(weight))
    if shift.any():
        taps = (weight * shift[index].reshape(*index.shape, *extra)).sum(axis=1)  # per output and tap
        for axis in reversed(op.axes(shape, weight)):  # sum the taps of each border case
            taps = np.moveaxis(np.tensordot(taps, axis.cases()[0].astype(np.float64), axes=([-1], [1])), -1, 1)
        taps = taps.reshape(-1) if taps[0].size == 1 else taps
    rank = max(taps.ndim, bias.ndim)
    bias = _spread(taps, rank) + _spread(bias, rank)
    return {"weight": weight * scale[index].reshape(*index.shape, *extra), "bias": bias}


def per_channel(values: Array, shape: Sequence[int], view: View | None, op: Synapse) -> Array | None:
    """Values per channel of a node of this shape, as the channels of the synapse that reads it through ``view``.

    Args:
        values: ``(n, C)``.

    Returns:
        ``(n, channels of the reader)``; ``None`` where one channel of the reader mixes different values.
    """
    full = np.broadcast_to(values.reshape(len(values), -1, *[1] * (len(shape) - 1)), (len(values), *shape))
    seen = full if view is None else view.apply(full, lead=1)
    if isinstance(op, Conv):
        rows = np.moveaxis(seen.reshape(len(values), seen.shape[1], -1), 2, 1)
    else:
        rows = seen.reshape(len(values), -1, seen.shape[-1])
    return None if (rows != rows[:, :1]).any() else rows[:, 0]


def as_synapse(node: Node) -> tuple[Synapse, Params]:
    """A synapse and its parameters; a sum pool is a depthwise convolution of ones."""
    if isinstance(node.op, SumPool):
        pool = node.op
        channels = node.type.shape[0]
        op = Conv(pool.stride, pool.padding, (1,) * len(pool.kernel), groups=channels)
        return op, {"weight": np.ones((channels, 1, *pool.kernel))}
    if not isinstance(node.op, Conv | Linear):
        raise TypeError(f"{node.op.kind} is no linear map")
    return node.op, node.params


def compose(
    first: tuple[Synapse, Params], second: tuple[Synapse, Params], shape: Sequence[int]
) -> tuple[Synapse, Params] | None:
    """One synapse that does what ``second`` does behind ``first``; ``None`` where there is none.

    Args:
        first, second: operators and parameters.
        shape: of the input of ``first``.

    A convolution behind a wider one that pads is not one convolution: its zeros stand where the wider one would still
    see the image.
    """
    (a, pa), (b, pb) = first, second
    if isinstance(a, Linear) and isinstance(b, Linear):
        return Linear(), _linear(pa, pb)
    if not isinstance(a, Conv) or not isinstance(b, Conv) or len(a.stride) != len(b.stride) or a.spread or b.spread:
        return None
    before = a.axes(shape, pa["weight"])
    after = b.axes((len(pa["weight"]), *(axis.out for axis in before)), pb["weight"])
    if not all(map(_zeros_stay_zeros, before, after)):
        return None
    weight, dilation = _kernel(a, pa["weight"].astype(np.float64), b, pb["weight"].astype(np.float64))
    joined = Conv(
        tuple(x * y for x, y in zip(a.stride, b.stride, strict=True)),
        tuple(p + s * q for p, s, q in zip(a.padding, a.stride, b.padding, strict=True)),
        dilation,
        math.gcd(a.groups, b.groups),
    )
    params = {"weight": weight}
    if "bias" in pa or "bias" in pb:
        bias = _bias(pa, before, b, pb, after, joined.axes(shape, weight))
        if bias is None:
            return None
        params["bias"] = bias
    return joined, params


def _linear(pa: Params, pb: Params) -> dict[str, Array]:
    wa, wb = (p["weight"].astype(np.float64) for p in (pa, pb))
    params = {"weight": wb @ wa}
    if "bias" in pa or "bias" in pb:
        params["bias"] = wb @ pa.get("bias", np.zeros(len(wa))) + pb.get("bias", np.zeros(len(wb)))
    return params


def _zeros_stay_zeros(before: Axis, after: Axis) -> bool:
    """True if the first map, bias aside, would give zero wherever the second one pads."""
    padding = after.positions()[~after.exists()]
    reads = padding[:, None] * before.stride - before.padding + np.arange(before.kernel) * before.dilation
    return bool(((reads < 0) | (reads >= before.size)).all())


def _kernel(a: Conv, wa: Array, b: Conv, wb: Array) -> tuple[Array, tuple[int, ...]]:
    """Combined kernel and its dilation: Σ over pairs of taps that meet at one input position."""
    groups = math.gcd(a.groups, b.groups)
    wa, wb = _grouped(wa, a.groups, groups), _grouped(wb, b.groups, groups)
    steps = list(zip(a.dilation, wa.shape[3:], a.stride, b.dilation, wb.shape[3:], strict=True))
    dilation = tuple(math.gcd(da * (ka > 1), db * s * (kb > 1)) or 1 for da, ka, s, db, kb in steps)
    size = [
        ((ka - 1) * da + (kb - 1) * db * s) // d + 1 for (da, ka, s, db, kb), d in zip(steps, dilation, strict=True)
    ]
    out = np.zeros((groups, wb.shape[1], wa.shape[2], *size))
    for tap_a in itertools.product(*map(range, wa.shape[3:])):
        for tap_b in itertools.product(*map(range, wb.shape[3:])):
            at = tuple(
                (i * da + j * db * s) // d
                for i, j, (da, _, s, db, _), d in zip(tap_a, tap_b, steps, dilation, strict=True)
            )
            out[(..., *at)] += wb[(..., *tap_b)] @ wa[(..., *tap_a)]
    return out.reshape(-1, *out.shape[2:]), dilation


def _grouped(weight: Array, groups: int, coarse: int) -> Array:
    """The weight of ``groups`` groups as ``coarse`` larger ones, ``(coarse, O / coarse, C / coarse, *kernel)``."""
    out, fan_in, *kernel = weight.shape
    inner = groups // coarse
    blocks = weight.reshape(coarse, inner, out // groups, fan_in, *kernel)
    full = np.zeros((coarse, inner, out // groups, inner, fan_in, *kernel))
    for i in range(inner):
        full[:, i, :, i] = blocks[:, i]
    return full.reshape(coarse, out // coarse, inner * fan_in, *kernel)


def _bias(
    pa: Params, before: Sequence[Axis], b: Conv, pb: Params, after: Sequence[Axis], joined: Sequence[Axis]
) -> Array | None:
    """Bias of the combined map per border case; ``None`` where its border cases do not tell the two maps' apart."""
    rank = len(before)
    first = pa.get("bias", np.zeros(len(pa["weight"]))).astype(np.float64)
    second = pb.get("bias", np.zeros(len(pb["weight"]))).astype(np.float64)
    seen: list[Array] = []  # per axis and border case: the first map's case under each tap, -1 where nothing is
    own: list[Array] = []  # the second map's case
    for a, c, j in zip(before, after, joined, strict=True):
        case_a = a.cases()[1] if first.ndim > 1 else np.zeros(a.out, np.int64)
        case_b = c.cases()[1] if second.ndim > 1 else np.zeros(c.out, np.int64)
        under = np.where(c.exists(), case_a[np.clip(c.positions(), 0, a.out - 1)], -1)
        if not first.any():
            under[:] = 0
        rows = np.concatenate([under, case_b[:, None]], axis=1)
        of = j.cases()[1]
        represent = rows[[int(np.argmax(of == case)) for case in range(int(of.max()) + 1)]]
        if (represent[of] != rows).any():
            return None
        seen.append(represent[:, :-1])
        own.append(represent[:, -1])
    zeroed = np.pad(_spread(first, rank + 1), [(0, 0), *[(0, 1)] * rank])  # index -1 is the padding
    weight = _grouped(pb["weight"].astype(np.float64), b.groups, 1)[0]
    total = _spread(second, rank + 1)[(slice(None), *np.ix_(*own))]
    for tap in itertools.product(*map(range, weight.shape[2:])):
        under_tap = zeroed[(slice(None), *np.ix_(*(s[:, t] for s, t in zip(seen, tap, strict=True))))]
        total = total + np.tensordot(weight[(..., *tap)], under_tap, axes=1)
    plain = all((s == s[:1]).all() and (o == o[:1]).all() for s, o in zip(seen, own, strict=True))
    return total.reshape(len(total), -1)[:, 0] if plain else total


def _spread(bias: Array, rank: int) -> Array:
    """A bias per channel with axes of size 1 behind, up to ``rank`` axes."""
    return bias.reshape(*bias.shape, *[1] * (rank - bias.ndim))
