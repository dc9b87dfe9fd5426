"""Models that loop over time themselves, in every usual way of writing it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from frontend_networks import assert_exact, assert_faithful, assert_sound, traced
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Readout

STEPS, CHANNELS = 3, 8


class Body(nn.Module):
    """Single-step layers: two branches, a residual addition, a gate and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.lif1 = (
            nn.Conv2d(3, CHANNELS, 3, padding=1),
            nn.BatchNorm2d(CHANNELS),
            neuron.LIFNode(),
        )
        self.conv2, self.bn2, self.lif2 = (
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), neuron.IFNode()
        )  # fmt: skip
        self.gate = neuron.LIFNode(v_threshold=0.5)
        self.head = nn.Linear(CHANNELS, 4)

    def forward(self, x: Tensor) -> Tensor:
        a = self.lif1(self.bn1(self.conv1(x)))
        b = self.lif2(self.bn2(self.conv2(a)))
        gate = self.gate(a.sum(1, keepdim=True))
        return self.head((a + b * gate).mean((2, 3)))


class Loop(nn.Module):
    """Runs a body in a loop."""

    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.body = Body()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.body, x)


class Factored(nn.Conv2d):
    """A convolution whose weights are a product, computed at every call."""

    def __init__(self) -> None:
        super().__init__(CHANNELS, CHANNELS, 3, padding=1)
        self.factor = nn.Parameter(torch.rand(CHANNELS) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.diag_embed(self.factor) @ self.weight.flatten(1)
        return self._conv_forward(x, weight.reshape_as(self.weight), self.bias)


def test_weights_that_are_computed_at_every_step_are_one_synapse() -> None:
    model = Loop(_running_sum)
    model.body.conv2 = Factored()
    net = traced(model, image_size=8)
    assert_sound(net)
    assert net.graph.time_steps == STEPS
    assert sum(n.op.kind == "conv" for n in net.graph) == 2


def test_weights_that_change_from_step_to_step_are_not() -> None:
    class Growing(Factored):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight * self.factor[:, None, None, None]
            self.weight = nn.Parameter(weight)
            return self._conv_forward(x, weight, self.bias)

    model = Loop(_running_sum)
    model.body.conv2 = Growing()
    with pytest.raises(UnsupportedError):
        traced(model, image_size=8)


def _running_sum(body: nn.Module, x: Tensor) -> Tensor:
    out = body(x)
    for _ in range(STEPS - 1):
        out += body(x)
    return out / STEPS


def _from_zero(body: nn.Module, x: Tensor) -> Tensor:
    out = torch.zeros(x.shape[0], 4)
    for _ in range(STEPS):
        out = out + body(x) / STEPS
    return out


def _stack(body: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([body(x) for _ in range(STEPS)]).mean(0)


def _stack_behind_batch(body: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([body(x) for _ in range(STEPS)], dim=1).sum(1)


def _cat(body: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([body(x).unsqueeze(0) for _ in range(STEPS)]).mean(0)


def _python_sum(body: nn.Module, x: Tensor) -> Tensor:
    return sum([body(x) for _ in range(STEPS)]) / STEPS  # type: ignore[return-value]


def _select(body: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([body(x[t]) for t in range(x.shape[0])]).mean(0)


def _unbind(body: nn.Module, x: Tensor) -> Tensor:
    return sum(body(step) for step in x.unbind(0)) / len(x)  # type: ignore[return-value]


def _framework(body: nn.Module, x: Tensor) -> Tensor:
    return functional.multi_step_forward(x, body).mean(0)


IMAGE_LOOPS = (_running_sum, _from_zero, _stack, _stack_behind_batch, _cat, _python_sum)
SEQUENCE_LOOPS = (_select, _unbind, _framework)


@pytest.mark.parametrize("run", IMAGE_LOOPS)
def test_a_loop_over_an_image(run: Callable[[nn.Module, Tensor], Tensor]) -> None:
    net = traced(Loop(run), image_size=8)
    assert (net.source.layout, net.source.time_steps) == ("image", STEPS)
    assert_sound(net)
    assert sum(n.op.kind == "conv" for n in net.graph) == 2


@pytest.mark.parametrize("run", SEQUENCE_LOOPS)
def test_a_loop_over_a_sequence(run: Callable[[nn.Module, Tensor], Tensor]) -> None:
    net = traced(Loop(run), image_size=8, time_steps=STEPS)
    assert net.source.layout == "sequence"
    assert_sound(net)


def test_a_loop_over_event_frames() -> None:
    net = traced(Loop(lambda body, x: sum(body(x[:, t]) for t in range(STEPS)) / STEPS), image_size=8,
                 time_steps=STEPS, input="frames")  # fmt: skip
    assert net.graph.input_encoding == "frames"
    assert_sound(net)


def test_one_step_per_call() -> None:
    net = traced(Body(), image_size=8, time_steps=STEPS)
    assert net.source.layout == "step"
    assert_sound(net)


def test_one_step_in_all() -> None:
    assert_sound(traced(Loop(lambda body, x: body(x)), image_size=8, time_steps=1))


def test_layers_called_step_by_step_one_after_the_other() -> None:
    class LayerByLayer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), neuron.LIFNode())
            self.second = layer.SeqToANNContainer(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
            self.lif = neuron.LIFNode(step_mode="m")
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.multi_step_forward(x, self.first)
            x = self.lif(self.second(x))
            return self.head(x.flatten(3).mean(3).mean(0))

    net = traced(LayerByLayer(), image_size=8, time_steps=STEPS)
    assert_sound(net)


def test_equal_operations_within_a_step_stay_apart() -> None:
    def twice(body: nn.Module, x: Tensor) -> Tensor:
        total = 0
        for _ in range(STEPS):
            a = body.lif1(body.bn1(body.conv1(x)))
            total = total + body.head((body.conv2(a) + body.conv2(a)).mean((2, 3)))
        return total / STEPS

    model = Loop(twice)
    model.body.lif2, model.body.gate = nn.Identity(), nn.Identity()
    net = traced(model, image_size=8)
    assert [n.name for n in net.graph if n.op.kind == "conv"] == ["body.conv1", "body.conv2", "body.conv2#2"]
    assert_sound(net)


BROKEN = {
    "a product of steps": (
        lambda body, x: body.head((body.lif1(body.conv1(x)) * body.lif1(body.conv1(x))).mean((2, 3))),
        "combines values of different time steps",
    ),
    "steps out of order": (
        lambda body, x: torch.stack([body(x), body(x)][::-1]).mean(0),
        "not the time steps of one value, in order",
    ),
    "some of the steps": (
        lambda body, x: nn.functional.linear(body(x) + body(x), torch.eye(4)) + body(x),
        "some of the time steps",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_loops_without_a_meaning_are_refused(name: str) -> None:
    run, message = BROKEN[name]
    with pytest.raises(UnsupportedError, match=message):
        traced(Loop(run), image_size=8, input="image", time_steps=2)


WEIGHED = {
    "a weighted sum": (lambda body, x: body(x) + 0.5 * body(x), (1.0, 0.5)),
    "means of means": (lambda body, x: (body(x) + body(x)) / 2 + body(x), (0.5, 0.5, 1.0)),
}


@pytest.mark.parametrize("name", WEIGHED)
def test_steps_of_a_loop_with_weights(name: str) -> None:
    run, weights = WEIGHED[name]
    net = traced(Loop(run), image_size=8, input="image", time_steps=len(weights))
    assert [n.op.weights for n in net.graph if isinstance(n.op, Readout)] == [weights]
    assert_faithful(net)
    assert_exact(net.graph, net.images)


def test_a_neuron_called_on_two_tensors_is_refused() -> None:
    def shared(body: nn.Module, x: Tensor) -> Tensor:
        a = body.lif1(body.bn1(body.conv1(x)))
        return body.head(body.lif1(body.bn2(body.conv2(a))).mean((2, 3)))

    with pytest.raises(UnsupportedError, match=r"body.lif1.*\n?.*different tensors"):
        traced(Loop(shared), image_size=8, input="image", time_steps=2)


def test_a_neuron_of_several_places_in_a_loop_is_refused() -> None:
    """One neuron makes q, k and v: what it leaves at one is where the next begins."""

    def shared(body: nn.Module, x: Tensor) -> Tensor:
        total = 0
        for _ in range(STEPS):
            first = body.lif2(body.bn1(body.conv1(x)))
            q, k, v = (body.lif1(body.bn2(body.conv2(first))) for _ in range(3))
            total = total + body.head((q * k + v).mean((2, 3)))
        return total

    with pytest.raises(UnsupportedError, match=r"body.lif1.* is called 3 times in every time step: its membrane goes"):
        traced(Loop(shared), image_size=8)


def test_a_multi_step_neuron_called_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.lif = nn.Conv2d(3, 3, 1), neuron.LIFNode(step_mode="m")

        def forward(self, x: Tensor) -> Tensor:
            x = x.unsqueeze(0).repeat(2, 1, 1, 1, 1)
            return self.lif(self.lif(x)).mean((0, 3, 4))

    with pytest.raises(UnsupportedError, match="called 2 times"):
        traced(Twice(), image_size=4, input="image", time_steps=2)


def test_a_write_in_place_that_another_tensor_sees_is_refused() -> None:
    def aliased(body: nn.Module, x: Tensor) -> Tensor:
        a = body.conv1(x)
        flat = a.flatten(1)
        a += body.conv2(body.lif1(a))
        return body.head(body.lif2(flat.view_as(a)).mean((2, 3)))

    with pytest.raises(UnsupportedError, match="shares its memory"):
        traced(Loop(aliased), image_size=8, input="step", time_steps=2)


def test_an_image_put_behind_itself_in_the_batch() -> None:
    """Steps are made by ``torch.cat`` along the batch axis; each neuron takes them apart."""

    class Behind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.lif, self.conv2, self.lif2 = (
                neuron.LIFNode(step_mode="m"),
                nn.Conv2d(8, 8, 1),
                neuron.IFNode(step_mode="m"),
            )
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.bn(self.conv(torch.cat([x for _ in range(STEPS)], 0)))
            x = self.conv2(self.lif(x.reshape(STEPS, -1, *x.shape[1:])).flatten(0, 1))
            x = self.lif2(x.reshape(STEPS, -1, *x.shape[1:]))
            return self.head(x.mean((3, 4))).mean(0)

    net = traced(Behind(), image_size=6, time_steps=STEPS)
    assert net.graph.time_steps == STEPS
    assert_sound(net)
