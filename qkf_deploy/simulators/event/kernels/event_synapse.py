"""Synapses driven by events: gather weight rows of active inputs, then fire or hand out the drive."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import overload

from qkf_deploy.simulators.event.kernels import vector_ir as v
from qkf_deploy.simulators.event.kernels.alignment import scratch
from qkf_deploy.simulators.event.kernels.arguments import Block, Events, Neurons, Outputs, Shape, bias_at
from qkf_deploy.simulators.event.kernels.compiling import kernel
from qkf_deploy.simulators.event.kernels.fire import SOFT, SPOILT, fire, fire32
from qkf_deploy.simulators.event.kernels.gather import SEGMENT_BYTES, fire_row, store_row, widen_row
from qkf_deploy.simulators.event.kernels.segments import all_fits, block_segments, checked_segments
from qkf_deploy.simulators.event.kernels.streams import count_spikes

#: Rows (pixels x time steps) whose segments are prepared together; their tiles then reuse the same weights. A grid of
#: 14 x 14 over four steps is one block.
BLOCK_ROWS = 800
#: Weights that are taken to stay in the second cache from one block to the next.
_CACHED_BYTES = 512 * 1024


def gather_tile(
    isa: Any, units: int, events: Events, shape: Shape, neurons: Neurons, weights: np.ndarray, tile: int, block: Block,
    out: Outputs,
) -> int:  # fmt: skip
    """One tile of output channels for all rows of a block.

    Args:
        isa: instruction set tag.
        units: ``shape.units`` as a literal: vector code is written per tile width.
        weights: s8 ``(tiles, n)``.
        tile: which one.

    Returns:
        Non-zero drives met by neurons; at least :data:`SPOILT` if 16-bit drives were asked for and are not enough.
    """
    raise NotImplementedError("compiled code only")


@overload(gather_tile, strict=False, prefer_literal=True, jit_options=v.BORROW)
def _overload_gather_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, weights: Any, tile: Any, block: Any, out: Any
) -> Any:
    if isa == v.PLAIN:
        return lambda isa, units, events, shape, neurons, weights, tile, block, out: _plain_tile(
            isa, events, shape, neurons, weights, tile, block, out
        )

    def vectorized(isa, units, events, shape, neurons, weights, tile, block, out):  # type: ignore[no-untyped-def]
        if events.narrow and block.fits and not shape.by_strip:
            return _narrow_tile(isa, units, events, shape, neurons, weights, tile, block, out)
        fused = out.spikes.shape[0] > 0
        if events.narrow and (block.fits or not fused or neurons.form[SOFT] == 0):
            driven = _tried_tile(isa, units, events, shape, neurons, weights, tile, block, out)
            if driven < SPOILT or not fused:
                return driven
        return _wide_tile(isa, units, events, shape, neurons, weights, tile, block, out)

    return vectorized


@kernel(_nrt=False)
def _weights_ahead(weights: np.ndarray, tile: int, block: Block) -> Any:
    """(address of the next tile's weights, bytes to ask for at each pixel so that all are there when it begins)."""
    size = weights.shape[1] if block.cold and tile + 1 < weights.shape[0] else 0
    return v.address(weights) + (tile + 1) * weights.shape[1], -(-size // (block.end - block.first))


def _narrow_tile(
    isa: Any, units: int, events: Events, shape: Shape, neurons: Neurons, weights: np.ndarray, tile: int, block: Block,
    out: Outputs,
) -> int:  # fmt: skip
    """:func:`gather_tile` where everything fits 16 bits: sums never leave registers."""
    raise NotImplementedError("compiled code only")


@overload(_narrow_tile, strict=False, prefer_literal=True, jit_options=v.BORROW)
def _overload_narrow_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, weights: Any, tile: Any, block: Any, out: Any
) -> Any:
    def vectorized(isa, units, events, shape, neurons, weights, tile, block, out):  # type: ignore[no-untyped-def]
        width, strips = 32 * units, block.strips
        wa, ia, va = v.address(weights[tile]), v.address(events.idx), v.address(events.val)
        ahead, share = _weights_ahead(weights, tile, block)
        ba, fa, sa = v.address(neurons.bias16), v.address(neurons.form), v.address(block.segments)
        ma, m16 = v.address(block.m16), block.m16
        c0 = tile * width
        ta = v.address(neurons.theta16) + 2 * c0
        fused = out.spikes.shape[0] > 0
        spikes, spike_row = v.address(out.spikes) + 4 * tile * units, 4 * out.spikes.shape[1]
        drives, drive_row = v.address(out.drive16) + 2 * c0, 2 * out.drive16.shape[1]
        driven, row = np.int64(0), (block.first - out.origin) * shape.steps
        for p in range(block.first, block.end):
            v.prefetch(ahead, share)
            ahead += share
            bias = ba + 2 * bias_at(neurons, p, c0)
            if fused:
                m16[:] = 0
            for _ in range(shape.steps):
                if fused:
                    at = spikes + row * spike_row
                    driven += fire_row(isa, units, 0, wa, ia, va, sa, strips, bias, 0, 0, ma, ta, fa, at)
                else:
                    store_row(isa, units, 0, 1, wa, ia, va, sa, strips, bias, 0, 0, drives + row * drive_row)
                sa += SEGMENT_BYTES * strips
                row += 1
        return driven

    return vectorized


def _tried_tile(
    isa: Any, units: int, events: Events, shape: Shape, neurons: Neurons, weights: np.ndarray, tile: int, block: Block,
    out: Outputs,
) -> int:  # fmt: skip
    """:func:`gather_tile` in 16 bits, out of which sums move to 32 on their way only where they must.

    Returns at least :data:`SPOILT` if a drive or a charge does not fit.
    """
    raise NotImplementedError("compiled code only")


@overload(_tried_tile, strict=False, prefer_literal=True, jit_options=v.BORROW)
def _overload_tried_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, weights: Any, tile: Any, block: Any, out: Any
) -> Any:
    def vectorized(isa, units, events, shape, neurons, weights, tile, block, out):  # type: ignore[no-untyped-def]
        width, steps = 32 * units, shape.steps
        passes = block.strips if shape.by_strip else 1
        # Unsigned: signed indices are first tested for counting from the end.
        strips, kept = np.uint64(block.strips), np.uint64(width if shape.by_strip else 0)
        per_pass = strips // np.uint64(passes)
        wa, sa = v.address(weights[tile]), v.address(block.segments)
        ia, va = v.address(events.idx), v.address(events.val)
        ma, m16, fa = v.address(block.m16), block.m16, v.address(neurons.form)
        c0 = tile * width
        ta = v.address(neurons.theta16) + 2 * c0
        fused = out.spikes.shape[0] > 0
        spikes, spike_row = v.address(out.spikes) + 4 * tile * units, 4 * out.spikes.shape[1]
        drives, drive_row = v.address(out.drive16) + 2 * c0, 2 * out.drive16.shape[1]
        driven, row0 = np.int64(0), (block.first - out.origin) * steps
        ahead, share = _weights_ahead(weights, tile, block)
        share = -(-share // passes)
        for index in range(passes):
            last = index == passes - 1
            r, strip, k = np.uint64(0), np.uint64(index) * per_pass, np.uint64(0)
            for p in range(block.first, block.end):
                v.prefetch(ahead, share)
                ahead += share
                bias = v.address(neurons.bias16) + 2 * bias_at(neurons, p, c0)
                if fused and last:
                    m16[:] = 0
                for _ in range(steps):
                    first = block.starts[strip]
                    count = block.starts[strip + per_pass] - first
                    segments = sa + SEGMENT_BYTES * first
                    x16, x = v.address(block.x16) + np.int64(2 * k), v.address(block.x) + np.int64(4 * k)
                    start = bias if index == 0 else x16
                    moved = v.address(block.moved) + np.int64(r)
                    if index == 0:
                        block.moved[r] = 0
                    if not last:
                        store_row(isa, units, 1, 0, wa, ia, va, segments, count, start, x, moved, x16)
                    elif fused:
                        at = spikes + (row0 + np.int64(r)) * spike_row
                        driven += fire_row(isa, units, 1, wa, ia, va, segments, count, start, x, moved, ma, ta, fa, at)
                    else:
                        at = drives + (row0 + np.int64(r)) * drive_row
                        driven += store_row(isa, units, 1, 1, wa, ia, va, segments, count, start, x, moved, at)
                    r, strip, k = r + np.uint64(1), strip + strips, k + kept
        return driven

    return vectorized


def _wide_tile(
    isa: Any, units: int, events: Events, shape: Shape, neurons: Neurons, weights: np.ndarray, tile: int, block: Block,
    out: Outputs,
) -> int:  # fmt: skip
    """:func:`gather_tile` with 32-bit drives: 16-bit sums are widened before they could overflow."""
    raise NotImplementedError("compiled code only")


@overload(_wide_tile, strict=False, prefer_literal=True, jit_options=v.BORROW)
def _overload_wide_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, weights: Any, tile: Any, block: Any, out: Any
) -> Any:
    def vectorized(isa, units, events, shape, neurons, weights, tile, block, out):  # type: ignore[no-untyped-def]
        c0, steps = 32 * units * tile, shape.steps
        passes = block.strips if shape.by_strip else 1
        per_pass = block.strips // passes
        wa, sa = v.address(weights[tile]), v.address(block.segments)
        ia, va = v.address(events.idx), v.address(events.val)
        fa, ma, m, ta = v.address(neurons.form), v.address(block.m), block.m, v.address(neurons.theta) + 4 * c0
        fused = out.spikes.shape[0] > 0
        row0 = (block.first - out.origin) * steps
        x, x_row = v.address(block.x), 128 * units if shape.by_strip else 0
        if not fused:
            x_row = 4 * out.drive.shape[1]
            x = v.address(out.drive) + row0 * x_row + 4 * c0
        driven = np.int64(0)
        for index in range(passes):
            for r in range((block.end - block.first) * steps):
                xa = x + r * x_row
                base = xa
                if index == 0:
                    base = v.address(neurons.bias) + 4 * bias_at(neurons, block.first + r // steps, c0)
                strip = r * block.strips + index * per_pass
                first, end = block.starts[strip], block.starts[strip + per_pass]
                if block.sums[r] <= events.limit:
                    widen_row(isa, units, wa, ia, va, sa + SEGMENT_BYTES * first, end - first, base, xa)
                else:
                    for i in range(first, end):
                        widen_row(isa, units, wa, ia, va, sa + SEGMENT_BYTES * i, 1, base, xa)
                        base = xa
                if fused and index == passes - 1:
                    if r % steps == 0:
                        m[:] = 0
                    at = v.address(out.spikes) + 4 * ((row0 + r) * out.spikes.shape[1] + tile * units)
                    driven += _fire_tile(units, neurons.form, xa, ma, ta, fa, at)
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


@kernel(_nrt=False)
def _plain_tile(
    isa: np.generic, events: Events, shape: Shape, neurons: Neurons, weights: np.ndarray, tile: int, block: Block,
    out: Outputs,
) -> Any:  # fmt: skip
    """:func:`gather_tile` in plain loops."""
    width, w = 32 * shape.units, weights[tile]
    c0 = tile * width
    bias, x, m = neurons.bias.reshape(-1), block.x, block.m
    driven, strip, row = np.int64(0), 0, (block.first - out.origin) * shape.steps
    for p in range(block.first, block.end):
        m[:] = 0
        from_bias = bias_at(neurons, p, c0)
        for _ in range(shape.steps):
            for c in range(width):
                x[c] = bias[from_bias + c]
            for i in range(block.starts[strip], block.starts[strip + block.strips]):
                start, weights = block.segments[i, 0], block.segments[i, 2]
                for e in range(start, start + 2 * block.segments[i, 1]):
                    value = np.int32(events.val[e])
                    at = (weights + np.int64(events.idx[e])) * width
                    for c in range(width):
                        x[c] += value * np.int32(w[at + c])
            strip += block.strips
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
        (non-zero drives met by the neurons, events gathered); the first is at least
        :data:`qkf_deploy.simulators.event.kernels.fire.SPOILT` if 16-bit drives were asked for and are not enough.
    """
    steps, width, strips, units = shape.steps, 32 * shape.units, ypos.shape[1] * shape.parts, shape.units
    pixels = max(1, BLOCK_ROWS // steps)
    strip_segments, sums = np.zeros((pixels * steps * strips, 4), np.int32), np.zeros(pixels * steps, np.int32)
    strip_sums, one_each = np.zeros(strip_segments.shape[0], np.int32), np.arange(strip_segments.shape[0] + 1)
    kept = width * (pixels * steps if shape.by_strip else 1)
    x16, x, moved = scratch(kept, np.int16), scratch(kept, np.int32), np.empty(pixels * steps, np.uint8)
    m16, m = scratch(width, np.int16), scratch(width, np.int32)
    driven, gathered = np.int64(0), np.int64(0)
    for b0 in range(p0, p1, pixels):
        b1 = min(p1, b0 + pixels)
        gathered += block_segments(events, shape, ypos, first_columns, b0, b1, strip_segments, strip_sums, sums)
        segments, starts, rows = strip_segments, one_each, (b1 - b0) * steps
        if sums[:rows].max() > events.limit:
            starts = np.empty(rows * strips + 1, np.int64)
            segments = checked_segments(events, rows, strip_segments, strip_sums, sums, starts)
        fits = events.narrow and all_fits(events, steps, neurons, out.spikes.shape[0] > 0, rows, sums)
        cold = b0 == p0 or weights.size > _CACHED_BYTES
        block = Block(b0, b1, strips, fits, cold, segments, starts, sums, m16, m, x16, x, moved)
        v.prefetch(v.address(weights), weights.shape[1] if cold else 0)
        for k in range(weights.shape[0]):
            if units == 6:
                driven += gather_tile(isa, 6, events, shape, neurons, weights, k, block, out)
            elif units == 4:
                driven += gather_tile(isa, 4, events, shape, neurons, weights, k, block, out)
            elif units == 3:
                driven += gather_tile(isa, 3, events, shape, neurons, weights, k, block, out)
            elif units == 2:
                driven += gather_tile(isa, 2, events, shape, neurons, weights, k, block, out)
            else:
                driven += gather_tile(isa, 1, events, shape, neurons, weights, k, block, out)
    if out.spikes.shape[0] > 0:
        count_spikes(out.spikes, (p0 - out.origin) * steps, (p1 - out.origin) * steps, out.fired)
    return driven, gathered
