"""Synapses driven by events: gather weight rows of active inputs, then fire or hand out the drive."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.extending import overload

from qkf_deploy.simulators.event import vector_ir as v
from qkf_deploy.simulators.event.fire import fire, fire32
from qkf_deploy.simulators.event.gather import SEGMENT_BYTES, fire_row, fire_row_wide, store_row, widen_row

#: Rows (pixels x time steps) whose segments are prepared together; their tiles then reuse the same weights.
BLOCK_ROWS = 256


_tile_kernel = njit(cache=True, **v.BORROW)


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

    ``by_line`` is its order. Weighted sums fit 16 bits for inputs that sum to at most ``limit``, and so for ``chunk``
    events, an even number; ``whole``: for all events of any output row.
    """

    ptr: np.ndarray
    sums: np.ndarray
    idx: np.ndarray
    val: np.ndarray
    by_line: bool
    limit: int
    chunk: int
    whole: bool


class Neurons(NamedTuple):
    """Bias and neuron of a layer.

    ``bias`` s32 ``(cases, columns)``; ``case`` int64 ``(pixels,)``, or ``(1,)`` if there is one case; ``theta`` s32
    ``(columns,)``; ``form`` as in :mod:`qkf_deploy.simulators.event.fire`; ``bias16`` and ``theta16`` the same in
    16 bits: ``bias16`` if the drives of this image provably fit, ``theta16`` if the membranes do too, else empty.
    Columns are padded channels.
    """

    bias: np.ndarray
    case: np.ndarray
    theta: np.ndarray
    form: np.ndarray
    bias16: np.ndarray
    theta16: np.ndarray


class Outputs(NamedTuple):
    """What a layer writes, from output pixel ``origin`` on; only one of the arrays has rows.

    ``spikes`` u32 ``(rows, columns / 32)``; ``drive16`` s16 and ``drive`` s32 ``(rows, columns)``.
    """

    origin: int
    spikes: np.ndarray
    drive16: np.ndarray
    drive: np.ndarray


class Block(NamedTuple):
    """Output pixels ``first .. end``, their segments s32 ``(row * lines + line, 4)`` and scratch for one tile.

    ``m16`` s16, ``m`` and ``x`` s32, each ``(32 * units,)``; ``part`` s32 ``(1, 4)``.
    """

    first: int
    end: int
    lines: int
    segments: np.ndarray
    part: np.ndarray
    m16: np.ndarray
    m: np.ndarray
    x: np.ndarray


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
    segments[at, 1] = segments[at, 3] = 0
    if low >= high or line < 0 or line >= shape.height:
        return 0
    if events.by_line:
        row = (line * shape.steps + t) * shape.width
        first, last, weights = row + low, row + high, ky * shape.kernel - first_column
    else:
        first = (line * shape.width + low) * shape.steps + t
        last, weights = first + 1, ky * shape.kernel
    start, end = events.ptr[first], events.ptr[last]
    segments[at, 0], segments[at, 1] = start, (end - start) // 2
    segments[at, 2], segments[at, 3] = weights * shape.channels, events.sums[last] - events.sums[first]
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
def _sum_of(segments: np.ndarray, first: int, count: int) -> int:
    """Sum of the values in some segments."""
    total = 0
    for i in range(first, first + count):
        total += segments[i, 3]
    return total


def gather_tile(
    isa: Any, units: int, events: Events, shape: Shape, neurons: Neurons, w: np.ndarray, tile: int, block: Block,
    out: Outputs,
) -> int:  # fmt: skip
    """One tile of output channels for all rows of a block.

    Args:
        isa: instruction set tag.
        units: ``shape.units`` as a literal: vector code is written per tile width.
        w: s8, flat; the tile's weights.
        tile: its number.

    Returns:
        Non-zero drives met by neurons.
    """
    raise NotImplementedError("compiled code only")


