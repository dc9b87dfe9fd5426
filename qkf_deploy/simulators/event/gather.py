"""Gathering weight rows of active inputs: the inner loop of the event kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir
from numba import typeof
from numba.core import cgutils, types

from qkf_deploy.simulators.event import vector_ir as v
from qkf_deploy.simulators.event.fire import SPOILT, write_neurons

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


def _vector_bytes(isa: types.Type, units: int) -> int:
    """A tile of an odd number of units is not a whole number of 64-byte vectors."""
    return v.vector_bytes(isa) if units % 2 == 0 else 32


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
    size = _vector_bytes(kind, units)
    within = np.swapaxes(np.arange(size).reshape(2, size // 16, 8), 0, 1).reshape(-1)
    return (np.arange(0, UNIT * units, size)[:, None] + within).reshape(-1)


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
        self.size = _vector_bytes(isa, units)
        self.sums = v.vec(v.I16, self.size // 2)
        self.acc = v.accumulators(b, self.sums, 2 * self.width // self.size)

    def offset(self, i: int) -> v.Value:
        """Bytes of 16-bit channels before accumulator i."""
        return v.const(2 * self.sums.count * i)

    def start_from(self, sums: v.Value) -> None:
        """Begin at 16-bit sums of the tile, an address."""
        for i, a in enumerate(self.acc):
            self.b.store(v.load(self.b, self.b.add(sums, self.offset(i)), self.sums), a)

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
        b, wide = self.b, v.vec(v.I32, self.sums.count)
        out = []
        for i, a in enumerate(self.acc):
            before = v.load(b, b.add(base, v.const(4 * wide.count * i)), wide)
            if given is not None:
                before = b.select(given, before, ir.Constant(wide, None))
            out.append(b.add(before, b.sext(b.load(a), wide)))
        return out

    def store_wide(self, values: list[v.Value], out: v.Value) -> None:
        """Store 32-bit values of the tile."""
        for i, value in enumerate(values):
            v.store(self.b, value, self.b.add(out, v.const(4 * self.sums.count * i)))

    def _any_from(self, least: v.Value) -> v.Value:
        """Whether any sum has at least this magnitude."""
        b, sums = self.b, [self.b.load(a) for a in self.acc]
        high, low = (reduce(lambda x, y: f(b, x, y), sums) for f in (v.largest, v.smallest))
        bound = v.splat(b, b.trunc(least, v.I16), self.sums.count)
        beyond = b.or_(b.icmp_signed(">=", high, bound), b.icmp_signed("<=", low, b.neg(bound)))
        return b.icmp_signed("!=", v.any_of(b, beyond), v.const(0))

    def _move(self, wide: _Wide) -> None:
        self.store_wide(self.widened(wide.sums, wide.has_sums(self.b)), wide.sums)
        self.b.store(ir.Constant(v.I8, 1), self.b.inttoptr(wide.used, v.I8.as_pointer()))
        for a in self.acc:
            self.b.store(ir.Constant(self.sums, None), a)

    def drives(self, wide: _Wide) -> tuple[list[v.Value], v.Value]:
        """The sums in 16 bits, together with what has moved, and 1 if one of them does not fit."""
        b, spoilt = self.b, cgutils.alloca_once_value(self.b, v.const(0))
        with b.if_then(wide.has_sums(b), likely=False):
            beyond = None
            for total, a in zip(self.widened(wide.sums), self.acc, strict=True):
                cut = v.clamp(b, total, -(2**15), 2**15 - 1)
                b.store(b.trunc(cut, self.sums), a)
                differs = b.icmp_signed("!=", cut, total)
                beyond = differs if beyond is None else b.or_(beyond, differs)
            b.store(v.any_of(b, beyond), spoilt)
        return [b.load(a) for a in self.acc], b.load(spoilt)

    def _add_pairs(self, w: v.Value, idx: v.Value, val: v.Value, pairs: v.Value) -> None:
        b, size = self.b, self.size
        bytes_type, row_bytes = v.vec(v.I8, size), v.const(self.width)
        first_row = b.inttoptr(w, v.I8.as_pointer())
        with v.counted_loop(b, pairs) as index:
            at = b.add(idx, b.shl(index, v.const(2)))
            rows = []
            for event in range(2):
                channel = b.zext(v.load(b, b.add(at, v.const(2 * event)), v.I16), v.I64)
                # A pointer and an offset: as a sum, LLVM would add the first row to every channel before it multiplies.
                rows.append(b.ptrtoint(b.gep(first_row, [b.mul(channel, row_bytes)]), v.I64))
            pair = v.load(b, b.add(val, b.shl(index, v.const(1))), v.I16)
            values = b.bitcast(v.splat(b, pair, size // 2), bytes_type)
            for part in range(self.width // size):
                first, second = (v.load(b, b.add(row, v.const(size * part)), bytes_type) for row in rows)
                for half in range(2):
                    woven = v.shuffle(b, first, second, v.interleave_order(size, half))
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
        tile.store_wide(tile.widened(base), x)
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
        for i, drive in enumerate(drives):
            v.store(b, drive, b.add(x, v.const(2 * drive.type.count * i)))
        return spoilt

    return signature, generate


@v.intrinsic(prefer_literal=True)
def fire_row(
    typingctx: Any, isa: Any, units: Any, tried: Any, w: Any, idx: Any, val: Any, segments: Any, count: Any, start: Any,
    moved: Any, has_moved: Any, m: Any, theta: Any, form: Any, spikes: Any,
) -> Any:  # fmt: skip
    """:func:`store_row`, but the drives meet neurons without leaving registers: multiplier 1, no fraction bits.

    Returns the number of non-zero drives; at least :data:`SPOILT` if a drive or a charge does not fit.

    ``m``, ``theta``: s16 of the tile; ``form``: see :mod:`qkf_deploy.simulators.event.fire`.
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
