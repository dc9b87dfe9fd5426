"""Single elements of a convolution's drive, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.ir import Node
from qkf_deploy.ops import Conv, MaxPool
from qkf_deploy.simulators.torch.synapses import Rounding


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
    """Elements of a value.

    Attributes:
        images: int64 ``(places,)``.
        index: along every axis of the per-step shape.
    """

    images: Tensor
    index: tuple[Tensor, ...]

    def sums(self, synapse: Node, pool: Node | None, events: Tensor, shape: tuple[int, ...]) -> Sums:
        """What a convolution gives there.

        Args:
            synapse: the convolution.
            pool: max pooling behind it, if any.
            events: its operand, ``(T or 1, B, *shape)``.
            shape: per-step shape that the places belong to, that of the last of the two nodes reshaped.
        """
        op, weight = synapse.op, synapse.params["weight"]
        if not isinstance(op, Conv):
            raise AssertionError(op)
        device = events.device
        channel, *position = self._unravelled(shape, (synapse if pool is None else pool).type.shape)
        valid = torch.ones((len(self.images), 1), dtype=torch.bool, device=device)
        outputs = [p[:, None] for p in position]
        if pool is not None and isinstance(pool.op, MaxPool):
            outputs, valid = _taps(outputs, pool.op.kernel, pool.op.stride, pool.op.padding, None, synapse.type.shape)
        window = outputs[0].shape[1]
        inputs, exists = _taps(
            [p.reshape(-1, 1) for p in outputs], weight.shape[2:], op.stride, op.padding, op.dilation, events.shape[2:]
        )
        places = channel.repeat_interleave(window)
        images = self.images.repeat_interleave(window)
        x = _read(events, images, inputs, exists)
        w = weight.reshape(*weight.shape[:2], -1).swapaxes(1, 2).reshape(len(weight), -1)  # taps before channels
        bias = synapse.params.get("bias", np.zeros(len(weight)))
        of_place, offset = (torch.from_numpy(v.astype(np.float64)).to(device)[places] for v in (w, bias))
        drive, magnitude = (
            torch.einsum("tpk,pk->tp", x, of_place) + offset,
            torch.einsum("tpk,pk->tp", x.abs(), of_place.abs()) + offset.abs(),
        )
        largest = float(magnitude.max())
        error = Rounding(weight, synapse.params.get("bias")).of_events(largest)
        open_zero = (drive.abs() <= error) & (magnitude > 0) & (error > 0)
        drive, magnitude, open_zero = (v.unflatten(1, (-1, window)) for v in (drive, magnitude, open_zero))
        drive = torch.where(valid, drive, -torch.inf).amax(-1)
        return Sums(drive, largest, error, (open_zero & valid).any(-1).any(0))

    def zeros_left_out(self, drive: Tensor) -> Tensor:
        """Elements of a value that are not zero, int64 ``(B,)``, if all that are lie here."""
        total = torch.full((drive.shape[1],), drive[:, 0].numel(), dtype=torch.int64, device=drive.device)
        zeros = (drive[(slice(None), self.images, *self.index)] == 0).sum(0)
        return total.index_add_(0, self.images, zeros, alpha=-1)

    def _unravelled(self, shape: tuple[int, ...], into: tuple[int, ...]) -> list[Tensor]:
        """Index along the axes of a value of the same elements in the same order."""
        flat = torch.zeros_like(self.images)
        for n, i in zip(shape, self.index, strict=True):
            flat = flat * n + i
        out: list[Tensor] = []
        for n in reversed(into):
            out.append(flat % n)
            flat = flat // n
        return out[::-1]


def _read(events: Tensor, images: Tensor, inputs: list[Tensor], exists: Tensor) -> Tensor:
    """All channels at positions ``(places, taps)``, 0 where there is none, float64 ``(T or 1, places, taps C)``."""
    memory = events.movedim(2, -1)
    flat = images[:, None].expand_as(exists)
    for n, at in zip(events.shape[3:], inputs, strict=True):
        flat = flat * n + at
    pixels = memory.reshape(events.shape[0], -1, events.shape[2]).index_select(1, flat.reshape(-1))
    pixels = pixels.to(torch.float64).mul_(exists.reshape(-1, 1))
    return pixels.reshape(events.shape[0], len(images), -1)


def _taps(
    outputs: list[Tensor],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...] | None,
    shape: tuple[int, ...],
) -> tuple[list[Tensor], Tensor]:
    """What a window reads: along every axis its positions ``(outputs, taps)``, 0 outside, and which are inside."""
    device = outputs[0].device
    taps = torch.cartesian_prod(*(torch.arange(k, device=device) for k in kernel)).reshape(-1, len(kernel))
    inside: Tensor | None = None
    read: list[Tensor] = []
    for axis, out in enumerate(outputs):
        step = 1 if dilation is None else dilation[axis]
        at = out * stride[axis] - padding[axis] + taps[:, axis] * step
        ok = (at >= 0) & (at < shape[axis + 1])
        inside = ok if inside is None else inside & ok
        read.append(torch.where(ok, at, 0))
    if inside is None:
        raise AssertionError("a window has an axis")
    return read, inside