@overload(gather_tile, strict=False, prefer_literal=True, jit_options=v.BORROW)
def _overload_gather_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, w: Any, tile: Any, block: Any, out: Any
) -> Any:
    if isa == v.PLAIN:
        return lambda isa, units, events, shape, neurons, w, tile, block, out: _plain_tile(
            isa, events, shape, neurons, w, tile, block, out
        )

    def vectorized(isa, units, events, shape, neurons, w, tile, block, out):  # type: ignore[no-untyped-def]
        if neurons.bias16.shape[0] == 0 or out.drive16.shape[0] + neurons.theta16.shape[0] == 0:
            return _wide_tile(isa, units, events, shape, neurons, w, tile, block, out)
        return _narrow_tile(isa, units, events, shape, neurons, w, tile, block, out)

    return vectorized


def _narrow_tile(
    isa: Any, units: int, events: Events, shape: Shape, neurons: Neurons, w: np.ndarray, tile: int, block: Block,
    out: Outputs,
) -> int:  # fmt: skip
    """:func:`gather_tile` where everything fits 16 bits: sums never leave registers."""
    raise NotImplementedError("compiled code only")


@overload(_narrow_tile, strict=False, prefer_literal=True, jit_options=v.BORROW)
def _overload_narrow_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, w: Any, tile: Any, block: Any, out: Any
) -> Any:
    def vectorized(isa, units, events, shape, neurons, w, tile, block, out):  # type: ignore[no-untyped-def]
        width, lines = 32 * units, block.lines
        wa, ia, va = v.address(w), v.address(events.idx), v.address(events.val)
        ba, fa, sa = v.address(neurons.bias16), v.address(neurons.form), v.address(block.segments)
        ma, m16 = v.address(block.m16), block.m16
        c0 = tile * width
        ta = v.address(neurons.theta16) + 2 * c0
        fused = out.spikes.shape[0] > 0
        spikes, spike_row = v.address(out.spikes) + 4 * tile * units, 4 * out.spikes.shape[1]
        drive, drive_row = v.address(out.drive16) + 2 * c0, 2 * out.drive16.shape[1]
        driven, row = np.int64(0), (block.first - out.origin) * shape.steps
        for p in range(block.first, block.end):
            bias = ba + 2 * _bias_at(neurons, p, c0)
            m16[:] = 0
            for _ in range(shape.steps):
                if fused:
                    at = spikes + row * spike_row
                    driven += fire_row(isa, units, wa, ia, va, sa, lines, bias, ma, ta, fa, at)
                else:
                    store_row(isa, units, wa, ia, va, sa, lines, bias, drive + row * drive_row)
                sa += SEGMENT_BYTES * lines
                row += 1
        return driven

    return vectorized


def _wide_tile(
    isa: Any, units: int, events: Events, shape: Shape, neurons: Neurons, w: np.ndarray, tile: int, block: Block,
    out: Outputs,
) -> int:  # fmt: skip
    """:func:`gather_tile` with 32-bit drives: 16-bit sums are widened before they could overflow."""
    raise NotImplementedError("compiled code only")


@overload(_wide_tile, strict=False, prefer_literal=True, jit_options=v.BORROW)
def _overload_wide_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, w: Any, tile: Any, block: Any, out: Any
) -> Any:
    def vectorized(isa, units, events, shape, neurons, w, tile, block, out):  # type: ignore[no-untyped-def]
        width, lines, segments, part = 32 * units, block.lines, block.segments, block.part
        wa, ia, va = v.address(w), v.address(events.idx), v.address(events.val)
        fa, sa, pa = v.address(neurons.form), v.address(segments), v.address(part)
        xa, ma, m = v.address(block.x), v.address(block.m), block.m
        c0 = tile * width
        ta = v.address(neurons.theta) + 4 * c0
        fused, plain = out.spikes.shape[0] > 0, neurons.form[0] == 1 and neurons.form[2] == 0
        driven, s, row = np.int64(0), 0, (block.first - out.origin) * shape.steps
        for p in range(block.first, block.end):
            bias = v.address(neurons.bias) + 4 * _bias_at(neurons, p, c0)
            m[:] = 0
            for _ in range(shape.steps):
                if not fused:
                    xa = v.address(out.drive) + 4 * (row * out.drive.shape[1] + c0)
                at = v.address(out.spikes) + 4 * (row * out.spikes.shape[1] + tile * units)
                from_s = sa + SEGMENT_BYTES * s
                whole = events.whole or _sum_of(segments, s, lines) <= events.limit
                if whole and fused and plain:
                    driven += fire_row_wide(isa, units, wa, ia, va, from_s, lines, bias, ma, ta, fa, at)
                else:
                    if whole:
                        widen_row(isa, units, wa, ia, va, from_s, lines, bias, xa)
                    else:
                        base = bias
                        for i in range(s, s + lines):
                            part[0, 2] = segments[i, 2]
                            start, left = segments[i, 0], 2 * segments[i, 1]
                            step = left if segments[i, 3] <= events.limit else events.chunk
                            while left > 0 or base == bias:
                                part[0, 0], part[0, 1] = start, min(left, step) // 2
                                widen_row(isa, units, wa, ia, va, pa, 1, base, xa)
                                base, start, left = xa, start + step, left - step
                    if fused:
                        for i in range(units):
                            o = 128 * i
                            driven += fire32(1, 0, xa + o, ma + o, ta + o, fa, at + 4 * i, 0)
                s += lines
                row += 1
        return driven

    return vectorized


