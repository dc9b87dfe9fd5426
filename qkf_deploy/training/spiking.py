"""The integer neuron over time, with surrogate gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qkf_deploy.ops import IntegerNeuron

#: Slope of the sigmoid whose derivative stands for that of a spike (arXiv 2403.16552, section 5).
_ALPHA = 4.0


@dataclass(frozen=True)
class Membrane:
    """What an integer neuron is besides its threshold.

    Attributes:
        decay: m / 2^k, broadcastable to the per-step shape.
        gain: 2^f.
        soft: the reset subtracts the threshold.
        volts: what one threshold is for the surrogate: V_th - V_reset.
        initial: M at the start, ``None`` for 0.
        leftover: M before each step, ``(T, *shape)``, where it is stored.
    """

    decay: Tensor
    gain: float
    soft: bool
    volts: float
    initial: Tensor | None = None
    leftover: Tensor | None = None

    def to(self, like: Tensor) -> Membrane:
        """With numbers of the type and on the device of a tensor."""
        own = {"decay": self.decay, "initial": self.initial, "leftover": self.leftover}
        return replace(self, **{name: None if x is None else x.to(like) for name, x in own.items()})

    def before(self, t: int, state: Tensor) -> Tensor:
        """M before step ``t``."""
        return state if self.leftover is None else self.leftover[t].expand_as(state)


def fire(drive: Tensor, theta: Tensor, membrane: Membrane, op: IntegerNeuron, steps: int) -> Tensor:
    """Spikes ``(T, B, *shape)`` of :class:`qkf_deploy.ops.IntegerNeuron`; whole numbers in floating point throughout.

    Args:
        drive: X, ``(T or 1, B, *shape)``.
        theta: broadcastable to the per-step shape.
        membrane: the rest.
        op: for its carry.
        steps: T.
    """
    drive = drive.expand(steps, *drive.shape[1:])
    if op.carry != "official":
        return _Fire.apply(drive, theta, membrane)
    chained = drive.reshape(steps * drive.shape[1], 1, *drive.shape[2:])
    return _Fire.apply(chained, theta, membrane).reshape(drive.shape)


class _Fire(torch.autograd.Function):
    """Backward is back-propagation through time; the reset is not differentiated, as in the published training."""

    @staticmethod
    def forward(ctx: Any, drive: Tensor, theta: Tensor, membrane: Membrane) -> Tensor:  # type: ignore[override]
        charged = torch.empty_like(drive)
        spikes = torch.empty_like(drive)
        state = drive.new_zeros(drive.shape[1:])
        if membrane.initial is not None:
            state = membrane.initial.expand_as(state)
        for t in range(len(drive)):
            torch.add(
                (membrane.before(t, state) * membrane.decay).floor_(), drive[t], alpha=membrane.gain, out=charged[t]
            )
            torch.ge(charged[t], theta, out=spikes[t])
            state = charged[t] - spikes[t] * (theta if membrane.soft else charged[t])
        ctx.save_for_backward(charged, spikes, theta)
        ctx.membrane = membrane
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]
        charged, spikes, theta = ctx.saved_tensors
        membrane: Membrane = ctx.membrane
        steepness = _ALPHA * membrane.volts / theta
        out = torch.empty_like(grad)
        to_theta = torch.zeros_like(grad[0]) if ctx.needs_input_grad[1] else None
        near = torch.empty_like(grad[0])
        later: Tensor | None = None
        for t in reversed(range(len(grad))):  # in place: these are the largest tensors of a training
            torch.sub(charged[t], theta, out=near).mul_(steepness).sigmoid_()
            torch.ops.aten.sigmoid_backward.grad_input(grad[t], near, grad_input=out[t])
            out[t].mul_(steepness)
            if to_theta is not None:
                to_theta -= out[t]
            if later is not None and membrane.leftover is None:
                out[t] += later if membrane.soft else later.mul_(torch.sub(1, spikes[t], out=near))
            later = out[t] * membrane.decay
        if to_theta is not None:
            to_theta = to_theta.sum_to_size(theta.shape)
        return out * membrane.gain, to_theta, None


def rounded(x: Tensor) -> Tensor:
    """Nearest integers (halves to even), with the gradient of the identity."""
    return x + (x.round() - x).detach()
