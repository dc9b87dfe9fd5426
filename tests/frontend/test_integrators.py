"""Leaky integrators as readouts: the last potential, means of them, in every engine with weights of the time steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from frontend_networks import Traced, assert_exact, assert_faithful, traced
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import Readout

T, SIZE = 4, 6
Step = Callable[[Any, Tensor], Any]
STEPS: dict[str, tuple[Step, list[float]]] = {
    "decays": (lambda o, y: 0.5 * o + y, [0.125, 0.25, 0.5, 1.0]),
    "towards": (lambda o, y: o + (y - o) / 2.0, [0.0625, 0.125, 0.25, 0.5]),
    "takes away": (lambda o, y: torch.sub(y, o, alpha=0.5), [-0.125, 0.25, -0.5, 1.0]),
}
READ: dict[str, tuple[Callable[[Sequence[Tensor]], Tensor], Callable[[Sequence[float]], np.ndarray]]] = {
    "last": (lambda o: o[-1], lambda w: np.array(w)),
    "last of a stack": (lambda o: torch.stack(list(o))[-1], lambda w: np.array(w)),
    "mean": (lambda o: torch.stack(list(o)).mean(0), lambda w: np.cumsum(w[::-1])[::-1] / T),
}


class Integrated(nn.Module):
    """A loop around the network, its neurons written by hand or modules; what it gives is read off an integrator."""

    def __init__(self, step: Step, read: Callable[[Sequence[Tensor]], Tensor], *, written: bool) -> None:
        super().__init__()
        self.step, self.read, self.first = step, read, nn.Linear(3 * SIZE * SIZE, 24)
        self.last, self.lif = nn.Linear(24, 5), None if written else LIFNode(tau=2.0)
        self.first.weight.data *= 4.0

    def forward(self, x: Tensor) -> Tensor:
        drive, v, o = self.first(x.flatten(1)), torch.zeros(len(x), 24), torch.zeros(len(x), 5)
        seen: list[Tensor] = []
        for _ in range(T):
            if self.lif is None:
                v = 0.5 * v + drive
                s = (v > 1.0).to(x)
                v = v * (1 - s)
            else:
                s = self.lif(drive)
            o = self.step(o, self.last(s))
            seen.append(o)
        return self.read(seen)


def net(step: Step, read: Callable[[Sequence[Tensor]], Tensor], *, written: bool) -> Traced:
    return traced(Integrated(step, read, written=written), image_size=SIZE, in_channels=3, time_steps=T, input="image")


@pytest.mark.parametrize("written", [False, True], ids=["module", "written"])
@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("step", STEPS)
def test_an_integrator_weighs_the_time_steps(step: str, read: str, written: bool) -> None:
    one, weights = STEPS[step]
    function, of = READ[read]
    found = net(one, function, written=written)
    readouts = [n.op for n in found.graph if isinstance(n.op, Readout)]
    # what the readout divides by is in its weights or in a scale behind it: their ratios are those of the integrator
    got, wanted = np.array(readouts[0].weights), of(weights)
    assert np.allclose(got / got[-1], wanted / wanted[-1], rtol=1e-12, atol=0)
    assert_faithful(found, 1 if written else 0)
    integer = assert_exact(found.graph, found.images)
    logits = [qd.simulate(integer, found.images, engine=e).raw_output for e in ("reference", "torch", "onnx")]
    assert all(np.array_equal(logits[0], other) for other in logits[1:])


def test_a_current_of_its_own_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="different time steps"):
        net(lambda o, y: 0.5 * o + y + 1.0, READ["last"][0], written=False)
