"""Neurons written by hand, in the forms that published code has: found, named, and every spike as torch's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snntorch
import torch
from frontend_networks import Traced, assert_exact, assert_faithful, traced
from snntorch import utils
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import QkfError, UnsupportedError, UsageError
from qkf_deploy.ops import Neuron

T, C, SIZE = 4, 4, 6


class Step(torch.autograd.Function):
    """A surrogate of one's own: a step in the forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        return torch.round(torch.clamp(x, low, high))

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        return grad, None, None


class Loop(nn.Module):
    """Runs ``step(v, x) -> (spikes, v)`` over an axis; the membrane starts at ``start``."""

    def __init__(self, step: Callable[[Any, Tensor], tuple[Tensor, Any]], axis: int = 0, start: float = 0.0) -> None:
        super().__init__()
        self.step, self.axis, self.start = step, axis, start

    def forward(self, x: Tensor) -> Tensor:
        v: Any = self.start
        out = []
        for t in range(x.shape[self.axis]):
            s, v = self.step(v, x.select(self.axis, t))
            out.append(s)
        return torch.stack(out, self.axis)


class Net(nn.Module):
    """Two convolutions with the neuron behind each, time on an axis of choice."""

    def __init__(self, make: Callable[[], nn.Module], axis: int = 0) -> None:
        super().__init__()
        self.axis = axis
        self.conv1, self.conv2 = nn.Conv2d(3, C, 3, padding=1), nn.Conv2d(C, C, 3, padding=1)
        self.a, self.b, self.head = make(), make(), nn.Linear(C, 3)
        for conv in (self.conv1, self.conv2):
            conv.weight.data = torch.round(conv.weight.data * 32) / 16  # sums that meet thresholds exactly
            conv.bias.data = torch.round(conv.bias.data * 16) / 16 + 0.5  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).unsqueeze(self.axis)
        factors = [1] * x.ndim
        factors[self.axis] = T
        x = self.a(x.repeat(*factors))
        shape = x.shape
        x = self.b(self.conv2(x.flatten(0, 1)).reshape(shape))
        return self.head(x.mean((3, 4))).mean(self.axis)


def network(make: Callable[[], nn.Module], axis: int = 0, **found: Any) -> Traced:
    """Traced as an image of T steps, or as it is found to be."""
    torch.manual_seed(1)
    return traced(Net(make, axis), image_size=SIZE, **(found or {"input": "image", "time_steps": T}))


def tet(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v * 0.5 + x
    s = Step.apply(v - 1.0)
    return s, (1 - s) * v


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
    "counts": (counts, Neuron(None, 1.0, None, False, max_spikes=4, rounding="half_up", decay=0.25)),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    step, op = FORMS[name]
    net = network(lambda: Loop(step))
    assert net.graph["a"].op == net.graph["b"].op == op
    assert ("initial" in net.graph["a"].params) == (name in ("scaled spikes", "to a value"))
    assert net.graph.time_steps == T
    assert_faithful(net, 2)
    assert_exact(net.graph, net.images)


def test_time_on_the_second_axis() -> None:
    net = network(lambda: Loop(tet, axis=1), axis=1, time_steps=None)
    assert net.graph.time_steps == T
    assert_faithful(net, 2)
    assert any("2 neurons found in test_hand_written.py:" in n and "LIF, decay 0.5" in n for n in net.graph.notices)


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


# -- state passed through a loop over the whole network -----------------------------------------------------------


class Snn(nn.Module):
    """The usual snnTorch script: cells take and return their membrane."""

    def __init__(self, make: Callable[[], nn.Module], hidden: bool = False) -> None:
        super().__init__()
        self.hidden = hidden
        self.fc1, self.l1, self.fc2, self.l2 = nn.Linear(3 * SIZE * SIZE, 12), make(), nn.Linear(12, 5), make()
        for layer in (self.fc1, self.fc2):
            layer.weight.data *= 3

    def forward(self, x: Tensor) -> Tensor:
        utils.reset(self)
        x, out, m1, m2 = x.flatten(1), [], torch.zeros(0), torch.zeros(0)
        for _ in range(T):
            if self.hidden:
                s1 = self.l1(self.fc1(x))
                s2 = self.l2(self.fc2(s1))
            else:
                s1, m1 = self.l1(self.fc1(x), m1)
                s2, m2 = self.l2(self.fc2(s1), m2)
            out.append(s2)
        return torch.stack(out).sum(0)


CELLS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "leaky, subtract": (lambda: snntorch.Leaky(beta=0.5), {"reset_delay": True, "v_reset": None}),
    "leaky, zero": (lambda: snntorch.Leaky(beta=0.75, reset_mechanism="zero"), {"v_reset": 0.0}),
    "leaky, hidden": (lambda: snntorch.Leaky(beta=0.5, init_hidden=True), {"reset_delay": True}),
    "leaky, learnt": (lambda: snntorch.Leaky(beta=torch.rand(()), learn_beta=True, learn_threshold=True), {}),
    "lapicque": (lambda: snntorch.Lapicque(beta=0.5, threshold=0.5), {"reset_delay": True, "v_threshold": 0.5}),
}


