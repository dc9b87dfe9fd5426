"""Neurons written by hand, in the forms that published code has: found, named, and every spike as torch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from frontend_networks import assert_exact, assert_faithful, traced
from hand_written_networks import SIZE, C, Loop, Net, T, network, tet
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Neuron


def decays_with_spikes(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    """The reset stands in the next charge: the state is (membrane, spikes)."""
    if isinstance(v, float):
        v = x
    else:
        membrane, spikes = v
        v = membrane * 0.25 * (1 - spikes) + x
    s = v.gt(0.5).float()
    return s, (v.clone(), s.detach())


def to_a_value(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v + x
    s = (v >= 1.0).to(x)
    return s, torch.where(s > 0, torch.full_like(v, 0.25), v)


def charged(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    """BrainCog's order: the membrane goes towards its input."""
    v = v + (x - v) / 2.0
    s = (v - 0.5 >= 0).float()
    return s, v * (1.0 - s)


def leaks(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v - v / 3.0 + x
    s = torch.heaviside(v - 1.0, torch.ones(1, dtype=v.dtype))
    return s, v - s * 1.0


def masked(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.75 * v + 0.5 * x
    fired = v > 0.5
    return fired.float(), v.masked_fill(fired, 0.0)


def kept_below(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    """Compared the other way round."""
    v = v * 0.5 + x
    below = v < 1.0
    return (~below).to(x), v * below.to(x)


def later(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    """What the last spikes take is not decayed."""
    if isinstance(v, float):
        v = x
    else:
        membrane, spikes = v
        v = membrane * 0.75 + x - spikes * 0.5
    s = (v > 0.5).float()
    return s, (v, s)


def in_place(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = torch.zeros_like(x) if isinstance(v, float) else v
    v.mul_(0.5).add_(x)
    s = (v >= 1.0).float()
    v.sub_(s)
    return s, v


def takes_less(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v * 0.5 + x
    s = (v > 1.0).float()
    return s, v - 0.75 * s


def takes_more(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    """Fires at a part of what a spike takes (DSR, arXiv 2205.00459), with spikes of that height."""
    v = 0.75 * v + 0.25 * x
    s = (v >= 0.25).float() * 0.5
    return s / 0.25, v - s


def counts(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v * 0.25 + x
    s = torch.floor(torch.clamp(v, 0, 4) + 0.5)
    return s, v - s


def scaled_spikes(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    """IF neurons converted from quantized activations (QCFS): half a threshold at the start, spikes of its height."""
    v = (0.25 if isinstance(v, float) else v) + x
    s = (v - 0.5 >= 0).to(x) * 0.5
    return s, v - s


FORMS = {
    "tet": (tet, Neuron(None, 1.0, 0.0, False, strict=True, decay=0.5)),
    "decays with spikes": (decays_with_spikes, Neuron(None, 0.5, 0.0, False, strict=True, decay=0.25)),
    "to a value": (to_a_value, Neuron(None, 1.0, 0.25, False)),
    "charged": (charged, Neuron(None, 0.5, 0.0, False, decay=0.5)),
    "leaks": (leaks, Neuron(3.0, 1.0, None, False)),
    "masked": (masked, Neuron(None, 0.5, 0.0, False, strict=True, decay=0.75)),
    "kept below": (kept_below, Neuron(None, 1.0, 0.0, False, decay=0.5)),
    "later": (later, Neuron(None, 0.5, None, False, strict=True, decay=0.75, reset_delay=True)),
    "in place": (in_place, Neuron(None, 1.0, None, False, decay=0.5)),
    "scaled spikes": (scaled_spikes, Neuron(None, 0.5, None, False)),
    "takes less": (takes_less, Neuron(None, 0.75, None, False, strict=True, decay=0.5)),
    "takes more": (takes_more, Neuron(None, 0.5, None, False, decay=0.75)),
    "counts": (counts, Neuron(None, 1.0, None, False, max_spikes=4, rounding="half_up", decay=0.25)),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    step, op = FORMS[name]
    net = network(lambda: Loop(step))
    assert net.graph["a"].op == net.graph["b"].op == op
    starts_elsewhere = ("scaled spikes", "to a value", "takes less", "takes more")
    assert ("initial" in net.graph["a"].params) == (name in starts_elsewhere)
    assert net.graph.time_steps == T
    assert_faithful(net, 2)
    assert_exact(net.graph, net.images)


class Relaxes(nn.Module):
    """Starts at the voltage that it is reset to and decays towards; constants of it cancel up to rounding."""

    def forward(self, x: Tensor) -> Tensor:
        decay, rest = math.exp(-0.4), -0.2
        v, out = torch.full_like(x[0], rest), []
        for now in x.unbind(0):
            v = decay * v + (1 - decay) * now
            s = (v >= 0.75).to(x)
            v = torch.where(s.bool(), torch.full_like(v, rest), v)
            out.append(s)
        return torch.stack(out)


def test_constants_that_cancel_are_none() -> None:
    net = network(Relaxes)
    op = net.graph["a"].op
    assert isinstance(op, Neuron)
    assert (op.v_threshold, op.v_reset) == (0.75, -0.2)
    assert op.decay == pytest.approx(math.exp(-0.4))
    assert_faithful(net, 2)


class Layered(nn.Module):
    """A loop around layers whose membranes are made in the shape of nothing else, and changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3 * SIZE * SIZE, 24), nn.Linear(24, 12), nn.Linear(12, 3)
        self.first.weight.data *= 4.0
        self.second.weight.data *= 4.0

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        v, w, s, out = x.new_zeros(len(x), 24), torch.zeros(len(x), 12), x.new_zeros(len(x), 24), x.new_zeros(len(x), 3)
        for _ in range(T):
            v = v * 0.5 * (s < 0.5).to(x) + self.first(x)
            s = (v > 0.25).to(x)
            w += self.second(s)
            fired = torch.ge(w, 0.5)
            w.masked_fill_(fired, 0.0)
            out += self.last(fired.to(x))
        return out / T


def test_membranes_of_zeros_with_a_size_of_their_own() -> None:
    net = traced(Layered(), image_size=SIZE, in_channels=3)
    assert_faithful(net, 2)
    assert_exact(net.graph, net.images)


def test_from_a_tensor_of_zeros_and_put_together_within_the_batch() -> None:
    class Folded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            v, out = torch.zeros(x.shape[1:]), []
            for t in range(x.shape[0]):
                s, v = takes_more(v, x[t])
                out.append(s)
            return torch.cat(out, 0).reshape(x.shape)

    net = network(Folded)
    assert net.graph["a"].op == FORMS["takes more"][1]
    assert_faithful(net, 2)
    assert_exact(net.graph, net.images)


def test_time_on_the_second_axis() -> None:
    net = network(lambda: Loop(tet, axis=1), axis=1, time_steps=None)
    assert net.graph.time_steps == T
    assert_faithful(net, 2)
    assert any("2 neurons found in hand_written_networks.py:" in n and "LIF, decay 0.5" in n for n in net.graph.notices)


def test_written_into_zeros() -> None:
    class Buffered(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out, v = torch.zeros_like(x), torch.zeros_like(x[0])
            for t in range(x.shape[0]):
                v = v * 0.5 + x[t]
                out[t] = (v > 1.0).float()
                v = v * (1 - out[t])
            return out

    class Plain(Buffered):
        def forward(self, x: Tensor) -> Tensor:
            out, v = torch.zeros_like(x), torch.zeros_like(x[0])
            for t in range(x.shape[0]):
                v = v * 0.5 + x[t]
                s = (v > 1.0).float()
                out[t] = s
                v = v * (1 - s)
            return out

    assert_faithful(network(Plain), 2)
    with pytest.raises(UnsupportedError):  # reads what it wrote
        network(Buffered)


def test_a_strict_threshold_is_not_reached_but_passed() -> None:
    """A membrane of exactly 1 fires with >= and not with >."""

    class One(nn.Module):
        def __init__(self, step: Any) -> None:
            super().__init__()
            self.conv, self.s, self.head = nn.Conv2d(1, 1, 1, bias=False), Loop(step), nn.Linear(1, 1, bias=False)
            self.conv.weight.data.fill_(1.0)
            self.head.weight.data.fill_(1.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.s(self.conv(x)[None].repeat(T, 1, 1, 1, 1)).mean((3, 4))).mean(0)

    x = np.ones((1, 1, 2, 2))
    for step in (tet, kept_below):
        model = One(step).double().eval()
        graph = qd.trace(model, image_size=2, in_channels=1)
        assert qd.simulate(graph, x).logits.item() == model(torch.from_numpy(x)).item()
        integer = qd.quantize(graph, 8, input="fixed", input_max=127.0)
        assert qd.simulate(integer, x).logits.item() == model(torch.from_numpy(x)).item()


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        return torch.round(torch.clamp(x, low, high))

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        return grad, None, None


class Multi(nn.Module):
    """Counts of one step, divided by the largest."""

    def forward(self, x: Tensor) -> Tensor:
        return Rounded.apply(x, 0, 4) / 4


class Qcfs(nn.Module):
    """Quantization clip-floor-shift (arXiv 2303.04347, Eq. 9) in one step."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor(torch.clamp(x / 0.5, 0, 1) * 8 + 0.5) / 8 * 0.5


class Later(nn.Module):
    """The same, limited after it was rounded."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(torch.floor(x / 0.5 * 8 + 0.5) / 8, 0, 1) * 0.5


class Round(nn.Module):
    """Rounded to the even neighbour, then limited; no multiple in between."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(torch.round(x * 16), 0, 8) / 16


class Ragged(nn.Module):
    """A limit between two counts."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(torch.floor(x * 8 + 0.5) / 8, 0, 0.9)


def test_a_limit_between_two_counts_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="clamp has no spiking or integer form"):
        network(Ragged)


@pytest.mark.parametrize("make", [Multi, Qcfs, Later, Round])
def test_counts_without_memory(make: type[nn.Module]) -> None:
    class Ann(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(self.conv2(self.a(self.conv1(x)))).mean((2, 3)))

    torch.manual_seed(1)
    net = traced(Ann(make), image_size=SIZE, time_steps=1)
    op = net.graph["a"].op
    assert isinstance(op, Neuron)
    assert (op.decay, op.max_spikes) == (0.0, 4 if make is Multi else 8)
    assert_faithful(net, 2)
    assert_exact(net.graph, net.images)
    assert_faithful(network(make), 2)  # all steps at once


@pytest.mark.parametrize("make", [Multi, Qcfs])
def test_shortcuts_around_counts_without_memory(make: type[nn.Module]) -> None:
    """What is added to a drive behind its neuron is a shortcut, not the next step of a membrane that is never reset."""

    class Residual(Net):
        def __init__(self, new: Callable[[], nn.Module]) -> None:
            super().__init__(new)
            self.conv3, self.c = nn.Conv2d(C, C, 3, padding=1), new()

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x)
            x = x + self.conv2(self.a(x))
            x = x + self.conv3(self.b(x))
            return self.head(self.c(x).mean((2, 3)))

    torch.manual_seed(1)
    net = traced(Residual(make), image_size=SIZE, time_steps=1)
    assert_faithful(net, 3)
    assert_exact(net.graph, net.images)


def test_shortcuts_around_neurons_in_a_loop_over_the_network() -> None:
    class Cell(nn.Module):
        def forward(self, x: Tensor, v: Tensor | float) -> tuple[Tensor, Tensor]:
            v = 0.5 * v + x
            s = (v >= 1.0).to(v)
            return s, v * (1 - s)

    class Around(Net):
        def __init__(self) -> None:
            super().__init__(nn.Identity)
            self.conv3 = nn.Conv2d(C, C, 3, padding=1)
            self.cells = nn.ModuleList(Cell() for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            membranes: list[Tensor | float] = [0.0, 0.0, 0.0]
            total: Tensor | float = 0.0
            for _ in range(T):
                y = self.conv1(x)
                for i, conv in enumerate((self.conv2, self.conv3, None)):
                    s, membranes[i] = self.cells[i](y, membranes[i])
                    y = s if conv is None else y + conv(s)
                total = total + self.head(y.mean((2, 3)))
            return total / T

    torch.manual_seed(1)
    net = traced(Around(), image_size=SIZE)
    assert_faithful(net, 3)
    assert_exact(net.graph, net.images)


def test_beside_neurons_that_are_modules() -> None:
    class Mixed(Net):
        def __init__(self) -> None:
            super().__init__(lambda: Loop(tet))
            self.b = neuron.LIFNode(step_mode="m")

    torch.manual_seed(1)
    net = traced(Mixed(), image_size=SIZE)
    assert net.graph["b"].op == Neuron(2.0, 1.0, 0.0)
    assert_faithful(net, 1)


def test_a_drive_changed_in_place_under_another_name() -> None:
    class Changed(Loop):
        def forward(self, x: Tensor) -> Tensor:
            y = x
            x.mul_(2.0)
            return super().forward(y)

    class Kept(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x)
            x += 0.25 * x
            y = self.a(x[None].repeat(T, 1, 1, 1, 1))
            return self.head(y.mean((3, 4))).mean(0)

    torch.manual_seed(1)
    model = Kept(lambda: Loop(tet))
    del model.b
    assert_faithful(traced(model, image_size=SIZE), 1)
    assert_faithful(network(lambda: Changed(tet)), 2)
