"""Gathering weight rows of active inputs: the inner loop of the event kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import typeof
from numba.core import cgutils, types

from qkf_deploy.simulators.event.kernels import vector_ir as v
from qkf_deploy.simulators.event.kernels.fire import SPOILT
from qkf_deploy.simulators.event.kernels.fire16 import write_neurons

#: Output channels per unit, and how many units wide a tile can be; of 8, not all sums would stay in registers.
UNIT = 32
TILE_UNITS = (6, 4, 3, 2, 1)
#: A segment is 4 x s32: first entry of the event list, pairs of events, weight row of channel 0, and, if the sums so
#: far may leave too little room for it, the magnitude from which on they do, else 0.
SEGMENT_BYTES = 16


def tile_units(channels: int) -> int:
    """Units per tile: the widest tile among those that compute the fewest padded channels for this many outputs.

    A wide tile spends the least time on the list; its weights need not fit the first cache.
    """
    return min(TILE_UNITS, key=lambda units: (-(-channels // (UNIT * units)) * units, -units))


def vector_sizes(isa: types.Type, units: int) -> tuple[int, ...]:
    """Bytes of the vectors that hold a tile's weights of one input, of the largest size but what is left over."""
    size = v.vector_bytes(isa)
    whole, rest = divmod(UNIT * units, size)
    return (size,) * whole + ((rest,) if rest else ())


