"""Event lists: the active elements of a stream, row by row.

A stream has one row per token and time step, ``row = token * T + t``, and one column per channel. Its list holds the
channel (u16) and the value (u8) of every non-zero element. Each row is padded with one event of value 0 to an even
length, so that kernels can always take two events at once.

For windows wider than one column a list runs *by line*: rows in the order (line, step, column), channels numbered
``column * C + channel`` along the line. The events under one line of a window are then neighbours in the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from qkf_deploy.errors import InputError
from qkf_deploy.simulators.event.kernels import vector_ir as v
from qkf_deploy.simulators.event.kernels.compiled_only import Address, Int, Tag, by_type, emitted
from qkf_deploy.simulators.event.kernels.compiling import kernel
from qkf_deploy.simulators.event.kernels.words import nonzero_word, sum_word

#: Entries written beyond the end of a row while it is being listed.
SLACK = 16


@dataclass(frozen=True)
class EventList:
    """Active elements of one image's stream.

    Attributes:
        ptr: s32 or int64 ``(rows + 1,)``: row r occupies ``ptr[r] .. ptr[r + 1]``, an even number of entries.
        sums: likewise ``(rows + 1,)``: sum of all values before row r.
        idx: u16 channel of each entry.
        val: u8 value of each entry; 0 only in padding entries.
        largest: largest value.
    """

    ptr: np.ndarray
    sums: np.ndarray
    idx: np.ndarray
    val: np.ndarray
    largest: int


def _bits_table() -> np.ndarray:
    """Positions of the set bits of every byte, u8 ``(256, 8)``; unused entries are 0."""
    table = np.zeros((256, 8), np.uint8)
    for byte in range(256):
        positions = [bit for bit in range(8) if byte >> bit & 1]
        table[byte, : len(positions)] = positions
    return table


_BITS = _bits_table()


def _at_once(isa: types.Type) -> int:
    """Channels that :func:`_spread` and :func:`_pick` take."""
    return 16 if isa == v.AVX512 else 8


def _positions(b: v.Builder, table: v.Value, bits: v.Value) -> v.Value:
    """Positions of the set bits among the eight lowest, eight bytes: a row of the table."""
    return v.load(b, v.offset(b, table, b.and_(bits, v.const(255)), 8), v.vec(v.I8, 8))


@emitted
def _spread(b: v.Builder, isa: Tag, table: Address, bits: Int, base: Int, out: Address) -> Int:
    """Store ``base + position`` of those of the lowest bits that are set, as u16; returns their number.

    As many bits are taken, and u16 written, as :func:`_at_once` says.
    """
    count = _at_once(isa)
    kind, mask = v.vec(v.I16, count), b.trunc(bits, v.int_of(count))
    if isa == v.AVX512:
        every = ir.Constant(v.vec(v.I32, count), list(range(count)))
        every = b.add(every, v.splat(b, b.trunc(base, v.I32), count))
        positions = b.trunc(v.compress(b, every, mask), kind)
    else:
        positions = b.zext(_positions(b, table, bits), kind)
        positions = b.add(positions, v.splat(b, b.trunc(base, v.I16), count))
    v.store(b, positions, out)
    return b.zext(v.population(b, mask), v.I64)


@emitted
def _pick(b: v.Builder, isa: Tag, table: Address, bits: Int, source: Address, out: Address) -> None:
    """Store those of the bytes at ``source`` whose bit is set, side by side."""
    count = _at_once(isa)
    kind = v.vec(v.I8, count)
    values = v.load(b, source, kind)
    if isa == v.AVX512:
        wide = b.zext(values, v.vec(v.I32, count))
        picked = b.trunc(v.compress(b, wide, b.trunc(bits, v.int_of(count))), kind)
    else:
        picked = v.permute_eight(b, isa, values, _positions(b, table, bits))
    v.store(b, picked, out)


# Registers: one vector of positions and one of values, of 8 channels or, with AVX-512, 16. The next position in the
# list grows by the number of set bits, so that what is stored beyond them is overwritten by the next vector.
@by_type()
def append_word(
    isa: Any, table: Any, stream: Any, row: Any, word: Any, bits: Any, base: Any, idx: Any, val: Any, at: Any
) -> Any:
    """Append ``base + i`` to ``idx`` at ``at`` for every set bit i, and the value of channel ``32 * word + i``.

    Args:
        isa: instruction set tag.
        table: :func:`_bits_table`.
        stream, row, word: where the values are; a stream of bits has none to append, they are ones.
        bits: which of the 32 channels are not 0.

    Returns:
        The new end.
    """
    has_values = stream.dtype == types.uint8
    if isa == v.PLAIN:

        def plain(isa, table, stream, row, word, bits, base, idx, val, at):  # type: ignore[no-untyped-def]
            for i in range(32):
                if (bits >> np.uint32(i)) & np.uint32(1):
                    idx[at] = base + i
                    if has_values:
                        val[at] = stream[row, 32 * word + i]
                    at += 1
            return at

        return plain

    at_once = _at_once(isa)

    def vectorized(isa, table, stream, row, word, bits, base, idx, val, at):  # type: ignore[no-untyped-def]
        positions, indices, values = v.address(table), v.address(idx), v.address(val)
        mask, first = np.int64(bits), np.int64(base)
        source = v.address(stream) + row * stream.shape[1] + 32 * word
        for i in range(0, 32, at_once):  # no early exit: a branch that depends on the data costs more than empty bytes
            if has_values:
                _pick(isa, positions, mask >> i, source + i, values + at)
            at += _spread(isa, positions, mask >> i, first + i, indices + v.BYTES_16 * at)
        return at

    return vectorized


@kernel()
def list_rows(
    isa: np.generic, table: np.ndarray, stream: np.ndarray, words: int, line: int, steps: int, channels: int,
    ptr: np.ndarray, sums: np.ndarray, idx: np.ndarray, val: np.ndarray,
) -> None:  # fmt: skip
    """List the events of all rows in the order (line, step, pixel); zero words (closed tokens) are skipped."""
    ptr[0] = sums[0] = 0
    i, end, total = 0, 0, 0
    for first in range(0, stream.shape[0], line * steps):
        for t in range(steps):
            for x in range(line):
                r, offset, begin = first + x * steps + t, x * channels, end
                for w in range(words):
                    bits = nonzero_word(isa, stream, r, w)
                    if bits != 0:
                        end = append_word(isa, table, stream, r, w, bits, offset + 32 * w, idx, val, end)
                        total += sum_word(isa, stream, r, w)
                # Without a branch, which would depend on the data; after an even row, the next one overwrites it.
                odd = (end - begin) & 1
                idx[end], val[end] = offset, 1 - odd
                end += odd
                i += 1
                ptr[i], sums[i] = end, total


def list_events(
    isa: np.generic, stream: np.ndarray, nonzero: int, channels: int, steps: int, largest: int, line: int = 1
) -> EventList:
    """Event list of a stream.

    Args:
        isa: instruction set tag.
        stream: u32 ``(rows, words)`` bits or u8 ``(rows, columns)`` counts, C-contiguous, columns a multiple of 32.
        nonzero: number of its non-zero elements.
        channels: channels without padding.
        steps: T.
        largest: largest value.
        line: pixels per line to list by line, else 1; ``line * channels`` must fit 16 bits.

    Raises:
        InputError: more events than kernels can number.
    """
    is_bits = stream.dtype == np.uint32
    words = stream.shape[1] if is_bits else stream.shape[1] // 32
    # Half the bytes wherever they can count as far; both are read for every output row.
    offset_type = np.int32 if stream.nbytes * 8 * max(largest, 1) < 2**31 else np.int64
    ptr, sums = (np.empty(stream.shape[0] + 1, offset_type) for _ in range(2))
    most = nonzero + stream.shape[0]  # every row may be padded by one
    if most >= 2**31:
        raise InputError(
            f"a layer receives {nonzero} events from one image", hint="use smaller images or fewer time steps"
        )
    idx, val = np.empty(most + SLACK, np.uint16), (np.ones if is_bits else np.empty)(most + SLACK, np.uint8)
    list_rows(isa, _BITS, stream, words, line, steps, channels, ptr, sums, idx, val)
    return EventList(ptr, sums, idx, val, largest)
