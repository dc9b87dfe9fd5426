"""Experts mixed by spikes of a router and of half of the channels (SEMM, NeurIPS 2024)."""

from __future__ import annotations

import pytest
import torch
from frontend_networks import assert_sound, traced
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

C, EXPERTS, HEADS, STEPS, SIZE = 8, 4, 2, 3, 4


def lif() -> nn.Module:
    return neuron.LIFNode(step_mode="m")


def unit(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        layer.SeqToANNContainer(nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs)), lif()
    )  # (T, B, C, N)


class Experts(nn.Module):
    """Every expert attends with its own queries; the router's spikes say whose result counts at which token."""

    def __init__(self, per: str) -> None:
        super().__init__()
        self.per = per
        self.k, self.v = unit(C, C), unit(C, C)
        self.router = unit(C, EXPERTS * (HEADS if per == "head" else 1))
        self.queries = nn.ModuleList(unit(C, C) for _ in range(EXPERTS))
        self.fires = nn.ModuleList(lif() for _ in range(EXPERTS))
        self.proj = unit(C, C)

    def forward(self, x: Tensor) -> Tensor:
        def heads(y: Tensor) -> Tensor:  # (T, B, C, N) to (T, B, heads, N, d)
            return y.reshape(*y.shape[:2], HEADS, C // HEADS, -1).transpose(-1, -2)

        k, v, chosen = heads(self.k(x)), heads(self.v(x)), self.router(x)
        chosen = chosen.reshape(*x.shape[:2], EXPERTS, -1, 1, x.shape[-1]).transpose(-1, -2)
        total = 0
        for i in range(EXPERTS):
            result = heads(self.queries[i](x)) @ k.transpose(-1, -2) @ v
            gated = chosen[:, :, i] * self.fires[i](result * 0.25)
            total += gated  # the second addition is in place
        return self.proj(total.transpose(-1, -2).reshape(x.shape))


class Halves(nn.Module):
    """Half of the hidden channels gate the other half, element by element."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = unit(C, 2 * C), unit(C, C)
        self.depthwise = layer.SeqToANNContainer(nn.Conv2d(C, C, 3, padding=1, groups=C), nn.BatchNorm2d(C))
        self.fire = lif()

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.chunk(self.up(x), 2, dim=2)
        mixed = self.fire(self.depthwise(first.unflatten(-1, (SIZE, SIZE)))).flatten(-2)
        return self.down(mixed * second)


class Net(nn.Module):
    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer.SeqToANNContainer(nn.Conv2d(3, C, 3, padding=1), nn.BatchNorm2d(C)), lif())
        self.middle, self.head = middle, nn.Linear(C, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x[None].repeat(STEPS, 1, 1, 1, 1)).flatten(-2)
        x = x + self.middle(x)
        return self.head(x.mean(3).mean(0))


MIDDLES = {
    "per token": lambda: Experts("token"),
    "per token and head": lambda: Experts("head"),
    "per channel": Halves,
}


@pytest.mark.parametrize("name", MIDDLES)
def test_experts(name: str) -> None:
    net = traced(Net(MIDDLES[name]()), image_size=SIZE)
    assert_sound(net)
    masks = [n for n in net.graph if n.op.kind == "mask"]
    assert len(masks) == (1 if name == "per channel" else EXPERTS)