@pytest.mark.parametrize("name", CELLS)
def test_snntorch(name: str) -> None:
    make, wanted = CELLS[name]
    torch.manual_seed(2)
    net = traced(Snn(make, hidden="hidden" in name), image_size=SIZE, in_channels=3)
    for key, value in {"strict": True, **wanted}.items():
        assert getattr(net.graph["l1"].op, key) == value, key
    assert_faithful(net, 2)
    assert_exact(net.graph, net.images)


def test_a_decay_per_neuron() -> None:
    torch.manual_seed(3)
    model = Snn(lambda: snntorch.Leaky(beta=0.5))
    model.l1 = snntorch.Leaky(beta=torch.rand(12), threshold=torch.rand(12) + 0.5)
    net = traced(model, image_size=SIZE, in_channels=3)
    assert net.graph["l1"].params["decay"].shape == net.graph["l1"].params["v_threshold"].shape == (12,)
    assert_faithful(net, 2)


def test_a_model_is_left_as_it_was() -> None:
    model, other = Snn(lambda: snntorch.Leaky(beta=0.5, init_hidden=True), hidden=True), snntorch.Leaky(beta=0.5)
    other(torch.ones(1, 2))
    before, buffers = other.mem.clone(), {k: v.clone() for k, v in model.named_buffers()}
    qd.trace(model, image_size=SIZE, in_channels=3)
    assert torch.equal(other.mem, before)
    assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())
    assert model(torch.zeros(1, 3, SIZE, SIZE)).shape == (1, 5)


# -- without memory --------------------------------------------------------------------------------------------------


class Multi(nn.Module):
    """Counts of one step, divided by the largest."""

    def forward(self, x: Tensor) -> Tensor:
        return Rounded.apply(x, 0, 4) / 4


