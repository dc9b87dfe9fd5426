"""Attention on bit streams: gates are addressing, products of spikes are gathers of counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qkf_deploy.simulators.event.kernels.alignment import scratch
from qkf_deploy.simulators.event.kernels.compiling import kernel
from qkf_deploy.simulators.event.kernels.fire import fire
from qkf_deploy.simulators.event.kernels.fire16 import fire16
from qkf_deploy.simulators.event.kernels.inner import inner
from qkf_deploy.simulators.event.kernels.streams import count_spikes
from qkf_deploy.simulators.event.kernels.words import accumulate, add_bits, lowest_bit, popcount


@kernel()
def token_gate(
    q: np.ndarray,
    k: np.ndarray,
    words: np.ndarray,
    masks: np.ndarray,
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
        words, masks: u64 and u32 ``(heads, n)``: the words that hold a head's channels, and which bits of them do.
        steps: T.
        theta: int64 ``(heads,)``; form: int64 ``(4,)``, see :mod:`qkf_deploy.simulators.event.kernels.fire`.
        gate: u32 ``(rows, ceil(heads / 32))``, zeroed; the neurons' spikes.
        out: u32 ``(rows, words)``, zeroed; k where the gate is open.
        opened, passed: int64 ``(T,)``, added to: spikes of the gate, and of what is left of k, at each step.

    Returns:
        Heads and tokens with at least one spike in q, over all steps.
    """
    heads, parts = words.shape
    multiplier, shift, fraction, soft = form
    driven = np.int64(0)
    state = scratch(heads, np.int64)
    for n in range(q.shape[0] // steps):
        state[:] = 0
        for t in range(steps):
            row = n * steps + t
            for h in range(heads):
                total = np.int64(0)
                for i in range(parts):
                    total += popcount(np.uint64(q[row, words[h, i]] & masks[h, i]))
                driven += total != 0
                u = ((state[h] * multiplier) >> shift) + (total << fraction)
                # Without branches: whether a neuron fires cannot be predicted.
                fires = np.int64(u >= theta[h])
                state[h] = u - fires * (theta[h] if soft else u)
                gate[row, h // 32] |= np.uint32(fires) << np.uint32(h % 32)
                for i in range(parts):
                    out[row, words[h, i]] |= k[row, words[h, i]] & masks[h, i] & np.uint32(-fires)
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


@inner()
def _take_head(stream: np.ndarray, first: int, masks: np.ndarray, out: np.ndarray) -> None:
    """Bits of all rows from ``first`` on, moved to the start of the rows of ``out`` and masked, word by word."""
    word, shift, last = first // 32, np.uint64(first % 32), stream.shape[1] - 1
    for row in range(stream.shape[0]):
        for i in range(masks.shape[0]):
            # What lies beyond the row is masked.
            above = np.uint64(stream[row, min(word + i + 1, last)]) << np.uint64(32)
            out[row, i] = ((np.uint64(stream[row, word + i]) | above) >> shift) & np.uint64(masks[i])


@inner()
def _put_head(bits: np.ndarray, first: int, stream: np.ndarray) -> None:
    """OR all rows of ``bits`` into a stream from bit ``first`` on; none of them lies beyond the row."""
    word, shift, last = first // 32, np.uint64(first % 32), stream.shape[1] - 1
    for row in range(stream.shape[0]):
        for i in range(bits.shape[1]):
            moved = np.uint64(bits[row, i]) << shift
            stream[row, word + i] |= np.uint32(moved & np.uint64(0xFFFFFFFF))
            stream[row, min(word + i + 1, last)] |= np.uint32(moved >> np.uint64(32))


@inner()
def _context(
    isa: np.generic, k: np.ndarray, v: np.ndarray, steps: int, t: int, ones: np.ndarray, context: np.ndarray
) -> None:
    """``k^T v`` at one step into ``context``, ``(dim, 32 * words)``; ``ones`` is scratch of one row, u8."""
    context[:] = 0
    flat, words = context.reshape(-1), k.shape[1]
    for row in range(t, k.shape[0], steps):
        ones[:] = 0
        for w in range(words):
            add_bits(isa, v[row, w], ones, 32 * w)
        for w in range(words):
            word = np.uint64(k[row, w])
            while word != 0:
                at = (32 * w + lowest_bit(word)) * 32 * words
                word &= word - np.uint64(1)
                for c in range(0, 32 * words, 32):
                    accumulate(isa, ones, c, flat, at + c)


#: Thresholds of padding channels.
_NEVER32, _NEVER16 = np.iinfo(np.int32).max, np.iinfo(np.int16).max
#: Columns of the statistics that :func:`self_attention` returns per step.
CONTEXT_SUM, CONTEXT_NONZERO, MIXED_SUM, MIXED_PAIRS, MIXED_NONZERO = range(5)


class _Neurons(NamedTuple):
    """The neurons of one head: thresholds and states, padded to words; in 16 bits if there are such thresholds."""

    form: np.ndarray
    theta: np.ndarray
    theta16: np.ndarray
    state: np.ndarray
    state16: np.ndarray
    drive: np.ndarray


@inner()
def _mix(
    isa: np.generic, q: np.ndarray, steps: int, t: int, of_row: np.ndarray, neurons: _Neurons, context: np.ndarray,
    mixed: np.ndarray, spikes: np.ndarray, stats: np.ndarray,
) -> None:  # fmt: skip
    """``q context`` at one step, and the neurons; ``of_row``: sums and non-zero elements of the rows of ``context``."""
    words, flat, form = q.shape[1], context.reshape(-1), neurons.form
    total, pairs, nonzero = np.int64(0), np.int64(0), np.int64(0)
    for n in range(q.shape[0] // steps):
        row = n * steps + t
        mixed[:] = 0
        for w in range(words):
            word = np.uint64(q[row, w])
            while word != 0:
                i = 32 * w + lowest_bit(word)
                word &= word - np.uint64(1)
                total, pairs = total + of_row[i, 0], pairs + of_row[i, 1]
                for c in range(0, 32 * words, 32):
                    accumulate(isa, flat, i * 32 * words + c, mixed, c)
        if neurons.theta16.shape[0] > 0:
            nonzero += fire16(mixed, neurons.state16[n], neurons.theta16, form, spikes, row)
        else:
            drive, state = neurons.drive, neurons.state.reshape(-1)
            for c in range(32 * words):
                drive[c] = mixed[c]
            nonzero += fire(isa, drive, 0, state, n * 32 * words, neurons.theta, 0, form, words, spikes, row, 0)
    stats[t, MIXED_SUM] += total
    stats[t, MIXED_PAIRS] += pairs
    stats[t, MIXED_NONZERO] += nonzero


@inner()
def _sum_rows(dim: int, context: np.ndarray, of_row: np.ndarray, stats: np.ndarray, t: int) -> None:
    """Sums and non-zero elements of the rows of ``context``."""
    for i in range(dim):
        total, nonzero = np.int64(0), np.int64(0)
        for c in range(dim):
            total += context[i, c]
            nonzero += context[i, c] != 0
        of_row[i, 0], of_row[i, 1] = total, nonzero
        stats[t, CONTEXT_SUM] += total
        stats[t, CONTEXT_NONZERO] += nonzero


@kernel()
def self_attention(
    isa: np.generic, q: np.ndarray, k: np.ndarray, v: np.ndarray, dim: int, steps: int, theta: np.ndarray,
    theta16: np.ndarray, form: np.ndarray, context: np.ndarray, mixed: np.ndarray, out: np.ndarray, fired: np.ndarray,
    stats: np.ndarray,
) -> None:  # fmt: skip
    """Spiking self-attention of all heads, ``q (k^T v)`` and the neuron behind it.

    Args:
        isa: instruction set tag.
        q, k, v: u32 ``(rows, words)``; head h has the channels ``h * dim .. (h + 1) * dim``.
        steps: T.
        theta: s32 ``(heads * dim,)``; form: int64 ``(4,)``.
        theta16: the same in 16 bits if neurons are known to fit them, which takes s16 sums; else empty.
        context: scratch ``(dim, 32 * ceil(dim / 32))``; mixed: scratch of as many columns; both s16 or s32, wide enough
            for as many coincidences as there are tokens, and dim times that.
        out: u32 ``(rows, words)``, zeroed; the neurons' spikes.
        fired: int64 ``(T,)``, added to: spikes at each step.
        stats: int64 ``(T, 5)``, added to: see the column names above.
    """
    words, rows = context.shape[1] // 32, q.shape[0]
    masks, ones = scratch(words, np.uint32), scratch(32 * words, np.uint8)
    for w in range(words):
        masks[w] = (np.uint64(1) << np.uint64(min(dim - 32 * w, 32))) - np.uint64(1)
    q_bits, k_bits = scratch((rows, words), np.uint32), scratch((rows, words), np.uint32)
    v_bits, spikes = scratch((rows, words), np.uint32), scratch((rows, words), np.uint32)
    of_row, narrow = scratch((dim, 2), np.int64), theta16.shape[0] > 0
    tokens, tokens16 = (0, rows // steps) if narrow else (rows // steps, 0)
    neurons = _Neurons(
        form,
        scratch(32 * words, np.int32),
        scratch(32 * words if narrow else 0, np.int16),
        scratch((tokens, 32 * words), np.int32),
        scratch((tokens16, 32 * words), np.int16),
        scratch(32 * words, np.int32),
    )
    neurons.theta[:], neurons.theta16[:] = _NEVER32, _NEVER16
    for first in range(0, theta.shape[0], dim):
        for c in range(dim):  # not by slices: the error of unequal ones takes longer to compile than all else here
            neurons.theta[c] = theta[first + c]
            if narrow:
                neurons.theta16[c] = theta16[first + c]
        neurons.state[:], neurons.state16[:] = 0, 0
        _take_head(q, first, masks, q_bits)
        _take_head(k, first, masks, k_bits)
        _take_head(v, first, masks, v_bits)
        for t in range(steps):
            _context(isa, k_bits, v_bits, steps, t, ones, context)
            _sum_rows(dim, context, of_row, stats, t)
            _mix(isa, q_bits, steps, t, of_row, neurons, context, mixed, spikes, stats)
        _put_head(spikes, first, out)
    count_spikes(out, 0, out.shape[0], fired)
