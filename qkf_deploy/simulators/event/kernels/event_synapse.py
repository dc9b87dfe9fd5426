"""Synapses driven by events: gather weight rows of active inputs, then fire or hand out the drive."""

from __future__ import annotations

from typing import Any

import numpy as np

from qkf_deploy.simulators.event.cpu import Isa
from qkf_deploy.simulators.event.kernels import vector_ir as v
from qkf_deploy.simulators.event.kernels.alignment import scratch, zeros
from qkf_deploy.simulators.event.kernels.arguments import Block, Events, Neurons, Outputs, Shape, bias_at
from qkf_deploy.simulators.event.kernels.compiled_only import by_type
from qkf_deploy.simulators.event.kernels.compiling import kernel
from qkf_deploy.simulators.event.kernels.fire import MULTIPLIER, SOFT, SPOILT, fire, fire32
from qkf_deploy.simulators.event.kernels.gather import SEGMENT_BYTES, UNIT, fire_row, store_row, widen_row
from qkf_deploy.simulators.event.kernels.inner import inner
from qkf_deploy.simulators.event.kernels.segments import all_fits, block_segments, checked_segments
from qkf_deploy.simulators.event.kernels.streams import count_spikes

#: Rows (pixels x time steps) whose segments are prepared together; their tiles then reuse the same weights. A grid of
#: 14 x 14 over four steps is one block.
BLOCK_ROWS = 800
#: Weights that are taken to stay in the second cache from one block to the next.
_CACHED_BYTES = 512 * 1024


def width_tag(isa: Isa, units: int) -> tuple[int, ...]:
    """What tells :func:`event_synapse` the width of a tile: as many items as units, so that the *type* says it.

    Vector code is written per tile width, and compiled for those that a network has. Plain loops serve all.
    """
    return (0,) * (units if isa.vector_bytes else 1)


@by_type()
def gather_tile(
    isa: Any, width: Any, events: Any, shape: Any, neurons: Any, weights: Any, tile: Any, block: Any, out: Any
) -> Any:
    """One tile of output channels for all rows of a block.

    Args:
        isa: instruction set tag.
        width: tile width tag.
        weights: s8 ``(tiles, n)``.
        tile: which one.

    Returns:
        Non-zero drives met by neurons; at least :data:`SPOILT` if 16-bit drives were asked for and are not enough.
    """
    if isa == v.PLAIN:
        return lambda isa, width, events, shape, neurons, weights, tile, block, out: _plain_tile(
            isa, events, shape, neurons, weights, tile, block, out
        )
    units = width.count  # a literal in the code below

    def vectorized(isa, width, events, shape, neurons, weights, tile, block, out):  # type: ignore[no-untyped-def]
        if events.narrow and block.fits and not shape.by_strip:
            return _narrow_tile(isa, units, events, shape, neurons, weights, tile, block, out)
        fused = out.spikes.shape[0] > 0
        if events.narrow and (block.fits or not fused or neurons.form[SOFT] == 0):
            driven = _tried_tile(isa, units, events, shape, neurons, weights, tile, block, out)
            if driven < SPOILT or not fused:
                return driven
        return _wide_tile(isa, units, events, shape, neurons, weights, tile, block, out)

    return vectorized


@inner()
def _weights_ahead(weights: np.ndarray, tile: int, block: Block) -> Any:
    """(address of the next tile's weights, bytes to ask for at each pixel so that all are there when it begins)."""
    size = weights.shape[1] if block.cold and tile + 1 < weights.shape[0] else 0
    return v.address(weights) + (tile + 1) * weights.shape[1], -(-size // (block.end - block.first))


# Registers: a row's sums stay in 16-bit accumulators from its bias, through all its segments, to the neuron, whose
# states are kept in memory between the steps; the next tile's weights are asked for while this one is summed.
@by_type(prefer_literal=True)
def _narrow_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, weights: Any, tile: Any, block: Any, out: Any
) -> Any:
    """:func:`gather_tile` where everything fits 16 bits: sums never leave registers."""

    def vectorized(isa, units, events, shape, neurons, weights, tile, block, out):  # type: ignore[no-untyped-def]
        width, strips = UNIT * units, block.strips
        rows, channels, values = v.address(weights[tile]), v.address(events.idx), v.address(events.val)
        ahead, share = _weights_ahead(weights, tile, block)
        biases, form, segments = v.address(neurons.bias16), v.address(neurons.form), v.address(block.segments)
        states, m16 = v.address(block.m16), block.m16
        c0 = tile * width
        thresholds = v.address(neurons.theta16) + v.BYTES_16 * c0
        fused = out.spikes.shape[0] > 0
        spikes, spike_row = v.address(out.spikes) + v.BYTES_32 * tile * units, v.BYTES_32 * out.spikes.shape[1]
        drives, drive_row = v.address(out.drive16) + v.BYTES_16 * c0, v.BYTES_16 * out.drive16.shape[1]
        driven, row = np.int64(0), (block.first - out.origin) * shape.steps
        for p in range(block.first, block.end):
            v.prefetch(ahead, share)
            ahead += share
            bias = biases + v.BYTES_16 * bias_at(neurons, p, c0)
            if fused:
                m16[:] = 0
            for _ in range(shape.steps):
                if fused:
                    driven += fire_row(
                        isa, units, 0, rows, channels, values, segments, strips, bias, 0, 0, states, thresholds, form,
                        spikes + row * spike_row,
                    )  # fmt: skip
                else:
                    sums = drives + row * drive_row
                    store_row(isa, units, 0, 1, rows, channels, values, segments, strips, bias, 0, 0, sums)
                segments += SEGMENT_BYTES * strips
                row += 1
        return driven

    return vectorized


