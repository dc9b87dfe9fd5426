"""Synapses driven by events: gather weight rows of active inputs, then fire or hand out the drive."""

from __future__ import annotations

import numpy as np
from numba import njit

from qkf_deploy.simulators.event.fire import fire
from qkf_deploy.simulators.event.gather import gather

#: Rows (pixels x time steps) whose lists are prepared together; their tiles then reuse the same weights.
BLOCK_ROWS = 64


@njit(nogil=True, cache=True)
def _grow(a: np.ndarray, used: int, needed: int) -> np.ndarray:
    bigger = np.empty(2 * needed, a.dtype)
    bigger[:used] = a[:used]
    return bigger


@njit(nogil=True, cache=True)
def _split(val: np.ndarray, start: int, end: int, limit: int, largest: int, parts: np.ndarray, at: int) -> int:
    """Cut the events ``start .. end`` into parts whose values sum to at most ``limit``; returns the new part count.

    ``parts`` rows are (start, pairs).
    """
    if (end - start) * largest <= limit:
        parts[at, 0], parts[at, 1] = start, (end - start) // 2
        return at + 1
    total = 0
    first = start
    for e in range(start, end, 2):
        pair = np.int64(val[e]) + np.int64(val[e + 1])
        if total + pair > limit:
            parts[at, 0], parts[at, 1] = first, (e - first) // 2
            at += 1
            first, total = e, 0
        total += pair
    parts[at, 0], parts[at, 1] = first, (end - first) // 2
    return at + 1


@njit(nogil=True, cache=True)
def event_synapse(
    isa: np.generic,
    ptr: np.ndarray,
    idx: np.ndarray,
    val: np.ndarray,
    largest: int,
    limit: int,
    ypos: np.ndarray,
    xpos: np.ndarray,
    width_in: int,
    height_in: int,
    channels: int,
    steps: int,
    units: int,
    weights: np.ndarray,
    bias: np.ndarray,
    case: np.ndarray,
    theta: np.ndarray,
    form: np.ndarray,
    spikes: np.ndarray,
    drive: np.ndarray,
    p0: int,
    p1: int,
) -> tuple[int, int]:
    """Output pixels ``p0 .. p1`` of a convolution (a linear layer on tokens is a 1 x 1 convolution).

    Args:
        isa: instruction set tag.
        ptr, idx, val, largest: event list of the input, rows ``pixel * T + t``.
        limit: largest sum of values whose weighted sum surely fits 16 bits.
        ypos, xpos: int64 ``(H_out, K_h)``, ``(W_out, K_w)``: input line and column read by each tap, outside where padded.
        width_in, height_in, channels: input size.
        steps: T.
        units: tile width / 32.
        weights: s8 ``(tiles, K_h * K_w * channels * 32 * units)`` in storage order.
        bias: s32 ``(cases, tiles * 32 * units)``; case: int64 ``(H_out * W_out,)`` or ``(1,)`` if there is one case.
        theta: s32 ``(tiles * 32 * units,)``; form: see :mod:`qkf_deploy.simulators.event.fire`.
        spikes: u32 ``(rows, tiles * units)``, written if ``drive`` is empty.
        drive: s32 ``(rows, tiles * 32 * units)``, written if not empty.

    Returns:
        (non-zero drives met by the neurons, events gathered).
    """
    width_out = xpos.shape[0]
    taps_y, taps_x = ypos.shape[1], xpos.shape[1]
    single = taps_y * taps_x == 1
    tile = 32 * units
    fused = drive.shape[0] == 0
    block = max(1, BLOCK_ROWS // steps)
    list_idx, list_val = np.empty(0 if single else 4096, np.uint16), np.empty(0 if single else 4096, np.uint8)
    parts = np.empty((256, 2), np.int64)
    first_part = np.empty(block * steps + 1, np.int64)
    x, m = np.empty(tile, np.int32), np.empty(tile, np.int32)
    drive_flat = drive.reshape(-1)
    bias_flat = bias.reshape(-1)
    driven, gathered = np.int64(0), np.int64(0)
    for b0 in range(p0, p1, block):
        b1 = min(p1, b0 + block)
        used, n_parts = np.int64(0), np.int64(0)
        for p in range(b0, b1):
            oy, ox = p // width_out, p % width_out
            for t in range(steps):
                first_part[(p - b0) * steps + t] = n_parts
                start = used
                if single:
                    iy, ix = ypos[oy, 0], xpos[ox, 0]
                    inside = 0 <= iy < height_in and 0 <= ix < width_in
                    row = (iy * width_in + ix) * steps + t
                    start, used = (ptr[row], ptr[row + 1]) if inside else (np.int64(0), np.int64(0))
                else:
                    for ky in range(taps_y):
                        iy = ypos[oy, ky]
                        if iy < 0 or iy >= height_in:
                            continue
                        for kx in range(taps_x):
                            ix = xpos[ox, kx]
                            if ix < 0 or ix >= width_in:
                                continue
                            row = (iy * width_in + ix) * steps + t
                            e0, e1 = ptr[row], ptr[row + 1]
                            if used + e1 - e0 > list_idx.shape[0]:
                                list_idx = _grow(list_idx, used, used + e1 - e0)
                                list_val = _grow(list_val, used, used + e1 - e0)
                            offset = np.uint16((ky * taps_x + kx) * channels)
                            for e in range(e1 - e0):
                                list_idx[used + e] = idx[e0 + e] + offset
                                list_val[used + e] = val[e0 + e]
                            used += e1 - e0
                if used > start:
                    if n_parts + (used - start) // 2 + 1 > parts.shape[0]:
                        bigger = np.empty((2 * (n_parts + used - start), 2), np.int64)
                        bigger[:n_parts] = parts[:n_parts]
                        parts = bigger
                    n_parts = _split(val if single else list_val, start, used, limit, largest, parts, n_parts)
                    gathered += used - start
        first_part[(b1 - b0) * steps] = n_parts
        source_idx, source_val = (idx, val) if single else (list_idx, list_val)
        for tile_index in range(weights.shape[0]):
            w, c0 = weights[tile_index], tile_index * tile
            for p in range(b0, b1):
                from_bias = (case[p] if case.shape[0] > 1 else 0) * bias.shape[1] + c0
                m[:] = 0
                for t in range(steps):
                    row = p * steps + t
                    if fused:
                        for c in range(tile):
                            x[c] = bias_flat[from_bias + c]
                    else:
                        for c in range(tile):
                            drive_flat[row * drive.shape[1] + c0 + c] = bias_flat[from_bias + c]
                    local = (p - b0) * steps + t
                    for part in range(first_part[local], first_part[local + 1]):
                        begin, pairs = parts[part, 0], parts[part, 1]
                        if fused:
                            gather(isa, units, w, 0, source_idx, source_val, begin, pairs, x, 0)
                        else:
                            gather(isa, units, w, 0, source_idx, source_val, begin, pairs, drive_flat, row * drive.shape[1] + c0)
                    if fused:
                        driven += fire(isa, x, 0, m, 0, theta, c0, form, units, spikes, row, tile_index * units)
    return driven, gathered
