"""A synapse of few bits that can be trained: integer weights, an integer bias and the threshold its drive meets.

All are kept as real numbers in units of the drive and rounded at every step; rounding has the gradient of the identity
(straight-through, arXiv 1308.3432), as in learned step sizes (arXiv 1902.08153). The threshold of a channel is the
inverse of its scale: both say how many units of the drive one volt is. So the threshold is learned, as an integer, and
the scale follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from qkf_deploy.ops import Conv, Linear
from qkf_deploy.passes.learned import Learned
from qkf_deploy.training.operators import conv
from qkf_deploy.training.spiking import rounded

#: Whole numbers below this are exact in float32, a factor of 8 left for what training changes.
_SINGLE = 2.0**21
#: How far from its integer a weight may start: where its real value is, and not yet at the next integer.
_INSIDE = 0.49


@dataclass(frozen=True, eq=False)
class Start:
    """A synapse before it is trained, float64.

    Attributes:
        op: what it is.
        bits: per weight.
        weight: ``(O, ...)``, in units of the drive.
        real: the weights before they were rounded to ``weight``, in the same units.
        bias: ``(O,)``, likewise; ``None`` for a synapse that has none.
        unit: real value of one unit, ``(O,)``.
        volts: real drive that its neuron's threshold stands for; ``None`` where the scale stays as it is.
        offset: what a byte of 0 stands for, over what one more stands for, per channel that is read; ``None`` for
            anything but pixels.
        reach: largest magnitude of what it reads.
        growth: how much larger than the drive numbers get in the neuron.
    """

    op: Conv | Linear
    bits: int
    weight: np.ndarray
    real: np.ndarray
    bias: np.ndarray | None
    unit: np.ndarray
    volts: float | None
    offset: np.ndarray | None
    reach: float
    growth: float


class Synapse(nn.Module):
    """A convolution or linear layer of integers.

    Args:
        start: where it starts from.
    """

    def __init__(self, start: Start) -> None:
        super().__init__()
        self.op, self.limit = start.op, 2 ** (start.bits - 1) - 1
        self._unit, self._volts = start.unit, start.volts
        weight, real = start.weight, start.real
        bias = np.zeros(len(start.unit)) if start.bias is None else start.bias
        span = np.maximum(np.abs(bias), self.limit)
        if start.volts is not None:
            span = np.maximum(np.rint(start.volts / start.unit), 1.0)
            ratio = start.unit * span / start.volts  # of the old unit to one that makes the threshold whole
            wide = ratio.reshape(-1, *[1] * (weight.ndim - 1))
            weight, real, bias = weight * wide, real * wide, bias * ratio
            self.log_theta = nn.Parameter(torch.tensor(np.log(span), dtype=torch.float32))
        integers = np.clip(np.rint(weight), -self.limit, self.limit)
        kept = np.clip(real, integers - _INSIDE, integers + _INSIDE)
        self.weight = nn.Parameter(torch.tensor(kept / self.limit, dtype=torch.float32))
        self.bias = nn.Parameter(torch.tensor(bias / span, dtype=torch.float32), requires_grad=start.bias is not None)
        self._span: Tensor
        self._offset: Tensor | None
        self.register_buffer("_span", torch.tensor(span, dtype=torch.float64), persistent=False)
        offset = None if start.offset is None else torch.tensor(start.offset, dtype=torch.float64)
        self.register_buffer("_offset", offset, persistent=False)
        largest = self.limit * weight[0].size * start.reach + 2 * float(np.abs(bias).max())
        self.dtype = torch.float32 if largest * start.growth < _SINGLE else torch.float64

    def theta(self) -> Tensor:
        """The integer threshold of each channel, ``(O,)``."""
        return rounded(torch.exp(self.log_theta)).clamp_min(1.0)

    def integers(self) -> Tensor:
        """The integer weights."""
        return rounded((self.weight * self.limit).clamp(-self.limit, self.limit))

    def units(self) -> Tensor:
        """The bias in units of the drive, float64 ``(O,)``, not rounded; its real value is one of float32's."""
        units = self.bias.double() * self._span
        if self._offset is None:
            return units
        scale = self.scale().to(units.device)
        return (units * scale).float().double() / scale

    def scale(self) -> Tensor:
        """Real value of one unit of the drive, float64 ``(O,)``."""
        if self._volts is None:
            return torch.tensor(self._unit)
        return self._volts / self.theta().detach().double()

    def forward(self, x: Tensor) -> Tensor:
        """Drive ``(T or 1, B, *shape)`` of whole numbers."""
        weight, bias = self.integers(), self._per_channel(self.units())
        y = self._product(x.to(self.dtype), weight.to(self.dtype))
        if self._offset is not None:  # padding is zero after normalization: at a border fewer offsets are added
            axis = 2 if isinstance(self.op, Conv) else x.ndim - 1
            image = self._offset.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
            bias = bias + self._product(image.expand(1, 1, *x.shape[2:]), weight.double())
        return y + rounded(bias).to(self.dtype)

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        return conv(self.op, x, weight) if isinstance(self.op, Conv) else x @ weight.T

    def _per_channel(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (len(self.op.stride) if isinstance(self.op, Conv) else 0))

    def learned(self) -> Learned:
        """As it is now."""
        with torch.no_grad():
            weight, bias = self.integers().cpu().double(), self.units().cpu()
            bias = bias if self._offset is not None else bias.round()
            return Learned(weight.numpy(), bias.numpy(), self.scale().cpu().numpy())
