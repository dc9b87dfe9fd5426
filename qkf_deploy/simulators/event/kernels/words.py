"""Reading and adding streams 32 channels at a time.

A stream is u32 ``(rows, words)``, one bit per spike, or u8 ``(rows, 32 * words)``, one byte per count; padding is 0.

Registers: a word is one vector of 32 bytes, a word of bits spread to bytes of 0 or 1; what it is added to is a second.
:func:`count_rows` holds its sums, one or two vectors, over all rows of a call; all else loads, adds and stores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from qkf_deploy.simulators.event.kernels import vector_ir as v
from qkf_deploy.simulators.event.kernels.compiled_only import (
    Address,
    Array,
    ArrayValue,
    Int,
    Word32,
    Word64,
    by_type,
    emitted,
)

_BYTES = v.vec(v.I8, v.WORD)


@emitted
def popcount(b: v.Builder, x: Word64) -> Int:
    """Number of set bits of an unsigned word."""
    return v.population(b, x)


@emitted
def lowest_bit(b: v.Builder, x: Word64) -> Int:
    """Position of the lowest set bit of an unsigned word that is not 0."""
    kind = ir.FunctionType(v.I64, [v.I64, v.I1])
    return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.cttz.i64"), [x, ir.Constant(v.I1, 1)])


def _values(b: v.Builder, stream: ArrayValue, row: v.Value, word: v.Value) -> v.Value:
    """The 32 values of a word of a stream as bytes."""
    columns = b.extract_value(stream.shape, 1)
    if stream.element == v.I32:
        at = v.offset(b, stream.address, b.add(b.mul(row, columns), word), v.BYTES_32)
        return v.bits_to_bytes(b, v.load(b, at, v.I32))
    return v.load(b, b.add(stream.address, b.add(b.mul(row, columns), b.mul(word, v.const(v.WORD)))), _BYTES)


def _nonzero(b: v.Builder, values: v.Value) -> v.Value:
    """Which elements are not 0, a vector of bits."""
    return b.icmp_unsigned("!=", values, ir.Constant(values.type, None))


@by_type()
def value_at(stream: Any, row: Any, channel: Any) -> Any:
    """One value of a stream."""
    if stream.dtype == types.uint32:

        def from_bits(stream, row, channel):  # type: ignore[no-untyped-def]
            return np.uint8((stream[row, channel // 32] >> np.uint32(channel % 32)) & np.uint32(1))

        return from_bits
    return lambda stream, row, channel: stream[row, channel]


@emitted
def _nonzero_bytes(b: v.Builder, values: Address) -> Word32:
    """Bit i is set where byte i of 32 is not 0."""
    return b.bitcast(_nonzero(b, v.load(b, values, _BYTES)), v.I32)


@by_type()
def nonzero_word(isa: Any, stream: Any, row: Any, word: Any) -> Any:
    """Bit i is set where channel ``32 * word + i`` of a row is not 0."""
    if stream.dtype == types.uint32:
        return lambda isa, stream, row, word: stream[row, word]
    if isa == v.PLAIN:

        def plain(isa, stream, row, word):  # type: ignore[no-untyped-def]
            bits = np.uint32(0)
            for i in range(32):
                if stream[row, 32 * word + i] != 0:
                    bits |= np.uint32(1) << np.uint32(i)
            return bits

        return plain

    def vectorized(isa, stream, row, word):  # type: ignore[no-untyped-def]
        return _nonzero_bytes(v.address(stream) + row * stream.shape[1] + 32 * word)

    return vectorized


@emitted
def _count_bits(b: v.Builder, bits: Word32, counts: Address) -> None:
    """Add bit i to byte i of 32."""
    v.store(b, b.add(v.load(b, counts, _BYTES), v.bits_to_bytes(b, bits)), counts)


@by_type()
def add_bits(isa: Any, bits: Any, out: Any, at: Any) -> Any:
    """``out[at + i] += bit i`` for 32 bytes of a flat u8 array; the caller keeps sums below 256."""
    if isa == v.PLAIN:

        def plain(isa, bits, out, at):  # type: ignore[no-untyped-def]
            for i in range(32):
                out[at + i] += np.uint8((bits >> np.uint32(i)) & np.uint32(1))

        return plain
    return lambda isa, bits, out, at: _count_bits(bits, v.address(out) + at)


@emitted
def _accumulate(b: v.Builder, source: Array, s0: Int, out: Array, at: Int) -> None:
    """:func:`accumulate` for vectors."""
    added, sums = (v.vec(array.element, v.WORD) for array in (source, out))
    values = v.load(b, v.offset(b, source.address, s0, source.element.width // 8), added)
    target = v.offset(b, out.address, at, out.element.width // 8)
    wide = values if added == sums else b.zext(values, sums)
    v.store(b, b.add(v.load(b, target, sums), wide), target)


@by_type()
def accumulate(isa: Any, source: Any, s0: Any, out: Any, at: Any) -> Any:
    """``out[at + i] += source[s0 + i]`` for 32 elements of flat arrays, of one type or from u8 to a wider one."""
    if isa == v.PLAIN:

        def plain(isa, source, s0, out, at):  # type: ignore[no-untyped-def]
            for i in range(32):
                out[at + i] += source[s0 + i]

        return plain
    return lambda isa, source, s0, out, at: _accumulate(source, s0, out, at)


@emitted
def _add_word(b: v.Builder, stream: Array, row: Int, word: Int, sums: Address) -> None:
    """Add the 32 values of a word to 32 bytes."""
    values = _values(b, stream, row, word)
    v.store(b, b.add(v.load(b, sums, _BYTES), values), sums)


@by_type()
def add_values(isa: Any, stream: Any, row: Any, word: Any, out: Any, at: Any) -> Any:
    """``out[at + i] +=`` the value of channel ``32 * word + i`` of a row, for a flat u8 array."""
    if isa == v.PLAIN:

        def plain(isa, stream, row, word, out, at):  # type: ignore[no-untyped-def]
            for i in range(32):
                out[at + i] += value_at(stream, row, 32 * word + i)

        return plain
    return lambda isa, stream, row, word, out, at: _add_word(stream, row, word, v.address(out) + at)


@emitted
def _add_two(b: v.Builder, x: Array, y: Array, row: Int, word: Int, sums: Address) -> Int:
    """Store the sum of two words; returns the number of elements where both are not 0."""
    first, second = _values(b, x, row, word), _values(b, y, row, word)
    v.store(b, b.add(first, second), sums)
    both = b.and_(_nonzero(b, first), _nonzero(b, second))
    return b.zext(v.population(b, b.bitcast(both, v.I32)), v.I64)


@by_type()
def add_two(isa: Any, x: Any, y: Any, row: Any, word: Any, out: Any, at: Any) -> Any:
    """``out[at + i] =`` the sum of two streams at channel ``32 * word + i``; returns how often both are non-zero."""
    if isa == v.PLAIN:

        def plain(isa, x, y, row, word, out, at):  # type: ignore[no-untyped-def]
            both = np.int64(0)
            for i in range(32):
                a, b = value_at(x, row, 32 * word + i), value_at(y, row, 32 * word + i)
                out[at + i] = a + b
                both += a != 0 and b != 0
            return both

        return plain
    return lambda isa, x, y, row, word, out, at: _add_two(x, y, row, word, v.address(out) + at)


@emitted
def _count_rows(
    b: v.Builder, stream: Array, row: Int, rows: Int, word: Int, presence: Address, values: Address
) -> None:
    """:func:`count_rows` for vectors."""
    sums = presence, values
    held = [cgutils.alloca_once_value(b, v.load(b, address, _BYTES)) for address in sums]
    with v.counted_loop(b, rows) as i:
        found = _values(b, stream, b.add(row, i), word)
        if stream.element == v.I32:
            v.add_to(b, held[0], found)
        else:
            v.add_to(b, held[0], b.zext(_nonzero(b, found), _BYTES))
            v.add_to(b, held[1], found)
    for address, total in zip(sums, held, strict=True):
        v.store(b, b.load(total), address)


@by_type()
def count_rows(isa: Any, stream: Any, row: Any, rows: Any, word: Any, presence: Any, values: Any, at: Any) -> Any:
    """Add up channels ``32 * word ..`` of so many rows, for flat u8 arrays; the caller keeps sums below 256.

    To ``presence[at ..]``: how many are not 0; to ``values[at ..]``, unless the stream is bits: their sum.
    """
    has_values = stream.dtype == types.uint8
    if isa == v.PLAIN:

        def plain(isa, stream, row, rows, word, presence, values, at):  # type: ignore[no-untyped-def]
            for r in range(row, row + rows):
                for i in range(32):
                    value = value_at(stream, r, 32 * word + i)
                    presence[at + i] += value != 0
                    if has_values:
                        values[at + i] += value

        return plain

    def vectorized(isa, stream, row, rows, word, presence, values, at):  # type: ignore[no-untyped-def]
        _count_rows(stream, row, rows, word, v.address(presence) + at, v.address(values) + at)

    return vectorized


@emitted
def _sum_bytes(b: v.Builder, stream: Array, row: Int, word: Int) -> Int:
    """Sum of the 32 values of a word."""
    wide = v.vec(v.I32, v.WORD)
    kind = ir.FunctionType(v.I32, [wide])
    reduce = cgutils.get_or_insert_function(b.module, kind, "llvm.vector.reduce.add.v32i32")
    return b.zext(b.call(reduce, [b.zext(_values(b, stream, row, word), wide)]), v.I64)


@by_type()
def sum_word(isa: Any, stream: Any, row: Any, word: Any) -> Any:
    """Sum of channels ``32 * word ..`` of a row."""
    if stream.dtype == types.uint32:
        return lambda isa, stream, row, word: popcount(np.uint64(stream[row, word]))
    if isa == v.PLAIN:

        def plain(isa, stream, row, word):  # type: ignore[no-untyped-def]
            total = np.int64(0)
            for i in range(32):
                total += stream[row, 32 * word + i]
            return total

        return plain
    return lambda isa, stream, row, word: _sum_bytes(stream, row, word)
