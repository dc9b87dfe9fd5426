"""Synapses driven by events: gather weight rows of active inputs, then fire or hand out the drive."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from qkf_deploy.simulators.event import vector_ir as v
from qkf_deploy.simulators.event.compiling import kernel
from qkf_deploy.simulators.event.fire import fire, fire32
from qkf_deploy.simulators.event.gather import SEGMENT_BYTES, fire_row, fire_row_wide, store_row, widen_row

#: Rows (pixels x time steps) whose segments are prepared together; their tiles then reuse the same weights.
BLOCK_ROWS = 256


_tile_kernel = kernel(_nrt=False)


class Shape(NamedTuple):
    """Sizes of a layer: input lines, columns and channels; K_w; T; tile width / 32; parts of a line of a window.

    With several parts (or lines, if ``by_strip``), all rows of a block take one before any takes the next: its weights
    stay in the first cache. The events of a line are parted evenly.
    """

    height: int
    width: int
    channels: int
    kernel: int
    steps: int
    units: int
    parts: int
    by_strip: bool


class Events(NamedTuple):
    """The input's event list (:class:`qkf_deploy.simulators.event.event_lists.EventList`), and which sums fit.

    ``by_line`` is its order. Weighted sums fit 16 bits for inputs that sum to at most ``limit``, and so for ``chunk``
    events, an even number; ``whole``: for all events of any output row; ``narrow``: so does all that is computed.
    """

    ptr: np.ndarray
    sums: np.ndarray
    idx: np.ndarray
    val: np.ndarray
    largest: int
    by_line: bool
    limit: int
    chunk: int
    whole: bool
    narrow: bool


class Neurons(NamedTuple):
    """Bias and neuron of a layer.

    ``bias`` s32 ``(cases, columns)``; ``case`` int64 ``(pixels,)``, or ``(1,)`` if there is one case; ``theta`` s32
    ``(columns,)``; ``form`` as in :mod:`qkf_deploy.simulators.event.fire`; ``bias16`` and ``theta16`` the same in
    16 bits, cut to the nearest value, for where they provably fit. Columns are padded channels.
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
    """Output pixels ``first .. end``, their segments s32 ``(row * strips + strip, 4)`` and scratch for one tile.

    A strip is a line of the window, or a part of one. ``sums`` s32 ``(rows,)``: sum of the values of each row; ``m16``
    s16 and ``m`` s32 ``(32 * units,)``; ``x`` s32, the same for one row, or for all if by strip; ``part`` s32
    ``(1, 4)``.
    """

    first: int
    end: int
    strips: int
    segments: np.ndarray
    sums: np.ndarray
    part: np.ndarray
    m16: np.ndarray
    m: np.ndarray
    x: np.ndarray


@_tile_kernel
def bias_at(neurons: Neurons, p: int, c0: int) -> int:
    """Where the bias of a pixel and tile begins in the flat bias."""
    return (neurons.case[p] if neurons.case.shape[0] > 1 else 0) * neurons.bias.shape[1] + c0


@_tile_kernel
def _part_line(events: Events, shape: Shape, segments: np.ndarray, at: int) -> None:
    """Divide the segment at ``at`` evenly over ``shape.parts``; sums are exact, or upper bounds that are small."""
    start, pairs, weights, total = segments[at, 0], segments[at, 1], segments[at, 2], segments[at, 3]
    for part in range(shape.parts):
        first, last = pairs * part // shape.parts, pairs * (part + 1) // shape.parts
        if total > events.limit:
            if events.largest == 1:
                segments[at + part, 3] = 2 * (last - first)
            else:
                exact = np.int64(0)
                for e in range(start + 2 * first, start + 2 * last):
                    exact += events.val[e]
                segments[at + part, 3] = exact
        else:
            segments[at + part, 3] = total
        segments[at + part, 0], segments[at + part, 1] = start + 2 * first, last - first
        segments[at + part, 2] = weights


