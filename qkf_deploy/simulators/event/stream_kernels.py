"""What is done to streams between synapses: adding, expanding, counting, pooling, firing."""

from __future__ import annotations

from typing import Any

import numpy as np

from qkf_deploy.simulators.event.compiling import kernel
from qkf_deploy.simulators.event.fire import fire, fire16, fire_keeping
from qkf_deploy.simulators.event.words import add_presence, add_two, add_values, nonzero_word, popcount, sum_word


@kernel()
def add_streams(isa: np.generic, a: np.ndarray, b: np.ndarray, words: int, out: np.ndarray) -> Any:
    """``out = a + b`` as u8 counts ``(rows, 32 * words)``; returns the number of elements where both are non-zero."""
    flat = out.reshape(-1)
    both = np.int64(0)
    for r in range(out.shape[0]):
        for w in range(words):
            both += add_two(isa, a, b, r, w, flat, r * out.shape[1] + 32 * w)
    return both


@kernel()
def expand(
    isa: np.generic,
    stream: np.ndarray,
    words: int,
    steps: int,
    width: int,
    top: int,
    left: int,
    width_out: int,
    out: np.ndarray,
) -> None:
    """Copy a stream into zeroed u8 rows of a grid ``width_out`` pixels wide, from line ``top``, column ``left``."""
    flat = out.reshape(-1)
    for r in range(stream.shape[0]):
        pixel = r // steps
        target = ((pixel // width + top) * width_out + pixel % width + left) * steps + r % steps
        for w in range(words):
            add_values(isa, stream, r, w, flat, target * out.shape[1] + 32 * w)


@kernel()
def totals(isa: np.generic, stream: np.ndarray, words: int, steps: int, unary_per_step: np.ndarray) -> Any:
    """Counts over a whole stream.

    Args:
        isa: instruction set tag.
        stream: rows ``token * T + t``.
        words: 32-channel words per row.
        steps: T.
        unary_per_step: int64 ``(T,)``, added to: sum of the values at each step.

    Returns:
        Number of non-zero elements.
    """
    graded = np.int64(0)
    for p in range(stream.shape[0] // steps):
        for t in range(steps):
            r = p * steps + t
            for w in range(words):
                graded += popcount(np.uint64(nonzero_word(isa, stream, r, w)))
                unary_per_step[t] += sum_word(isa, stream, r, w)
    return graded


@kernel(_nrt=False)
def count_spikes(spikes: np.ndarray, r0: int, r1: int, per_step: np.ndarray) -> None:
    """Add the spikes of the rows ``r0 .. r1``, of whole pixels, to their number at each step, int64 ``(T,)``."""
    steps = per_step.shape[0]
    for first in range(r0, r1, steps):
        for t in range(steps):
            total = np.int64(0)
            for w in range(spikes.shape[1]):
                total += popcount(np.uint64(spikes[first + t, w]))
            per_step[t] += total


@kernel()
def class_counts(
    isa: np.generic, stream: np.ndarray, words: int, steps: int, class_of: np.ndarray, largest: int, unary: np.ndarray,
    graded: np.ndarray,
) -> None:  # fmt: skip
    """Events per class of pixel and channel.

    Args:
        isa: instruction set tag.
        stream: rows ``pixel * T + t``.
        words: 32-channel words per row.
        steps: T.
        class_of: int64 ``(pixels,)``.
        largest: largest value in the stream; if 1, only ``graded`` is filled.
        unary, graded: int64 ``(classes, 32 * words)``, added to.
    """
    columns = 32 * words
    values, presence = np.zeros(graded.shape[0] * columns, np.uint8), np.zeros(graded.shape[0] * columns, np.uint8)
    held = np.zeros(graded.shape[0], np.int64)
    room = 255 // max(largest, 1)
    for p in range(class_of.shape[0]):
        k = class_of[p]
        for t in range(steps):
            if held[k] == room:
                _flush_class(values, presence, k, columns, largest, unary, graded)
                held[k] = 0
            held[k] += 1
            row = p * steps + t
            for w in range(words):
                add_presence(isa, stream, row, w, presence, k * columns + 32 * w)
                if largest > 1:
                    add_values(isa, stream, row, w, values, k * columns + 32 * w)
    for k in range(graded.shape[0]):
        _flush_class(values, presence, k, columns, largest, unary, graded)


@kernel()
def _flush_class(
    values: np.ndarray, presence: np.ndarray, k: int, columns: int, largest: int, unary: np.ndarray, graded: np.ndarray
) -> None:
    for c in range(columns):
        graded[k, c] += presence[k * columns + c]
        presence[k * columns + c] = 0
    if largest > 1:
        for c in range(columns):
            unary[k, c] += values[k * columns + c]
            values[k * columns + c] = 0


@kernel()
def column_sums(isa: np.generic, stream: np.ndarray, words: int, steps: int, largest: int, out: np.ndarray) -> None:
    """Sum over tokens at each step: int64 ``(T, 32 * words)``, added to."""
    sums = np.zeros(32 * words, np.uint8)
    room = 255 // max(largest, 1)
    tokens = stream.shape[0] // steps
    for t in range(steps):
        for n in range(tokens):
            for w in range(words):
                add_values(isa, stream, n * steps + t, w, sums, 32 * w)
            if (n + 1) % room == 0 or n == tokens - 1:
                for c in range(sums.shape[0]):
                    out[t, c] += sums[c]
                sums[:] = 0


@kernel(_nrt=False)
def _pool(
    drive: np.ndarray, origin: int, ypos: np.ndarray, xpos: np.ndarray, height_in: int, width_in: int, steps_in: int,
    t: int, out: np.ndarray,
) -> None:  # fmt: skip
    """Largest drives under one window at step t into ``out``; ``ypos``, ``xpos``: its lines and columns."""
    first = True
    for iy in ypos:
        if iy < 0 or iy >= height_in:
            continue
        for ix in xpos:
            if ix < 0 or ix >= width_in:
                continue
            source = drive[(iy * width_in + ix - origin) * steps_in + t]
            if first:
                for c in range(out.shape[0]):
                    out[c] = source[c]
            else:
                for c in range(out.shape[0]):
                    out[c] = max(out[c], source[c])
            first = False


@kernel()
def pool_fire(
    isa: np.generic, drive: np.ndarray, origin: int, ypos: np.ndarray, xpos: np.ndarray, height_in: int, width_in: int,
    steps_in: int, steps: int, theta: np.ndarray, theta16: np.ndarray, form: np.ndarray, spikes: np.ndarray,
    fired: np.ndarray, membranes: np.ndarray, p0: int, p1: int,
) -> Any:  # fmt: skip
    """Max pool (a 1 x 1 window: none) and neuron for output pixels ``p0 .. p1``.

    Args:
        isa: instruction set tag.
        drive: s16 or s32 ``(pixels * steps_in, columns)`` from input pixel ``origin`` on; ``steps_in`` is 1 for a drive
            that is constant over time.
        ypos, xpos: int64 ``(H_out, K)``, ``(W_out, K)``: lines and columns of the window, outside where padded.
        height_in, width_in: input size.
        steps: T.
        theta: s32, at least 32 per word of spikes; theta16: the same to try neurons in 16 bits, else empty.
        form: see :mod:`qkf_deploy.simulators.event.fire`.
        spikes: u32 ``(rows, words)``, written.
        fired: int64 ``(T,)``, added to: spikes at each step.
        membranes: s32 ``(rows, 32 * words)`` to keep the charged membranes, or no rows.

    Returns:
        Non-zero pooled drives over all steps; at least :data:`qkf_deploy.simulators.event.fire.SPOILT` if 16 bits are
        not enough for a membrane.
    """
    units = spikes.shape[1]
    columns = 32 * units
    pooled, x = np.empty(columns, drive.dtype), np.empty(columns, np.int32)
    m, m16 = np.empty(columns, np.int32), np.empty(columns, np.int16)
    keep, narrow = membranes.shape[0] > 0, theta16.shape[0] > 0
    driven = np.int64(0)
    width_out = xpos.shape[0]
    for p in range(p0, p1):
        oy, ox = p // width_out, p % width_out
        m[:] = 0
        m16[:] = 0
        for t in range(steps):
            if t < steps_in:
                _pool(drive, origin, ypos[oy], xpos[ox], height_in, width_in, steps_in, t, pooled)
                if not narrow:
                    for c in range(columns):
                        x[c] = pooled[c]
            row = p * steps + t
            if keep:
                driven += fire_keeping(isa, x, 0, m, 0, theta, 0, form, units, spikes, row, 0, membranes)
            elif narrow:
                driven += fire16(pooled, m16, theta16, form, spikes, row)
            else:
                driven += fire(isa, x, 0, m, 0, theta, 0, form, units, spikes, row, 0)
    count_spikes(spikes, p0 * steps, p1 * steps, fired)
    return driven
