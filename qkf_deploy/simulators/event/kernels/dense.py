"""Dense integer products: 32 output channels of a few rows at a time, accumulators in registers."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from qkf_deploy.simulators.event.kernels import vector_ir as v
from qkf_deploy.simulators.event.kernels.compiled_only import Address, Array, Int, Tag, by_type, emitted

#: Output channels per tile.
TILE = 32
#: Inputs multiplied per step: four bytes or two 16-bit words fill 32 bits.
BYTES_PER_STEP, WORDS_PER_STEP = 4, 2
#: Bytes of a row's inputs of a step; of a tile's weights of a step, and of a row's sums.
_INPUT_BYTES, _STEP_BYTES = 4, 4 * TILE


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


@emitted
def _dense_rows(
    b: v.Builder, isa: Tag, a: Array, starts: Address, rows: Int, taps: Address, n_taps: Int, steps: Int, flush: Int,
    weights: Address, sums: Address,
) -> None:  # fmt: skip
    """``sums[r, 0:32] += sum over taps and inputs`` for rows in groups of :func:`rows_at_once`.

    Registers: a group's accumulators, ``32 / outputs per vector`` for each row; the weights of one step of inputs, as
    many; one row's inputs of that step, repeated over a vector. Where accumulators are 16-bit pairs, they are widened
    into ``sums`` every ``flush`` steps.

    Args:
        starts, taps: s64 element offsets.
        steps: groups of inputs, of 32 bits each, per tap.
        flush: steps after which 16-bit sums are widened.
        weights: ``(taps, steps, 32, 4 bytes)``.
        sums: s32 ``(rows, 32)``.
    """
    words = a.element == v.I16
    outputs, operand, held, narrow = _per_step(isa, words)
    group, parts = rows_at_once(isa), TILE // outputs
    wide = v.vec(v.I32, outputs)
    acc = [v.accumulators(b, [held] * parts) for _ in range(group)]

    def write_out(group_sums: v.Value) -> None:
        ones = ir.Constant(held, [1] * held.count)
        for r in range(group):
            for j in range(parts):
                address = b.add(group_sums, v.const(_STEP_BYTES * r + v.BYTES_32 * outputs * j))
                total = b.load(acc[r][j])
                total = v.word_dot(b, isa, total, ones) if narrow else total
                v.store(b, b.add(v.load(b, address, wide), total), address)
                b.store(ir.Constant(held, None), acc[r][j])

    def multiply(begins: list[v.Value], first: v.Value, count: v.Value, tap_weights: v.Value) -> None:
        with cgutils.for_range(b, count) as loop:
            k = b.add(first, loop.index)
            step_weights = v.offset(b, tap_weights, k, _STEP_BYTES)
            loaded = [v.load(b, b.add(step_weights, v.const(v.BYTES_32 * outputs * j)), operand) for j in range(parts)]
            for r in range(group):
                inputs = v.splat(b, v.load(b, v.offset(b, begins[r], k, _INPUT_BYTES), v.I32), outputs)
                for j in range(parts):
                    _multiply_add(b, isa, acc[r][j], b.bitcast(inputs, operand), loaded[j], words=words, narrow=narrow)

    with cgutils.for_range_slice(b, v.const(0), rows, v.const(group), v.I64) as (row, _):
        group_sums = v.offset(b, sums, row, _STEP_BYTES)
        starts_at = (v.offset(b, starts, b.add(row, v.const(r)), v.BYTES_64) for r in range(group))
        offsets = [v.load(b, at, v.I64) for at in starts_at]
        with cgutils.for_range(b, n_taps) as tap:
            to_tap = v.load(b, v.offset(b, taps, tap.index, v.BYTES_64), v.I64)
            begins = [v.offset(b, a.address, b.add(start, to_tap), a.element.width // 8) for start in offsets]
            tap_weights = v.offset(b, weights, b.mul(tap.index, steps), _STEP_BYTES)
            if not narrow:
                multiply(begins, v.const(0), steps, tap_weights)
            else:
                chunks = b.sdiv(b.add(steps, b.sub(flush, v.const(1))), flush)
                with cgutils.for_range(b, chunks) as chunk:
                    first = b.mul(chunk.index, flush)
                    left = b.sub(steps, first)
                    multiply(begins, first, b.select(b.icmp_signed("<", left, flush), left, flush), tap_weights)
                    write_out(group_sums)
        if not narrow:
            write_out(group_sums)


def _multiply_add(
    b: v.Builder, isa: types.Type, acc: v.Value, inputs: v.Value, weights: v.Value, *, words: bool, narrow: bool
) -> None:
    if words:
        v.add_to(b, acc, v.word_dot(b, isa, inputs, weights))
    elif narrow:
        v.add_to(b, acc, v.pair_dot(b, isa, inputs, weights))
    else:
        b.store(v.quad_dot_add(b, isa, b.load(acc), inputs, weights), acc)


@emitted
def copy_tile(b: v.Builder, source: Address, target: Address) -> None:
    """Copy one tile of s32; LLVM would copy element by element in case they overlap."""
    v.store(b, v.load(b, source, v.vec(v.I32, TILE)), target)


@by_type()
def dense_block(isa: Any, a: Any, starts: Any, rows: Any, taps: Any, flush: Any, w: Any, x: Any) -> Any:
    """``x[r, c] += sum_{tap, k} a.flat[starts[r] + taps[tap] + k] * w[tap, k // g, c, k % g]`` for ``rows`` rows.

    Args:
        isa: instruction set tag.
        a: u8 or s16, flat. starts: int64 element offsets of the rows (entries beyond ``rows`` are overwritten).
        taps: int64 element offsets.
        flush: steps after which 16-bit sums must be widened (AVX2 with bytes).
        w: s8 ``(taps, steps, 32, 4)`` for u8, s16 ``(taps, steps, 32, 2)`` for s16.
        x: s32 ``(at least rows + 7, 32)``; rows beyond ``rows`` are scratch.
    """
    if isa == v.PLAIN:
        return _dense_block_plain

    def vectorized(isa, a, starts, rows, taps, flush, w, x):  # type: ignore[no-untyped-def]
        n_taps, steps = taps.shape[0], w.shape[1]
        _dense_rows(isa, a, v.address(starts), rows, v.address(taps), n_taps, steps, flush, v.address(w), v.address(x))

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
