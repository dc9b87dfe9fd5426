"""Loops that look like a neuron and are none that exists here: refused, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hand_written_networks import SIZE, Loop, T, network
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError


def never_resets(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v * 0.5 + x
    return (v > 1.0).float(), v


def takes_half_of_counts(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v * 0.5 + x
    s = torch.floor(torch.clamp(v, 0, 4) + 0.5)
    return s, v - 0.5 * s


def gives(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v * 0.5 + x
    s = (v > 1.0).float()
    return s, v + 0.5 * s


def takes_part(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v + x
    s = (v > 1.0).float()
    return s, v * (1 - 0.5 * s)


def grows(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v * 1.5 + x
    s = (v > 1.0).float()
    return s, v * (1 - s)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (never_resets, "never resets its membrane"),
        (takes_half_of_counts, "subtracts another value than its threshold"),
        (gives, "subtracts another value than its threshold"),
        (takes_part, "takes part of the membrane away"),
        (grows, "multiplies its membrane by 1.5"),
    ],
)
def test_what_is_no_neuron_here(step: Any, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        network(lambda: Loop(step))


def test_spikes_fed_back_and_membranes_read_are_refused() -> None:
    class Fed(nn.Module):
        def __init__(self, read: bool) -> None:
            super().__init__()
            self.read, self.fc, self.back, self.head = read, nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x, v, s, out = self.fc(x.flatten(1)), 0.0, None, 0.0
            for _ in range(T):
                v = v * 0.5 + (x if s is None or self.read else x + self.back(s))
                s = (v > 1.0).to(x)
                v = v * (1 - s)
                out = out + s
            return self.head(v if self.read else out)

    for read, reason in ((False, "otherwise in one time step"), (True, "different time steps")):
        with pytest.raises(UnsupportedError, match=reason):
            qd.trace(Fed(read), image_size=1, in_channels=3)


def test_a_decay_that_changes_over_time() -> None:
    class Ageing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            v: Any = 0.0
            out = []
            for t in range(x.shape[0]):
                v = v * (0.5 + 0.1 * t) + x[t]
                s = (v > 1.0).float()
                v = v * (1 - s)
                out.append(s)
            return torch.stack(out)

    with pytest.raises(UnsupportedError, match="otherwise in one time step than in another"):
        network(Ageing)


def test_memory_between_calls_is_not_guessed() -> None:
    """One step per call: what the module keeps until the next call is not in the program."""

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v: Any = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.v = self.v * 0.5 + x
            s = (self.v > 1.0).float()
            self.v = self.v * (1 - s)
            return s

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Cell(), nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(UnsupportedError, match="what it keeps between calls cannot be seen"):
        qd.trace(model, image_size=SIZE, time_steps=4)
