"""Synapses on dense input: every input of every row is multiplied, which wins where most inputs are active."""

from __future__ import annotations

from typing import Any

import numpy as np

from qkf_deploy.simulators.event.kernels.alignment import scratch, zeros
from qkf_deploy.simulators.event.kernels.arguments import Neurons, Outputs, bias_at
from qkf_deploy.simulators.event.kernels.compiling import kernel
from qkf_deploy.simulators.event.kernels.dense import TILE, copy_tile, dense_block
from qkf_deploy.simulators.event.kernels.fire import fire
from qkf_deploy.simulators.event.kernels.streams import count_spikes
from qkf_deploy.simulators.event.kernels.vector_ir import BYTES_32, address

#: Rows (pixels x time steps) that share one pass over a tile's weights.
BLOCK_ROWS = 64
#: Bytes of a row's sums in 32 bits.
TILE_BYTES = BYTES_32 * TILE
#: Rows computed beyond the last one when it does not fill a group.
SPARE_ROWS = 8


@kernel()
def dense_synapse(
    isa: np.generic,
    a: np.ndarray,
    row_of: np.ndarray,
    taps: np.ndarray,
    steps: int,
    flush: int,
    weights: np.ndarray,
    neurons: Neurons,
    out: Outputs,
    p0: int,
    p1: int,
) -> Any:
    """Output pixels ``p0 .. p1`` of a convolution over a zero-padded grid.

    Args:
        isa: instruction set tag.
        a: u8 or s16 ``(rows, channels)``, rows ``padded pixel * T + t``, 4 bytes x k per row.
        row_of: int64 ``(H_out * W_out,)``: row of the first tap of each output pixel at t = 0.
        taps: int64, element offset of each tap from the first.
        steps: T.
        flush: see :func:`qkf_deploy.simulators.event.kernels.dense.dense_block`.
        weights: ``(tiles, taps, k, 32, 4 or 2)``.
        neurons: bias and neuron; channels padded to tiles of 32.
        out: spikes or 32-bit drives are written.

    Returns:
        Non-zero drives met by the neurons.
    """
    fused = out.spikes.shape[0] > 0
    block = max(1, BLOCK_ROWS // steps)
    flat = a.reshape(-1)
    starts = zeros(block * steps + SPARE_ROWS, np.int64)
    x, m = scratch((block * steps + SPARE_ROWS, TILE), np.int32), scratch(TILE, np.int32)
    x_flat = x.reshape(-1)
    driven = np.int64(0)
    for b0 in range(p0, p1, block):
        b1 = min(p1, b0 + block)
        for p in range(b0, b1):
            for t in range(steps):
                starts[(p - b0) * steps + t] = (row_of[p] + t) * a.shape[1]
        for tile in range(weights.shape[0]):
            for p in range(b0, b1):
                from_bias = bias_at(neurons, p, tile * TILE)
                for t in range(steps):
                    to_row = TILE_BYTES * ((p - b0) * steps + t)
                    copy_tile(address(neurons.bias) + BYTES_32 * from_bias, address(x) + to_row)
            dense_block(isa, flat, starts, (b1 - b0) * steps, taps, flush, weights[tile], x)
            for p in range(b0, b1):
                m[:] = 0
                for t in range(steps):
                    local, row = (p - b0) * steps + t, (p - out.origin) * steps + t
                    if fused:
                        driven += fire(
                            isa, x_flat, local * TILE, m, 0, neurons.theta, tile * TILE, neurons.form, 1, out.spikes,
                            row, tile,
                        )  # fmt: skip
                    else:
                        to = row * out.drive.shape[1] + tile * TILE
                        copy_tile(address(x) + TILE_BYTES * local, address(out.drive) + BYTES_32 * to)
    if fused:
        count_spikes(out.spikes, (p0 - out.origin) * steps, (p1 - out.origin) * steps, out.fired)
    return driven
