"""Gathering weight rows of active inputs: the inner loop of the event kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, typeof
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from qkf_deploy.simulators.event import vector_ir as v

#: Output channels per 32-channel unit; a tile is 1, 2, 3, 4 or 6 units wide.
UNIT = 32
TILE_UNITS = (6, 4, 3, 2, 1)


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


@intrinsic(prefer_literal=True)
def _gather(typingctx: Any, isa: Any, units: Any, w: Any, idx: Any, val: Any, pairs: Any, x: Any) -> Any:
    """``x[0:32*units] += sum over pairs of events``; ``w``, ``idx``, ``val``, ``x`` are addresses.

    Two events are taken at once: their weight rows are interleaved byte by byte and multiplied with the pair of values,
    so that 16-bit sums leave the multiplier directly. The caller bounds the 16-bit accumulators.
    """
    width = UNIT * units.literal_value
    size = _vector_bytes(isa, units.literal_value)
    signature = types.void(isa, units, *[types.int64] * 5)

    def generate(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> Any:
        _, _, w, idx, val, pairs, x = args
        bytes_type, sums = v.vec(v.I8, size), v.vec(v.I16, size // 2)
        acc = v.accumulators(b, sums, 2 * width // size)
        row_bytes = v.const(width)
        with cgutils.for_range(b, pairs) as loop:
            at = b.add(idx, b.shl(loop.index, v.const(2)))
            rows = []
            for event in range(2):
                channel = b.zext(v.load(b, b.add(at, v.const(2 * event)), v.I16), v.I64)
                rows.append(b.add(w, b.mul(channel, row_bytes)))
            pair = v.load(b, b.add(val, b.shl(loop.index, v.const(1))), v.I16)
            values = b.bitcast(v.splat(b, pair, size // 2), bytes_type)
            for part in range(width // size):
                first, second = (v.load(b, b.add(row, v.const(size * part)), bytes_type) for row in rows)
                for half in range(2):
                    woven = v.shuffle(b, first, second, v.interleave_order(size, half))
                    v.add_to(b, acc[2 * part + half], v.pair_dot(b, isa, values, woven))
        wide = v.vec(v.I32, size // 2)
        for i, a in enumerate(acc):
            address = b.add(x, v.const(2 * size * i))
            v.store(b, b.add(v.load(b, address, wide), b.sext(b.load(a), wide)), address)
        return context.get_dummy_value()

    return signature, generate


def gather(
    isa: Any, units: int, w: np.ndarray, w0: int, idx: np.ndarray, val: np.ndarray, start: int, pairs: int, x: np.ndarray, x0: int
) -> None:
    """``x[x0 + c] += sum_e val[e] * w[w0 + idx[e] * 32 * units + c]`` over the events ``start .. start + 2 * pairs``.

    Args:
        isa: instruction set tag.
        units: tile width in units of 32 channels.
        w: s8, flat; rows of ``32 * units`` channels in storage order.
        idx: u16 row numbers; val: u8 values. A pair's 16-bit sums and the sum of all pairs must fit 16 bits.
        x: s32, flat.
    """
    raise NotImplementedError("compiled code only")


@overload(gather, strict=False)
def _overload_gather(
    isa: Any, units: Any, w: Any, w0: Any, idx: Any, val: Any, start: Any, pairs: Any, x: Any, x0: Any
) -> Any:
    if isa == v.PLAIN:
        return _gather_plain

    def vectorized(isa, units, w, w0, idx, val, start, pairs, x, x0):  # type: ignore[no-untyped-def]
        wa, xa = w.ctypes.data + w0, x.ctypes.data + 4 * x0
        ia, va = idx.ctypes.data + 2 * start, val.ctypes.data + start
        if units == 6:
            _gather(isa, 6, wa, ia, va, pairs, xa)
        elif units == 4:
            _gather(isa, 4, wa, ia, va, pairs, xa)
        elif units == 3:
            _gather(isa, 3, wa, ia, va, pairs, xa)
        elif units == 2:
            _gather(isa, 2, wa, ia, va, pairs, xa)
        else:
            _gather(isa, 1, wa, ia, va, pairs, xa)

    return vectorized


def _gather_plain(isa, units, w, w0, idx, val, start, pairs, x, x0):  # type: ignore[no-untyped-def]
    width = 32 * units
    for event in range(start, start + 2 * pairs):
        value = np.int32(val[event])
        row = w0 + np.int64(idx[event]) * width
        for c in range(width):
            x[x0 + c] += value * np.int32(w[row + c])
