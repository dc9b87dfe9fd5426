"""Layers over the time axis behind the last neuron: each step has weights of its own, once per image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from frontend_networks import assert_exact, assert_faithful, traced
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Concat, Readout


class OverTime(nn.Module):
    """Spikes ``(B, C, tokens, T)`` into a layer over tokens and steps, or steps alone; if asked, a neuron behind it."""

    def __init__(self, steps: int, over: str, fires: bool = False) -> None:
        super().__init__()
        self.steps, self.over, self.fires = steps, over, fires
        self.conv, self.bn, self.lif = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), LIFNode(step_mode="m")
        kernel = (16, steps) if over == "tokens and steps" else (1, steps)
        self.whole, self.norm = nn.Conv2d(6, 6, kernel, groups=6), nn.BatchNorm2d(6)
        self.weights, self.last, self.head = nn.Linear(steps, 1), LIFNode(step_mode="m"), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif(self.bn(self.conv(x))[None].repeat(self.steps, 1, 1, 1, 1)).flatten(3).permute(1, 2, 3, 0)
        x = self.weights(x) if self.over == "linear" else self.norm(self.whole(x))
        if self.fires:
            x = self.last(x.permute(3, 0, 1, 2)).permute(1, 2, 3, 0)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("over", ["tokens and steps", "steps", "linear"])
def test_a_layer_over_time(over: str, steps: int) -> None:
    net = traced(OverTime(steps, over), image_size=4, time_steps=steps)
    assert [n.op.weights.index(1.0) for n in net.graph if isinstance(n.op, Readout)] == list(range(steps))
    assert sum(isinstance(n.op, Concat) for n in net.graph) == steps - 1
    found = assert_faithful(net, written=-1)  # the last neuron is not used
    assert_exact(net.graph, net.images)
    assert found.outputs == len(net.images) * 6 * 16 * steps


def test_every_engine_and_the_price() -> None:
    net = traced(OverTime(3, "tokens and steps"), image_size=4, time_steps=3)
    integer = qd.quantize(net.graph, 8)
    runs = [qd.simulate(integer, net.images, engine=e) for e in ("reference", "event", "torch", "onnx")]
    for run in runs[1:]:
        assert np.array_equal(run.raw_output, runs[0].raw_output)
    steps = [layer for layer in runs[0].ledger if layer.op == "readout"]
    spikes = runs[0].ledger["lif"].total("events_out_unary")
    assert sum(layer.total("head_adds_unary") for layer in steps) == spikes
    assert qd.price(runs[0].ledger).total_energy_pj > 0


def test_a_neuron_behind_it_is_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(UnsupportedError, match="time"):
        qd.trace(OverTime(3, "steps", fires=True), image_size=4, time_steps=3)
