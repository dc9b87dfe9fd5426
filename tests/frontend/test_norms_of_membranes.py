"""Batch norms between a membrane and its threshold (arXiv 2308.08359): a threshold for each channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from frontend_networks import assert_sound, traced
from hand_written_networks import SIZE, Net, Step, T
from torch import Tensor, nn

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import BatchNorm


class Normed(nn.Module):
    """LIF that fires on the norm of its membrane and keeps the membrane itself."""

    def __init__(self, channels: int, gain: float = 1.0) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        torch.manual_seed(channels)
        self.bn.weight.data.uniform_(0.5, 1.5).mul_(gain)
        self.bn.bias.data.uniform_(-0.3, 0.3)
        self.bn.running_mean.uniform_(0.0, 0.4)  # type: ignore[union-attr]
        self.bn.running_var.uniform_(0.3, 2.0)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for t in range(len(x)):
            v = v * 0.25 + x[t]
            out.append(Step.apply(self.bn(v) / 0.8 - 0.5))
            v = v * (1 - out[-1])
        return torch.stack(out)


class NormedNet(Net):
    """The network without the random norms that would make its thresholds anything."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__(lambda: Normed(4, gain))


def test_the_norm_goes_into_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend_networks.awake", lambda *_: None)
    model = NormedNet()
    net = traced(model, image_size=SIZE)
    found = assert_sound(net, written=2)
    assert sum(layer.spikes for layer in found.layers) > 0
    assert not any(isinstance(n.op, BatchNorm) for n in net.graph)
    bn = model.a.bn.double()
    wanted = (0.4 - bn.bias) / bn.weight * torch.sqrt(bn.running_var + bn.eps) + bn.running_mean
    first = next(n for n in net.graph if n.op.kind == "neuron")
    assert np.allclose(first.params["v_threshold"].ravel(), wanted.detach().numpy(), rtol=1e-12)
    assert (first.op.decay, first.op.strict, net.graph.time_steps) == (0.25, True, T)


def test_a_norm_that_turns_the_membrane_round_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontend_networks.awake", lambda *_: None)
    with pytest.raises(UnsupportedError, match="2 operations cannot be lowered") as caught:
        traced(NormedNet(-1.0), image_size=SIZE, time_steps=T, input="image")
    lines = caught.value.message.splitlines()[1:]  # the reason for each neuron, without its membrane's arithmetic
    assert [line.split(" ")[2] for line in lines] == ["a", "b"]
    assert all(line.endswith("fires at 0 or below") for line in lines)