def storage_order(isa: Any, units: int) -> np.ndarray:
    """Channel stored at each position of a tile, int64 ``(32 * units,)``.

    Interleaving works within 16-byte lanes; storing the channels in this order leaves the sums sorted.

    Args:
        isa: instruction set tag.
        units: tile width in units of 32 channels.
    """
    kind = typeof(isa)
    if kind == v.PLAIN:
        return np.arange(UNIT * units)
    order, first = [], 0
    for size in vector_sizes(kind, units):
        order.append(first + np.swapaxes(np.arange(size).reshape(2, size // 16, 8), 0, 1).reshape(-1))
        first += size
    return np.concatenate(order)


@dataclass(frozen=True)
class _Wide:
    """Addresses of the 32-bit sums of a tile, and of a byte that is 1 once there are any."""

    sums: v.Value
    used: v.Value

    def has_sums(self, b: v.Builder) -> v.Value:
        """Whether there are any."""
        return b.icmp_unsigned("!=", v.load(b, self.used, v.I8), ir.Constant(v.I8, 0))


class _Tile:
    """Writes the code that sums the events of some segments into 16-bit accumulators.

    Two events are taken at once: their weight rows are interleaved byte by byte and multiplied with the pair of values,
    so that 16-bit sums leave the multiplier directly. The caller bounds the accumulators.
    """

    def __init__(self, b: v.Builder, isa: types.Type, units: int) -> None:
        self.b, self.isa, self.width = b, isa, UNIT * units
        self.sizes = vector_sizes(isa, units)
        # Two accumulators for each vector of weights.
        self.kinds = [v.vec(v.I16, size // 2) for size in self.sizes for _ in range(2)]
        self.acc = v.accumulators(b, self.kinds)

    def start_from(self, sums: v.Value) -> None:
        """Begin at 16-bit sums of the tile, an address."""
        for value, a in zip(v.load_each(self.b, sums, self.kinds), self.acc, strict=True):
            self.b.store(value, a)

    def add_segments(
        self, w: v.Value, idx: v.Value, val: v.Value, segments: v.Value, count: v.Value, wide: _Wide | None = None
    ) -> None:
        """Add all events.

        Args:
            w, idx, val, segments: addresses.
            count: number of segments.
            wide: where the accumulators move if they leave too little room for a segment; if they never do, it can be
                left out.
        """
        b = self.b
        with v.counted_loop(b, count) as index:
            at = b.add(segments, b.mul(index, v.const(SEGMENT_BYTES)))
            start, pairs, row, least = (b.sext(v.load(b, b.add(at, v.const(4 * i)), v.I32), v.I64) for i in range(4))
            if wide is not None:
                asked = b.icmp_signed("!=", least, v.const(0))
                with b.if_then(asked, likely=False), b.if_then(self._any_from(least), likely=False):
                    self._move(wide)
            first = b.add(w, b.mul(row, v.const(self.width)))
            self._add_pairs(first, b.add(idx, b.shl(start, v.const(1))), b.add(val, start), pairs)

    def widened(self, base: v.Value, given: v.Value | None = None) -> list[v.Value]:
        """The accumulators added to the tile's 32-bit values at an address; to 0 unless they are ``given``."""
        b, out = self.b, []
        befores = v.load_each(b, base, [v.vec(v.I32, kind.count) for kind in self.kinds])
        for before, a in zip(befores, self.acc, strict=True):
            held = before if given is None else b.select(given, before, ir.Constant(before.type, None))
            out.append(b.add(held, b.sext(b.load(a), before.type)))
        return out

    def _any_from(self, least: v.Value) -> v.Value:
        """Whether any sum has at least this magnitude."""
        b, sums = self.b, [self.b.load(a) for a in self.acc]
        found = v.const(0)
        for high, low in zip(v.reduced(b, v.largest, sums), v.reduced(b, v.smallest, sums), strict=True):
            bound = v.splat(b, b.trunc(least, v.I16), high.type.count)
            beyond = b.or_(b.icmp_signed(">=", high, bound), b.icmp_signed("<=", low, b.neg(bound)))
            found = b.or_(found, v.any_of(b, beyond))
        return b.icmp_signed("!=", found, v.const(0))

    def _move(self, wide: _Wide) -> None:
        v.store_each(self.b, self.widened(wide.sums, wide.has_sums(self.b)), wide.sums)
        self.b.store(ir.Constant(v.I8, 1), self.b.inttoptr(wide.used, v.I8.as_pointer()))
        for kind, a in zip(self.kinds, self.acc, strict=True):
            self.b.store(ir.Constant(kind, None), a)

    def drives(self, wide: _Wide) -> tuple[list[v.Value], v.Value]:
        """The sums in 16 bits, together with what has moved, and 1 if one of them does not fit."""
        b, spoilt = self.b, cgutils.alloca_once_value(self.b, v.const(0))
        with b.if_then(wide.has_sums(b), likely=False):
            beyond = v.const(0)
            for total, kind, a in zip(self.widened(wide.sums), self.kinds, self.acc, strict=True):
                cut = v.clamp(b, total, -(2**15), 2**15 - 1)
                b.store(b.trunc(cut, kind), a)
                beyond = b.or_(beyond, v.any_of(b, b.icmp_signed("!=", cut, total)))
            b.store(beyond, spoilt)
        return [b.load(a) for a in self.acc], b.load(spoilt)

    def _add_pairs(self, w: v.Value, idx: v.Value, val: v.Value, pairs: v.Value) -> None:
        b, row_bytes, kinds = self.b, v.const(self.width), [v.vec(v.I8, size) for size in self.sizes]
        first_row = b.inttoptr(w, v.I8.as_pointer())
        with v.counted_loop(b, pairs) as index:
            at = b.add(idx, b.shl(index, v.const(2)))
            rows = []
            for event in range(2):
                channel = b.zext(v.load(b, b.add(at, v.const(2 * event)), v.I16), v.I64)
                # A pointer and an offset: as a sum, LLVM would add the first row to every channel before it multiplies.
                rows.append(b.ptrtoint(b.gep(first_row, [b.mul(channel, row_bytes)]), v.I64))
            pair = v.load(b, b.add(val, b.shl(index, v.const(1))), v.I16)
            for part, weights in enumerate(zip(*(v.load_each(b, row, kinds) for row in rows), strict=True)):
                size = self.sizes[part]
                values = b.bitcast(v.splat(b, pair, size // 2), kinds[part])
                for half in range(2):
                    woven = v.shuffle(b, weights[0], weights[1], v.interleave_order(size, half))
                    v.add_to(b, self.acc[2 * part + half], v.pair_dot(b, self.isa, values, woven))


@v.intrinsic(prefer_literal=True)
def widen_row(
    typingctx: Any, isa: Any, units: Any, w: Any, idx: Any, val: Any, segments: Any, count: Any, base: Any, x: Any
) -> Any:
    """``x = base + sum of the segments``, s32; pointers are addresses, ``units`` literal. The sum fits 16 bits."""
    signature = types.void(isa, units, *[types.int64] * 7)

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        _, _, w, idx, val, segments, count, base, x = args
        tile = _Tile(b, isa, units.literal_value)
        tile.add_segments(w, idx, val, segments, count)
        v.store_each(b, tile.widened(base), x)
        return context.get_dummy_value()

    return signature, generate


@v.intrinsic(prefer_literal=True)
def store_row(
    typingctx: Any, isa: Any, units: Any, tried: Any, last: Any, w: Any, idx: Any, val: Any, segments: Any, count: Any,
    start: Any, moved: Any, has_moved: Any, x: Any,
) -> Any:  # fmt: skip
    """``x = start + sum of the segments``, s16; returns :data:`SPOILT` if it does not fit, else 0.

    ``tried``, literal: 0 if everything is known to fit. ``moved``: s32 of the tile, where sums move that leave too
    little room for a segment; ``has_moved``: u8, 1 once they have. They are added if this is the ``last`` call for
    these sums, else left there, and only the rest is stored.
    """
    signature = types.int64(isa, units, tried, last, *[types.int64] * 9)

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        *sources, moved, has_moved, x = args[4:]
        wide = _Wide(moved, has_moved) if tried.literal_value else None
        drives, spoilt = _drives(b, isa, units, sources, wide, last=bool(last.literal_value))
        v.store_each(b, drives, x)
        return spoilt

    return signature, generate


@v.intrinsic(prefer_literal=True)
def fire_row(
    typingctx: Any, isa: Any, units: Any, tried: Any, w: Any, idx: Any, val: Any, segments: Any, count: Any, start: Any,
    moved: Any, has_moved: Any, m: Any, theta: Any, form: Any, spikes: Any,
) -> Any:  # fmt: skip
    """:func:`store_row`, but the drives meet neurons without leaving registers: multiplier 1, no fraction bits.

    Returns the number of non-zero drives; at least :data:`SPOILT` if a drive or a charge does not fit.

    ``m``, ``theta``: s16 of the tile; ``form``: see :mod:`qkf_deploy.simulators.event.kernels.fire`.
    """
    signature = types.int64(isa, units, tried, *[types.int64] * 12)

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        *sources, moved, has_moved, m, theta, form, spikes = args[3:]
        drives, spoilt = _drives(b, isa, units, sources, _Wide(moved, has_moved) if tried.literal_value else None)
        return b.add(spoilt, write_neurons(b, drives, m, theta, form, spikes, tried=bool(tried.literal_value)))

    return signature, generate


def _drives(
    b: v.Builder, isa: types.Type, units: Any, sources: list[v.Value], wide: _Wide | None, *, last: bool = True
) -> tuple[list[v.Value], v.Value]:
    """Write the code that sums in 16 bits; see :func:`store_row`. Without ``wide``, everything is known to fit."""
    w, idx, val, segments, count, start = sources
    tile = _Tile(b, isa, units.literal_value)
    tile.start_from(start)
    tile.add_segments(w, idx, val, segments, count, wide)
    if wide is None or not last:
        return [b.load(a) for a in tile.acc], v.const(0)
    drives, spoilt = tile.drives(wide)
    return drives, b.mul(spoilt, v.const(SPOILT))
