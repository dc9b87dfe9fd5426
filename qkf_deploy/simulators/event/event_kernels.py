"""Synapses driven by events: gather weight rows of active inputs, then fire or hand out the drive."""

from __future__ import annotations

import numpy as np
from numba import njit

from qkf_deploy.simulators.event.fire import fire
from qkf_deploy.simulators.event.gather import gather, gather_fire

#: Rows (pixels x time steps) whose segments are prepared together; their tiles then reuse the same weights.
BLOCK_ROWS = 64


@njit(nogil=True, cache=True)
def _grow(a: np.ndarray, used: int) -> np.ndarray:
    bigger = np.empty((2 * a.shape[0] + 64, a.shape[1]), np.int64)
    bigger[:used] = a[:used]
    return bigger


@njit(nogil=True, cache=True)
def _window_segments(
    ptr: np.ndarray, by_line: bool, lines: np.ndarray, first_column: int, kernel: int, height: int, width: int, channels: int,
    steps: int, t: int, tile: int, segments: np.ndarray, at: int,
) -> int:  # fmt: skip
    """Append the segments of one output pixel and step: one per line of the window. Returns their new number."""
    low, high = max(first_column, 0), min(first_column + kernel, width)
    if low >= high:
        return at
    for ky in range(lines.shape[0]):
        line = lines[ky]
        if line < 0 or line >= height:
            continue
        if by_line:
            row = (line * steps + t) * width
            start, end, weights = ptr[row + low], ptr[row + high], (ky * kernel - first_column) * channels
        else:
            row = (line * width + low) * steps + t
            start, end, weights = ptr[row], ptr[row + 1], ky * kernel * channels
        if start < end:
            segments[at, 0], segments[at, 1], segments[at, 2] = start, (end - start) // 2, weights * tile
            at += 1
    return at


@njit(nogil=True, cache=True)
def _split_segments(
    val: np.ndarray, limit: int, segments: np.ndarray, first: int, end: int, groups: np.ndarray, at: int
) -> tuple[np.ndarray, int, np.ndarray, int]:
    """Cut segments so that the values of each group sum to at most ``limit``; every piece becomes a group.

    Returns ``(segments, their new number, groups, their new number)``; the pieces follow the uncut segments.
    """
    used = end
    for s in range(first, end):
        start, stop, weights = segments[s, 0], segments[s, 0] + 2 * segments[s, 1], segments[s, 2]
        total = np.int64(0)
        for e in range(start, stop + 2, 2):
            pair = np.int64(0) if e == stop else np.int64(val[e]) + np.int64(val[e + 1])
            if e == stop or total + pair > limit:
                if used == segments.shape[0]:
                    segments = _grow(segments, used)
                if at == groups.shape[0]:
                    groups = _grow(groups, at)
                segments[used, 0], segments[used, 1], segments[used, 2] = start, (e - start) // 2, weights
                groups[at, 0], groups[at, 1] = used, 1
                used, at = used + 1, at + 1
                start, total = e, np.int64(0)
            total += pair
    return segments, used, groups, at


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
    width_out, tile = first_columns.shape[0], 32 * units
    fused, narrow = drive.shape[0] == 0, theta16.shape[0] > 0
    block = max(1, BLOCK_ROWS // steps)
    segments = np.empty((block * steps * ypos.shape[1] + 64, 3), np.int64)
    groups = np.empty((block * steps + 64, 2), np.int64)
    first_group = np.empty(block * steps + 1, np.int64)
    x, m, m16 = np.empty(tile, np.int32), np.empty(tile, np.int32), np.empty(tile, np.int16)
    drive_flat, bias_flat, bias16_flat = drive.reshape(-1), bias.reshape(-1), bias16.reshape(-1)
    driven, gathered = np.int64(0), np.int64(0)
    for b0 in range(p0, p1, block):
        b1 = min(p1, b0 + block)
        used, n_groups = np.int64(0), np.int64(0)
        for p in range(b0, b1):
            lines, first_column = ypos[p // width_out], first_columns[p % width_out]
            for t in range(steps):
                first_group[(p - b0) * steps + t] = n_groups
                if used + ypos.shape[1] > segments.shape[0]:
                    segments = _grow(segments, used)
                end = _window_segments(
                    ptr, by_line, lines, first_column, kernel, height, width, channels, steps, t, tile, segments, used
                )
                events = np.int64(0)
                for s in range(used, end):
                    events += 2 * segments[s, 1]
                gathered += events
                if narrow or events * largest <= limit:
                    if n_groups == groups.shape[0]:
                        groups = _grow(groups, n_groups)
                    groups[n_groups, 0], groups[n_groups, 1] = used, end - used
                    n_groups, used = n_groups + 1, end
                else:
                    segments, used, groups, n_groups = _split_segments(val, limit, segments, used, end, groups, n_groups)
        first_group[(b1 - b0) * steps] = n_groups
        for tile_index in range(weights.shape[0]):
            w, c0 = weights[tile_index], tile_index * tile
            for p in range(b0, b1):
                from_bias = (case[p] if case.shape[0] > 1 else 0) * bias.shape[1] + c0
                m[:] = 0
                m16[:] = 0
                for t in range(steps):
                    row, local = p * steps + t, (p - b0) * steps + t
                    g0, g1 = first_group[local], first_group[local + 1]
                    if narrow:
                        driven += gather_fire(
                            isa, units, w, idx, val, segments, groups[g0, 0], groups[g0, 1], bias16_flat, from_bias, m16,
                            theta16, c0, form, spikes, row, tile_index * units,
                        )  # fmt: skip
                        continue
                    target, at = (x, 0) if fused else (drive_flat, row * drive.shape[1] + c0)
                    gather(
                        isa, units, w, idx, val, segments, groups[g0, 0], groups[g0, 1], bias_flat, from_bias, target, at
                    )
                    for g in range(g0 + 1, g1):
                        gather(isa, units, w, idx, val, segments, groups[g, 0], groups[g, 1], target, at, target, at)
                    if fused:
                        driven += fire(isa, x, 0, m, 0, theta, c0, form, units, spikes, row, tile_index * units)
    return driven, gathered
