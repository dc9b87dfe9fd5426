"""What is done to streams between synapses: adding, expanding, counting, pooling, firing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import cgutils

from qkf_deploy.simulators.event.kernels import vector_ir as v
from qkf_deploy.simulators.event.kernels.alignment import scratch, zeros
from qkf_deploy.simulators.event.kernels.compiled_only import Address, Array, Int, by_type, emitted
from qkf_deploy.simulators.event.kernels.compiling import kernel
from qkf_deploy.simulators.event.kernels.fire import fire, fire_constant, fire_keeping
from qkf_deploy.simulators.event.kernels.fire16 import fire16
from qkf_deploy.simulators.event.kernels.inner import inner
from qkf_deploy.simulators.event.kernels.words import add_two, add_values, count_rows, nonzero_word, popcount, sum_word


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


@inner()
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
    values, presence = zeros(graded.shape[0] * columns, np.uint8), zeros(graded.shape[0] * columns, np.uint8)
    held = zeros(graded.shape[0], np.int64)
    room = 255 // max(largest, 1)
    pixel = 0
    while pixel < class_of.shape[0]:
        k, row = class_of[pixel], pixel * steps
        while pixel < class_of.shape[0] and class_of[pixel] == k:
            pixel += 1
        while row < pixel * steps:
            if held[k] == room:
                _flush_class(values, presence, k, columns, largest, unary, graded)
                held[k] = 0
            rows = min(room - held[k], pixel * steps - row)
            for w in range(words):
                count_rows(isa, stream, row, rows, w, presence, values, k * columns + 32 * w)
            held[k] += rows
            row += rows
    for k in range(graded.shape[0]):
        _flush_class(values, presence, k, columns, largest, unary, graded)


@inner()
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
    sums = zeros(32 * words, np.uint8)
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


@emitted
def _largest_of(b: v.Builder, drive: Array, starts: Address, count: Int, offset: Int, out: Address) -> None:
    """Store the maximum of 32 elements each from ``count`` starts + ``offset`` on; the maximum stays in registers."""
    size, kind = drive.element.width // 8, v.vec(drive.element, v.WORD)
    first = v.offset(b, drive.address, offset, size)

    def element(i: v.Value) -> v.Value:
        start = v.load(b, v.offset(b, starts, i, v.BYTES_64), v.I64)
        return v.load(b, v.offset(b, first, start, size), kind)

    most = cgutils.alloca_once_value(b, element(v.const(0)))
    with v.counted_loop(b, b.sub(count, v.const(1))) as i:
        b.store(v.largest(b, b.load(most), element(b.add(i, v.const(1)))), most)
    v.store(b, b.load(most), out)


@by_type()
def _pool(isa: Any, drive: Any, starts: Any, count: Any, offset: Any, out: Any) -> Any:
    """Elementwise maximum of the ``count`` rows of ``drive`` that begin at the elements ``starts + offset``."""
    if isa == v.PLAIN:

        def plain(isa, drive, starts, count, offset, out):  # type: ignore[no-untyped-def]
            flat = drive.reshape(-1)
            for c in range(out.shape[0]):
                out[c] = flat[starts[0] + offset + c]
                for i in range(1, count):
                    out[c] = max(out[c], flat[starts[i] + offset + c])

        return plain

    def vectorized(isa, drive, starts, count, offset, out):  # type: ignore[no-untyped-def]
        for c in range(0, out.shape[0], v.WORD):
            _largest_of(drive, v.address(starts), count, offset + c, v.address(out) + c * out.itemsize)

    return vectorized


@inner()
def _under_window(
    origin: int, lines: np.ndarray, columns: np.ndarray, height_in: int, width_in: int, elements: int,
    starts: np.ndarray,
) -> Any:  # fmt: skip
    """Where the pixels under a window begin, of so many elements each, from ``origin`` on; returns their number."""
    count = 0
    for iy in lines:
        if iy < 0 or iy >= height_in:
            continue
        for ix in columns:
            if ix < 0 or ix >= width_in:
                continue
            starts[count] = (iy * width_in + ix - origin) * elements
            count += 1
    return count


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
        form: see :mod:`qkf_deploy.simulators.event.kernels.fire`.
        spikes: u32 ``(rows, words)``, written.
        fired: int64 ``(T,)``, added to: spikes at each step.
        membranes: s32 ``(rows, 32 * words)`` to keep the charged membranes, or no rows.

    Returns:
        Non-zero pooled drives over all steps; at least :data:`~qkf_deploy.simulators.event.kernels.fire.SPOILT` if
        16 bits are not enough for a membrane.
    """
    units = spikes.shape[1]
    columns = 32 * units
    pooled, x = scratch(columns, drive.dtype), scratch(columns, np.int32)
    m, m16 = scratch(columns, np.int32), scratch(columns, np.int16)
    keep, narrow = membranes.shape[0] > 0, theta16.shape[0] > 0
    driven = np.int64(0)
    constant = steps_in == 1 and steps > 1 and not (keep or narrow)
    width_out = xpos.shape[0]
    starts, elements = scratch(ypos.shape[1] * xpos.shape[1], np.int64), steps_in * drive.shape[1]
    for p in range(p0, p1):
        oy, ox = p // width_out, p % width_out
        m[:] = 0
        m16[:] = 0
        count = _under_window(origin, ypos[oy], xpos[ox], height_in, width_in, elements, starts)
        for t in range(1 if constant else steps):
            if t < steps_in:
                _pool(isa, drive, starts, count, t * drive.shape[1], pooled)
                if not narrow:
                    for c in range(columns):
                        x[c] = pooled[c]
            row = p * steps + t
            if keep:
                driven += fire_keeping(isa, x, 0, m, 0, theta, 0, form, units, spikes, row, 0, membranes)
            elif narrow:
                driven += fire16(pooled, m16, theta16, form, spikes, row)
            elif constant:
                driven += fire_constant(isa, x, m, theta, form, spikes, row, steps)
            else:
                driven += fire(isa, x, 0, m, 0, theta, 0, form, units, spikes, row, 0)
    count_spikes(spikes, p0 * steps, p1 * steps, fired)
    return driven
