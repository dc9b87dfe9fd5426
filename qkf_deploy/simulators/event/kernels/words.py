"""Reading and adding streams 32 channels at a time.

A stream is u32 ``(rows, words)``, one bit per spike, or u8 ``(rows, 32 * words)``, one byte per count; padding is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import overload

from qkf_deploy.simulators.event.kernels import vector_ir as v


@v.intrinsic
def popcount(typingctx: Any, x: Any) -> Any:
    """Number of set bits of an unsigned word."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        return v.population(b, args[0])

    return types.int64(types.uint64), generate


@v.intrinsic
def _nonzero_bits(typingctx: Any, address: Any) -> Any:
    """Bit i is set where byte i of the 32 bytes at an address is not 0."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        bytes_type = v.vec(v.I8, 32)
        return b.bitcast(b.icmp_unsigned("!=", v.load(b, args[0], bytes_type), ir.Constant(bytes_type, None)), v.I32)

    return types.uint32(types.int64), generate


def _values(b: v.Builder, context: Any, array_type: Any, array: Any, row: v.Value, word: v.Value) -> v.Value:
    """The 32 values of a word of a stream as bytes."""
    a = context.make_array(array_type)(context, b, array)
    columns = b.extract_value(a.shape, 1)
    bytes_type = v.vec(v.I8, 32)
    if array_type.dtype == types.uint32:
        at = b.shl(b.add(b.mul(row, columns), word), v.const(2))
        return v.bits_to_bytes(b, v.load(b, b.add(b.ptrtoint(a.data, v.I64), at), v.I32))
    at = b.add(b.mul(row, columns), b.shl(word, v.const(5)))
    return v.load(b, b.add(b.ptrtoint(a.data, v.I64), at), bytes_type)


@v.intrinsic
def _add_word(typingctx: Any, stream: Any, row: Any, word: Any, address: Any) -> Any:
    """Add the 32 values of a word to the 32 bytes at an address."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        array, row, word, address = args
        values = _values(b, context, stream, array, row, word)
        v.store(b, b.add(v.load(b, address, values.type), values), address)
        return context.get_dummy_value()

    return types.void(stream, types.int64, types.int64, types.int64), generate


@v.intrinsic
def _add_two(typingctx: Any, x: Any, y: Any, row: Any, word: Any, address: Any) -> Any:
    """Store the sum of two words at an address; returns the elements where both are not 0."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        first, second, row, word, address = args
        a, c = _values(b, context, x, first, row, word), _values(b, context, y, second, row, word)
        v.store(b, b.add(a, c), address)
        zero = ir.Constant(a.type, None)
        both = b.and_(b.icmp_unsigned("!=", a, zero), b.icmp_unsigned("!=", c, zero))
        return b.zext(v.population(b, b.bitcast(both, v.I32)), v.I64)

    return types.int64(x, y, types.int64, types.int64, types.int64), generate


@v.intrinsic
def _sum_word(typingctx: Any, stream: Any, row: Any, word: Any) -> Any:
    """Sum of the 32 values of a word."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        wide = v.vec(v.I32, 32)
        values = b.zext(_values(b, context, stream, *args), wide)
        reduce = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(v.I32, [wide]), "llvm.vector.reduce.add.v32i32"
        )
        return b.zext(b.call(reduce, [values]), v.I64)

    return types.int64(stream, types.int64, types.int64), generate


