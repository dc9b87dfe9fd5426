"""Gathering weight rows of active inputs: the inner loop of the event kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import typeof
from numba.core import cgutils, types

from qkf_deploy.simulators.event.kernels import vector_ir as v
from qkf_deploy.simulators.event.kernels.compiled_only import Address, Int, Literal, Tag, emitted
from qkf_deploy.simulators.event.kernels.fire import SPOILT
from qkf_deploy.simulators.event.kernels.fire16 import write_neurons

#: Output channels per unit, and how many units wide a tile can be; of 8, not all sums would stay in registers.
UNIT = 32
TILE_UNITS = (6, 4, 3, 2, 1)
#: A segment is 4 x s32: first entry of the event list, pairs of events, weight row of channel 0, and, if the sums so
#: far may leave too little room for it, the magnitude from which on they do, else 0.
SEGMENT_BYTES = 4 * v.BYTES_32
#: Bytes of an entry of the event list, of two, and of their values: channels are u16, values u8.
_CHANNEL, _CHANNELS, _VALUES = v.BYTES_16, 2 * v.BYTES_16, 2

_RANGE_16 = -(2**15), 2**15 - 1


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


class _Sources(NamedTuple):
    """Addresses: a tile's weights, s8, one row of its channels per input; channels and values of the event list; the
    first of so many segments."""

    weights: v.Value
    channels: v.Value
    values: v.Value
    segments: v.Value
    count: v.Value


class _Tile:
    """Writes the code that sums the events of some segments into 16-bit accumulators.

    Two events are taken at once: their weight rows are interleaved byte by byte and multiplied with the pair of values,
    so that 16-bit sums leave the multiplier directly. The caller bounds the accumulators.

    Registers: two accumulators for each vector of a tile's weights (at 6 units, of 32 bytes, 12 of 16 registers), which
    never leave them within a row; for each vector in turn, two rows of weights and the pair of values, repeated.
    """

    def __init__(self, b: v.Builder, isa: types.Type, units: int) -> None:
        self.b, self.isa, self.width = b, isa, UNIT * units
        self.sizes = vector_sizes(isa, units)
        self.kinds = [v.vec(v.I16, size // 2) for size in self.sizes for _ in range(2)]
        self.acc = v.accumulators(b, self.kinds)

    def start_from(self, sums: v.Value) -> None:
        """Begin at 16-bit sums of the tile, an address."""
        for value, a in zip(v.load_each(self.b, sums, self.kinds), self.acc, strict=True):
            self.b.store(value, a)

    def add_segments(self, sources: _Sources, wide: _Wide | None = None) -> None:
        """Add all events.

        Args:
            sources: where they are.
            wide: where the accumulators move if they leave too little room for a segment; if they never do, it can be
                left out.
        """
        b = self.b
        with v.counted_loop(b, sources.count) as index:
            at = v.offset(b, sources.segments, index, SEGMENT_BYTES)
            fields = (v.load(b, b.add(at, v.const(v.BYTES_32 * i)), v.I32) for i in range(4))
            start, pairs, row, least = (b.sext(field, v.I64) for field in fields)
            if wide is not None:
                asked = b.icmp_signed("!=", least, v.const(0))
                with b.if_then(asked, likely=False), b.if_then(self._any_from(least), likely=False):
                    self._move(wide)
            weights = v.offset(b, sources.weights, row, self.width)
            channels, values = v.offset(b, sources.channels, start, _CHANNEL), b.add(sources.values, start)
            self._add_pairs(weights, channels, values, pairs)

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
                cut = v.clamp(b, total, *_RANGE_16)
                b.store(b.trunc(cut, kind), a)
                beyond = b.or_(beyond, v.any_of(b, b.icmp_signed("!=", cut, total)))
            b.store(beyond, spoilt)
        return [b.load(a) for a in self.acc], b.load(spoilt)

    def _add_pairs(self, weights: v.Value, channels: v.Value, values: v.Value, pairs: v.Value) -> None:
        b, row_bytes, kinds = self.b, v.const(self.width), [v.vec(v.I8, size) for size in self.sizes]
        first_row = b.inttoptr(weights, v.I8.as_pointer())
        with v.counted_loop(b, pairs) as index:
            at = v.offset(b, channels, index, _CHANNELS)
            rows = []
            for event in range(2):
                channel = b.zext(v.load(b, b.add(at, v.const(_CHANNEL * event)), v.I16), v.I64)
                # A pointer and an offset: as a sum, LLVM would add the first row to every channel before it multiplies.
                rows.append(b.ptrtoint(b.gep(first_row, [b.mul(channel, row_bytes)]), v.I64))
            pair = v.load(b, v.offset(b, values, index, _VALUES), v.I16)
            for part, two in enumerate(zip(*(v.load_each(b, row, kinds) for row in rows), strict=True)):
                size = self.sizes[part]
                repeated = b.bitcast(v.splat(b, pair, size // 2), kinds[part])
                for half in range(2):
                    woven = v.shuffle(b, two[0], two[1], v.interleave_order(size, half))
                    v.add_to(b, self.acc[2 * part + half], v.pair_dot(b, self.isa, repeated, woven))


@emitted
def widen_row(
    b: v.Builder, isa: Tag, units: Literal, weights: Address, channels: Address, values: Address, segments: Address,
    count: Int, base: Address, sums: Address,
) -> None:  # fmt: skip
    """``sums = base + sum of the segments``, s32 of the tile. The sum of the segments fits 16 bits."""
    tile = _Tile(b, isa, units)
    tile.add_segments(_Sources(weights, channels, values, segments, count))
    v.store_each(b, tile.widened(base), sums)


@emitted
def store_row(
    b: v.Builder, isa: Tag, units: Literal, tried: Literal, last: Literal, weights: Address, channels: Address,
    values: Address, segments: Address, count: Int, start: Address, moved: Address, has_moved: Address, sums: Address,
) -> Int:  # fmt: skip
    """``sums = start + sum of the segments``, s16 of the tile; returns :data:`SPOILT` if it does not fit, else 0.

    ``tried``: 0 if everything is known to fit. ``moved``: s32 of the tile, where sums move that leave too little room
    for a segment; ``has_moved``: u8, 1 once they have. They are added if this is the ``last`` call for these sums, else
    left there, and only the rest is stored.
    """
    sources, wide = _Sources(weights, channels, values, segments, count), _Wide(moved, has_moved) if tried else None
    drives, spoilt = _drives(b, isa, units, sources, start, wide, last=bool(last))
    v.store_each(b, drives, sums)
    return spoilt


@emitted
def fire_row(
    b: v.Builder, isa: Tag, units: Literal, tried: Literal, weights: Address, channels: Address, values: Address,
    segments: Address, count: Int, start: Address, moved: Address, has_moved: Address, states: Address,
    thresholds: Address, form: Address, spikes: Address,
) -> Int:  # fmt: skip
    """:func:`store_row`, but the drives meet neurons without leaving registers: multiplier 1, no fraction bits.

    Returns the number of non-zero drives; at least :data:`SPOILT` if a drive or a charge does not fit.

    ``states``, ``thresholds``: s16 of the tile; ``form``: see :mod:`qkf_deploy.simulators.event.kernels.fire`.
    """
    sources, wide = _Sources(weights, channels, values, segments, count), _Wide(moved, has_moved) if tried else None
    drives, spoilt = _drives(b, isa, units, sources, start, wide)
    return b.add(spoilt, write_neurons(b, drives, states, thresholds, form, spikes, tried=bool(tried)))


def _drives(
    b: v.Builder, isa: types.Type, units: int, sources: _Sources, start: v.Value, wide: _Wide | None, *,
    last: bool = True,
) -> tuple[list[v.Value], v.Value]:  # fmt: skip
    """Write the code that sums in 16 bits; see :func:`store_row`. Without ``wide``, everything is known to fit."""
    tile = _Tile(b, isa, units)
    tile.start_from(start)
    tile.add_segments(sources, wide)
    if wide is None or not last:
        return [b.load(a) for a in tile.acc], v.const(0)
    drives, spoilt = tile.drives(wide)
    return drives, b.mul(spoilt, v.const(SPOILT))
