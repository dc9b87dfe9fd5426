"""Weights in the order the kernels read them. Any channel count works: tiles are padded with zeros here, once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qkf_deploy.simulators.event.kernels.alignment import aligned, aligned_empty
from qkf_deploy.simulators.event.kernels.dense import BYTES_PER_STEP, TILE, WORDS_PER_STEP
from qkf_deploy.simulators.event.kernels.gather import UNIT, storage_order, tile_units

#: Threshold of padding channels: never reached.
_NEVER = np.iinfo(np.int32).max


def padded_columns(array: np.ndarray, columns: int, fill: int = 0) -> np.ndarray:
    """s32 copy of ``(rows, n)`` or ``(n,)`` with the last axis filled up to ``columns``."""
    out = aligned_empty((*array.shape[:-1], columns), np.int32)
    out[..., : array.shape[-1]], out[..., array.shape[-1] :] = array, fill
    return out


@dataclass(frozen=True)
class EventWeights:
    """Weights for gathering.

    Attributes:
        units: tile width / 32.
        data: s8 ``(tiles, taps * C_in * 32 * units)``.
    """

    units: int
    data: np.ndarray

    @property
    def columns(self) -> int:
        """Padded output channels."""
        return self.data.shape[0] * UNIT * self.units


def pack_events(isa: np.generic, weight: np.ndarray) -> EventWeights:
    """Pack ``(C_out, C_in, taps)`` int8 weights for :func:`event_synapse`."""
    out, channels, taps = weight.shape
    units = tile_units(out)
    tile = UNIT * units
    tiles = -(-out // tile)
    rows = np.zeros((tiles * tile, taps, channels), np.int8)
    rows[:out] = weight.transpose(0, 2, 1)
    by_tile = rows.reshape(tiles, tile, taps * channels)[:, storage_order(isa, units)]
    return EventWeights(units, aligned(np.ascontiguousarray(by_tile.transpose(0, 2, 1)).reshape(tiles, -1)))


def pack_dense(weight: np.ndarray, channels: int, dtype: type) -> np.ndarray:
    """Pack ``(C_out, C_in, taps)`` weights for :func:`dense_synapse`.

    Args:
        weight: integers that fit ``dtype``.
        channels: stored input channels per tap (zero weights beyond C_in), a multiple of the group.
        dtype: int8 (groups of 4 inputs) or int16 (groups of 2).

    Returns:
        ``(tiles, taps, channels / group, 32, group)``.
    """
    out, inputs, taps = weight.shape
    group = BYTES_PER_STEP if dtype is np.int8 else WORDS_PER_STEP
    tiles = -(-out // TILE)
    full = np.zeros((tiles * TILE, taps, channels), dtype)
    full[:out, :, :inputs] = weight.transpose(0, 2, 1)
    blocks = full.reshape(tiles, TILE, taps, channels // group, group)
    return aligned(np.ascontiguousarray(blocks.transpose(0, 2, 3, 1, 4)))


def pack_theta(theta: np.ndarray, columns: int) -> np.ndarray:
    """Thresholds per channel, padded with ones that are never reached, s32 ``(columns,)``."""
    return padded_columns(theta.astype(np.int64), columns, _NEVER)