class Qcfs(nn.Module):
    """Quantization clip-floor-shift (arXiv 2303.04347, Eq. 9) in one step."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor(torch.clamp(x / 0.5, 0, 1) * 8 + 0.5) / 8 * 0.5


@pytest.mark.parametrize("make", [Multi, Qcfs])
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


def test_beside_neurons_that_are_modules() -> None:
    class Mixed(Net):
        def __init__(self) -> None:
            super().__init__(lambda: Loop(tet))
            self.b = neuron.LIFNode(step_mode="m")

    torch.manual_seed(1)
    net = traced(Mixed(), image_size=SIZE)
    assert net.graph["b"].op == Neuron(2.0, 1.0, 0.0)
    assert_faithful(net, 1)


# -- refusals --------------------------------------------------------------------------------------------------------


def never_resets(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v * 0.5 + x
    return (v > 1.0).float(), v


def takes_half(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v * 0.5 + x
    s = (v > 1.0).float()
    return s, v - 0.7 * s


def takes_part(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v + x
    s = (v > 1.0).float()
    return s, v * (1 - 0.5 * s)


def grows(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v * 1.5 + x
    s = (v > 1.0).float()
    return s, v * (1 - s)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (never_resets, "never resets its membrane"),
        (takes_half, "subtracts another value than its threshold"),
        (takes_part, "takes part of the membrane away"),
        (grows, "multiplies its membrane by 1.5"),
    ],
)
def test_what_is_no_neuron_here(step: Any, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        network(lambda: Loop(step))


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


def test_spikes_fed_back_and_membranes_read_are_refused() -> None:
    class Fed(nn.Module):
        def __init__(self, read: bool) -> None:
            super().__init__()
            self.read, self.fc, self.back, self.head = read, nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x, v, s, out = self.fc(x.flatten(1)), 0.0, None, 0.0
            for _ in range(T):
                v = v * 0.5 + (x if s is None or self.read else x + self.back(s))
                s = (v > 1.0).to(x)
                v = v * (1 - s)
                out = out + s
            return self.head(v if self.read else out)

    for read, reason in ((False, "otherwise in one time step"), (True, "different time steps")):
        with pytest.raises(UnsupportedError, match=reason):
            qd.trace(Fed(read), image_size=1, in_channels=3)


def test_a_decay_that_changes_over_time() -> None:
    class Ageing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            v: Any = 0.0
            out = []
            for t in range(x.shape[0]):
                v = v * (0.5 + 0.1 * t) + x[t]
                s = (v > 1.0).float()
                v = v * (1 - s)
                out.append(s)
            return torch.stack(out)

    with pytest.raises(UnsupportedError, match="otherwise in one time step than in another"):
        network(Ageing)


def test_memory_between_calls_is_not_guessed() -> None:
    """One step per call: what the module keeps until the next call is not in the program."""

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v: Any = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.v = self.v * 0.5 + x
            s = (self.v > 1.0).float()
            self.v = self.v * (1 - s)
            return s

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Cell(), nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(UnsupportedError, match="what it keeps between calls cannot be seen"):
        qd.trace(model, image_size=SIZE, time_steps=4)


# -- told on the command line ----------------------------------------------------------------------------------------

MODEL = """
import torch
from torch import nn


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = 0.5

    def forward(self, x):
        v, out = 0.0, []
        for step in x:
            v = v * 0.5 + step
            s = (v > self.theta).to(v)
            v = v * (1 - s)
            out.append(s)
        return torch.stack(out)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.a, self.head = nn.Conv2d(3, 4, 3), Odd(), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.a(self.conv(x)[None].repeat(4, 1, 1, 1, 1)).mean((3, 4))).mean(0)


def build():
    torch.manual_seed(0)
    return Net()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    return tmp_path / "model.py"


def test_a_class_told_in_words(place: Path) -> None:
    """It is opaque then, and what is said of it is what the code computes; found by itself it is the same neuron."""
    told = {f"{place}:Odd": "decay=0.5, v_threshold=.theta, strict=true"}
    graph = qd.trace(f"{place}:build", image_size=SIZE, in_channels=3, neurons=told)
    found = qd.trace(f"{place}:build", image_size=SIZE, in_channels=3)
    assert graph["a"].op == found["a"].op == Neuron(None, 0.5, 0.0, False, strict=True, decay=0.5)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, SIZE, SIZE)).astype(np.uint8)
    agreement, _ = qd.verify(qd.quantize(graph, 8), images, f"{place}:build", image_size=SIZE, neurons=told)
    assert (agreement.differ_free, agreement.outputs) == (0, 2 * 4 * 4 * 4 * 4)
    wrong = {f"{place}:Odd": "decay=0.25, v_threshold=.theta"}
    agreement, _ = qd.verify(qd.quantize(graph, 8), images, f"{place}:build", image_size=SIZE, neurons=wrong)
    assert agreement.differ_free > 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Odd", "dec=0.5", "'dec=0.5'"),
        ("Odd", "steps=both", "steps=both"),
        ("Old", "decay=0.5", "the model has no such module"),
        ("Odd", "tau=.nope", "no attribute nope"),
        ("Odd", "strict=7", "it is no neuron"),
        ("Odd", "decay=2.5", "from 0 to 1"),
    ],
)
def test_what_cannot_be_told(place: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(QkfError, match=message):
        qd.trace(f"{place}:build", image_size=SIZE, in_channels=3, neurons={f"{place}:{name}": text})


def test_a_class_without_a_place(place: Path) -> None:
    with pytest.raises(UsageError, match="names no class"):
        qd.trace(f"{place}:build", image_size=SIZE, in_channels=3, neurons={"Odd": "decay=0.5"})
