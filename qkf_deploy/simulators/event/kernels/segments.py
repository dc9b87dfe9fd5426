"""Which events each output row sums, strip by strip, and where its sums may have to leave 16 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from qkf_deploy.simulators.event.kernels.alignment import scratch
from qkf_deploy.simulators.event.kernels.arguments import Events, Neurons, Shape
from qkf_deploy.simulators.event.kernels.fire import SHIFT
from qkf_deploy.simulators.event.kernels.inner import inner

_INT16, _INT32 = 2**15 - 1, 2**31 - 1
#: Sum of the values of a segment that is part of a line.
_UNKNOWN = -1
#: Values that are added up in one go.
_GROUP = 16


@inner()
def _part_line(segments: np.ndarray, strip_sums: np.ndarray, at: int, parts: int, share: int) -> None:
    """Divide the segment at ``at`` into parts of ``share / 65536`` of its pairs; to divide would take longer."""
    start, pairs, weights = segments[at, 0], np.int64(segments[at, 1]), segments[at, 2]
    first = np.int64(0)
    for part in range(parts):
        last = pairs * share * (part + 1) >> 16 if part < parts - 1 else pairs
        segments[at + part, 0], segments[at + part, 1] = start + 2 * first, last - first
        segments[at + part, 2], strip_sums[at + part], first = weights, _UNKNOWN, last


@inner()
def block_segments(
    events: Events, shape: Shape, ypos: np.ndarray, first_columns: np.ndarray, b0: int, b1: int, segments: np.ndarray,
    strip_sums: np.ndarray, sums: np.ndarray,
) -> Any:  # fmt: skip
    """One segment per strip of the pixels ``b0 .. b1``, the sums of strips and rows; returns the number of events."""
    gathered, strips, share = np.int64(0), ypos.shape[1] * shape.parts, 2**16 // shape.parts
    sums[:] = 0
    # In the list, one step further is one row further, or a line of rows.
    step, column = (shape.width, 1) if events.by_line else (1, shape.steps)
    for p in range(b0, b1):
        oy, first = p // first_columns.shape[0], first_columns[p % first_columns.shape[0]]
        low, high = max(first, 0), min(first + shape.kernel, shape.width)
        for ky in range(ypos.shape[1]):
            line, local = ypos[oy, ky], (p - b0) * shape.steps
            at = local * strips + ky * shape.parts
            # By line, the list numbers channels along the line: the window's first column has number ``first``.
            weights = (ky * shape.kernel - (first if events.by_line else 0)) * shape.channels
            inside = low < high and line >= 0 and line < shape.height
            row = line * shape.width * shape.steps + low * column
            for _ in range(shape.steps):
                segments[at, 0] = segments[at, 1] = strip_sums[at] = 0
                if inside:
                    last = row + (high - low if events.by_line else 1)
                    start, end = events.ptr[row], events.ptr[last]
                    segments[at, 0], segments[at, 1], segments[at, 2] = start, (end - start) // 2, weights
                    strip_sums[at] = events.sums[last] - events.sums[row]
                    sums[local] += strip_sums[at]
                    gathered += end - start
                if shape.parts > 1:
                    _part_line(segments, strip_sums, at, shape.parts, share)
                row, at, local = row + step, at + strips, local + 1
    return gathered


@inner()
def _sum_of_group(values: np.ndarray, at: int) -> Any:
    """Sum of the values from ``at`` on; with unsigned indices, which need no test, the loop becomes vector code."""
    total, first = np.int64(0), np.uint64(at)
    for i in range(_GROUP):
        total += values[first + np.uint64(i)]
    return total


@inner()
def _pairs_that_fit(events: Events, start: int, pairs: int, room: int) -> Any:
    """(how many of the pairs from ``start`` on sum to at most ``room``, their sum); an upper bound will do."""
    if events.largest == 1:
        pairs = min(pairs, room // 2)
        return pairs, np.int64(2 * pairs)
    total, at, end = np.int64(0), start, start + 2 * pairs
    while at + _GROUP <= end:
        group = _sum_of_group(events.val, at)
        if total + group > room:
            break
        total, at = total + group, at + _GROUP
    while at < end:
        pair = np.int64(events.val[at]) + np.int64(events.val[at + 1])
        if total + pair > room:
            break
        total, at = total + pair, at + 2
    return (at - start) // 2, total


@inner()
def _strip_sum(events: Events, segments: np.ndarray, strip_sums: np.ndarray, s: int) -> Any:
    """Sum of the values of a strip, as :func:`_pairs_that_fit` counts them."""
    if strip_sums[s] != _UNKNOWN and events.largest > 1:
        return np.int64(strip_sums[s])
    return _pairs_that_fit(events, np.int64(segments[s, 0]), np.int64(segments[s, 1]), np.int64(_INT32))[1]


@inner()
def _most_pieces(
    events: Events, rows: int, segments: np.ndarray, strip_sums: np.ndarray, sums: np.ndarray, strips: int
) -> Any:
    """An upper bound on the segments :func:`checked_segments` writes; fills ``strip_sums`` where they are needed."""
    pieces = np.int64(rows * strips)
    for row in range(rows):
        if sums[row] <= events.limit:
            continue
        for s in range(row * strips, (row + 1) * strips):
            # A cut leaves room for less than a pair, and takes at least one.
            strip_sums[s] = _strip_sum(events, segments, strip_sums, s)
            pieces += min(np.int64(strip_sums[s]) // (events.stride - 2 * events.largest + 1), np.int64(segments[s, 1]))
    return pieces


@inner(allocates=True)
def checked_segments(
    events: Events, rows: int, segments: np.ndarray, strip_sums: np.ndarray, sums: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """Segments that say where the sums of long rows must be looked at, since the next one may pass 16 bits.

    A row's first segments have room up to the limit, each later one is cut to the stride. Fills ``starts`` (see
    :class:`qkf_deploy.simulators.event.kernels.arguments.Block`), and ``strip_sums`` of long rows.
    """
    strips, stride = (starts.shape[0] - 1) // rows, np.int64(events.stride)
    least = min(_INT16 + 1 - events.magnitude * stride, _INT16)
    out = scratch((_most_pieces(events, rows, segments, strip_sums, sums, strips), 4), np.int32)
    n = 0
    for row in range(rows):
        room, long = np.int64(events.limit), sums[row] > events.limit
        for s in range(row * strips, (row + 1) * strips):
            starts[s] = n
            for i in range(4):
                out[n, i] = segments[s, i]
            n += 1
            if not long:
                continue
            total = np.int64(strip_sums[s])
            if total > room and room < stride:
                out[n - 1, 3], room = least, stride
            start, pairs = np.int64(segments[s, 0]), np.int64(segments[s, 1])
            while total > room:
                taken, value = _pairs_that_fit(events, start, pairs, room)
                out[n - 1, 1] = taken
                start, pairs, total, room = start + 2 * taken, pairs - taken, total - value, stride
                out[n, 0], out[n, 1], out[n, 2], out[n, 3] = start, pairs, segments[s, 2], least
                n += 1
            room -= total
    starts[rows * strips] = n
    return out


@inner()
def all_fits(events: Events, steps: int, neurons: Neurons, fused: bool, rows: int, sums: np.ndarray) -> Any:
    """True if bounds on the sums and, if fused, charges of each pixel, step by step, fit 16 bits."""
    bound, shift = np.int64(0), neurons.form[SHIFT]
    for r in range(rows):
        # States are shifted towards minus infinity.
        state = (bound + (1 << shift) - 1) >> shift if fused and r % steps else np.int64(0)
        bound = state + events.magnitude * np.int64(sums[r]) + events.offset
        if bound > _INT16:
            return False
    return True
