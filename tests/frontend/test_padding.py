"""Padding as an operator of its own: zeros, constants, what a zero would be behind a batch norm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from frontend_networks import assert_exact, assert_faithful, traced
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError


def of_zero(norm: nn.BatchNorm2d) -> Tensor:
    """What a batch norm makes of zero, per channel."""
    return norm.bias.detach() - norm.running_mean * norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)


def written(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Padded with what the norm makes of zero, side by side, as re-parameterized blocks do."""
    value, y = of_zero(norm).view(1, -1, 1, 1), F.pad(x, [1, 1, 1, 1])
    y[:, :, :1, :] = value
    y[:, :, -1:, :] = value
    y[:, :, :, 0] = value[..., 0]
    y[:, :, :, -1:] = value
    return y


FORMS: dict[str, Callable[[Tensor, nn.BatchNorm2d], Tensor]] = {
    "zeros": lambda x, _: F.pad(x, [1, 1, 1, 1]),
    "zeros, one axis": lambda x, _: F.pad(x, [2, 2]),
    "zeros on one side": lambda x, _: F.pad(x, [0, 1, 0, 1]),
    "zeros, unequal": lambda x, _: F.pad(x, [1, 2, 0, 3]),
    "ones": lambda x, _: F.pad(x, [1, 1, 1, 1], value=1.0),
    "cut": lambda x, _: F.pad(x, [-1, -1, 1, -2]),
    "twice": lambda x, _: F.pad(F.pad(x, [1, 0, 1, 0]), [0, 1, 0, 1]),
    "what a norm makes of zero": written,
}


class Padded(nn.Module):
    """Spikes or drives that are padded, in front of a 3×3 convolution without padding, a pool or a neuron."""

    def __init__(self, form: str, reader: str, norm: bool) -> None:
        super().__init__()
        self.form, self.reader, self.norm = FORMS[form], reader, norm
        self.stem, self.bn0, self.lif0 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), LIFNode(step_mode="m")
        self.point, self.bn = nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.depth, self.wide = nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.Conv2d(6, 8, 1, bias=False)
        self.bn1, self.lif1 = nn.BatchNorm2d(8 if reader == "convolution" else 6), LIFNode(step_mode="m")
        self.fc = nn.Linear(8 if reader == "convolution" else 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif0(self.bn0(self.stem(x))[None].repeat(4, 1, 1, 1, 1))
        lead = x.shape[:2]
        x = x.flatten(0, 1)
        x = self.bn(self.point(x)) if self.norm else x
        x = self.form(x, self.bn)
        if self.reader == "convolution":
            x = self.wide(self.depth(x))
        elif self.reader == "pool":
            x = F.avg_pool2d(x, 2)
        x = self.bn1(x)
        return self.fc(self.lif1(x.reshape(*lead, *x.shape[1:])).mean((3, 4))).mean(0)


@pytest.mark.parametrize("norm", [False, True], ids=["spikes", "drives"])
@pytest.mark.parametrize("form", FORMS)
def test_padding_in_front_of_a_convolution(form: str, norm: bool) -> None:
    net = traced(Padded(form, "convolution", norm), image_size=8)
    assert_faithful(net)
    integer = assert_exact(net.graph, net.images)
    onnx = qd.simulate(integer, net.images, engine="onnx").raw_output
    assert np.array_equal(onnx, qd.simulate(integer, net.images, engine="reference").raw_output)
    convolutions = [n.name for n in net.graph if n.op.kind == "conv"]
    assert len(convolutions) <= 3 or form == "cut"  # a convolution that reads a part of a map stays one


@pytest.mark.parametrize("reader", ["pool", "neuron"])
@pytest.mark.parametrize("form", ["zeros", "zeros, unequal", "ones", "what a norm makes of zero"])
def test_padding_in_front_of_anything_else(form: str, reader: str) -> None:
    net = traced(Padded(form, reader, norm=True), image_size=8)
    assert_faithful(net)
    assert_exact(net.graph, net.images)


def test_padding_by_zeros_is_the_padding_of_the_convolution() -> None:
    graph = traced(Padded("zeros", "convolution", norm=False), image_size=8).graph
    assert not any("pad" in node.name for node in graph)
    assert sum(node.op.padding == (1, 1) for node in graph if node.op.kind == "conv") == 2


class Same(nn.Module):
    """Convolutions whose output has the size of their input."""

    def __init__(self, kernel: int | tuple[int, int], dilation: int = 1) -> None:
        super().__init__()
        self.stem, self.bn0, self.lif0 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), LIFNode(step_mode="m")
        self.conv = nn.Conv2d(6, 8, kernel, padding="same", dilation=dilation)
        self.bn, self.lif, self.fc = nn.BatchNorm2d(8), LIFNode(step_mode="m"), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif0(self.bn0(self.stem(x))[None].repeat(3, 1, 1, 1, 1))
        y = self.bn(self.conv(x.flatten(0, 1)))
        return self.fc(self.lif(y.reshape(3, -1, *y.shape[1:])).mean((3, 4))).mean(0)


@pytest.mark.parametrize(
    ("kernel", "dilation"), [(2, 1), (4, 1), ((2, 3), 1), ((3, 4), 1), (3, 2), (2, 2), (2, 3), ((4, 3), 3)]
)
def test_same_convolutions_of_any_kernel(kernel: int | tuple[int, int], dilation: int) -> None:
    net = traced(Same(kernel, dilation), image_size=8, time_steps=3)
    assert_faithful(net)
    assert_exact(net.graph, net.images)


REFUSED: dict[str, tuple[Callable[[Tensor, nn.BatchNorm2d], Tensor], str]] = {
    "infinite": (lambda x, _: F.pad(x, [1, 1, 1, 1], value=float("-inf")), "pads with -inf"),
    "channels": (lambda x, _: F.pad(x, [0, 0, 0, 0, 1, 1])[:, 1:-1], "pads channels, images or time steps"),
}


def _into_the_map(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    y = F.pad(x, [1, 1, 1, 1])
    y[:, :, 2:4] = of_zero(norm).view(1, -1, 1, 1)
    return y


def _one_side(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    y = F.pad(x, [1, 1, 1, 1])
    y[:, :, :1] = of_zero(norm).view(1, -1, 1, 1)
    return y


def _read_before(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    y = F.pad(x, [1, 1, 1, 1])
    z = y * 2.0
    y[:, :, :1] = of_zero(norm).view(1, -1, 1, 1)
    return y + z


REFUSED |= {
    "inside": (_into_the_map, "a part of a tensor that is no border"),
    "one side": (_one_side, "a border whose values differ from side to side"),
    "read before": (_read_before, "a padded tensor that was read before"),
}


@pytest.mark.parametrize(("form", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_form_is_refused(
    form: Callable[[Tensor, nn.BatchNorm2d], Tensor], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMS, "refused", form)
    with pytest.raises(UnsupportedError, match=reason):
        traced(Padded("refused", "neuron" if "channels" in reason else "convolution", norm=True), image_size=8)
