"""Models that compute statistics of their tensors in NumPy while they run: left out, or refused where they matter."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from frontend_networks import assert_exact, assert_faithful, traced
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError


def rate(values: np.ndarray) -> float:
    return np.count_nonzero(values) / values.size


class Watched(nn.Module):
    """A small network that hands its spikes to ``watch``, with what it goes on with."""

    def __init__(self, watch: Callable[[Tensor, np.ndarray], Tensor]) -> None:
        super().__init__()
        self.conv, self.bn, self.lif = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), LIFNode(step_mode="m")
        self.fc, self.watch = nn.Linear(6, 5), watch

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif(self.bn(self.conv(x))[None].repeat(3, 1, 1, 1, 1))
        x = self.watch(x, x.cpu().detach().numpy())
        return self.fc(x.mean((3, 4))).mean(0)


def test_statistics_that_are_only_printed_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def printed(x: Tensor, values: np.ndarray) -> Tensor:
        sys.stdout.write(f"rate {rate(values)}\n")
        return x

    found = traced(Watched(printed), image_size=6)
    assert "rate" in capsys.readouterr().out
    assert any("in NumPy while it runs is left out" in text for text in found.graph.notices)
    assert_faithful(found)
    assert_exact(found.graph, found.images)
    assert "numpy" not in vars(torch.Tensor)
    assert torch.ones(2).numpy().tolist() == [1.0, 1.0]


MATTERS: dict[str, Callable[[Tensor, np.ndarray], Tensor]] = {
    "factor": lambda x, values: x * (1 + rate(values)),
    "constant": lambda x, values: x + torch.from_numpy(np.asarray(values.mean(), np.float32)),
    "branch at a level": lambda x, values: x if values.sum() > 100 else 2 * x,
    "branch at zero": lambda x, values: x if values.any() else 2 * x,
    "branch between": lambda x, values: x if 0.2 < rate(values) < 0.8 else 2 * x,
}


@pytest.mark.parametrize("name", MATTERS)
def test_statistics_that_matter_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match="in NumPy while it runs reaches its output, or decides what it does"):
        qd.trace(Watched(MATTERS[name]), image_size=6)
    assert "numpy" not in vars(torch.Tensor)
