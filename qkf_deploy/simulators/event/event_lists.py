"""Event lists: the active elements of a stream, row by row.

A stream has one row per token and time step, ``row = token * T + t``, and one column per channel. Its list holds the
channel (u16) and the value (u8) of every non-zero element. Each row is padded with one event of value 0 to an even
length, so that kernels can always take two events at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from qkf_deploy.simulators.event import vector_ir as v

#: Entries written beyond the end of a row while it is being listed.
SLACK = 8


@dataclass(frozen=True)
class EventList:
    """Active elements of one image's stream.

    Attributes:
        ptr: int64 ``(rows + 1,)``: row r occupies ``ptr[r] .. ptr[r + 1]``, an even number of entries.
        idx: u16 channel of each entry.
        val: u8 value of each entry; 0 only in padding entries.
        largest: largest value.
        events: number of entries without padding.
    """

    ptr: np.ndarray
    idx: np.ndarray
    val: np.ndarray
    largest: int
    events: int


def _bits_table() -> np.ndarray:
    """Positions of the set bits of every byte, u16 ``(256, 8)``; unused entries are 0."""
    table = np.zeros((256, 8), np.uint16)
    for byte in range(256):
        positions = [bit for bit in range(8) if byte >> bit & 1]
        table[byte, : len(positions)] = positions
    return table


_BITS = _bits_table()


@intrinsic
def _spread(typingctx: Any, table: Any, byte: Any, base: Any, out: Any) -> Any:
    """Store ``base + position`` of the set bits of ``byte`` as eight u16 at the address ``out``; returns their number."""
    signature = types.int64(types.int64, types.int64, types.int64, types.int64)

    def generate(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> Any:
        table, byte, base, out = args
        positions = v.load(b, b.add(table, b.shl(byte, v.const(4))), v.vec(v.I16, 8))
        v.store(b, b.add(positions, v.splat(b, b.trunc(base, v.I16), 8)), out)
        return _ctpop(b, byte)

    return signature, generate


def _ctpop(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    return b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(v.I64, [v.I64]), "llvm.ctpop.i64"), [x])


@intrinsic
def popcount(typingctx: Any, x: Any) -> Any:
    """Number of set bits of an unsigned word."""

    def generate(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return _ctpop(b, args[0])

    return types.int64(types.uint64), generate


@intrinsic
def _nonzero_bits(typingctx: Any, address: Any) -> Any:
    """Bit i is set where byte i of the 32 bytes at an address is not 0."""

    def generate(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> Any:
        bytes_type = v.vec(v.I8, 32)
        return b.bitcast(b.icmp_unsigned("!=", v.load(b, args[0], bytes_type), ir.Constant(bytes_type, None)), v.I32)

    return types.uint32(types.int64), generate


def nonzero_word(isa: Any, counts: np.ndarray, row: int, word: int) -> int:
    """Bits of the non-zero elements among columns ``32 * word ..`` of a row of u8 counts."""
    raise NotImplementedError("compiled code only")


@overload(nonzero_word, strict=False)
def _overload_nonzero_word(isa: Any, counts: Any, row: Any, word: Any) -> Any:
    if isa == v.PLAIN:

        def plain(isa, counts, row, word):  # type: ignore[no-untyped-def]
            bits = np.uint32(0)
            for i in range(32):
                if counts[row, 32 * word + i] != 0:
                    bits |= np.uint32(1) << np.uint32(i)
            return bits

        return plain

    def vectorized(isa, counts, row, word):  # type: ignore[no-untyped-def]
        return _nonzero_bits(counts.ctypes.data + row * counts.shape[1] + 32 * word)

    return vectorized


def append_bits(isa: Any, table: np.ndarray, bits: int, base: int, out: np.ndarray, at: int) -> int:
    """Append ``base + i`` for every set bit i of a 32-bit word to ``out`` at ``at``; returns the new end."""
    raise NotImplementedError("compiled code only")


@overload(append_bits, strict=False)
def _overload_append_bits(isa: Any, table: Any, bits: Any, base: Any, out: Any, at: Any) -> Any:
    if isa == v.PLAIN:

        def plain(isa, table, bits, base, out, at):  # type: ignore[no-untyped-def]
            for i in range(32):
                if (bits >> np.uint32(i)) & np.uint32(1):
                    out[at] = base + i
                    at += 1
            return at

        return plain

    def vectorized(isa, table, bits, base, out, at):  # type: ignore[no-untyped-def]
        rest = np.int64(bits)
        while rest != 0:
            at += _spread(table.ctypes.data, rest & 255, np.int64(base), out.ctypes.data + 2 * at)
            rest >>= 8
            base += 8
        return at

    return vectorized


@njit(nogil=True, cache=True)
def row_lengths_of_bits(bits: np.ndarray, ptr: np.ndarray) -> int:
    """Fill ``ptr`` (rows + 1) for a bit stream u32 ``(rows, words)``; returns the number of events."""
    total = np.int64(0)
    ptr[0] = 0
    for r in range(bits.shape[0]):
        n = np.int64(0)
        for w in range(bits.shape[1]):
            n += popcount(np.uint64(bits[r, w]))
        total += n
        ptr[r + 1] = ptr[r] + n + (n & 1)
    return total


@njit(nogil=True, cache=True)
def row_lengths_of_counts(isa: np.generic, counts: np.ndarray, ptr: np.ndarray) -> int:
    """Fill ``ptr`` (rows + 1) for a count stream u8 ``(rows, columns)``; returns the number of events."""
    total = np.int64(0)
    ptr[0] = 0
    for r in range(counts.shape[0]):
        n = np.int64(0)
        for w in range(counts.shape[1] // 32):
            n += popcount(np.uint64(nonzero_word(isa, counts, r, w)))
        total += n
        ptr[r + 1] = ptr[r] + n + (n & 1)
    return total


@njit(nogil=True, cache=True)
def list_bits(
    isa: np.generic, table: np.ndarray, bits: np.ndarray, ptr: np.ndarray, idx: np.ndarray, val: np.ndarray, r0: int, r1: int
) -> None:
    """List rows ``r0 .. r1`` of a bit stream; ``val`` holds ones already. Zero words, closed tokens, are skipped."""
    for r in range(r0, r1):
        end = ptr[r]
        if ptr[r + 1] == end:
            continue
        for w in range(bits.shape[1]):
            if bits[r, w] != 0:
                end = append_bits(isa, table, bits[r, w], 32 * w, idx, end)
        if end < ptr[r + 1]:
            idx[end] = 0
            val[end] = 0


@njit(nogil=True, cache=True)
def list_counts(
    isa: np.generic, table: np.ndarray, counts: np.ndarray, ptr: np.ndarray, idx: np.ndarray, val: np.ndarray, r0: int, r1: int
) -> None:
    """List rows ``r0 .. r1`` of a count stream."""
    for r in range(r0, r1):
        end = ptr[r]
        for w in range(counts.shape[1] // 32):
            bits = nonzero_word(isa, counts, r, w)
            if bits != 0:
                end = append_bits(isa, table, bits, 32 * w, idx, end)
        for e in range(ptr[r], end):
            val[e] = counts[r, idx[e]]
        if end < ptr[r + 1]:
            idx[end] = 0
            val[end] = 0


def list_events(isa: np.generic, stream: np.ndarray) -> EventList:
    """Event list of a stream.

    Args:
        isa: instruction set tag.
        stream: u32 ``(rows, words)`` bits or u8 ``(rows, columns)`` counts, C-contiguous, columns a multiple of 32.
    """
    rows = stream.shape[0]
    ptr = np.empty(rows + 1, np.int64)
    if stream.dtype == np.uint32:
        events = int(row_lengths_of_bits(stream, ptr))
        idx, val = np.empty(int(ptr[-1]) + SLACK, np.uint16), np.ones(int(ptr[-1]), np.uint8)
        list_bits(isa, _BITS, stream, ptr, idx, val, 0, rows)
        return EventList(ptr, idx, val, 1 if events else 0, events)
    events = int(row_lengths_of_counts(isa, stream, ptr))
    idx, val = np.empty(int(ptr[-1]) + SLACK, np.uint16), np.empty(int(ptr[-1]), np.uint8)
    list_counts(isa, _BITS, stream, ptr, idx, val, 0, rows)
    return EventList(ptr, idx, val, int(val.max(initial=0)), events)