@v.intrinsic
def _count_word(typingctx: Any, bits: Any, address: Any) -> Any:
    """Add bit i to byte i of the 32 bytes at an address."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        bits, address = args
        bytes_type = v.vec(v.I8, 32)
        v.store(b, b.add(v.load(b, address, bytes_type), v.bits_to_bytes(b, bits)), address)
        return context.get_dummy_value()

    return types.void(types.uint32, types.int64), generate


def nonzero_word(isa: Any, stream: np.ndarray, row: int, word: int) -> int:
    """Bit i is set where channel ``32 * word + i`` of a row is not 0."""
    raise NotImplementedError("compiled code only")


@overload(nonzero_word, strict=False)
def _overload_nonzero_word(isa: Any, stream: Any, row: Any, word: Any) -> Any:
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
        return _nonzero_bits(v.address(stream) + row * stream.shape[1] + 32 * word)

    return vectorized


def value_at(stream: np.ndarray, row: int, channel: int) -> int:
    """One value of a stream."""
    raise NotImplementedError("compiled code only")


@overload(value_at, strict=False)
def _overload_value_at(stream: Any, row: Any, channel: Any) -> Any:
    if stream.dtype == types.uint32:

        def from_bits(stream, row, channel):  # type: ignore[no-untyped-def]
            return np.uint8((stream[row, channel // 32] >> np.uint32(channel % 32)) & np.uint32(1))

        return from_bits
    return lambda stream, row, channel: stream[row, channel]


def add_bits(isa: Any, bits: int, out: np.ndarray, at: int) -> None:
    """``out[at + i] += bit i`` for 32 bytes of a flat u8 array; the caller keeps sums below 256."""
    raise NotImplementedError("compiled code only")


@overload(add_bits, strict=False)
def _overload_add_bits(isa: Any, bits: Any, out: Any, at: Any) -> Any:
    if isa == v.PLAIN:

        def plain(isa, bits, out, at):  # type: ignore[no-untyped-def]
            for i in range(32):
                out[at + i] += np.uint8((bits >> np.uint32(i)) & np.uint32(1))

        return plain
    return lambda isa, bits, out, at: _count_word(bits, v.address(out) + at)


@v.intrinsic
def _accumulate(typingctx: Any, source: Any, s0: Any, out: Any, at: Any) -> Any:
    """:func:`accumulate` for vectors."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        def address(kind: Any, array: v.Value, first: v.Value) -> v.Value:
            data = b.ptrtoint(context.make_array(kind)(context, b, array).data, v.I64)
            return b.add(data, b.mul(first, v.const(kind.dtype.bitwidth // 8)))

        added, sums = (v.vec(ir.IntType(kind.dtype.bitwidth), 32) for kind in (source, out))
        values, target = v.load(b, address(source, args[0], args[1]), added), address(out, args[2], args[3])
        wide = values if added == sums else b.zext(values, sums)
        v.store(b, b.add(v.load(b, target, sums), wide), target)
        return context.get_dummy_value()

    return types.void(source, types.int64, out, types.int64), generate


def accumulate(isa: Any, source: np.ndarray, s0: int, out: np.ndarray, at: int) -> None:
    """``out[at + i] += source[s0 + i]`` for 32 elements of flat arrays, of one type or from u8 to a wider one."""
    raise NotImplementedError("compiled code only")


@overload(accumulate, strict=False)
def _overload_accumulate(isa: Any, source: Any, s0: Any, out: Any, at: Any) -> Any:
    if isa == v.PLAIN:

        def plain(isa, source, s0, out, at):  # type: ignore[no-untyped-def]
            for i in range(32):
                out[at + i] += source[s0 + i]

        return plain
    return lambda isa, source, s0, out, at: _accumulate(source, s0, out, at)


def add_values(isa: Any, stream: np.ndarray, row: int, word: int, out: np.ndarray, at: int) -> None:
    """``out[at + i] +=`` the value of channel ``32 * word + i`` of a row, for a flat u8 array."""
    raise NotImplementedError("compiled code only")


@overload(add_values, strict=False)
def _overload_add_values(isa: Any, stream: Any, row: Any, word: Any, out: Any, at: Any) -> Any:
    if isa == v.PLAIN:

        def plain(isa, stream, row, word, out, at):  # type: ignore[no-untyped-def]
            for i in range(32):
                out[at + i] += value_at(stream, row, 32 * word + i)

        return plain
    return lambda isa, stream, row, word, out, at: _add_word(stream, row, word, v.address(out) + at)


def add_two(isa: Any, x: np.ndarray, y: np.ndarray, row: int, word: int, out: np.ndarray, at: int) -> int:
    """``out[at + i] =`` the sum of two streams at channel ``32 * word + i``; returns how often both are non-zero."""
    raise NotImplementedError("compiled code only")


@overload(add_two, strict=False)
def _overload_add_two(isa: Any, x: Any, y: Any, row: Any, word: Any, out: Any, at: Any) -> Any:
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


@v.intrinsic
def _count_rows(typingctx: Any, stream: Any, row: Any, rows: Any, word: Any, presence: Any, values: Any) -> Any:
    """:func:`count_rows`; ``presence`` and ``values`` are addresses."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        array, row, rows, word, *sums = args
        kind = v.vec(v.I8, 32)
        held = [cgutils.alloca_once_value(b, v.load(b, address, kind)) for address in sums]
        with v.counted_loop(b, rows) as i:
            found = _values(b, context, stream, array, b.add(row, i), word)
            if stream.dtype == types.uint32:
                v.add_to(b, held[0], found)
            else:
                v.add_to(b, held[0], b.zext(b.icmp_unsigned("!=", found, ir.Constant(kind, None)), kind))
                v.add_to(b, held[1], found)
        for address, total in zip(sums, held, strict=True):
            v.store(b, b.load(total), address)
        return context.get_dummy_value()

    return types.void(stream, *[types.int64] * 5), generate


def count_rows(
    isa: Any, stream: np.ndarray, row: int, rows: int, word: int, presence: np.ndarray, values: np.ndarray, at: int
) -> None:
    """Add up channels ``32 * word ..`` of so many rows, for flat u8 arrays; the caller keeps sums below 256.

    To ``presence[at ..]``: how many are not 0; to ``values[at ..]``, unless the stream is bits: their sum.
    """
    raise NotImplementedError("compiled code only")


@overload(count_rows, strict=False)
def _overload_count_rows(
    isa: Any, stream: Any, row: Any, rows: Any, word: Any, presence: Any, values: Any, at: Any
) -> Any:
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


def sum_word(isa: Any, stream: np.ndarray, row: int, word: int) -> int:
    """Sum of channels ``32 * word ..`` of a row."""
    raise NotImplementedError("compiled code only")


@overload(sum_word, strict=False)
def _overload_sum_word(isa: Any, stream: Any, row: Any, word: Any) -> Any:
    if stream.dtype == types.uint32:
        return lambda isa, stream, row, word: popcount(np.uint64(stream[row, word]))
    if isa == v.PLAIN:

        def plain(isa, stream, row, word):  # type: ignore[no-untyped-def]
            total = np.int64(0)
            for i in range(32):
                total += stream[row, 32 * word + i]
            return total

        return plain
    return lambda isa, stream, row, word: _sum_word(stream, row, word)


@v.intrinsic
def lowest_bit(typingctx: Any, x: Any) -> Any:
    """Position of the lowest set bit of an unsigned word that is not 0."""

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(v.I64, [v.I64, v.I1])
        return b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.cttz.i64"), [args[0], ir.Constant(v.I1, 1)])

    return types.int64(types.uint64), generate
