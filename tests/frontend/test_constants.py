"""Constants that a model makes or changes while it runs: their values are torch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from frontend_networks import assert_exact, assert_faithful, traced
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

Make = Callable[[Tensor, Tensor], Tensor]


def _parts(x: Tensor, _: Tensor) -> Tensor:
    made = torch.ones(1, 6, 1, 1)
    made[:, 1:3] *= 0.5
    made[:, 4] = 2.0
    return made.view(6)


def _by_number(x: Tensor, _: Tensor) -> Tensor:
    made = torch.zeros(6)
    made[torch.tensor([1, 3])] = 1.5
    made += 0.25
    return made


def _like_the_image(x: Tensor, held: Tensor) -> Tensor:
    made = x.new_full((6,), 0.75)
    made[::2].mul_(held[::2])
    return made


def _of_a_view(x: Tensor, _: Tensor) -> Tensor:
    made = torch.arange(6).float() + 1
    part = made[2:4]
    made.sqrt_()
    part.fill_(0.5)
    return made


def _of_what_is_held(x: Tensor, held: Tensor) -> Tensor:
    held[:3] = 0.5
    held[4:].clamp_(max=1.2)
    return held


MADE: dict[str, Make] = {
    "parts": _parts, "by number": _by_number, "like the image": _like_the_image, "of a view": _of_a_view,
    "of what is held": _of_what_is_held,
}  # fmt: skip


class Scaled(nn.Module):
    held: Tensor

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.make, self.conv, self.fc = make, nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)
        self.norm, self.lif = nn.BatchNorm2d(6), LIFNode(step_mode="m", v_threshold=0.5)
        self.register_buffer("held", torch.linspace(1, 2, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)) * self.make(x, self.held).view(1, 6, 1, 1)
        return self.fc(self.lif(x[None].repeat(3, 1, 1, 1, 1)).mean((3, 4))).mean(0)


@pytest.mark.parametrize("make", MADE)
def test_what_is_written_to_a_constant_is_in_it(make: str) -> None:
    net = traced(Scaled(MADE[make]), image_size=6, time_steps=3)
    assert_faithful(net)
    assert_exact(net.graph, net.images)
