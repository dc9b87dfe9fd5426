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
from numba import njit
from numba.core import types
from numba.extending import overload

from qkf_deploy.simulators.event import vector_ir as v
from qkf_deploy.simulators.event.words import nonzero_word

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
    """

    ptr: np.ndarray
    idx: np.ndarray
    val: np.ndarray
    largest: int


def _bits_table() -> np.ndarray:
    """Positions of the set bits of every byte, u16 ``(256, 8)``; unused entries are 0."""
    table = np.zeros((256, 8), np.uint16)
    for byte in range(256):
        positions = [bit for bit in range(8) if byte >> bit & 1]
        table[byte, : len(positions)] = positions
    return table


_BITS = _bits_table()


@v.intrinsic
def _spread(typingctx: Any, table: Any, byte: Any, base: Any, out: Any) -> Any:
    """Store ``base + position`` of the set bits of ``byte`` as eight u16 at an address; returns their number."""
    signature = types.int64(types.int64, types.int64, types.int64, types.int64)

    def generate(context: Any, b: v.Builder, sig: Any, args: Any) -> Any:
        table, byte, base, out = args
        positions = v.load(b, b.add(table, b.shl(byte, v.const(4))), v.vec(v.I16, 8))
        v.store(b, b.add(positions, v.splat(b, b.trunc(base, v.I16), 8)), out)
        return v.population(b, byte)

    return signature, generate


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
        ta, oa, word, first = table.ctypes.data, out.ctypes.data, np.int64(bits), np.int64(base)
        for byte in range(4):  # no early exit: a branch that depends on the data costs more than an empty byte
            at += _spread(ta, (word >> (8 * byte)) & 255, first + 8 * byte, oa + 2 * at)
        return at

    return vectorized


def copy_values(
    stream: np.ndarray, row: int, offset: int, idx: np.ndarray, val: np.ndarray, start: int, end: int
) -> None:
    """``val[e] = stream[row, idx[e] - offset]`` for a count stream; a bit stream's values are ones already."""
    raise NotImplementedError("compiled code only")


@overload(copy_values, strict=False)
def _overload_copy_values(stream: Any, row: Any, offset: Any, idx: Any, val: Any, start: Any, end: Any) -> Any:
    if stream.dtype == types.uint32:
        return lambda stream, row, offset, idx, val, start, end: None

    def from_counts(stream, row, offset, idx, val, start, end):  # type: ignore[no-untyped-def]
        for e in range(start, end):
            val[e] = stream[row, idx[e] - offset]

    return from_counts


@njit(nogil=True, cache=True)
def _row_starts(lengths: np.ndarray, line: int, steps: int, ptr: np.ndarray) -> None:
    """Fill ``ptr`` (rows + 1) from the events of each row; ``line``: see :func:`_row_at`."""
    ptr[0] = 0
    for i in range(lengths.shape[0]):
        n = np.int64(lengths[_row_at(i, line, steps)])
        ptr[i + 1] = ptr[i] + n + (n & 1)


@njit(nogil=True, cache=True)
def _row_at(i: int, line: int, steps: int) -> int:
    """Stream row at position i of the list: i itself, or with lines of ``line`` pixels in the order (y, t, x)."""
    if line == 0:
        return i
    x, rest = i % line, i // line
    return (rest // steps * line + x) * steps + rest % steps


@njit(nogil=True, cache=True)
def _list_rows(
    isa: np.generic, table: np.ndarray, stream: np.ndarray, words: int, line: int, steps: int, channels: int,
    ptr: np.ndarray, idx: np.ndarray, val: np.ndarray,
) -> None:  # fmt: skip
    """List the events of all rows; zero words (closed tokens) are skipped."""
    for i in range(stream.shape[0]):
        end = ptr[i]
        if ptr[i + 1] == end:
            continue
        r = _row_at(i, line, steps)
        offset = i % line * channels if line > 0 else 0
        for w in range(words):
            bits = nonzero_word(isa, stream, r, w)
            if bits != 0:
                end = append_bits(isa, table, bits, offset + 32 * w, idx, end)
        copy_values(stream, r, offset, idx, val, ptr[i], end)
        if end < ptr[i + 1]:
            idx[end] = offset
            val[end] = 0


def list_events(
    isa: np.generic, stream: np.ndarray, lengths: np.ndarray, channels: int, steps: int, largest: int, line: int = 0
) -> EventList:
    """Event list of a stream.

    Args:
        isa: instruction set tag.
        stream: u32 ``(rows, words)`` bits or u8 ``(rows, columns)`` counts, C-contiguous, columns a multiple of 32.
        lengths: s32 ``(rows,)``: non-zero elements of each row.
        channels: channels without padding.
        steps: T.
        largest: largest value.
        line: pixels per line to list by line, else 0; ``line * channels`` must fit 16 bits.
    """
    is_bits = stream.dtype == np.uint32
    words = stream.shape[1] if is_bits else stream.shape[1] // 32
    ptr = np.empty(stream.shape[0] + 1, np.int64)
    _row_starts(lengths, line, steps, ptr)
    size = int(ptr[-1])
    idx, val = np.empty(size + SLACK, np.uint16), (np.ones if is_bits else np.empty)(size, np.uint8)
    _list_rows(isa, _BITS, stream, words, line, steps, channels, ptr, idx, val)
    return EventList(ptr, idx, val, largest)
