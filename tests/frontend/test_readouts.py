"""What is read out: the last step, steps with weights of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from frontend_networks import assert_exact, assert_faithful, traced
from spikingjelly.activation_based.neuron import IFNode, LIFNode
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import GraphError, UnsupportedError
from qkf_deploy.ops import Readout
from qkf_deploy.training.operators import STEPS as TRAINED

STEPS = 4
WEIGHTS = torch.tensor([0.125, -0.25, 0.5, 1.25], dtype=torch.float64)


class Net(nn.Module):
    """A small network; ``read`` makes logits of what the head gives at every step."""

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.bn, self.lif = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), LIFNode(step_mode="m")
        self.fc, self.read = nn.Linear(6, 5), read

    def forward(self, x: Tensor) -> Tensor:
        x = self.lif(self.bn(self.conv(x))[None].repeat(STEPS, 1, 1, 1, 1))
        return self.read(self.fc(x.mean((3, 4))))


class Loop(nn.Module):
    """A loop whose last result is returned."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif, self.fc2 = nn.Linear(108, 8), IFNode(v_threshold=0.3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(STEPS):
            out = self.fc2(self.lif(self.fc1(x.flatten(1))))
        return out


READOUTS: dict[str, tuple[Callable[[], nn.Module], tuple[float, ...]]] = {
    "last step": (lambda: Net(lambda y: y[-1]), (0.0, 0.0, 0.0, 1.0)),
    "second step": (lambda: Net(lambda y: y[1]), (0.0, 1.0, 0.0, 0.0)),
    "last of a loop": (Loop, (0.0, 0.0, 0.0, 1.0)),
    "weighted sum": (lambda: Net(lambda y: (y * WEIGHTS.to(y.dtype)[:, None, None]).sum(0)), (0.125, -0.25, 0.5, 1.25)),
    "weighted mean": (
        lambda: Net(lambda y: (WEIGHTS.to(y.dtype)[:, None, None] * y).mean(0)),
        (0.125, -0.25, 0.5, 1.25),
    ),
    "whole weights": (
        lambda: Net(lambda y: (torch.arange(4, dtype=y.dtype)[:, None, None] * y).sum(0)),
        (0.0, 1.0, 2.0, 3.0),
    ),
    "axis of time kept": (lambda: Net(lambda y: y.sum(0, keepdim=True)), ()),
    "axis of time kept and merged": (lambda: Net(lambda y: y.mean(0, keepdim=True).flatten(0, 1)), ()),
}


@pytest.mark.parametrize("name", READOUTS)
def test_readouts(name: str) -> None:
    build, weights = READOUTS[name]
    torch.manual_seed(0)
    net = traced(build(), image_size=6)
    assert_faithful(net)
    (readout,) = (n for n in net.graph if n.op.kind == "readout")
    assert readout.op == Readout(weights)
    assert net.graph.output.type.shape == (5,)
    integer = assert_exact(net.graph, net.images, bits=16)
    wanted = qd.simulate(integer, net.images, engine="reference")
    for engine, options in (("torch", {}), ("onnx", {}), ("onnx", {"form": "sequence"})):
        run = qd.simulate(integer, net.images, engine=engine, **options)  # type: ignore[arg-type]
        assert np.array_equal(run.raw_output, wanted.raw_output), (engine, options)
        assert run.ledger.to_dict() == wanted.ledger.to_dict()
    close = qd.simulate(net.graph, net.images).logits
    assert np.abs(wanted.logits - close).max() < 0.02 * np.abs(close).max() + 0.02


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "not summed": (lambda y: (y * WEIGHTS.to(y.dtype)[:, None, None]), "have a weight for each time step"),
    "summed elsewhere": (
        lambda y: (y * WEIGHTS.to(y.dtype)[:, None, None]).sum(2).sum(0), "sums values that have a weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_weights_that_are_not_summed_over_time(name: str) -> None:
    read, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        qd.trace(Net(read), image_size=6)


def test_weights_belong_to_their_steps() -> None:
    graph = qd.trace(Net(lambda y: y[-1]), image_size=6)
    with pytest.raises(UnsupportedError, match="gives each time step a weight of its own"):
        qd.with_time_steps(graph, 3)
    with pytest.raises(GraphError, match="4 weights in a network of 3 time steps"):
        type(graph)(**{**vars(graph), "time_steps": 3}).verify()


def test_weights_are_where_the_trained_values_are() -> None:
    """On another device than the CPU; ``meta`` has shapes and no numbers."""
    graph = qd.trace(Net(lambda y: y[-1]), image_size=6)
    (readout,) = (n for n in graph if n.op.kind == "readout")
    values = torch.empty(4, 2, *graph.operand_type(readout.inputs[0]).shape, device="meta")
    assert TRAINED["readout"](readout, [values], 4).shape == (1, 2, *readout.type.shape)


def test_steps_behind_the_images() -> None:
    net = traced(Net(lambda y: y.transpose(0, 1)), image_size=6, time_steps=STEPS)
    assert_faithful(net)
