"""Attention on bit streams: gates are addressing, products of spikes are gathers of counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from qkf_deploy.simulators.event.compiling import kernel
from qkf_deploy.simulators.event.fire import fire
from qkf_deploy.simulators.event.stream_kernels import count_spikes
from qkf_deploy.simulators.event.words import add_bits, lowest_bit, popcount


@kernel()
def token_gate(
    q: np.ndarray,
    k: np.ndarray,
    head_bits: np.ndarray,
    steps: int,
    theta: np.ndarray,
    form: np.ndarray,
    gate: np.ndarray,
    out: np.ndarray,
    opened: np.ndarray,
    passed: np.ndarray,
) -> Any:
    """Q-K token attention: a head's spikes in q, counted, drive a neuron that passes or stops the token's k.

    Args:
        q, k: u32 ``(rows, words)``.
        head_bits: u32 ``(heads, words)``: the channels of each head.
        steps: T.
        theta: int64 ``(heads,)``; form: int64 ``(4,)``, see :mod:`qkf_deploy.simulators.event.fire`.
        gate: u32 ``(rows, ceil(heads / 32))``, zeroed; the neurons' spikes.
        out: u32 ``(rows, words)``, zeroed; k where the gate is open.
        opened, passed: int64 ``(T,)``, added to: spikes of the gate, and of what is left of k, at each step.

    Returns:
        Heads and tokens with at least one spike in q, over all steps.
    """
    heads, words = head_bits.shape
    driven = np.int64(0)
    state = np.empty(heads, np.int64)
    for n in range(q.shape[0] // steps):
        state[:] = 0
        for t in range(steps):
            row = n * steps + t
            for h in range(heads):
                total = np.int64(0)
                for w in range(words):
                    if head_bits[h, w] != 0:
                        total += popcount(np.uint64(q[row, w] & head_bits[h, w]))
                driven += total != 0
                u = ((state[h] * form[0]) >> form[1]) + (total << form[2])
                state[h] = u
                if u >= theta[h]:
                    state[h] = u - theta[h] if form[3] else 0
                    gate[row, h // 32] |= np.uint32(1) << np.uint32(h % 32)
                    for w in range(words):
                        out[row, w] |= k[row, w] & head_bits[h, w]
    count_spikes(gate, 0, gate.shape[0], opened)
    count_spikes(out, 0, out.shape[0], passed)
    return driven


@kernel()
def channel_gate(
    sums: np.ndarray, k: np.ndarray, theta: np.ndarray, form: np.ndarray, gate: np.ndarray, out: np.ndarray,
    opened: np.ndarray, passed: np.ndarray,
) -> Any:  # fmt: skip
    """Q-K channel attention: a channel's spikes in q over all tokens drive a neuron that passes or stops its k.

    Args:
        sums: int64 ``(T, channels)``; k: u32 ``(rows, words)``; theta: int64 ``(channels,)``.
        form: int64 ``(4,)``.
        gate: u32 ``(T, words)``, zeroed; the neurons' spikes.
        out: u32 ``(rows, words)``, written.
        opened, passed: int64 ``(T,)``, added to: spikes of the gate, and of what is left of k, at each step.

    Returns:
        Non-zero sums.
    """
    steps, channels = sums.shape
    driven = np.int64(0)
    for c in range(channels):
        state = np.int64(0)
        for t in range(steps):
            driven += sums[t, c] != 0
            u = ((state * form[0]) >> form[1]) + (sums[t, c] << form[2])
            state = u
            if u >= theta[c]:
                state = u - theta[c] if form[3] else 0
                gate[t, c // 32] |= np.uint32(1) << np.uint32(c % 32)
    for r in range(k.shape[0]):
        for w in range(k.shape[1]):
            out[r, w] = k[r, w] & gate[r % steps, w]
    count_spikes(gate, 0, steps, opened)
    count_spikes(out, 0, out.shape[0], passed)
    return driven


@kernel()
def _take_bits(stream: np.ndarray, row: int, first: int, count: int, out: np.ndarray) -> None:
    """Bits ``first .. first + count`` of a row, moved to the start of ``out`` (u32 words, zeroed beyond)."""
    for i in range(out.shape[0]):
        at = first + 32 * i
        have = count - 32 * i
        word = np.uint64(stream[row, at // 32])
        if at % 32 and at // 32 + 1 < stream.shape[1]:
            word |= np.uint64(stream[row, at // 32 + 1]) << np.uint64(32)
        word >>= np.uint64(at % 32)
        if have < 32:
            word &= (np.uint64(1) << np.uint64(have)) - np.uint64(1)
        out[i] = np.uint32(word & np.uint64(0xFFFFFFFF))


@kernel()
def _put_bits(bits: np.ndarray, stream: np.ndarray, row: int, first: int) -> None:
    """OR the words ``bits`` into a row from bit ``first`` on."""
    for i in range(bits.shape[0]):
        if bits[i] == 0:
            continue
        at = first + 32 * i
        word = np.uint64(bits[i]) << np.uint64(at % 32)
        stream[row, at // 32] |= np.uint32(word & np.uint64(0xFFFFFFFF))
        if word >> np.uint64(32):
            stream[row, at // 32 + 1] |= np.uint32(word >> np.uint64(32))


@kernel()
def _add_rows(bits: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """``out += sum of table[i]`` over the set bits i."""
    for w in range(bits.shape[0]):
        word = np.uint64(bits[w])
        while word != 0:
            row = table[32 * w + lowest_bit(word)]
            word &= word - np.uint64(1)
            for j in range(out.shape[0]):
                out[j] += row[j]


@kernel()
def _context(
    isa: np.generic, k: np.ndarray, v: np.ndarray, first: int, dim: int, steps: int, t: int, bits: np.ndarray,
    context: np.ndarray,
) -> None:  # fmt: skip
    """``k^T v`` of one head at one step into ``context``, ``(dim, 32 * words)``; ``bits`` is scratch."""
    ones = np.empty(32 * bits.shape[0], np.uint8)
    context[:] = 0
    for n in range(k.shape[0] // steps):
        _take_bits(v, n * steps + t, first, dim, bits)
        ones[:] = 0
        for w in range(bits.shape[0]):
            add_bits(isa, bits[w], ones, 32 * w)
        _take_bits(k, n * steps + t, first, dim, bits)
        for w in range(bits.shape[0]):
            word = np.uint64(bits[w])
            while word != 0:
                target = context[32 * w + lowest_bit(word)]
                word &= word - np.uint64(1)
                for c in range(ones.shape[0]):
                    target[c] += ones[c]


#: Columns of the statistics that :func:`self_attention` returns per step.
CONTEXT_SUM, CONTEXT_NONZERO, MIXED_SUM, MIXED_PAIRS, MIXED_NONZERO = range(5)


@kernel()
def self_attention(
    isa: np.generic, q: np.ndarray, k: np.ndarray, v: np.ndarray, dim: int, steps: int, theta: np.ndarray,
    form: np.ndarray, context: np.ndarray, mixed: np.ndarray, out: np.ndarray, fired: np.ndarray, stats: np.ndarray,
) -> None:  # fmt: skip
    """Spiking self-attention of all heads, ``q (k^T v)`` and the neuron behind it.

    Args:
        isa: instruction set tag.
        q, k, v: u32 ``(rows, words)``; head h has the channels ``h * dim .. (h + 1) * dim``.
        steps: T.
        theta: s32 ``(heads * dim,)``; form: int64 ``(4,)``.
        context: scratch ``(dim, 32 * ceil(dim / 32))``; mixed: scratch of as many columns; both s16 or s32, wide enough
            for as many coincidences as there are tokens, and dim times that.
        out: u32 ``(rows, words)``, zeroed; the neurons' spikes.
        fired: int64 ``(T,)``, added to: spikes at each step.
        stats: int64 ``(T, 5)``, added to: see the column names above.
    """
    for first in range(0, theta.shape[0], dim):
        _one_head(isa, q, k, v, first, dim, steps, theta, form, context, mixed, out, stats)
    count_spikes(out, 0, out.shape[0], fired)


@kernel()
def _one_head(
    isa: np.generic, q: np.ndarray, k: np.ndarray, v: np.ndarray, first: int, dim: int, steps: int, theta: np.ndarray,
    form: np.ndarray, context: np.ndarray, mixed: np.ndarray, out: np.ndarray, stats: np.ndarray,
) -> None:  # fmt: skip
    """:func:`self_attention` of the head whose channels begin at ``first``."""
    words = context.shape[1] // 32
    tokens = q.shape[0] // steps
    bits, spikes = np.empty(words, np.uint32), np.empty((1, words), np.uint32)
    row_nonzero, row_sum = np.empty(dim, np.int64), np.empty(dim, np.int64)
    drive, limits = np.empty(32 * words, np.int32), np.empty(32 * words, np.int32)
    limits[:] = np.iinfo(np.int32).max
    limits[:dim] = theta[first : first + dim]
    state = np.zeros(tokens * 32 * words, np.int32)
    for t in range(steps):
        _context(isa, k, v, first, dim, steps, t, bits, context)
        for i in range(dim):
            nonzero, total = np.int64(0), np.int64(0)
            for c in range(dim):
                nonzero += context[i, c] != 0
                total += context[i, c]
            row_nonzero[i], row_sum[i] = nonzero, total
            stats[t, CONTEXT_NONZERO] += nonzero
            stats[t, CONTEXT_SUM] += total
        for n in range(tokens):
            row = n * steps + t
            _take_bits(q, row, first, dim, bits)
            mixed[:] = 0
            _add_rows(bits, context, mixed)
            for w in range(words):
                word = np.uint64(bits[w])
                while word != 0:
                    i = 32 * w + lowest_bit(word)
                    word &= word - np.uint64(1)
                    stats[t, MIXED_PAIRS] += row_nonzero[i]
                    stats[t, MIXED_SUM] += row_sum[i]
            for c in range(drive.shape[0]):
                drive[c] = mixed[c]
            stats[t, MIXED_NONZERO] += fire(
                isa, drive, 0, state, n * 32 * words, limits, 0, form, words, spikes, 0, 0
            )  # fmt: skip
            _put_bits(spikes[0], out, row, first)
