"""Inputs that are no square images: frames of any size, signals, vectors; and where the size is read off the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from frontend_networks import Traced, assert_exact, assert_faithful, traced
from spikingjelly.activation_based.neuron import LIFNode
from torch import nn

import qkf_deploy as qd
from qkf_deploy.cli import run
from qkf_deploy.errors import InputError, UsageError


class Frames(nn.Module):
    """Event frames ``(B, T, 2, 6, 9)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.lif = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), LIFNode(step_mode="m")
        self.fc = nn.Linear(8 * 6 * 9, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(0, 1)
        y = self.bn(self.conv(x.flatten(0, 1)))
        return self.fc(self.lif(y.reshape(*x.shape[:2], *y.shape[1:])).flatten(2)).mean(0)


class Vectors(nn.Module):
    """A sequence of vectors ``(T, B, 40)``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lif, self.head = nn.Linear(40, 32), LIFNode(step_mode="m", v_threshold=0.05), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lif(self.first(x))).mean(0)


class Signals(nn.Module):
    """A signal ``(B, 2, 20)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.lif = nn.Conv1d(2, 8, 5, padding=2), nn.BatchNorm1d(8), LIFNode(step_mode="m")
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.lif(self.bn(self.conv(x))[None].repeat(4, 1, 1, 1)).mean(3)).mean(0)


class Flat(nn.Module):
    """An image, flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lif, self.head = nn.Linear(36, 32), LIFNode(step_mode="m", v_threshold=0.05), nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lif(self.first(x.flatten(1))[None].repeat(4, 1, 1))).mean(0)


MODELS = {
    "frames of H, W": (Frames, {"image_size": (6, 9), "time_steps": 3, "input": "frames"}, (2, 6, 9)),
    "vectors": (Vectors, {"image_size": 1, "in_channels": 40, "time_steps": 4}, (40,)),
    "signals": (Signals, {"image_size": (20,)}, (2, 20)),
    "a flattened image": (Flat, {"image_size": 6, "in_channels": 1}, (1, 6, 6)),
    "channels not given": (Flat, {"image_size": (4, 9)}, (1, 4, 9)),
}


@pytest.mark.parametrize(("model", "options", "shape"), MODELS.values(), ids=MODELS)
def test_any_shape(model: type[nn.Module], options: dict[str, object], shape: tuple[int, ...]) -> None:
    channels = shape[0]
    values = {} if "input" in options else {"mean": [0.3 + 0.01 * c for c in range(channels)], "std": [0.5] * channels}
    net: Traced = traced(model(), **options, **values)
    assert net.graph.input.type.shape == shape
    assert_faithful(net)
    integer = assert_exact(net.graph, net.images)
    reference, onnx = (qd.simulate(integer, net.images, engine=e).raw_output for e in ("reference", "onnx"))
    assert np.array_equal(reference, onnx)


@pytest.mark.parametrize("value", [0.5, -1, 256, 3000])
def test_fractions_and_counts_beyond_the_range_are_refused(value: float) -> None:
    net = traced(Frames(), image_size=(6, 9), time_steps=3, input="frames")
    frames = net.images.copy()
    frames[0, 1, 0, 2, 3] = value
    for graph in (net.graph, qd.quantize(net.graph, 8)):
        with pytest.raises(InputError, match="must be whole numbers from 0 to 255") as caught:
            qd.simulate(graph, frames)
        assert "sum events, do not average them; for counts above 255 bin them" in str(caught.value.hint)


class Part(nn.Module):
    """A model whose first part carries the size that its arguments had."""

    def __init__(self, img_size_h: int = 8, img_size_w: int = 12) -> None:
        super().__init__()
        self.embed = nn.Identity()
        self.embed.image_size = [img_size_h, img_size_w]
        self.conv, self.lif, self.fc = nn.Conv2d(3, 8, 3), LIFNode(step_mode="m"), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.lif(self.conv(x)[None].repeat(4, 1, 1, 1, 1)).mean((3, 4))).mean(0)


def test_a_part_that_carries_the_size() -> None:
    graph = qd.trace(Part())
    assert graph.input.type.shape == (3, 8, 12)
    assert ("image size", "8 x 12") in {(a.name, a.value) for a in graph.assumptions}
    given = qd.trace(Part(), image_size=(6, 7), in_channels=3)
    assert given.input.type.shape == (3, 6, 7)
    assert "image size" not in {a.name for a in given.assumptions}


def test_sizes_that_are_none() -> None:
    with pytest.raises(UsageError, match="an image size of 3 numbers"):
        qd.trace(Flat(), image_size=(1, 2, 3))
    with pytest.raises(UsageError, match="a module does not say its image size"):
        qd.trace(Flat())


def test_a_length_with_a_comma_behind_it_is_a_signal(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "from torch import nn\nfrom spikingjelly.activation_based.neuron import LIFNode\n\n\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.c, self.l, self.f = nn.Conv1d(1, 4, 3), LIFNode(step_mode='m'), nn.Linear(4, 3)\n\n"
        "    def forward(self, x):\n        return self.f(self.l(self.c(x)[None].repeat(2, 1, 1, 1)).mean(3)).mean(0)\n"
    )
    made = tmp_path / "n.qkf"
    assert run(["trace", f"{tmp_path}/m.py:Net", "--image-size", "50,", "--in-channels", "1", "-o", str(made)]) == 0
    assert qd.load(made).input.type.shape == (1, 50)