@_tile_kernel
def _block_segments(
    events: Events, shape: Shape, ypos: np.ndarray, first_columns: np.ndarray, b0: int, b1: int, segments: np.ndarray,
    sums: np.ndarray,
) -> Any:  # fmt: skip
    """Segments of the pixels ``b0 .. b1``, ``(row * strips + strip)``, and their sums; returns the number of events."""
    gathered, strips = np.int64(0), ypos.shape[1] * shape.parts
    sums[:] = 0
    # In the list, one step further is one row further, or a line of rows.
    step, column = (shape.width, 1) if events.by_line else (1, shape.steps)
    for p in range(b0, b1):
        oy, first = p // first_columns.shape[0], int(first_columns[p % first_columns.shape[0]])
        low, high = max(first, 0), min(first + shape.kernel, shape.width)
        for ky in range(ypos.shape[1]):
            line, local = ypos[oy, ky], (p - b0) * shape.steps
            at = local * strips + ky * shape.parts
            # By line, the list numbers channels along the line: the window's first column has number ``first``.
            weights = (ky * shape.kernel - (first if events.by_line else 0)) * shape.channels
            inside = low < high and line >= 0 and line < shape.height
            row = line * shape.width * shape.steps + low * column
            for _ in range(shape.steps):
                segments[at, 0] = segments[at, 1] = segments[at, 3] = 0
                if inside:
                    last = row + (high - low if events.by_line else 1)
                    start, end = events.ptr[row], events.ptr[last]
                    segments[at, 0], segments[at, 1], segments[at, 2] = start, (end - start) // 2, weights
                    segments[at, 3] = events.sums[last] - events.sums[row]
                    sums[local] += segments[at, 3]
                    gathered += end - start
                if shape.parts > 1:
                    _part_line(events, shape, segments, at)
                row, at, local = row + step, at + strips, local + 1
    return gathered


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
        if events.narrow:
            return _narrow_tile(isa, units, events, shape, neurons, w, tile, block, out)
        if shape.by_strip:
            return _strip_tile(isa, units, events, shape, neurons, w, tile, block, out)
        return _wide_tile(isa, units, events, shape, neurons, w, tile, block, out)

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
        width, strips = 32 * units, block.strips
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
            bias = ba + 2 * bias_at(neurons, p, c0)
            m16[:] = 0
            for _ in range(shape.steps):
                if fused:
                    at = spikes + row * spike_row
                    driven += fire_row(isa, units, wa, ia, va, sa, strips, bias, ma, ta, fa, at)
                else:
                    store_row(isa, units, wa, ia, va, sa, strips, bias, drive + row * drive_row)
                sa += SEGMENT_BYTES * strips
                row += 1
        return driven

    return vectorized


def _wide_tile(
    isa: Any, units: int, events: Events, shape: Shape, neurons: Neurons, w: np.ndarray, tile: int, block: Block,
    out: Outputs,
) -> int:  # fmt: skip
    """:func:`gather_tile` with 32-bit drives, row by row: 16-bit sums are widened before they could overflow."""
    raise NotImplementedError("compiled code only")


