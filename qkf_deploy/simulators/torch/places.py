"""Single elements of a convolution's drive, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.ir import Node
from qkf_deploy.ops import Conv, MaxPool
from qkf_deploy.simulators.torch.synapses import Rounding
from qkf_deploy.simulators.torch.values import Value


@dataclass(frozen=True)
class Sums:
    """Drives of some places.

    Attributes:
        drive: float64 ``(T or 1, places)``.
        largest: bound of their magnitude.
        error: bound of their difference from the reference's.
        open_zero: places whose drive may be zero in one order of summation and not in another, bool ``(places,)``.
    """

    drive: Tensor
    largest: float
    error: float
    open_zero: Tensor


@dataclass(frozen=True)
class Places:
    """Elements of a value, one entry each.

    Attributes:
        images: of the batch.
        channels: first axis of the per-step shape.
        positions: along its other axes, flattened.
    """

    images: Tensor
    channels: Tensor
    positions: Tensor

    @staticmethod
    def of(parts: Sequence[Places]) -> Places:
        """All of several."""
        images, channels, positions = (
            torch.cat(v) for v in zip(*((p.images, p.channels, p.positions) for p in parts), strict=True)
        )
        return Places(images, channels, positions)

    def behind(self, images: int) -> Places:
        """The same in a batch that has so many images before these."""
        return replace(self, images=self.images + images)

    def put(self, value: Tensor, elements: Tensor) -> None:
        """Give them other values."""
        shape = (*value.shape[:3], -1)
        value.view(shape)[:, self.images, self.channels, self.positions] = elements.to(value.dtype)


class Terms:
    """What the drives of a convolution are the sums of, element by element.

    Args:
        synapse: the convolution.
        pool: max pooling behind it, if any.
        read: per-step shape of what the convolution reads.
        device: where the sums are taken.
    """

    def __init__(self, synapse: Node, pool: Node | None, read: tuple[int, ...], device: torch.device) -> None:
        op, weight, bias = synapse.op, synapse.params["weight"], synapse.params.get("bias")
        if not isinstance(op, Conv):
            raise AssertionError(op)
        positions = np.indices((synapse if pool is None else pool).type.shape[1:]).reshape(len(op.stride), -1, 1)
        valid = np.ones(positions.shape[1:], bool)
        if pool is not None and isinstance(pool.op, MaxPool):
            positions, valid = _windows(positions, pool.op.kernel, pool.op, (), synapse.type.shape[1:])
        taps, exists = _windows(positions, weight.shape[2:], op, op.dilation, read[1:])
        flat = np.ravel_multi_index(tuple(taps), read[1:])
        self._valid, self._exists, self._taps = (torch.from_numpy(v).to(device) for v in (valid, exists, flat))
        w = weight.reshape(*weight.shape[:2], -1).swapaxes(1, 2).reshape(len(weight), -1)  # taps before channels
        offset = np.zeros(len(weight)) if bias is None else bias
        self._weight, self._bias = (torch.from_numpy(v.astype(np.float64)).to(device) for v in (w, offset))
        self._row, self._most = float(np.abs(w).sum(axis=1).max()), float(np.abs(offset).max())
        self._rounding = Rounding(weight, bias)

    def at(self, places: Places, events: Value) -> Sums:
        """The drives there, of what the convolution reads."""
        valid = self._valid[places.positions]
        x = self._read(places, events.tensor).unflatten(2, (valid.shape[1], -1))
        weight, bias = self._weight[places.channels][:, None], self._bias[places.channels][:, None]
        drive = (x * weight).sum(-1).add_(bias)
        largest = self._row * events.largest + self._most
        error = self._rounding.of_events(largest)
        open_zero = torch.zeros_like(valid)
        if error > 0:  # a drive without any term is zero in every order
            t, p, w = (valid & (drive.abs() <= error)).nonzero(as_tuple=True)
            open_zero[p, w] = (x[t, p, w] * weight[p, 0]).any(-1) | (bias[p, 0] != 0)
        return Sums(torch.where(valid, drive, -torch.inf).amax(-1), largest, error, open_zero.any(-1))

    def _read(self, places: Places, events: Tensor) -> Tensor:
        """All channels at all taps, 0 where there is none, float64 ``(T or 1, places, taps C)``."""
        memory = events.movedim(2, -1).reshape(events.shape[0], -1, events.shape[2])
        exists = self._exists[places.positions]
        rows = self._taps[places.positions] + places.images[:, None] * math.prod(events.shape[3:])
        pixels = memory.index_select(1, rows.reshape(-1)).to(torch.float64).mul_(exists.reshape(-1, 1))
        return pixels.reshape(events.shape[0], len(exists), -1)


def _windows(
    at: np.ndarray, kernel: tuple[int, ...], op: Conv | MaxPool, dilation: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """What windows read.

    Args:
        at: outputs ``(axes, positions, n)``.
        kernel: taps along every axis.
        op: with its stride and padding.
        dilation: of the taps, or none.
        shape: spatial, of what is read.

    Returns:
        Positions ``(axes, positions, n taps)``, 0 outside, and which are inside.
    """

    def along(values: tuple[int, ...]) -> np.ndarray:
        return np.array(values).reshape(-1, 1, 1, 1)

    taps = np.indices(kernel).reshape(len(kernel), 1, 1, -1) * along(dilation or (1,) * len(kernel))
    read = (at[..., None] * along(op.stride) - along(op.padding) + taps).reshape(*at.shape[:2], -1)
    inside = np.all((read >= 0) & (read < np.array(shape).reshape(-1, 1, 1)), axis=0)
    return np.where(inside, read, 0), inside
