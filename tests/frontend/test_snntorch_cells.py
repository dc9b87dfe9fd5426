"""snnTorch's cells, whose state passes through a loop over the whole network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import snntorch
import torch
from frontend_networks import assert_exact, assert_faithful, traced
from hand_written_networks import SIZE, T
from snntorch import utils
from torch import Tensor, nn

import qkf_deploy as qd


class Snn(nn.Module):
    """The usual snnTorch script: cells take and return their membrane."""

    def __init__(self, make: Callable[[], nn.Module], hidden: bool = False) -> None:
        super().__init__()
        self.hidden = hidden
        self.fc1, self.l1, self.fc2, self.l2 = nn.Linear(3 * SIZE * SIZE, 12), make(), nn.Linear(12, 5), make()
        for layer in (self.fc1, self.fc2):
            layer.weight.data *= 3

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self)
        x, out, m1, m2 = x.flatten(1), [], torch.zeros(0), torch.zeros(0)
        for _ in range(T):
            if self.hidden:
                s1 = self.l1(self.fc1(x))
                s2 = self.l2(self.fc2(s1))
            else:
                s1, m1 = self.l1(self.fc1(x), m1)
                s2, m2 = self.l2(self.fc2(s1), m2)
            out.append(s2)
        return torch.stack(out).sum(0)


CELLS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "leaky, subtract": (lambda: snntorch.Leaky(beta=0.5), {"reset_delay": True, "v_reset": None}),
    "leaky, zero": (lambda: snntorch.Leaky(beta=0.75, reset_mechanism="zero"), {"v_reset": 0.0}),
    "leaky, hidden": (lambda: snntorch.Leaky(beta=0.5, init_hidden=True), {"reset_delay": True}),
    "leaky, learnt": (lambda: snntorch.Leaky(beta=torch.rand(()), learn_beta=True, learn_threshold=True), {}),
    "lapicque": (lambda: snntorch.Lapicque(beta=0.5, threshold=0.5), {"reset_delay": True, "v_threshold": 0.5}),
}


@pytest.mark.parametrize("name", CELLS)
def test_snntorch(name: str) -> None:
    make, wanted = CELLS[name]
    torch.manual_seed(2)
    net = traced(Snn(make, hidden="hidden" in name), image_size=SIZE, in_channels=3)
    for key, value in {"strict": True, **wanted}.items():
        assert getattr(net.graph["l1"].op, key) == value, key
    assert_faithful(net, 2)
    assert_exact(net.graph, net.images)


def test_a_decay_per_neuron() -> None:
    torch.manual_seed(3)
    model = Snn(lambda: snntorch.Leaky(beta=0.5))
    model.l1 = snntorch.Leaky(beta=torch.rand(12), threshold=torch.rand(12) + 0.5)
    net = traced(model, image_size=SIZE, in_channels=3)
    assert net.graph["l1"].params["decay"].shape == net.graph["l1"].params["v_threshold"].shape == (12,)
    assert_faithful(net, 2)


def test_a_model_is_left_as_it_was() -> None:
    model, other = Snn(lambda: snntorch.Leaky(beta=0.5, init_hidden=True), hidden=True), snntorch.Leaky(beta=0.5)
    other(torch.ones(1, 2))
    before, buffers = other.mem.clone(), {k: v.clone() for k, v in model.named_buffers()}
    qd.trace(model, image_size=SIZE, in_channels=3)
    assert torch.equal(other.mem, before)
    assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())
    assert model(torch.zeros(1, 3, SIZE, SIZE)).shape == (1, 5)