@_tile_kernel
def _plain_tile(
    isa: np.generic, events: Events, shape: Shape, neurons: Neurons, w: np.ndarray, tile: int, block: Block,
    out: Outputs,
) -> Any:  # fmt: skip
    """:func:`gather_tile` in plain loops."""
    width = 32 * shape.units
    c0 = tile * width
    bias, x, m = neurons.bias.reshape(-1), block.x, block.m
    driven, s, row = np.int64(0), 0, (block.first - out.origin) * shape.steps
    for p in range(block.first, block.end):
        m[:] = 0
        from_bias = _bias_at(neurons, p, c0)
        for _ in range(shape.steps):
            for c in range(width):
                x[c] = bias[from_bias + c]
            for i in range(s, s + block.lines):
                start, weights = block.segments[i, 0], block.segments[i, 2]
                for e in range(start, start + 2 * block.segments[i, 1]):
                    value = np.int32(events.val[e])
                    at = (weights + np.int64(events.idx[e])) * width
                    for c in range(width):
                        x[c] += value * np.int32(w[at + c])
            s += block.lines
            if out.spikes.shape[0] > 0:
                driven += fire(
                    isa, x, 0, m, 0, neurons.theta, c0, neurons.form, shape.units, out.spikes, row, tile * shape.units
                )
            else:
                for c in range(width):
                    if out.drive.shape[0] > 0:
                        out.drive[row, c0 + c] = x[c]
                    else:
                        out.drive16[row, c0 + c] = x[c]
            row += 1
    return driven


@njit(nogil=True, cache=True)
def event_synapse(
    isa: np.generic, events: Events, shape: Shape, neurons: Neurons, ypos: np.ndarray, first_columns: np.ndarray,
    weights: np.ndarray, out: Outputs, p0: int, p1: int,
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
        out: what is written.

    Returns:
        (non-zero drives met by the neurons, events gathered).
    """
    steps, width, lines, units = shape.steps, 32 * shape.units, ypos.shape[1], shape.units
    pixels = max(1, BLOCK_ROWS // steps)
    segments, part = np.zeros((pixels * steps * lines, 4), np.int32), np.zeros((1, 4), np.int32)
    m16, m, x = np.empty(width, np.int16), np.empty(width, np.int32), np.empty(width, np.int32)
    driven, gathered = np.int64(0), np.int64(0)
    for b0 in range(p0, p1, pixels):
        b1 = min(p1, b0 + pixels)
        gathered += _block_segments(events, shape, ypos, first_columns, b0, b1, segments)
        block = Block(b0, b1, lines, segments, part, m16, m, x)
        for k in range(weights.shape[0]):
            w = weights[k]
            if units == 6:
                driven += gather_tile(isa, 6, events, shape, neurons, w, k, block, out)
            elif units == 3:
                driven += gather_tile(isa, 3, events, shape, neurons, w, k, block, out)
            elif units == 2:
                driven += gather_tile(isa, 2, events, shape, neurons, w, k, block, out)
            else:
                driven += gather_tile(isa, 1, events, shape, neurons, w, k, block, out)
    return driven, gathered
