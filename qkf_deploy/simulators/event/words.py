"""Reading and adding streams 32 channels at a time.

A stream is u32 ``(rows, words)``, one bit per spike, or u8 ``(rows, 32 * words)``, one byte per count; padding is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from qkf_deploy.simulators.event import vector_ir as v


@intrinsic
def popcount(typingctx: Any, x: Any) -> Any:
    """Number of set bits of an unsigned word."""

    def generate(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return v.population(b, args[0])

    return types.int64(types.uint64), generate


@intrinsic
def _nonzero_bits(typingctx: Any, address: Any) -> Any:
    """Bit i is set where byte i of the 32 bytes at an address is not 0."""

    def generate(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> Any:
        bytes_type = v.vec(v.I8, 32)
        return b.bitcast(b.icmp_unsigned("!=", v.load(b, args[0], bytes_type), ir.Constant(bytes_type, None)), v.I32)

    return types.uint32(types.int64), generate


@intrinsic
def _add_bits(typingctx: Any, bits: Any, address: Any) -> Any:
    """Add bit i to byte i of the 32 bytes at an address."""

    def generate(context: Any, b: ir.IRBuilder, sig: Any, args: Any) -> Any:
        bits, address = args
        bytes_type = v.vec(v.I8, 32)
        ones = b.zext(b.bitcast(bits, v.vec(v.I1, 32)), bytes_type)
        v.store(b, b.add(v.load(b, address, bytes_type), ones), address)
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
        return _nonzero_bits(stream.ctypes.data + row * stream.shape[1] + 32 * word)

    return vectorized


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
    return lambda isa, bits, out, at: _add_bits(bits, out.ctypes.data + at)


def add_values(isa: Any, stream: np.ndarray, row: int, word: int, out: np.ndarray, at: int) -> None:
    """``out[at + i] +=`` the value of channel ``32 * word + i`` of a row."""
    raise NotImplementedError("compiled code only")


@overload(add_values, strict=False)
def _overload_add_values(isa: Any, stream: Any, row: Any, word: Any, out: Any, at: Any) -> Any:
    if stream.dtype == types.uint32:
        return lambda isa, stream, row, word, out, at: add_bits(isa, stream[row, word], out, at)

    def from_counts(isa, stream, row, word, out, at):  # type: ignore[no-untyped-def]
        for i in range(32):
            out[at + i] += stream[row, 32 * word + i]

    return from_counts
