"""Dense integer products: 32 output channels of a few rows at a time, accumulators in registers."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import overload

from qkf_deploy.simulators.event.kernels import vector_ir as v

#: Output channels per tile.
TILE = 32
#: Inputs multiplied per step: four bytes or two 16-bit words fill 32 bits.
BYTES_PER_STEP, WORDS_PER_STEP = 4, 2


def rows_at_once(isa: types.Type) -> int:
    """Rows whose accumulators fit the registers: 32 of 64 bytes with AVX-512, 16 of 32 bytes with AVX2."""
    return 8 if isa == v.AVX512 else 2


def _per_step(isa: types.Type, words: bool) -> tuple[int, ir.VectorType, ir.VectorType, bool]:
    """(outputs per vector, operand type, accumulator type, accumulators are 16-bit pairs)."""
    size = v.vector_bytes(isa)
    outputs = size // 4
    if words:
        return outputs, v.vec(v.I16, size // 2), v.vec(v.I32, outputs), False
    if isa == v.AVX2:
        return outputs, v.vec(v.I8, size), v.vec(v.I16, size // 2), True
    return outputs, v.vec(v.I8, size), v.vec(v.I32, outputs), False


@v.intrinsic
def _dense_rows(
    typingctx: Any,
    isa: Any,
    a: Any,
    starts: Any,
    rows: Any,
    taps: Any,
    n_taps: Any,
    steps: Any,
    flush: Any,
    w: Any,
    x: Any,
) -> Any:
    """``x[r, 0:32] += sum over taps and inputs`` for rows in groups of :func:`rows_at_once`.

    ``a``: the input array; every other pointer is an address: ``starts`` and ``taps`` s64 element offsets, ``w``
    ``(taps, steps, 32, 4 bytes)``, ``x`` ``(rows, 32)`` s32. ``steps``: 32-bit groups of inputs per tap; ``flush``:
    steps after which 16-bit sums are widened.
    """
    words = a.dtype == types.int16
    outputs, operand, sums, narrow = _per_step(isa, words)
    group, parts = rows_at_once(isa), TILE // outputs
    element_shift = v.const(1 if words else 0)
    wide = v.vec(v.I32, outputs)
    signature = types.void(isa, a, *[types.int64] * 8)

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        _, array, starts, rows, taps, n_taps, steps, flush, w, x = args
        base = b.ptrtoint(context.make_array(a)(context, b, array).data, v.I64)
        acc = [v.accumulators(b, [sums] * parts) for _ in range(group)]

        def write_out(x_rows: v.Value) -> None:
            ones = ir.Constant(sums, [1] * sums.count)
            for r in range(group):
                for j in range(parts):
                    address = b.add(x_rows, v.const(4 * TILE * r + 4 * outputs * j))
                    total = b.load(acc[r][j])
                    total = v.word_dot(b, isa, total, ones) if narrow else total
                    v.store(b, b.add(v.load(b, address, wide), total), address)
                    b.store(ir.Constant(sums, None), acc[r][j])

        def multiply(begins: list[v.Value], first: v.Value, count: v.Value, w_tap: v.Value) -> None:
            with cgutils.for_range(b, count) as loop:
                k = b.add(first, loop.index)
                at, w_at = b.shl(k, v.const(2)), b.add(w_tap, b.mul(k, v.const(4 * TILE)))
                weights = [v.load(b, b.add(w_at, v.const(4 * outputs * j)), operand) for j in range(parts)]
                for r in range(group):
                    inputs = v.splat(b, v.load(b, b.add(begins[r], at), v.I32), outputs)
                    for j in range(parts):
                        _multiply_add(
                            b, isa, acc[r][j], b.bitcast(inputs, operand), weights[j], words=words, narrow=narrow
                        )

        with cgutils.for_range_slice(b, v.const(0), rows, v.const(group), v.I64) as (row, _):
            x_rows = b.add(x, b.mul(row, v.const(4 * TILE)))
            offsets = [v.load(b, b.add(starts, b.shl(b.add(row, v.const(r)), v.const(3))), v.I64) for r in range(group)]
            with cgutils.for_range(b, n_taps) as tap:
                tap_offset = v.load(b, b.add(taps, b.shl(tap.index, v.const(3))), v.I64)
                begins = [b.add(base, b.shl(b.add(o, tap_offset), element_shift)) for o in offsets]
                w_tap = b.add(w, b.mul(b.mul(tap.index, steps), v.const(4 * TILE)))
                if not narrow:
                    multiply(begins, v.const(0), steps, w_tap)
                else:
                    chunks = b.sdiv(b.add(steps, b.sub(flush, v.const(1))), flush)
                    with cgutils.for_range(b, chunks) as chunk:
                        first = b.mul(chunk.index, flush)
                        left = b.sub(steps, first)
                        multiply(begins, first, b.select(b.icmp_signed("<", left, flush), left, flush), w_tap)
                        write_out(x_rows)
            if not narrow:
                write_out(x_rows)
        return context.get_dummy_value()

    return signature, generate


def _multiply_add(
    b: v.Builder, isa: types.Type, acc: v.Value, inputs: v.Value, weights: v.Value, *, words: bool, narrow: bool
) -> None:
    if words:
        v.add_to(b, acc, v.word_dot(b, isa, inputs, weights))
    elif narrow:
        v.add_to(b, acc, v.pair_dot(b, isa, inputs, weights))
    else:
        b.store(v.quad_dot_add(b, isa, b.load(acc), inputs, weights), acc)


@v.intrinsic
def copy_tile(typingctx: Any, source: Any, target: Any) -> Any:
    """Copy one tile of s32 from an address to another; LLVM would copy element by element in case they overlap."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        v.store(b, v.load(b, args[0], v.vec(v.I32, TILE)), args[1])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def dense_block(
    isa: Any, a: np.ndarray, starts: np.ndarray, rows: int, taps: np.ndarray, flush: int, w: np.ndarray, x: np.ndarray
) -> None:
    """``x[r, c] += sum_{tap, k} a.flat[starts[r] + taps[tap] + k] * w[tap, k // g, c, k % g]`` for ``rows`` rows.

    Args:
        isa: instruction set tag.
        a: u8 or s16, flat. starts: int64 element offsets of the rows (entries beyond ``rows`` are overwritten).
        taps: int64 element offsets.
        flush: steps after which 16-bit sums must be widened (AVX2 with bytes).
        w: s8 ``(taps, steps, 32, 4)`` for u8, s16 ``(taps, steps, 32, 2)`` for s16.
        x: s32 ``(at least rows + 7, 32)``; rows beyond ``rows`` are scratch.
    """
    raise NotImplementedError("compiled code only")


@overload(dense_block, strict=False)
def _overload_dense_block(isa: Any, a: Any, starts: Any, rows: Any, taps: Any, flush: Any, w: Any, x: Any) -> Any:
    if isa == v.PLAIN:
        return _dense_block_plain

    def vectorized(isa, a, starts, rows, taps, flush, w, x):  # type: ignore[no-untyped-def]
        _dense_rows(
            isa,
            a,
            v.address(starts),
            rows,
            v.address(taps),
            taps.shape[0],
            w.shape[1],
            flush,
            v.address(w),
            v.address(x),
        )

    return vectorized


def _dense_block_plain(isa, a, starts, rows, taps, flush, w, x):  # type: ignore[no-untyped-def]
    group = w.shape[3]
    for r in range(rows):
        for tap in range(taps.shape[0]):
            at = starts[r] + taps[tap]
            for k in range(w.shape[1]):
                for g in range(group):
                    value = np.int32(a[at + k * group + g])
                    if value != 0:
                        for c in range(32):
                            x[r, c] += value * np.int32(w[tap, k, c, g])
