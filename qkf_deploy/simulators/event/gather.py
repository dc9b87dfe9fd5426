"""Gathering weight rows of active inputs: the inner loop of the event kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import typeof
from numba.core import cgutils, types
from numba.extending import overload

from qkf_deploy.simulators.event import vector_ir as v
from qkf_deploy.simulators.event.fire import SHIFT, SOFT

#: Output channels per unit; a tile is 1, 2, 3, 4 or 6 units wide.
UNIT = 32
TILE_UNITS = (6, 4, 3, 2, 1)
#: Columns of a segment: first entry of the event list, pairs of events, offset of its weights.
SEGMENT_START, SEGMENT_PAIRS, SEGMENT_WEIGHTS = range(3)


def tile_units(channels: int) -> int:
    """Units per tile that compute the fewest padded channels for this many outputs; wider tiles win ties."""
    return min(TILE_UNITS, key=lambda units: (-(-channels // (UNIT * units)) * UNIT * units, -units))


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

    def add_segments(self, w: v.Value, idx: v.Value, val: v.Value, segments: v.Value, count: v.Value) -> None:
        """Add all events; arguments are addresses but ``count``."""
        b = self.b
        with cgutils.for_range(b, count) as loop:
            at = b.add(segments, b.mul(loop.index, v.const(24)))
            start, pairs, offset = (v.load(b, b.add(at, v.const(8 * i)), v.I64) for i in range(3))
            self._add_pairs(b.add(w, offset), b.add(idx, b.shl(start, v.const(1))), b.add(val, start), pairs)

    def _add_pairs(self, w: v.Value, idx: v.Value, val: v.Value, pairs: v.Value) -> None:
        b, size = self.b, self.size
        bytes_type, row_bytes = v.vec(v.I8, size), v.const(self.width)
        with cgutils.for_range(b, pairs) as loop:
            at = b.add(idx, b.shl(loop.index, v.const(2)))
            rows = []
            for event in range(2):
                channel = b.zext(v.load(b, b.add(at, v.const(2 * event)), v.I16), v.I64)
                rows.append(b.add(w, b.mul(channel, row_bytes)))
            pair = v.load(b, b.add(val, b.shl(loop.index, v.const(1))), v.I16)
            values = b.bitcast(v.splat(b, pair, size // 2), bytes_type)
            for part in range(self.width // size):
                first, second = (v.load(b, b.add(row, v.const(size * part)), bytes_type) for row in rows)
                for half in range(2):
                    woven = v.shuffle(b, first, second, v.interleave_order(size, half))
                    v.add_to(b, self.acc[2 * part + half], v.pair_dot(b, self.isa, values, woven))


@v.intrinsic(prefer_literal=True)
def _gather(
    typingctx: Any, isa: Any, units: Any, w: Any, idx: Any, val: Any, segments: Any, count: Any, base: Any, x: Any
) -> Any:
    """``x = base + sum of the segments``, 32-bit; pointers are addresses, ``units`` literal."""
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
def _gather_fire(
    typingctx: Any, isa: Any, units: Any, w: Any, idx: Any, val: Any, segments: Any, count: Any, bias: Any, m: Any,
    theta: Any, form: Any, spikes: Any,
) -> Any:  # fmt: skip
    """Gather and fire in 16 bits without leaving registers; multiplier 1, no fraction bits. Returns non-zero drives."""
    signature = types.int64(isa, units, *[types.int64] * 10)

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        _, _, w, idx, val, segments, count, bias, m, theta, form, spikes = args
        tile = _Tile(b, isa, units.literal_value)
        lanes = tile.sums.count
        for i, a in enumerate(tile.acc):
            b.store(v.load(b, b.add(bias, v.const(2 * lanes * i)), tile.sums), a)
        tile.add_segments(w, idx, val, segments, count)

        def parameter(index: int) -> v.Value:
            return v.splat(b, b.trunc(v.load(b, b.add(form, v.const(8 * index)), v.I64), v.I16), lanes)

        shift, soft = parameter(SHIFT), b.neg(parameter(SOFT))
        driven = v.const(0)
        fired_halves, driven_halves = [], []
        for i, a in enumerate(tile.acc):
            offset = v.const(2 * lanes * i)
            drive, state = b.load(a), v.load(b, b.add(m, offset), tile.sums)
            threshold = v.load(b, b.add(theta, offset), tile.sums)
            u = b.add(b.ashr(state, shift), drive)
            fired = b.icmp_signed(">=", u, threshold)
            v.store(b, b.select(fired, b.and_(b.sub(u, threshold), soft), u), b.add(m, offset))
            fired_halves.append(fired)
            driven_halves.append(b.icmp_signed("!=", drive, ir.Constant(tile.sums, None)))
        word = v.int_of(2 * lanes)
        for part in range(len(tile.acc) // 2):
            both = list(range(2 * lanes))
            bits = v.shuffle(b, fired_halves[2 * part], fired_halves[2 * part + 1], both)
            v.store(b, b.bitcast(bits, word), b.add(spikes, v.const(lanes // 4 * part)))
            bits = v.shuffle(b, driven_halves[2 * part], driven_halves[2 * part + 1], both)
            count_bits = v.population(b, b.bitcast(bits, word))
            driven = b.add(driven, count_bits if word.width == 64 else b.zext(count_bits, v.I64))
        return driven

    return signature, generate


def gather(
    isa: Any, units: int, w: np.ndarray, idx: np.ndarray, val: np.ndarray, segments: np.ndarray, first: int, count: int,
    base: np.ndarray, base0: int, x: np.ndarray, x0: int,
) -> None:  # fmt: skip
    """``x[x0 + c] = base[base0 + c] + sum_e val[e] * w[offset + idx[e] * 32 * units + c]`` over the events of segments.

    Args:
        isa: instruction set tag.
        units: tile width in units of 32 channels.
        w: s8, flat; rows of ``32 * units`` channels in storage order.
        idx: u16 row numbers; val: u8 values. Any partial sum over the segments must fit 16 bits.
        segments: int64 ``(n, 3)``, see the column names above; ``first .. first + count`` are summed.
        base, x: s32, flat; may be the same.
    """
    raise NotImplementedError("compiled code only")


@overload(gather, strict=False, jit_options=v.BORROW)
def _overload_gather(
    isa: Any, units: Any, w: Any, idx: Any, val: Any, segments: Any, first: Any, count: Any, base: Any, base0: Any,
    x: Any, x0: Any,
) -> Any:  # fmt: skip
    if isa == v.PLAIN:
        return _gather_plain

    def vectorized(isa, units, w, idx, val, segments, first, count, base, base0, x, x0):  # type: ignore[no-untyped-def]
        wa, ia, va, sa = w.ctypes.data, idx.ctypes.data, val.ctypes.data, segments.ctypes.data + 24 * first
        ba, xa = base.ctypes.data + 4 * base0, x.ctypes.data + 4 * x0
        if units == 6:
            _gather(isa, 6, wa, ia, va, sa, count, ba, xa)
        elif units == 4:
            _gather(isa, 4, wa, ia, va, sa, count, ba, xa)
        elif units == 3:
            _gather(isa, 3, wa, ia, va, sa, count, ba, xa)
        elif units == 2:
            _gather(isa, 2, wa, ia, va, sa, count, ba, xa)
        else:
            _gather(isa, 1, wa, ia, va, sa, count, ba, xa)

    return vectorized


def _gather_plain(isa, units, w, idx, val, segments, first, count, base, base0, x, x0):  # type: ignore[no-untyped-def]
    width = 32 * units
    for c in range(width):
        x[x0 + c] = base[base0 + c]
    for s in range(first, first + count):
        for event in range(segments[s, 0], segments[s, 0] + 2 * segments[s, 1]):
            value = np.int32(val[event])
            row = segments[s, 2] + np.int64(idx[event]) * width
            for c in range(width):
                x[x0 + c] += value * np.int32(w[row + c])


def gather_fire(
    isa: Any, units: int, w: np.ndarray, idx: np.ndarray, val: np.ndarray, segments: np.ndarray, first: int, count: int,
    bias: np.ndarray, bias0: int, m: np.ndarray, theta: np.ndarray, theta0: int, form: np.ndarray, spikes: np.ndarray,
    row: int, word: int,
) -> int:  # fmt: skip
    """:func:`gather` and :func:`qkf_deploy.simulators.event.fire.fire` in 16 bits, for layers whose drives, partial
    sums and membranes provably fit; multiplier 1, no fraction bits.

    Args:
        bias, theta: s16, flat; m: s16 state of the tile, updated; the others as in the two functions.

    Returns:
        Number of non-zero drives.
    """
    raise NotImplementedError("compiled code only")


@overload(gather_fire, strict=False, jit_options=v.BORROW)
def _overload_gather_fire(
    isa: Any, units: Any, w: Any, idx: Any, val: Any, segments: Any, first: Any, count: Any, bias: Any, bias0: Any,
    m: Any, theta: Any, theta0: Any, form: Any, spikes: Any, row: Any, word: Any,
) -> Any:  # fmt: skip
    if isa == v.PLAIN:
        return _gather_fire_plain

    def vectorized(  # type: ignore[no-untyped-def]
        isa, units, w, idx, val, segments, first, count, bias, bias0, m, theta, theta0, form, spikes, row, word
    ):
        wa, ia, va, sa = w.ctypes.data, idx.ctypes.data, val.ctypes.data, segments.ctypes.data + 24 * first
        ba, ma, ta, fa = bias.ctypes.data + 2 * bias0, m.ctypes.data, theta.ctypes.data + 2 * theta0, form.ctypes.data
        oa = spikes.ctypes.data + 4 * (row * spikes.shape[1] + word)
        if units == 6:
            return _gather_fire(isa, 6, wa, ia, va, sa, count, ba, ma, ta, fa, oa)
        if units == 4:
            return _gather_fire(isa, 4, wa, ia, va, sa, count, ba, ma, ta, fa, oa)
        if units == 3:
            return _gather_fire(isa, 3, wa, ia, va, sa, count, ba, ma, ta, fa, oa)
        if units == 2:
            return _gather_fire(isa, 2, wa, ia, va, sa, count, ba, ma, ta, fa, oa)
        return _gather_fire(isa, 1, wa, ia, va, sa, count, ba, ma, ta, fa, oa)

    return vectorized


def _gather_fire_plain(  # type: ignore[no-untyped-def]
    isa, units, w, idx, val, segments, first, count, bias, bias0, m, theta, theta0, form, spikes, row, word
):
    width = 32 * units
    driven = np.int64(0)
    for i in range(units):
        bits = np.uint32(0)
        for j in range(32):
            c = 32 * i + j
            drive = np.int64(bias[bias0 + c])
            for s in range(first, first + count):
                for e in range(segments[s, 0], segments[s, 0] + 2 * segments[s, 1]):
                    drive += np.int64(val[e]) * np.int64(w[segments[s, 2] + np.int64(idx[e]) * width + c])
            u = (np.int64(m[c]) >> form[1]) + drive
            threshold = np.int64(theta[theta0 + c])
            driven += drive != 0
            m[c] = u
            if u >= threshold:
                bits |= np.uint32(1) << np.uint32(j)
                m[c] = u - threshold if form[3] else 0
        spikes[row, word + i] = bits
    return driven
