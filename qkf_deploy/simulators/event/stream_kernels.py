"""What is done to streams between synapses: adding, expanding, counting, pooling, firing."""

from __future__ import annotations

import numpy as np
from numba import njit

from qkf_deploy.simulators.event.fire import fire, fire_keeping
from qkf_deploy.simulators.event.words import add_bits, add_values, nonzero_word, popcount


@njit(nogil=True, cache=True)
def add_streams(isa: np.generic, a: np.ndarray, b: np.ndarray, words: int, out: np.ndarray) -> int:
    """``out = a + b`` as u8 counts ``(rows, 32 * words)``; returns the number of elements where both are non-zero."""
    flat = out.reshape(-1)
    both = np.int64(0)
    for r in range(out.shape[0]):
        for w in range(words):
            at = r * out.shape[1] + 32 * w
            flat[at : at + 32] = 0
            add_values(isa, a, r, w, flat, at)
            add_values(isa, b, r, w, flat, at)
            both += popcount(np.uint64(nonzero_word(isa, a, r, w) & nonzero_word(isa, b, r, w)))
    return both


@njit(nogil=True, cache=True)
def expand(
    isa: np.generic, stream: np.ndarray, words: int, steps: int, width: int, top: int, left: int, width_out: int, out: np.ndarray
) -> None:
    """Copy a stream into zeroed u8 rows of a padded grid ``width_out`` pixels wide, from line ``top``, column ``left``."""
    flat = out.reshape(-1)
    for r in range(stream.shape[0]):
        pixel = r // steps
        target = ((pixel // width + top) * width_out + pixel % width + left) * steps + r % steps
        for w in range(words):
            add_values(isa, stream, r, w, flat, target * out.shape[1] + 32 * w)


@njit(nogil=True, cache=True)
def step_totals(isa: np.generic, stream: np.ndarray, words: int, steps: int, unary: np.ndarray, graded: np.ndarray) -> None:
    """Sum of the values and number of non-zero elements at each time step, int64 ``(T,)`` each."""
    unary[:] = 0
    graded[:] = 0
    sums = np.zeros(32, np.uint8)
    for r in range(stream.shape[0]):
        t = r % steps
        for w in range(words):
            bits = nonzero_word(isa, stream, r, w)
            if bits == 0:
                continue
            graded[t] += popcount(np.uint64(bits))
            if stream.itemsize == 1:
                sums[:] = 0
                add_values(isa, stream, r, w, sums, 0)
                for i in range(32):
                    unary[t] += sums[i]
    if stream.itemsize != 1:
        unary[:] = graded


@njit(nogil=True, cache=True)
def class_counts(
    isa: np.generic,
    stream: np.ndarray,
    words: int,
    steps: int,
    class_of: np.ndarray,
    largest: int,
    unary: np.ndarray,
    graded: np.ndarray,
) -> None:
    """Events per channel and class of pixel.

    Args:
        isa: instruction set tag.
        stream: rows ``pixel * T + t``.
        words: 32-channel words per row.
        steps: T.
        class_of: int64 ``(pixels,)``.
        largest: largest value in the stream.
        unary, graded: int64 ``(classes, 32 * words)``, added to.
    """
    columns = 32 * words
    values, presence = np.zeros(columns, np.uint8), np.zeros(columns, np.uint8)
    room = 255 // max(largest, 1)
    held = 0
    for p in range(class_of.shape[0]):
        for t in range(steps):
            row = p * steps + t
            for w in range(words):
                add_values(isa, stream, row, w, values, 32 * w)
                add_bits(isa, nonzero_word(isa, stream, row, w), presence, 32 * w)
            held += 1
            last = t == steps - 1 and (p + 1 == class_of.shape[0] or class_of[p + 1] != class_of[p])
            if held == room or last:
                for c in range(columns):
                    unary[class_of[p], c] += values[c]
                    graded[class_of[p], c] += presence[c]
                values[:] = 0
                presence[:] = 0
                held = 0


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def pool_fire(
    isa: np.generic,
    drive: np.ndarray,
    ypos: np.ndarray,
    xpos: np.ndarray,
    height_in: int,
    width_in: int,
    steps_in: int,
    steps: int,
    theta: np.ndarray,
    form: np.ndarray,
    spikes: np.ndarray,
    membranes: np.ndarray,
    p0: int,
    p1: int,
) -> int:
    """Max pool (a 1 x 1 window: none) and neuron for output pixels ``p0 .. p1``.

    Args:
        isa: instruction set tag.
        drive: s32 ``(pixels * steps_in, columns)``; ``steps_in`` is 1 for a drive that is constant over time.
        ypos, xpos: int64 ``(H_out, K)``, ``(W_out, K)``: lines and columns of the window, outside where padded.
        height_in, width_in: input size.
        steps: T.
        theta: s32 ``(columns,)``; form: see :mod:`qkf_deploy.simulators.event.fire`.
        spikes: u32 ``(rows, columns / 32)``, written.
        membranes: s32 ``(rows, columns)`` to keep the charged membranes, or no rows.

    Returns:
        Non-zero pooled drives over all steps.
    """
    columns, units = drive.shape[1], drive.shape[1] // 32
    x, m = np.empty(columns, np.int32), np.empty(columns, np.int32)
    keep = membranes.shape[0] > 0
    driven = np.int64(0)
    width_out = xpos.shape[0]
    for p in range(p0, p1):
        oy, ox = p // width_out, p % width_out
        m[:] = 0
        for t in range(steps):
            if t < steps_in:
                first = True
                for ky in range(ypos.shape[1]):
                    iy = ypos[oy, ky]
                    if iy < 0 or iy >= height_in:
                        continue
                    for kx in range(xpos.shape[1]):
                        ix = xpos[ox, kx]
                        if ix < 0 or ix >= width_in:
                            continue
                        source = drive[(iy * width_in + ix) * steps_in + t]
                        if first:
                            for c in range(columns):
                                x[c] = source[c]
                        else:
                            for c in range(columns):
                                x[c] = max(x[c], source[c])
                        first = False
            row = p * steps + t
            if keep:
                driven += fire_keeping(isa, x, 0, m, 0, theta, 0, form, units, spikes, row, 0, membranes)
            else:
                driven += fire(isa, x, 0, m, 0, theta, 0, form, units, spikes, row, 0)
    return driven
