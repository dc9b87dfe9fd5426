"""Synapses driven by events: gather weight rows of active inputs, then fire or hand out the drive."""

from __future__ import annotations

import numpy as np
from numba import njit

from qkf_deploy.simulators.event.fire import fire
from qkf_deploy.simulators.event.gather import gather, gather_fire

#: Rows (pixels x time steps) whose segments are prepared together; their tiles then reuse the same weights.
BLOCK_ROWS = 64


@njit(nogil=True, cache=True)
def _line_segment(
    ptr: np.ndarray, by_line: bool, line: int, ky: int, first_column: int, kernel: int, height: int, width: int, channels: int,
    steps: int, t: int, tile: int, segments: np.ndarray, at: int,
) -> int:  # fmt: skip
    """Write the segment of one line of a window at one step; returns its number of events."""
    low, high = max(first_column, 0), min(first_column + kernel, width)
    segments[at, 1] = 0
    if low >= high or line < 0 or line >= height:
        return 0
    if by_line:
        row = (line * steps + t) * width
        start, end, weights = ptr[row + low], ptr[row + high], (ky * kernel - first_column) * channels
    else:
        row = (line * width + low) * steps + t
        start, end, weights = ptr[row], ptr[row + 1], ky * kernel * channels
    segments[at, 0], segments[at, 1], segments[at, 2] = start, (end - start) // 2, weights * tile
    return end - start


@njit(nogil=True, cache=True)
def _gather_in_parts(
    isa: np.generic, units: int, w: np.ndarray, idx: np.ndarray, val: np.ndarray, limit: int, segments: np.ndarray, s: int,
    part: np.ndarray, base: np.ndarray, base0: int, x: np.ndarray, x0: int,
) -> None:  # fmt: skip
    """Gather one segment in parts whose values sum to at most ``limit``; ``part`` is scratch, int64 ``(1, 3)``."""
    start, stop = segments[s, 0], segments[s, 0] + 2 * segments[s, 1]
    part[0, 2] = segments[s, 2]
    total = np.int64(0)
    for e in range(start, stop + 2, 2):
        pair = np.int64(0) if e == stop else np.int64(val[e]) + np.int64(val[e + 1])
        if e == stop or total + pair > limit:
            part[0, 0], part[0, 1] = start, (e - start) // 2
            gather(isa, units, w, idx, val, part, 0, 1, base, base0, x, x0)
            base, base0 = x, x0
            start, total = e, np.int64(0)
        total += pair


@njit(nogil=True, cache=True)
def event_synapse(
    isa: np.generic, ptr: np.ndarray, idx: np.ndarray, val: np.ndarray, largest: int, limit: int, by_line: bool,
    ypos: np.ndarray, first_columns: np.ndarray, kernel: int, height: int, width: int, channels: int, steps: int, units: int,
    weights: np.ndarray, bias: np.ndarray, case: np.ndarray, theta: np.ndarray, form: np.ndarray, bias16: np.ndarray,
    theta16: np.ndarray, spikes: np.ndarray, drive: np.ndarray, p0: int, p1: int,
) -> tuple[int, int]:  # fmt: skip
    """Output pixels ``p0 .. p1`` of a convolution without dilation along x (a linear layer on tokens is a 1 x 1 one).

    Args:
        isa: instruction set tag.
        ptr, idx, val, largest: event list of the input, by line if the window is wider than one column.
        limit: largest sum of values whose weighted sum surely fits 16 bits.
        by_line: order of the list, see :class:`qkf_deploy.simulators.event.event_lists.EventList`.
        ypos: int64 ``(H_out, K_h)``: input line read by each tap, outside where padded.
        first_columns: int64 ``(W_out,)``: leftmost column of each window, negative where padded.
        kernel: K_w; height, width, channels: input size.
        steps: T.
        units: tile width / 32.
        weights: s8 ``(tiles, K_h * K_w * channels * 32 * units)`` in storage order.
        bias: s32 ``(cases, tiles * 32 * units)``; case: int64 ``(H_out * W_out,)`` or ``(1,)`` if there is one case.
        theta: s32 ``(tiles * 32 * units,)``; form: see :mod:`qkf_deploy.simulators.event.fire`.
        bias16, theta16: the same in 16 bits if the layer provably fits them, else empty.
        spikes: u32 ``(rows, tiles * units)``, written if ``drive`` is empty.
        drive: s32 ``(rows, tiles * 32 * units)``, written if not empty.

    Returns:
        (non-zero drives met by the neurons, events gathered).
    """
    width_out, tile, lines = first_columns.shape[0], 32 * units, ypos.shape[1]
    fused, narrow = drive.shape[0] == 0, theta16.shape[0] > 0
    block = max(1, BLOCK_ROWS // steps)
    segments = np.zeros((block * steps * lines, 3), np.int64)
    part = np.empty((1, 3), np.int64)
    x = np.empty(block * steps * tile, np.int32)
    m, m16 = np.empty(tile, np.int32), np.empty(tile, np.int16)
    drive_flat, bias_flat, bias16_flat = drive.reshape(-1), bias.reshape(-1), bias16.reshape(-1)
    driven, gathered = np.int64(0), np.int64(0)
    for b0 in range(p0, p1, block):
        b1 = min(p1, b0 + block)
        for p in range(b0, b1):
            oy, first_column = p // width_out, first_columns[p % width_out]
            for t in range(steps):
                for ky in range(lines):
                    gathered += _line_segment(
                        ptr, by_line, ypos[oy, ky], ky, first_column, kernel, height, width, channels, steps, t, tile, segments,
                        ((p - b0) * steps + t) * lines + ky,
                    )  # fmt: skip
        for tile_index in range(weights.shape[0]):
            w, c0 = weights[tile_index], tile_index * tile
            if narrow:
                for p in range(b0, b1):
                    from_bias = (case[p] if case.shape[0] > 1 else 0) * bias.shape[1] + c0
                    m16[:] = 0
                    for t in range(steps):
                        driven += gather_fire(
                            isa, units, w, idx, val, segments, ((p - b0) * steps + t) * lines, lines, bias16_flat, from_bias,
                            m16, theta16, c0, form, spikes, p * steps + t, tile_index * units,
                        )  # fmt: skip
                continue
            # One line of the window at a time: its weights then stay in the first cache over all rows of the block.
            for ky in range(lines):
                for p in range(b0, b1):
                    from_bias = (case[p] if case.shape[0] > 1 else 0) * bias.shape[1] + c0
                    for t in range(steps):
                        local = (p - b0) * steps + t
                        s = local * lines + ky
                        target, at = (x, local * tile) if fused else (drive_flat, (p * steps + t) * drive.shape[1] + c0)
                        base, base_at = (bias_flat, from_bias) if ky == 0 else (target, at)
                        if 2 * segments[s, 1] * largest <= limit:
                            gather(isa, units, w, idx, val, segments, s, 1, base, base_at, target, at)
                        else:
                            _gather_in_parts(isa, units, w, idx, val, limit, segments, s, part, base, base_at, target, at)
            if fused:
                for p in range(b0, b1):
                    m[:] = 0
                    for t in range(steps):
                        local, row = (p - b0) * steps + t, p * steps + t
                        driven += fire(isa, x, local * tile, m, 0, theta, c0, form, units, spikes, row, tile_index * units)
    return driven, gathered
