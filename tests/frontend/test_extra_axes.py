"""Windows and blocks in the batch axis, 3-d layers that leave the steps alone, constant matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from frontend_networks import assert_sound, traced
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError


class Windows(nn.Module):
    """A 4 × 4 grid of windows in the batch axis, through a layer, and back."""

    def __init__(self, layer: nn.Module, channels: int = 6, attention: bool = False) -> None:
        super().__init__()
        self.stem, self.bn0, self.lif0 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), LIFNode(step_mode="m")
        self.layer, self.attention, self.lif = layer, attention, LIFNode(step_mode="m")
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif0(self.bn0(self.stem(x))[None].repeat(3, 1, 1, 1, 1))
        steps, images, c, h, w = x.shape
        x = x.reshape(steps, images, c, 2, h // 2, 2, w // 2).permute(0, 1, 3, 5, 2, 4, 6)
        x = x.reshape(steps, -1, c, h // 2, w // 2)
        y = self.layer(x.flatten(0, 1))
        y = self.lif(y.reshape(steps, -1, *y.shape[1:]))
        if self.attention:
            tokens = y.flatten(3)
            y = (tokens.transpose(-2, -1) @ tokens @ tokens.transpose(-2, -1)).transpose(-2, -1).reshape(y.shape)
            y = y * x + x
        c, h, w = y.shape[2:]
        y = y.reshape(steps, -1, 2, 2, c, h, w).permute(0, 1, 4, 2, 5, 3, 6).reshape(steps, -1, c, 2 * h, 2 * w)
        return self.fc(y.mean((3, 4))).mean(0)


LAYERS = {
    "pointwise": (lambda: nn.Sequential(nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8)), 8),
    "norm": (lambda: nn.BatchNorm2d(6), 6),
    "padded": (lambda: nn.Conv2d(6, 8, 3, padding=1), 8),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6), 6),
    "strided": (lambda: nn.Conv2d(6, 8, 2, stride=2), 8),
    "max pool": (lambda: nn.Sequential(nn.Conv2d(6, 8, 1), nn.MaxPool2d(3, 1, 1)), 8),
    "sum pool": (lambda: nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(6, 8, 1)), 8),
}


@pytest.mark.parametrize(("layer", "channels"), LAYERS.values(), ids=LAYERS)
def test_windows_in_the_batch(layer, channels: int) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    model = Windows(layer(), channels)
    assert_sound(traced(model, image_size=8, time_steps=3))


class Stepped(nn.Module):
    """A single-step neuron in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.lif = LIFNode()

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.lif(step) for step in x])


def test_a_loop_over_steps_of_windows() -> None:
    model = Windows(nn.Conv2d(6, 8, 3, padding=1), 8)
    model.lif = Stepped()
    assert_sound(traced(model, image_size=8, time_steps=3))


def test_attention_within_windows() -> None:
    class Scores(Windows):
        def forward(self, x: Tensor) -> Tensor:
            x = self.lif0(self.bn0(self.stem(x))[None].repeat(3, 1, 1, 1, 1))
            steps, images, c, h, w = x.shape
            x = x.reshape(steps, images, c, 2, h // 2, 2, w // 2).permute(0, 1, 3, 5, 4, 6, 2)
            x = x.reshape(steps, -1, h * w // 4, c)
            y = self.lif(x @ (x.transpose(-2, -1) @ x) * 0.125)
            y = y.reshape(steps, -1, 2, 2, h // 2, w // 2, c).permute(0, 1, 6, 2, 4, 3, 5)
            return self.fc(y.reshape(steps, -1, c, h, w).mean((3, 4))).mean(0)

    assert_sound(traced(Scores(nn.Identity()), image_size=8, time_steps=3))


class Deep(nn.Module):
    """3-d layers on ``(B, C, T, H, W)`` or a 3-d pool on ``(T, B, C, H, W)``."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.stem, self.bn0, self.lif0 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), LIFNode(step_mode="m")
        self.conv = nn.Conv3d(6, 8, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.bn, self.lif = nn.BatchNorm3d(8), LIFNode(step_mode="m")
        self.max, self.avg = nn.MaxPool3d((1, 3, 3), (1, 1, 1), (0, 1, 1)), nn.AvgPool3d((1, 2, 2))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif0(self.bn0(self.stem(x))[None].repeat(3, 1, 1, 1, 1))
        x = self.max(x) if self.form == "pool per channel" else x
        x = x.permute(1, 2, 0, 3, 4)
        x = self.max(x) if self.form == "max pool" else self.avg(x) if self.form == "average pool" else x
        x = self.lif(self.bn(self.conv(x)).permute(2, 0, 1, 3, 4))
        if self.form == "adaptive pool per channel":
            return self.fc(nn.functional.adaptive_avg_pool3d(x, (None, 1, 1)).flatten(2)).mean(0)
        return self.fc(x.mean((3, 4))).mean(0)


FORMS = ["convolution", "max pool", "average pool", "pool per channel", "adaptive pool per channel"]


@pytest.mark.parametrize("form", FORMS)
def test_layers_of_three_dimensions_that_leave_the_steps_alone(form: str) -> None:
    assert_sound(traced(Deep(form), image_size=8, time_steps=3))


def test_layers_over_time_are_refused() -> None:
    model = Deep("convolution")
    model.conv = nn.Conv3d(6, 8, 3, padding=1)
    with pytest.raises(UnsupportedError, match="a convolution over depth or time"):
        qd.trace(model, image_size=8, time_steps=3)
    model = Deep("max pool")
    model.max = nn.MaxPool3d(3, 1, 1)
    with pytest.raises(UnsupportedError, match="3-d pooling over depth or time"):
        qd.trace(model, image_size=8, time_steps=3)


class Mixed(nn.Module):
    """Spikes times a constant matrix, from either side."""

    def __init__(self, side: str) -> None:
        super().__init__()
        self.side = side
        self.stem, self.bn0, self.lif0 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), LIFNode(step_mode="m")
        self.lif, self.fc = LIFNode(step_mode="m"), nn.Linear(6, 5)
        self.register_buffer("matrix", torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif0(self.bn0(self.stem(x))[None].repeat(3, 1, 1, 1, 1))
        if "left" in self.side:
            x = torch.matmul(self.matrix, x)
        if "right" in self.side:
            x = x @ self.matrix[None]
        return self.fc(self.lif(x).mean((3, 4))).mean(0)


@pytest.mark.parametrize("side", ["left", "right", "left and right"])
def test_a_constant_matrix_is_a_linear_layer(side: str) -> None:
    net = traced(Mixed(side), image_size=8, time_steps=3)
    if side != "left and right":  # whose second product reads drives
        assert_sound(net)
    matrix = net.source.model.get_buffer("matrix").numpy()
    found = [n.params["weight"] for n in net.graph if n.op.kind == "linear"][:-1]
    expected = {"left": [matrix], "right": [matrix.T], "left and right": [matrix, matrix.T]}[side]
    assert len(found) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
