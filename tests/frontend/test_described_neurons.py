"""Registered neuron classes are tried beside their description: what differs is named, at the threshold too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from frontend_networks import Traced, assert_sound, traced
from hand_written_networks import SIZE
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.converters.torch.trace import NeuronModule, neurons
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Neuron

C, T = 4, 4


class Odd(nn.Module):
    """Fires above its threshold, not at it; keeps its membrane as SpikingJelly's neurons do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("theta", torch.full((C, 1, 1), 1.0))
        self.v: Tensor | float = 0.0

    def reset(self) -> None:
        self.v = 0.0

    def once(self, x: Tensor) -> Tensor:
        self.v = self.v * 0.5 + x
        s = (self.v > self.theta).to(x)
        self.v = self.v * (1 - s)
        return s

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.once(step) for step in x])


class Once(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return self.once(x)


class Pooled(Odd):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., :1]


class Broken(Odd):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is torch.float64:
            raise RuntimeError("no kernel")
        return super().forward(x)


class Net(nn.Module):
    def __init__(self, made: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn, self.lif = nn.Conv2d(3, C, 3), nn.BatchNorm2d(C), made
        self.head = nn.Linear(C, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        if isinstance(self.lif, Once):
            return sum(self.head(self.lif(x).mean((2, 3))) for _ in range(T)) / T  # type: ignore[return-value]
        return self.head(self.lif(x[None].repeat(T, 1, 1, 1, 1)).mean((3, 4))).mean(0)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    before = dict(neurons._REGISTERED)
    yield
    neurons._REGISTERED.clear()
    neurons._REGISTERED.update(before)


def described(cls: type[Odd], what: Callable[[Odd], Neuron | NeuronModule]) -> Traced:
    qd.register_neuron(f"{cls.__module__}.{cls.__qualname__}", what)
    torch.manual_seed(0)
    return traced(Net(cls()), image_size=SIZE)


RIGHT = Neuron(None, 1.0, 0.0, strict=True, decay=0.5)


def test_an_operator_alone_means_that_time_is_in_front() -> None:
    net = described(Odd, lambda _: RIGHT)
    assert net.graph["lif"].op == RIGHT
    assert_sound(net, written=1)


def test_once_per_step_with_values_per_channel() -> None:
    def what(module: Odd) -> NeuronModule:
        theta = module.theta.double().numpy() * np.array([0.5, 1.0, 2.0, 4.0]).reshape(C, 1, 1)
        module.theta.copy_(torch.from_numpy(theta))
        return NeuronModule(Neuron(None, 4.0, 0.0, strict=True, decay=0.5), False, {"v_threshold": theta})

    qd.register_neuron(f"{Once.__module__}.{Once.__qualname__}", lambda m: told)
    net = Net(Once())
    told = what(net.lif)  # type: ignore[arg-type]
    assert_sound(traced(net, image_size=SIZE), written=1)
    told = NeuronModule(told.op, False, {"v_threshold": told.params["v_threshold"][::-1].copy()})
    with pytest.raises(UnsupportedError, match="Once computes otherwise"):
        traced(net, image_size=SIZE)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (
            Neuron(None, 1.0, 0.0, decay=0.5),
            r"drives 1 its last output is 0, and 1 as described, where .* is 1\n",
        ),
        (Neuron(None, 1.0, 0.0, strict=True, decay=0.25), "as described, where the membrane is"),
        (Neuron(2.0, 1.0, 0.0, True, strict=True), "as described"),
        (Neuron(None, 1.0, None, strict=True, decay=0.5), "as described"),
        (Neuron(None, 1.25, 0.0, strict=True, decay=0.5), "as described"),
        (Neuron(None, 1.0, 0.0, strict=True), "as described"),
    ],
)
def test_what_differs_is_named(op: Neuron, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        described(Odd, lambda _: op)
    assert caught.value.where == "lif"
    assert "strict" in (caught.value.hint or "")


def test_other_shapes_and_errors_are_named() -> None:
    with pytest.raises(UnsupportedError, match="a neuron keeps the shape"):
        described(Pooled, lambda _: RIGHT)
    with pytest.raises(UnsupportedError, match="cannot be tried beside its description: RuntimeError: no kernel"):
        described(Broken, lambda _: RIGHT)


def test_one_pixel_meets_its_threshold_too() -> None:
    class One(Odd):
        """The same, in a network of one pixel."""

    qd.register_neuron(f"{One.__module__}.{One.__qualname__}", lambda _: Neuron(None, 1.0, 0.0, decay=0.5))
    with pytest.raises(UnsupportedError, match="One computes otherwise"):
        qd.trace(Net(One()), image_size=3)


def test_the_object_is_as_it_was() -> None:
    net = described(Odd, lambda _: RIGHT)
    assert net.source.model.lif.v == 0.0
    assert torch.get_default_dtype() is torch.float32


def test_another_order_of_operations_is_a_notice() -> None:
    class Thirds(Odd):
        def once(self, x: Tensor) -> Tensor:
            self.v = (2 * self.v + x) / 3
            s = (self.v >= 0.7).to(x)
            self.v = self.v * (1 - s)
            return s

    net = described(Thirds, lambda _: Neuron(3.0, 0.7, 0.0, decay_input=True))
    assert len([n for n in net.graph.notices if "in another order than its description" in n]) <= 1