# Registers: as above, but a segment that may overflow first moves the accumulators to 32-bit sums in memory. By strip,
# a row's accumulators are stored after each pass and loaded for the next; its last pass adds both and fires.
@by_type(prefer_literal=True)
def _tried_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, weights: Any, tile: Any, block: Any, out: Any
) -> Any:
    """:func:`gather_tile` in 16 bits, out of which sums move to 32 on their way only where they must.

    Returns at least :data:`SPOILT` if a drive or a charge does not fit.
    """

    def vectorized(isa, units, events, shape, neurons, weights, tile, block, out):  # type: ignore[no-untyped-def]
        width, steps = UNIT * units, shape.steps
        passes = block.strips if shape.by_strip else 1
        # Unsigned: signed indices are first tested for counting from the end.
        strips, kept = np.uint64(block.strips), np.uint64(width if shape.by_strip else 0)
        per_pass = strips // np.uint64(passes)
        rows, all_segments = v.address(weights[tile]), v.address(block.segments)
        channels, values = v.address(events.idx), v.address(events.val)
        states, m16, form = v.address(block.m16), block.m16, v.address(neurons.form)
        c0 = tile * width
        thresholds = v.address(neurons.theta16) + v.BYTES_16 * c0
        fused = out.spikes.shape[0] > 0
        spikes, spike_row = v.address(out.spikes) + v.BYTES_32 * tile * units, v.BYTES_32 * out.spikes.shape[1]
        drives, drive_row = v.address(out.drive16) + v.BYTES_16 * c0, v.BYTES_16 * out.drive16.shape[1]
        driven, row0 = np.int64(0), (block.first - out.origin) * steps
        ahead, share = _weights_ahead(weights, tile, block)
        share = -(-share // passes)
        for index in range(passes):
            last = index == passes - 1
            r, strip, k = np.uint64(0), np.uint64(index) * per_pass, np.uint64(0)
            for p in range(block.first, block.end):
                v.prefetch(ahead, share)
                ahead += share
                bias = v.address(neurons.bias16) + v.BYTES_16 * bias_at(neurons, p, c0)
                if fused and last:
                    m16[:] = 0
                for _ in range(steps):
                    first = block.starts[strip]
                    count = block.starts[strip + per_pass] - first
                    segments = all_segments + SEGMENT_BYTES * first
                    sums = v.address(block.x16) + np.int64(v.BYTES_16 * k)
                    moved = v.address(block.x) + np.int64(v.BYTES_32 * k)
                    start = bias if index == 0 else sums
                    has_moved = v.address(block.moved) + np.int64(r)
                    if index == 0:
                        block.moved[r] = 0
                    if not last:
                        store_row(
                            isa, units, 1, 0, rows, channels, values, segments, count, start, moved, has_moved, sums
                        )
                    elif fused:
                        driven += fire_row(
                            isa, units, 1, rows, channels, values, segments, count, start, moved, has_moved, states,
                            thresholds, form, spikes + (row0 + np.int64(r)) * spike_row,
                        )  # fmt: skip
                    else:
                        driven += store_row(
                            isa, units, 1, 1, rows, channels, values, segments, count, start, moved, has_moved,
                            drives + (row0 + np.int64(r)) * drive_row,
                        )  # fmt: skip
                    r, strip, k = r + np.uint64(1), strip + strips, k + kept
        return driven

    return vectorized


# Registers: 16-bit accumulators from 0 for as many segments as are sure to fit, all of a row or one by one; then they
# are widened and added to the row's 32-bit sums in memory, where the neuron takes them from.
@by_type(prefer_literal=True)
def _wide_tile(
    isa: Any, units: Any, events: Any, shape: Any, neurons: Any, weights: Any, tile: Any, block: Any, out: Any
) -> Any:
    """:func:`gather_tile` with 32-bit drives: 16-bit sums are widened before they could overflow."""

    def vectorized(isa, units, events, shape, neurons, weights, tile, block, out):  # type: ignore[no-untyped-def]
        c0, steps = UNIT * units * tile, shape.steps
        passes = block.strips if shape.by_strip else 1
        per_pass = block.strips // passes
        rows, segments = v.address(weights[tile]), v.address(block.segments)
        channels, values = v.address(events.idx), v.address(events.val)
        form, states, m = v.address(neurons.form), v.address(block.m), block.m
        thresholds = v.address(neurons.theta) + v.BYTES_32 * c0
        fused = out.spikes.shape[0] > 0
        row0 = (block.first - out.origin) * steps
        all_sums, sums_row = v.address(block.x), v.WORD_32 * units if shape.by_strip else 0
        if not fused:
            sums_row = v.BYTES_32 * out.drive.shape[1]
            all_sums = v.address(out.drive) + row0 * sums_row + v.BYTES_32 * c0
        driven = np.int64(0)
        for index in range(passes):
            for r in range((block.end - block.first) * steps):
                sums = all_sums + r * sums_row
                base = sums
                if index == 0:
                    base = v.address(neurons.bias) + v.BYTES_32 * bias_at(neurons, block.first + r // steps, c0)
                strip = r * block.strips + index * per_pass
                first, end = block.starts[strip], block.starts[strip + per_pass]
                if block.sums[r] <= events.limit:
                    at, count = segments + SEGMENT_BYTES * first, end - first
                    widen_row(isa, units, rows, channels, values, at, count, base, sums)
                else:
                    for i in range(first, end):
                        at = segments + SEGMENT_BYTES * i
                        widen_row(isa, units, rows, channels, values, at, 1, base, sums)
                        base = sums
                if fused and index == passes - 1:
                    if r % steps == 0:
                        m[:] = 0
                    words = v.address(out.spikes) + v.BYTES_32 * ((row0 + r) * out.spikes.shape[1] + tile * units)
                    driven += _fire_tile(units, neurons.form, sums, states, thresholds, form, words)
        return driven

    return vectorized


@by_type(prefer_literal=True)
def _fire_tile(units: Any, form: Any, drives: Any, states: Any, thresholds: Any, entries: Any, words: Any) -> Any:
    """Fire one tile from 32-bit drives; addresses but the literal ``units`` and ``form``, whose own is ``entries``.

    Returns the number of non-zero drives.
    """

    def vectorized(units, form, drives, states, thresholds, entries, words):  # type: ignore[no-untyped-def]
        driven = np.int64(0)
        for i in range(units):
            at, word = v.WORD_32 * i, words + v.BYTES_32 * i
            if form[MULTIPLIER] == 1:
                driven += fire32(0, 0, drives + at, states + at, thresholds + at, entries, word, 0)
            else:
                driven += fire32(1, 0, drives + at, states + at, thresholds + at, entries, word, 0)
        return driven

    return vectorized


@inner()
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


@inner()
def _largest_sum(sums: np.ndarray, rows: int) -> Any:
    largest = sums[0]
    for row in range(1, rows):
        largest = max(largest, sums[row])
    return largest


@kernel()
def event_synapse(
    isa: np.generic, width: tuple[int, ...], events: Events, shape: Shape, neurons: Neurons, ypos: np.ndarray,
    first_columns: np.ndarray, weights: np.ndarray, out: Outputs, p0: int, p1: int,
) -> Any:  # fmt: skip
    """Output pixels ``p0 .. p1`` of a convolution without dilation along x (a linear layer on tokens is a 1 x 1 one).

    Args:
        isa: instruction set tag.
        width: :func:`width_tag` of ``shape.units``.
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
    steps, columns, strips = shape.steps, 32 * shape.units, ypos.shape[1] * shape.parts
    pixels = max(1, BLOCK_ROWS // steps)
    strip_segments, sums = zeros((pixels * steps * strips, 4), np.int32), scratch(pixels * steps, np.int32)
    strip_sums, one_each = scratch(pixels * steps * strips, np.int32), scratch(pixels * steps * strips + 1, np.int64)
    for strip in range(one_each.shape[0]):
        one_each[strip] = strip
    kept = columns * (pixels * steps if shape.by_strip else 1)
    x16, x, moved = scratch(kept, np.int16), scratch(kept, np.int32), scratch(pixels * steps, np.uint8)
    m16, m = scratch(columns, np.int16), scratch(columns, np.int32)
    driven, gathered = np.int64(0), np.int64(0)
    for b0 in range(p0, p1, pixels):
        b1 = min(p1, b0 + pixels)
        gathered += block_segments(events, shape, ypos, first_columns, b0, b1, strip_segments, strip_sums, sums)
        segments, starts, rows = strip_segments, one_each, (b1 - b0) * steps
        if _largest_sum(sums, rows) > events.limit:
            starts = scratch(rows * strips + 1, np.int64)
            segments = checked_segments(events, rows, strip_segments, strip_sums, sums, starts)
        fits = events.narrow and all_fits(events, steps, neurons, out.spikes.shape[0] > 0, rows, sums)
        cold = b0 == p0 or weights.size > _CACHED_BYTES
        block = Block(b0, b1, strips, fits, cold, segments, starts, sums, m16, m, x16, x, moved)
        v.prefetch(v.address(weights), weights.shape[1] if cold else 0)
        for k in range(weights.shape[0]):
            driven += gather_tile(isa, width, events, shape, neurons, weights, k, block, out)
    if out.spikes.shape[0] > 0:
        count_spikes(out.spikes, (p0 - out.origin) * steps, (p1 - out.origin) * steps, out.fired)
    return driven, gathered
