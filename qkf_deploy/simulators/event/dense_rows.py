"""Inputs of dense synapses as rows of a zero-padded grid, and the weights that go with them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qkf_deploy.simulators.event.cpu import Isa
from qkf_deploy.simulators.event.kernels.streams import expand
from qkf_deploy.simulators.event.packing import pack_dense
from qkf_deploy.simulators.event.values import Stream
from qkf_deploy.simulators.event.windows import Window


class DenseRows(NamedTuple):
    """A padded input.

    Attributes:
        data: u8 or s16 rows.
        first: row under the first tap of each output pixel.
        taps: elements from there to each tap.
    """

    data: np.ndarray
    first: np.ndarray
    taps: np.ndarray


def stream_rows(isa: Isa, x: Stream, w: Window, dtype: type) -> DenseRows:
    """A stream in u8 for weights of int8, in s16 for weights of int16."""
    columns, (height, width) = 32 * x.words, w.padded
    if w.is_pointwise and not x.is_bits:
        data = x.data
    else:
        data = np.zeros((height * width * x.steps, columns), np.uint8)
        expand(isa.tag, x.data, x.words, x.steps, w.x.size, w.y.padding, w.x.padding, width, data)
    data = data if dtype is np.int8 else data.astype(np.int16)
    return DenseRows(data, w.first_pixels * x.steps, w.tap_pixels * x.steps * columns)


def pixel_rows(x: np.ndarray, w: Window) -> DenseRows:
    """Constant pixels ``(C, H, W)``; the taps of a line, where neighbours, become one."""
    channels = x.shape[0]
    by_line = w.x.dilation == 1
    columns = channels if by_line else _even(channels)
    grid = np.zeros((*w.padded, columns), np.int16)
    inner = grid[w.y.padding : w.y.padding + w.y.size, w.x.padding : w.x.padding + w.x.size]
    for c, plane in enumerate(x.reshape(channels, w.y.size, w.x.size)):
        inner[:, :, c] = plane
    if not by_line:
        return DenseRows(grid.reshape(-1, columns), w.first_pixels, w.tap_pixels * columns)
    line = _even(w.x.kernel * channels)
    slack = np.zeros(-(-line // channels) * channels, np.int16)  # the last window reads one element too many
    data = np.concatenate([grid.reshape(-1), slack]).reshape(-1, channels)
    return DenseRows(data, w.first_pixels, np.arange(w.y.kernel) * w.y.dilation * w.padded[1] * channels)


def pack_for_pixels(weight: np.ndarray, w: Window) -> np.ndarray:
    """Weights ``(C_out, C_in, taps)`` packed for what :func:`pixel_rows` returns."""
    out, channels = weight.shape[:2]
    if w.x.dilation != 1:
        return pack_dense(weight, _even(channels), np.int16)
    line = w.x.kernel * channels
    by_line = weight.reshape(out, channels, w.y.kernel, w.x.kernel).transpose(0, 3, 1, 2)
    return pack_dense(by_line.reshape(out, line, w.y.kernel), _even(line), np.int16)


def _even(n: int) -> int:
    return n + n % 2
