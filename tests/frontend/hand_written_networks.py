"""Networks with neurons that are written by hand, and how they are traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from frontend_networks import Traced, traced
from torch import Tensor, nn

T, C, SIZE = 4, 4, 6


class Step(torch.autograd.Function):
    """A surrogate of one's own: a step in the forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Loop(nn.Module):
    """Runs ``step(v, x) -> (spikes, v)`` over an axis; the membrane starts at ``start``."""

    def __init__(self, step: Callable[[Any, Tensor], tuple[Tensor, Any]], axis: int = 0, start: float = 0.0) -> None:
        super().__init__()
        self.step, self.axis, self.start = step, axis, start

    def forward(self, x: Tensor) -> Tensor:
        v: Any = self.start
        out = []
        for t in range(x.shape[self.axis]):
            s, v = self.step(v, x.select(self.axis, t))
            out.append(s)
        return torch.stack(out, self.axis)


class Net(nn.Module):
    """Two convolutions with the neuron behind each, time on an axis of choice."""

    def __init__(self, make: Callable[[], nn.Module], axis: int = 0) -> None:
        super().__init__()
        self.axis = axis
        self.conv1, self.conv2 = nn.Conv2d(3, C, 3, padding=1), nn.Conv2d(C, C, 3, padding=1)
        self.a, self.b, self.head = make(), make(), nn.Linear(C, 3)
        for conv in (self.conv1, self.conv2):
            conv.weight.data = torch.round(conv.weight.data * 32) / 16  # sums that meet thresholds exactly
            conv.bias.data = torch.round(conv.bias.data * 16) / 16 + 0.5  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).unsqueeze(self.axis)
        factors = [1] * x.ndim
        factors[self.axis] = T
        x = self.a(x.repeat(*factors))
        shape = x.shape
        x = self.b(self.conv2(x.flatten(0, 1)).reshape(shape))
        return self.head(x.mean((3, 4))).mean(self.axis)


def network(make: Callable[[], nn.Module], axis: int = 0, **found: Any) -> Traced:
    """Traced as an image of T steps, or as it is found to be."""
    torch.manual_seed(1)
    return traced(Net(make, axis), image_size=SIZE, **(found or {"input": "image", "time_steps": T}))


def tet(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v * 0.5 + x
    s = Step.apply(v - 1.0)
    return s, (1 - s) * v
