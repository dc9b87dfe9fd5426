"""Elements of a map in another order, or more than once: addressing, in every engine."""

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

T = 3


def exchanged(x: Tensor) -> Tensor:
    """Rows of blocks side by side become rows within blocks: an axis made of two."""
    return x.reshape(-1, x.shape[1], 4, 2, *x.shape[3:]).transpose(2, 3).reshape(x.shape)


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "reflected": lambda x: F.pad(x, [2, 1, 0, 3], mode="reflect"),
    "edges again": lambda x: F.pad(x, [1, 2, 2, 0], mode="replicate"),
    "in a circle": lambda x: F.pad(x, [1, 1, 0, 2], mode="circular"),
    "cut and reflected": lambda x: F.pad(x, [-1, 2, -1, -1], mode="reflect"),
    "shifted windows": lambda x: torch.roll(x, (-1, 2), (2, 3)),
    "backwards": lambda x: x.flip(1, 3),
    "channels by number": lambda x: x[:, torch.tensor([3, 1, 0, 2, -1, 4])],
    "channels twice": lambda x: x.index_select(1, torch.tensor([0, 0, 5, 2])),
    "every second": lambda x: torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1),
    "of blocks, moved": lambda x: torch.roll(exchanged(x), 3, 2),
    "of blocks, cut": lambda x: exchanged(x)[:, :, 1:-2],
    "of blocks, one and the rest": lambda x: torch.cat([exchanged(x)[:, :, 3].unsqueeze(2), exchanged(x)[:, :, 5:]], 2),
    "of blocks, halves": lambda x: torch.cat(exchanged(x).split([5, 3], 2)[::-1], 2),
    "of blocks, every third": lambda x: exchanged(x)[:, :, ::3],
    "pixels to channels and back": lambda x: F.pixel_shuffle(F.pixel_unshuffle(x, 2)[:, 4:20], 2),
    "channels of groups": lambda x: F.channel_shuffle(x, 3),
    "every third, of eight": lambda x: x[:, :, 1::3, 2:7:2],
}


class Gathered(nn.Module):
    """Spikes or drives in another order, in front of a convolution and a neuron."""

    def __init__(self, form: Callable[[Tensor], Tensor], of: str) -> None:
        super().__init__()
        self.form, self.of = form, of
        self.stem, self.bn0 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv = nn.Conv2d(form(torch.zeros(1, 6, 8, 8)).shape[1], 6, 3)
        self.bn1, self.fc = nn.BatchNorm2d(6), nn.Linear(6, 5)
        self.lif0, self.lif1 = LIFNode(step_mode="m"), LIFNode(step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn0(self.stem(x))
        x = self.form(x) if self.of == "drives" else x
        x = self.lif0(x[None].repeat(T, 1, 1, 1, 1)).flatten(0, 1)
        x = self.bn1(self.conv(self.form(x) if self.of == "spikes" else x))
        return self.fc(self.lif1(x.reshape(T, -1, *x.shape[1:])).mean((3, 4))).mean(0)


@pytest.mark.parametrize("of", ["spikes", "drives"])
@pytest.mark.parametrize("form", FORMS)
def test_another_order_is_addressing(form: str, of: str) -> None:
    net = traced(Gathered(FORMS[form], of), image_size=8, time_steps=T)
    assert_faithful(net)
    integer = assert_exact(net.graph, net.images)
    for engine in ("torch", "onnx"):
        other = qd.simulate(integer, net.images, engine=engine)
        assert np.array_equal(other.raw_output, qd.simulate(integer, net.images, engine="reference").raw_output)


def test_every_kth_element_is_a_view() -> None:
    graph = traced(Gathered(lambda x: x[:, 1::2, ::2, ::4], "spikes"), image_size=(16, 16), time_steps=T).graph
    assert not any(node.op.kind == "concat" for node in graph)


def two_numbers(x: Tensor) -> Tensor:
    return x[:, torch.arange(6).view(6, 1), torch.arange(4).view(1, 4)]


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "many pieces": (lambda x: x.flatten(1)[:, torch.arange(384) * 5 % 384].view(-1, 6, 8, 8), "apart into 384 pieces"),
    "two numbers": (two_numbers, "several numbers at once"),
    "all as one": (lambda x: torch.roll(x, 1), "rolls all axes as one"),
    "images": (lambda x: x.flip(0), "picks time steps or images"),
}


@pytest.mark.parametrize(("form", "reason"), REFUSED.values(), ids=REFUSED)
def test_an_order_without_a_form_is_refused(form: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        traced(Gathered(form, "spikes"), image_size=8, time_steps=T)
