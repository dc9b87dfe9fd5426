"""Cells in the manner of norse, in own words: (spikes, state) = cell(x, state), time constants in seconds."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from frontend_networks import assert_exact, assert_faithful, traced
from hand_written_networks import SIZE, Step, T
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Neuron

DT = 0.001


class State(NamedTuple):
    v: Tensor
    i: Tensor


class Cell(nn.Module):
    """One step; without a state, membranes start at the leak potential."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.leak = torch.as_tensor(0.25 if kind == "leaks to a value" else 0.0)
        self.threshold, self.rest = torch.as_tensor(1.0), torch.as_tensor(0.0)
        self.membrane, self.synapse = torch.as_tensor(250.0), torch.as_tensor(125.0)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        if state is None:
            state = State(self.leak.detach() * torch.ones_like(x), torch.zeros_like(x))
        v, i = state
        if self.kind == "integrates":
            v = v + x
        elif self.kind == "with a current":
            i = i + x
            v = v + DT * self.membrane * ((self.leak - v) + i)
            i = i - DT * self.synapse * i
        else:
            v = v + DT * self.membrane * (x + self.leak - v)
        s = Step.apply(v - self.threshold)
        v = v - s * self.threshold if self.kind == "subtracts" else (1 - s) * v + s * self.rest
        return s, State(v, i)


class Snn(nn.Module):
    """Two layers in a loop over time, the states handed on."""

    def __init__(self, kind: str, once: bool = False) -> None:
        super().__init__()
        self.once = once
        self.fc1, self.l1, self.fc2, self.l2 = nn.Linear(3 * SIZE * SIZE, 12), Cell(kind), nn.Linear(12, 5), Cell(kind)
        for layer in (self.fc1, self.fc2):
            layer.weight.data *= 6

    def forward(self, x: Tensor) -> Tensor:
        first, second, out = None, None, []
        drive = self.fc1(x.flatten(1))
        for _ in range(T):
            z, first = self.l1(drive if self.once else self.fc1(x.flatten(1)), first)
            z, second = self.l2(self.fc2(z), second)
            out.append(z)
        return torch.stack(out).sum(0)


KINDS = {
    "boxes": Neuron(None, 1.0, 0.0, False, strict=True, decay=0.75),
    "subtracts": Neuron(None, 1.0, None, False, strict=True, decay=0.75),
    "leaks to a value": Neuron(None, 1.0, 0.0, False, strict=True, decay=0.75),
    "integrates": Neuron(None, 1.0, 0.0, False, strict=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_state(kind: str) -> None:
    torch.manual_seed(2)
    net = traced(Snn(kind), image_size=SIZE, in_channels=3)
    found, wanted = net.graph["l1"].op, KINDS[kind]
    assert isinstance(found, Neuron)
    assert (found.v_threshold, found.v_reset, found.strict) == (wanted.v_threshold, wanted.v_reset, wanted.strict)
    keeps = found.decay or (1 - 1 / found.tau if found.tau else 1.0)
    assert keeps == pytest.approx(wanted.decay or 1.0, rel=1e-6)  # constants of float32
    assert any(n.startswith("2 neurons found in") for n in net.graph.notices)
    assert_faithful(net, 2)
    assert_exact(net.graph, net.images)


@pytest.mark.parametrize("once", [False, True])
def test_a_synaptic_current_is_a_second_state(once: bool) -> None:
    torch.manual_seed(2)
    with pytest.raises(UnsupportedError, match="has a second state, such as a synaptic current") as refused:
        qd.trace(Snn("with a current", once), image_size=SIZE, in_channels=3)
    assert "l1" in str(refused.value)
