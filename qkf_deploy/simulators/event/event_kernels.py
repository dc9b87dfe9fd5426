"""Synapses driven by events: gather weight rows of active inputs, then fire or hand out the drive."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qkf_deploy.simulators.event.fire import fire
from qkf_deploy.simulators.event.gather import gather, gather_fire
from qkf_deploy.simulators.event.vector_ir import BORROW

#: Rows (pixels x time steps) whose segments are prepared together; their tiles then reuse the same weights.
BLOCK_ROWS = 64


_tile_kernel = njit(cache=True, **BORROW)


class Shape(NamedTuple):
    """Sizes of a layer: input lines, columns and channels; K_w; T; tile width / 32."""

    height: int
    width: int
    channels: int
    kernel: int
    steps: int
    units: int


class Events(NamedTuple):
    """The input's event list (:class:`qkf_deploy.simulators.event.event_lists.EventList`).

    ``by_line`` is its order; ``limit`` the largest sum of values whose weighted sum surely fits 16 bits.
    """

    ptr: np.ndarray
    idx: np.ndarray
    val: np.ndarray
    largest: int
    by_line: bool
    limit: int


class Neurons(NamedTuple):
    """Bias and neuron of a layer.

    ``bias`` s32 ``(cases, columns)``; ``case`` int64 ``(pixels,)``, or ``(1,)`` if there is one case; ``theta`` s32
    ``(columns,)``; ``form`` as in :mod:`qkf_deploy.simulators.event.fire`; ``bias16`` and ``theta16`` the same in
    16 bits where the layer provably fits them, else empty. Columns are padded channels.
    """

    bias: np.ndarray
    case: np.ndarray
    theta: np.ndarray
    form: np.ndarray
    bias16: np.ndarray
    theta16: np.ndarray


@_tile_kernel
def _bias_at(neurons: Neurons, p: int, c0: int) -> int:
    """Where the bias of a pixel and tile begins in the flat bias."""
    return (neurons.case[p] if neurons.case.shape[0] > 1 else 0) * neurons.bias.shape[1] + c0


@_tile_kernel
def _line_segment(
    events: Events, shape: Shape, line: int, ky: int, first_column: int, t: int, segments: np.ndarray, at: int
) -> int:
    """Write the segment of one line of a window at one step; returns its number of events."""
    low, high = max(first_column, 0), min(first_column + shape.kernel, shape.width)
    segments[at, 1] = 0
    if low >= high or line < 0 or line >= shape.height:
        return 0
    if events.by_line:
        row = (line * shape.steps + t) * shape.width
        start, end, weights = events.ptr[row + low], events.ptr[row + high], ky * shape.kernel - first_column
    else:
        row = (line * shape.width + low) * shape.steps + t
        start, end, weights = events.ptr[row], events.ptr[row + 1], ky * shape.kernel
    segments[at, 0], segments[at, 1] = start, (end - start) // 2
    segments[at, 2] = weights * shape.channels * 32 * shape.units
    return end - start


@_tile_kernel
def _block_segments(
    events: Events, shape: Shape, ypos: np.ndarray, first_columns: np.ndarray, b0: int, b1: int, segments: np.ndarray
) -> Any:
    """Segments of the pixels ``b0 .. b1``, ``(row * lines + line)``; returns the number of events."""
    gathered, at = np.int64(0), 0
    for p in range(b0, b1):
        oy, first_column = p // first_columns.shape[0], int(first_columns[p % first_columns.shape[0]])
        for t in range(shape.steps):
            for ky in range(ypos.shape[1]):
                gathered += _line_segment(events, shape, ypos[oy, ky], ky, first_column, t, segments, at)
                at += 1
    return gathered


@_tile_kernel
def _gather_in_parts(
    isa: np.generic, events: Events, units: int, w: np.ndarray, segments: np.ndarray, s: int, part: np.ndarray,
    base: np.ndarray, base0: int, x: np.ndarray, x0: int,
) -> None:  # fmt: skip
    """Gather one segment in parts whose values sum to at most the limit; ``part`` is scratch, int64 ``(1, 3)``."""
    start, stop = segments[s, 0], segments[s, 0] + 2 * segments[s, 1]
    part[0, 2] = segments[s, 2]
    total = np.int64(0)
    for e in range(start, stop + 2, 2):
        pair = np.int64(0) if e == stop else np.int64(events.val[e]) + np.int64(events.val[e + 1])
        if e == stop or total + pair > events.limit:
            part[0, 0], part[0, 1] = start, (e - start) // 2
            gather(isa, units, w, events.idx, events.val, part, 0, 1, base, base0, x, x0)
            base, base0 = x, x0
            start, total = e, np.int64(0)
        total += pair


@_tile_kernel
def _narrow_tile(
    isa: np.generic, events: Events, shape: Shape, neurons: Neurons, w: np.ndarray, tile: int, segments: np.ndarray,
    lines: int, b0: int, b1: int, bias: np.ndarray, m16: np.ndarray, spikes: np.ndarray,
) -> Any:  # fmt: skip
    """Gather and fire one tile of a block in 16 bits (``bias`` flat); returns the non-zero drives."""
    c0 = tile * 32 * shape.units
    driven = np.int64(0)
    for p in range(b0, b1):
        from_bias = _bias_at(neurons, p, c0)
        m16[:] = 0
        for t in range(shape.steps):
            s = ((p - b0) * shape.steps + t) * lines
            driven += gather_fire(
                isa, shape.units, w, events.idx, events.val, segments, s, lines, bias, from_bias, m16, neurons.theta16,
                c0, neurons.form, spikes, p * shape.steps + t, tile * shape.units,
            )  # fmt: skip
    return driven


@_tile_kernel
def _wide_tile(
    isa: np.generic, events: Events, shape: Shape, neurons: Neurons, w: np.ndarray, tile: int, segments: np.ndarray,
    lines: int, b0: int, b1: int, bias: np.ndarray, part: np.ndarray, out: np.ndarray, out0: int, out_columns: int,
) -> None:  # fmt: skip
    """Drives of one tile of a block, row r of the block at ``out[out0 + r * out_columns:]``.

    One line of the window at a time: its weights then stay in the first cache over all rows of the block. ``bias`` is
    flat; ``part`` is scratch, int64 ``(1, 3)``.
    """
    for ky in range(lines):
        for p in range(b0, b1):
            from_bias = _bias_at(neurons, p, tile * 32 * shape.units)
            for t in range(shape.steps):
                local = (p - b0) * shape.steps + t
                s, at = local * lines + ky, out0 + local * out_columns
                base, base0 = (bias, from_bias) if ky == 0 else (out, at)
                if 2 * segments[s, 1] * events.largest <= events.limit:
                    gather(isa, shape.units, w, events.idx, events.val, segments, s, 1, base, base0, out, at)
                else:
                    _gather_in_parts(isa, events, shape.units, w, segments, s, part, base, base0, out, at)


@_tile_kernel
def _fire_tile(
    isa: np.generic, shape: Shape, neurons: Neurons, tile: int, b0: int, b1: int, x: np.ndarray, m: np.ndarray,
    spikes: np.ndarray,
) -> Any:  # fmt: skip
    """Fire one tile of a block from its drives; returns the non-zero ones."""
    columns = 32 * shape.units
    driven = np.int64(0)
    for p in range(b0, b1):
        m[:] = 0
        for t in range(shape.steps):
            at, row = ((p - b0) * shape.steps + t) * columns, p * shape.steps + t
            driven += fire(
                isa,
                x,
                at,
                m,
                0,
                neurons.theta,
                tile * columns,
                neurons.form,
                shape.units,
                spikes,
                row,
                tile * shape.units,
            )
    return driven


@njit(nogil=True, cache=True)
def event_synapse(
    isa: np.generic, events: Events, shape: Shape, neurons: Neurons, ypos: np.ndarray, first_columns: np.ndarray,
    weights: np.ndarray, spikes: np.ndarray, drive: np.ndarray, p0: int, p1: int,
) -> Any:  # fmt: skip
    """Output pixels ``p0 .. p1`` of a convolution without dilation along x (a linear layer on tokens is a 1 x 1 one).

    Args:
        isa: instruction set tag.
        events: the input; by line if the window is wider than one column.
        shape: sizes.
        neurons: bias and neuron.
        ypos: int64 ``(H_out, K_h)``: input line read by each tap, outside where padded.
        first_columns: int64 ``(W_out,)``: leftmost column of each window, negative where padded.
        weights: s8 ``(tiles, K_h * K_w * channels * 32 * units)`` in storage order.
        spikes: u32 ``(rows, tiles * units)``, written if ``drive`` is empty.
        drive: s32 ``(rows, tiles * 32 * units)``, written if not empty.

    Returns:
        (non-zero drives met by the neurons, events gathered).
    """
    steps, tile, lines = shape.steps, 32 * shape.units, ypos.shape[1]
    block = max(1, BLOCK_ROWS // steps)
    segments = np.zeros((block * steps * lines, 3), np.int64)
    x, m, m16 = np.empty(block * steps * tile, np.int32), np.empty(tile, np.int32), np.empty(tile, np.int16)
    drive_flat, bias, bias16 = drive.reshape(-1), neurons.bias.reshape(-1), neurons.bias16.reshape(-1)
    part = np.empty((1, 3), np.int64)
    driven, gathered = np.int64(0), np.int64(0)
    for b0 in range(p0, p1, block):
        b1 = min(p1, b0 + block)
        gathered += _block_segments(events, shape, ypos, first_columns, b0, b1, segments)
        for k in range(weights.shape[0]):
            w = weights[k]
            if neurons.theta16.shape[0] > 0:
                driven += _narrow_tile(isa, events, shape, neurons, w, k, segments, lines, b0, b1, bias16, m16, spikes)
            elif drive.shape[0] > 0:
                at = b0 * steps * drive.shape[1] + k * tile
                _wide_tile(
                    isa,
                    events,
                    shape,
                    neurons,
                    w,
                    k,
                    segments,
                    lines,
                    b0,
                    b1,
                    bias,
                    part,
                    drive_flat,
                    at,
                    drive.shape[1],
                )
            else:
                _wide_tile(isa, events, shape, neurons, w, k, segments, lines, b0, b1, bias, part, x, 0, tile)
                driven += _fire_tile(isa, shape, neurons, k, b0, b1, x, m, spikes)
    return driven, gathered
