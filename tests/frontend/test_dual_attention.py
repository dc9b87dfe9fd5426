"""Attention by products of drives and spikes, scaled per head (SpikingResformer, arXiv 2403.14302), in own words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from frontend_networks import assert_exact, assert_faithful, traced
from netbuild import Net
from spikingjelly.activation_based import neuron
from torch import nn

import qkf_deploy as qd
from qkf_deploy import ops
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.run import Record


def lif() -> nn.Module:
    return neuron.LIFNode(step_mode="m")


class DualAttention(nn.Module):
    """A map Y1^T X, then Y2 times its spikes; Y from a strided convolution, a factor for each head."""

    def __init__(self, dim: int = 8, heads: int = 2, patch: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.map_lif, self.out_lif = lif(), lif(), lif()
        self.conv, self.norm = nn.Conv2d(dim, 2 * dim, patch, patch, bias=False), nn.BatchNorm2d(2 * dim)
        self.proj, self.proj_norm = nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim)
        self.register_buffer("rates", torch.tensor([[0.3, 0.7], [1.1, 0.4]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, batch, dim = x.shape[:3]
        spikes = self.first(x)
        y = self.norm(self.conv(spikes.flatten(0, 1))).reshape(steps, batch, self.heads, 2 * dim // self.heads, -1)
        left, right = y.chunk(2, dim=3)
        scales = (0.5 / torch.sqrt(self.rates)).reshape(2, 1, 1, self.heads, 1, 1)
        attention = left.transpose(-1, -2) @ spikes.reshape(steps, batch, self.heads, dim // self.heads, -1)
        out = (right @ self.map_lif(attention * scales[0])) * scales[1]
        out = self.out_lif(out.reshape(x.shape))
        return self.proj_norm(self.proj(out.flatten(0, 1))).reshape(x.shape) + x


class Network(nn.Module):
    """Two blocks on a membrane shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(DualAttention(), DualAttention())
        self.last, self.head = lif(), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.stem(x)).unsqueeze(0).repeat(4, 1, 1, 1, 1)
        return self.head(self.last(self.blocks(y)).flatten(3).mean(3).mean(0))


def test_torch_and_every_engine() -> None:
    """Spikes as torch has them; the factors per head are in the thresholds, no convolution is made of them."""
    net = traced(Network(), image_size=8)
    assert_faithful(net)
    thresholds = {n.name: n.params["v_threshold"].size for n in net.graph if "v_threshold" in n.params}
    assert thresholds == {f"blocks.{i}.{name}": n for i in (0, 1) for name, n in (("map_lif", 2), ("out_lif", 8))}
    assert not [n.name for n in net.graph if n.op.kind in ("scale", "batch_norm")]
    assert_exact(net.graph, net.images)


GAIN = np.array([0.5, 2.0, 4.0, 0.25])
NEURONS = [
    ops.Neuron(2.0, 1.0, 0.0),
    ops.Neuron(None, 1.0, None, strict=True, decay=0.5),
    ops.Neuron(None, 1.0, None, max_spikes=3, rounding="half_even"),
    ops.Neuron(None, 1.0, None, reset_delay=True),
    ops.Neuron(2.0, 1.0, None, v_min=-0.5),
    ops.Neuron(2.0, 1.0, -0.25),
]


@pytest.mark.parametrize("op", NEURONS, ids=str)
@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_a_gain_in_front_of_neurons_goes_into_their_thresholds(op: ops.Neuron, shift: float) -> None:
    """Powers of two: the same spikes to the last one. With a shift, or a reset voltage, it stays a convolution."""
    net = Net(3, (3, 6, 6))
    drive = net.conv("conv", "input", 4)
    short = net.lif("short", drive)  # reads the drive too, so that the gain cannot go into the weights
    ones = np.ones(4)
    net.add("gain", ops.BatchNorm(0.0), drive, mean=0 * ones, var=ones, weight=GAIN, bias=shift * ones)
    net.add("neuron", op, "gain", initial=np.full((1, 1, 1), 0.5))
    net.head(net.add("both", ops.Add(), short, "neuron"))
    graph = net.build()
    folded = qd.fold(graph)
    stays = shift != 0 or op.v_reset not in (None, 0.0)
    assert ("gain" in folded.nodes) is stays
    x = np.random.default_rng(0).normal(size=(1, 4, 3, 6, 6))
    runs = [reference.run(g, x, Record.of(g, ["neuron"])) for g in (graph, folded)]
    assert np.array_equal(runs[0].spikes["neuron"], runs[1].spikes["neuron"])
    assert runs[0].spikes["neuron"].any()
    assert runs[0].ledger == runs[1].ledger
