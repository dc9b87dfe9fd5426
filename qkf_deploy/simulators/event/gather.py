"""Gathering weight rows of active inputs: the inner loop of the event kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import typeof
from numba.core import types

from qkf_deploy.simulators.event import vector_ir as v
from qkf_deploy.simulators.event.fire import write_neurons

#: Output channels per unit; a tile is 1, 2, 3 or 6 units wide (4 ran slower than 3 and than 2).
UNIT = 32
TILE_UNITS = (6, 3, 2, 1)
_LEAST_UNITS, _CACHED_BYTES = 2, 64 * 1024
#: A segment is 4 x s32: first entry of the event list, pairs of events, weight row of channel 0, sum of values.
SEGMENT_BYTES = 16


def tile_units(channels: int, rows: int) -> int:
    """Units per tile that compute the fewest padded channels for this many outputs.

    Among those, the widest tile whose weights leave room in the first cache, or the narrowest of at least
    :data:`_LEAST_UNITS`: too narrow a tile spends its time on the list.

    Args:
        channels: outputs.
        rows: weight rows, inputs times taps.
    """
    padded = {units: -(-channels // (UNIT * units)) * units for units in TILE_UNITS}
    fewest = [units for units in TILE_UNITS if padded[units] == min(padded.values())]
    wide = [units for units in fewest if units >= _LEAST_UNITS]
    small = [units for units in wide if rows * UNIT * units <= _CACHED_BYTES]
    return max(small, default=min(wide, default=max(fewest)))


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

    def start_from(self, bias: v.Value) -> None:
        """Begin at the 16-bit bias of the tile, an address."""
        for i, a in enumerate(self.acc):
            self.b.store(v.load(self.b, self.b.add(bias, self.offset(i)), self.sums), a)

    def add_segments(self, w: v.Value, idx: v.Value, val: v.Value, segments: v.Value, count: v.Value) -> None:
        """Add all events; arguments are addresses but ``count``."""
        b = self.b
        with v.counted_loop(b, count) as index:
            at = b.add(segments, b.mul(index, v.const(SEGMENT_BYTES)))
            start, pairs, row = (b.sext(v.load(b, b.add(at, v.const(4 * i)), v.I32), v.I64) for i in range(3))
            first = b.add(w, b.mul(row, v.const(self.width)))
            self._add_pairs(first, b.add(idx, b.shl(start, v.const(1))), b.add(val, start), pairs)

    def _add_pairs(self, w: v.Value, idx: v.Value, val: v.Value, pairs: v.Value) -> None:
        b, size = self.b, self.size
        bytes_type, row_bytes = v.vec(v.I8, size), v.const(self.width)
        with v.counted_loop(b, pairs) as index:
            at = b.add(idx, b.shl(index, v.const(2)))
            rows = []
            for event in range(2):
                channel = b.zext(v.load(b, b.add(at, v.const(2 * event)), v.I16), v.I64)
                rows.append(b.add(w, b.mul(channel, row_bytes)))
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
    """``x = base + sum of the segments``, s32; pointers are addresses, ``units`` literal."""
    signature = types.void(isa, units, *[types.int64] * 7)

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        _, _, w, idx, val, segments, count, base, x = args
        tile = _Tile(b, isa, units.literal_value)
        tile.add_segments(w, idx, val, segments, count)
        wide = v.vec(v.I32, tile.sums.count)
        for i, a in enumerate(tile.acc):
            offset = v.const(4 * wide.count * i)
            total = b.add(v.load(b, b.add(base, offset), wide), b.sext(b.load(a), wide))
            v.store(b, total, b.add(x, offset))
        return context.get_dummy_value()

    return signature, generate


@v.intrinsic(prefer_literal=True)
def store_row(
    typingctx: Any, isa: Any, units: Any, w: Any, idx: Any, val: Any, segments: Any, count: Any, bias: Any, x: Any
) -> Any:
    """``x = bias + sum of the segments``, s16."""
    signature = types.void(isa, units, *[types.int64] * 7)

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        _, _, w, idx, val, segments, count, bias, x = args
        tile = _Tile(b, isa, units.literal_value)
        tile.start_from(bias)
        tile.add_segments(w, idx, val, segments, count)
        for i, a in enumerate(tile.acc):
            v.store(b, b.load(a), b.add(x, tile.offset(i)))
        return context.get_dummy_value()

    return signature, generate


@v.intrinsic(prefer_literal=True)
def fire_row(
    typingctx: Any, isa: Any, units: Any, w: Any, idx: Any, val: Any, segments: Any, count: Any, bias: Any, m: Any,
    theta: Any, form: Any, spikes: Any,
) -> Any:  # fmt: skip
    """Gather in 16 bits and fire without leaving registers; multiplier 1, no fraction bits. Returns non-zero drives.

    ``bias``, ``m``, ``theta``: s16 of the tile; ``form``: see :mod:`qkf_deploy.simulators.event.fire`.
    """
    signature = types.int64(isa, units, *[types.int64] * 10)

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        _, _, w, idx, val, segments, count, bias, m, theta, form, spikes = args
        tile = _Tile(b, isa, units.literal_value)
        tile.start_from(bias)
        tile.add_segments(w, idx, val, segments, count)
        drives = [b.load(a) for a in tile.acc]
        return write_neurons(b, drives, m, theta, form, spikes)

    return signature, generate


@v.intrinsic(prefer_literal=True)
def fire_row_wide(
    typingctx: Any, isa: Any, units: Any, w: Any, idx: Any, val: Any, segments: Any, count: Any, bias: Any, m: Any,
    theta: Any, form: Any, spikes: Any,
) -> Any:  # fmt: skip
    """:func:`fire_row` with s32 bias, state and thresholds; only the gathered sums are in 16 bits."""
    signature = types.int64(isa, units, *[types.int64] * 10)

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        _, _, w, idx, val, segments, count, bias, m, theta, form, spikes = args
        tile = _Tile(b, isa, units.literal_value)
        tile.add_segments(w, idx, val, segments, count)
        wide = v.vec(v.I32, tile.sums.count)
        drives = [
            b.add(v.load(b, b.add(bias, v.const(4 * wide.count * i)), wide), b.sext(b.load(a), wide))
            for i, a in enumerate(tile.acc)
        ]
        return write_neurons(b, drives, m, theta, form, spikes)

    return signature, generate