@overload(_wide_tile, strict=False, prefer_literal=True, jit_options=v.BORROW)
def _overload_wide_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, w: Any, tile: Any, block: Any, out: Any
) -> Any:
    def vectorized(isa, units, events, shape, neurons, w, tile, block, out):  # type: ignore[no-untyped-def]
        wa, ia, va = v.address(w), v.address(events.idx), v.address(events.val)
        fa, sa, c0 = v.address(neurons.form), v.address(block.segments), 32 * units * tile
        xa, ma, m = v.address(block.x), v.address(block.m), block.m
        ta = v.address(neurons.theta) + 4 * c0
        fused, plain = out.spikes.shape[0] > 0, neurons.form[0] == 1 and neurons.form[2] == 0
        driven, s, row = np.int64(0), 0, (block.first - out.origin) * shape.steps
        for p in range(block.first, block.end):
            bias = v.address(neurons.bias) + 4 * bias_at(neurons, p, c0)
            m[:] = 0
            for _ in range(shape.steps):
                if not fused:
                    xa = v.address(out.drive) + 4 * (row * out.drive.shape[1] + c0)
                at = v.address(out.spikes) + 4 * (row * out.spikes.shape[1] + tile * units)
                from_s = sa + SEGMENT_BYTES * s
                whole = events.whole or block.sums[s // block.strips] <= events.limit
                if whole and fused and plain:
                    driven += fire_row_wide(isa, units, wa, ia, va, from_s, block.strips, bias, ma, ta, fa, at)
                elif whole:
                    widen_row(isa, units, wa, ia, va, from_s, block.strips, bias, xa)
                else:
                    for i in range(s, s + block.strips):
                        _add_strip(isa, units, events, wa, block, i, bias if i == s else xa, xa)
                if fused and not (whole and plain):
                    driven += _fire_tile(units, neurons.form, xa, ma, ta, fa, at)
                s += block.strips
                row += 1
        return driven

    return vectorized


def _fire_tile(units: int, form: np.ndarray, xa: int, ma: int, ta: int, fa: int, spikes: int) -> int:
    """Fire one tile from 32-bit drives; addresses but the literal ``units`` and ``form``. Returns non-zero drives."""
    raise NotImplementedError("compiled code only")


@overload(_fire_tile, strict=False, prefer_literal=True, jit_options=v.BORROW)
def _overload_fire_tile(units: Any, form: Any, xa: Any, ma: Any, ta: Any, fa: Any, spikes: Any) -> Any:
    def vectorized(units, form, xa, ma, ta, fa, spikes):  # type: ignore[no-untyped-def]
        driven = np.int64(0)
        for i in range(units):
            o = 128 * i
            if form[0] == 1:
                driven += fire32(0, 0, xa + o, ma + o, ta + o, fa, spikes + 4 * i, 0)
            else:
                driven += fire32(1, 0, xa + o, ma + o, ta + o, fa, spikes + 4 * i, 0)
        return driven

    return vectorized


def _add_strip(isa: Any, units: int, events: Events, wa: int, block: Block, i: int, base: int, xa: int) -> None:
    """32-bit drives at ``xa`` from those at ``base`` and one strip, in chunks if it might not fit 16 bits."""
    raise NotImplementedError("compiled code only")


@overload(_add_strip, strict=False, prefer_literal=True, jit_options=v.BORROW)
def _overload_add_strip(isa: Any, units: Any, events: Any, wa: Any, block: Any, i: Any, base: Any, xa: Any) -> Any:
    def vectorized(isa, units, events, wa, block, i, base, xa):  # type: ignore[no-untyped-def]
        ia, va, part = v.address(events.idx), v.address(events.val), block.part
        if block.segments[i, 3] <= events.limit:
            widen_row(isa, units, wa, ia, va, v.address(block.segments) + SEGMENT_BYTES * i, 1, base, xa)
            return
        start, left = block.segments[i, 0], block.segments[i, 1]
        while left > 0:
            part[0, 0], part[0, 1], part[0, 2] = start, min(left, events.chunk // 2), block.segments[i, 2]
            widen_row(isa, units, wa, ia, va, v.address(part), 1, base, xa)
            base, start, left = xa, start + events.chunk, left - events.chunk // 2

    return vectorized


def _strip_tile(
    isa: Any, units: int, events: Events, shape: Shape, neurons: Neurons, w: np.ndarray, tile: int, block: Block,
    out: Outputs,
) -> int:  # fmt: skip
    """:func:`gather_tile` with 32-bit drives, strip by strip."""
    raise NotImplementedError("compiled code only")


@overload(_strip_tile, strict=False, prefer_literal=True, jit_options=v.BORROW)
def _overload_strip_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, w: Any, tile: Any, block: Any, out: Any
) -> Any:
    def vectorized(isa, units, events, shape, neurons, w, tile, block, out):  # type: ignore[no-untyped-def]
        wa, c0, rows = v.address(w), 32 * units * tile, (block.end - block.first) * shape.steps
        fused = out.spikes.shape[0] > 0
        first = (block.first - out.origin) * shape.steps
        x0, x_row = v.address(block.x), 128 * units
        if not fused:
            x_row = 4 * out.drive.shape[1]
            x0 = v.address(out.drive) + first * x_row + 4 * c0
        for strip in range(block.strips):
            for r in range(rows):
                xa = x0 + r * x_row
                base = xa
                if strip == 0:
                    base = v.address(neurons.bias) + 4 * bias_at(neurons, block.first + r // shape.steps, c0)
                _add_strip(isa, units, events, wa, block, r * block.strips + strip, base, xa)
        driven = np.int64(0)
        if fused:
            ma, ta, fa = v.address(block.m), v.address(neurons.theta) + 4 * c0, v.address(neurons.form)
            for r in range(rows):
                if r % shape.steps == 0:
                    block.m[:] = 0
                at = v.address(out.spikes) + 4 * ((first + r) * out.spikes.shape[1] + tile * units)
                driven += _fire_tile(units, neurons.form, x0 + r * x_row, ma, ta, fa, at)
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
        from_bias = bias_at(neurons, p, c0)
        for _ in range(shape.steps):
            for c in range(width):
                x[c] = bias[from_bias + c]
            for i in range(s, s + block.strips):
                start, weights = block.segments[i, 0], block.segments[i, 2]
                for e in range(start, start + 2 * block.segments[i, 1]):
                    value = np.int32(events.val[e])
                    at = (weights + np.int64(events.idx[e])) * width
                    for c in range(width):
                        x[c] += value * np.int32(w[at + c])
            s += block.strips
            if out.spikes.shape[0] > 0:
                driven += fire(
                    isa, x, 0, m, 0, neurons.theta, c0, neurons.form, shape.units, out.spikes, row, tile * shape.units
                )
            else:
                for c in range(width):
                    out.drive[row, c0 + c] = x[c]
            row += 1
    return driven


@kernel()
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
    steps, width, strips, units = shape.steps, 32 * shape.units, ypos.shape[1] * shape.parts, shape.units
    pixels = max(1, BLOCK_ROWS // steps)
    segments, part = np.zeros((pixels * steps * strips, 4), np.int32), np.zeros((1, 4), np.int32)
    sums = np.zeros(pixels * steps, np.int32)
    x = np.empty(width * (pixels * steps if shape.by_strip else 1), np.int32)
    m16, m = np.empty(width, np.int16), np.empty(width, np.int32)
    driven, gathered = np.int64(0), np.int64(0)
    for b0 in range(p0, p1, pixels):
        b1 = min(p1, b0 + pixels)
        gathered += _block_segments(events, shape, ypos, first_columns, b0, b1, segments, sums)
        block = Block(b0, b1, strips, segments, sums, part, m16, m, x)
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
