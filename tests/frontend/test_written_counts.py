"""Counts written by hand: rounded within limits, limited afterwards or not at all, rounded down, from any start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from frontend_networks import assert_exact, assert_faithful
from hand_written_networks import Loop, network
from torch import Tensor, nn

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Neuron

Count = Callable[[Tensor], Tensor]
WITHOUT_MEMORY: dict[str, tuple[Count, int | None, str]] = {
    "down within limits": (lambda x: torch.floor(torch.clamp(x, 0, 3)), 3, "floor"),
    "down, then limited": (lambda x: torch.clamp(torch.floor(x), 0, 3), 3, "floor"),
    "to the even, then limited": (lambda x: torch.round(x).clamp(min=0, max=4), 4, "half_even"),
    "up, then limited": (lambda x: (x + 0.5).floor().clamp(0, 4), 4, "half_up"),
    "up, never negative": (lambda x: torch.floor(F.relu(x) + 0.5), None, "half_up"),
    "rounded, never negative": (lambda x: F.relu(torch.round(x)), None, "half_even"),
    "of six": (lambda x: F.hardtanh(torch.round(x), 0.0, 6.0), 6, "half_even"),
}


class Counting(nn.Module):
    def __init__(self, count: Count, high: float) -> None:
        super().__init__()
        self.count, self.high = count, high

    def forward(self, x: Tensor) -> Tensor:
        return self.count(x / self.high) * self.high


@pytest.mark.parametrize("form", WITHOUT_MEMORY)
def test_without_memory(form: str) -> None:
    count, most, rounding = WITHOUT_MEMORY[form]
    net = network(lambda: Counting(count, 0.5))
    op = net.graph["a"].op
    assert op == Neuron(None, 0.5, 0.0, False, max_spikes=most, rounding=rounding, decay=0.0)  # type: ignore[arg-type]
    assert_faithful(net, 2)
    assert_exact(net.graph, net.images)


@pytest.mark.parametrize("start", [0.0, 0.25, 0.4, -0.5])
@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize(
    "count", [lambda u: torch.floor(u.clamp(0, 3)), lambda u: F.relu(u.floor())], ids=["at most 3", "any number"]
)
def test_with_memory_from_any_start(count: Count, decay: float, start: float) -> None:
    def step(v: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        v = decay * v + x
        n = count(v / 0.5)
        return n, v - 0.5 * n

    net = network(lambda: Loop(step, start=start))
    op = net.graph["a"].op
    assert isinstance(op, Neuron)
    assert (op.v_threshold, op.v_reset, op.rounding) == (0.5, None, "floor")
    assert "initial" in net.graph["a"].params or not start
    assert_faithful(net, 2)
    assert_exact(net.graph, net.images)


def test_what_is_rounded_and_not_limited_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="round has no spiking"):
        network(lambda: Counting(lambda x: 2.0 * torch.round(x), 0.5))


def test_their_words() -> None:
    notices = " ".join(network(lambda: Counting(lambda x: F.relu(x.floor()), 0.5)).graph.notices)
    assert "counts without memory, threshold 0.5, any number of spikes, rounded down" in notices
