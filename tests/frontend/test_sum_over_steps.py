"""A stem of T time steps whose sums go through one step of neurons, as the one-step transformer does.

One graph has one T: the model is refused as a whole, with the way around it, and its two parts are exact.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from frontend_networks import assert_exact, assert_faithful, traced
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError

STEPS, C = 3, 6


class Stem(nn.Module):
    """Spikes of all steps added up, step by step, each with its axis."""

    def __init__(self, steps: int = STEPS, keep: bool = False) -> None:
        super().__init__()
        self.steps, self.keep = steps, keep
        self.conv, self.bn, self.lif = nn.Conv2d(3, C, 3, padding=1), nn.BatchNorm2d(C), neuron.LIFNode(step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(0).repeat(self.steps, 1, 1, 1, 1)
        x = self.lif(self.bn(self.conv(x.flatten(0, 1))).reshape(self.steps, -1, C, *x.shape[-2:]))
        total = x[0:1]
        for t in range(1, self.steps):
            total = total + x[t : t + 1]
        return total if self.keep else total[0]


class Behind(nn.Module):
    """Counts gate drives, and their sum over positions; ``(T, B, C, H, W)`` with T = 1."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value, self.out = nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1), nn.Conv2d(C, C, 1)
        self.bn, self.head = nn.BatchNorm2d(C), nn.Linear(C, 4)
        self.low, self.high = (neuron.LIFNode(step_mode="m", v_threshold=v) for v in (0.25, 0.75))
        self.last = neuron.LIFNode(step_mode="m", v_threshold=0.5)

    def forward(self, x: Tensor) -> Tensor:
        steps, flat = x.shape[0], x.flatten(0, 1)
        drive = self.bn(self.key(flat)).unflatten(0, (steps, -1))
        counts = (self.low(drive) + self.high(drive)).flatten(0, 1)
        pooled = (counts * self.value(flat)).mean((2, 3), keepdim=True)
        spikes = self.last(self.out(counts * pooled).unflatten(0, (steps, -1)))
        return self.head(spikes.flatten(3).mean(3).mean(0))


class Whole(nn.Module):
    def __init__(self, steps: int = STEPS) -> None:
        super().__init__()
        self.stem, self.behind = Stem(steps, keep=True), Behind()

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.stem(x))


class Frames(nn.Module):
    """The part behind the sum, on event frames ``(B, T, C, H, W)``."""

    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        self.behind = behind

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(x.transpose(0, 1))


@pytest.mark.parametrize("given", [{}, {"input": "image", "time_steps": STEPS}])
def test_the_whole_model_is_refused_with_what_to_do(given: dict[str, object]) -> None:
    torch.manual_seed(0)
    with pytest.raises(UnsupportedError, match="a graph has one T for all of its neurons") as caught:
        qd.trace(Whole(), image_size=8, **given)
    assert re.search("behind a sum over", caught.value.message)
    assert caught.value.hint
    assert "--input frames --time-steps 1" in caught.value.hint


def test_of_one_step_it_is_one_network() -> None:
    net = traced(Whole(1), image_size=8, time_steps=1)
    assert_faithful(net)
    assert_exact(net.graph, net.images)


def test_both_parts_in_a_row_are_the_model() -> None:
    """Float: every spike; integers: the same in every engine, counts as the frames of the second part."""
    front = traced(Stem(), image_size=8)
    assert_faithful(front)
    behind = Behind()
    back = traced(Frames(behind), image_size=8, in_channels=C, input="frames", time_steps=1)
    assert_faithful(back)
    model = Whole()
    model.stem.load_state_dict(front.source.model.state_dict())
    model.behind.load_state_dict(behind.state_dict())
    model.double().eval()
    sums = qd.simulate(front.graph, front.images, engine="reference").logits
    functional.reset_net(model)
    assert sums.max() == STEPS
    found = qd.simulate(back.graph, sums[:, None], engine="reference").logits
    with torch.no_grad():
        wanted = model.behind(torch.tensor(sums)[None]).numpy()
    assert np.abs(found - wanted).max() < 1e-12
    integers = assert_exact(front.graph, front.images)
    counts = qd.simulate(integers, front.images, engine="event").raw_output[0]
    assert_exact(back.graph, counts[:, None].astype(np.uint8))
