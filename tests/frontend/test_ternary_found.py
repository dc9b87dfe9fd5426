"""Neurons of ternary spikes written by hand (arXiv 2312.06372), in own words: found, named, every spike as torch's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from frontend_networks import Traced, assert_exact, pixels, traced
from hand_written_networks import SIZE, C, Loop, Net, Step, T, network
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.converters.torch.run import torch_oracle
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.evaluation.agreement import compare_chain
from qkf_deploy.ir.values import Kind
from qkf_deploy.ops import Neuron

THETA = 0.75


def cleared(s: Tensor, v: Tensor) -> Tensor:
    return v * (1 - s.abs())


def difference(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.25 * v + x
    s = (v >= THETA).to(x) - (v <= -THETA).to(x)
    return s, cleared(s, v)


def compared_again(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.25 * v + x
    s = (v >= THETA).to(x) - (v <= -THETA).to(x)
    return s, v * (1 - ((v >= THETA).to(x) + (v <= -THETA).to(x)))


def downwards_first(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    below, above = (v < -THETA).float(), (v > THETA).float()
    return above - below, v - THETA * above + THETA * below


def steps_of_a_surrogate(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    s = Step.apply(v - THETA) - Step.apply(-v - THETA)
    return s, torch.where(s != 0, torch.zeros_like(v), v)


def sign_and_magnitude(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    """The published order: a sign, silenced in place below half a threshold, behind a straight-through clamp."""
    v = v * 0.25 + x
    u = v / 1.0
    s = torch.sign(u)
    s[torch.abs(u) < 0.5] = torch.tensor(0.0)
    passed = torch.clamp(u, -1, 1)
    s = (s.float() - passed).detach() + passed
    return s, v * (1 - torch.abs(s))


def sign_times_gate(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v + x
    s = v.sign() * (v.abs() > THETA).to(v)
    return s, v - s * THETA


def chosen(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = v - v / 3.0 + x
    one = torch.ones_like(v)
    s = torch.where(v >= THETA, one, torch.where(v <= -THETA, -one, torch.zeros_like(v)))
    v = v.clone()
    v[s.eq(1) | s.eq(-1)] = 0.0
    return s, v


def rounded(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    s = torch.round(torch.clamp(v, -3, 3))
    return s, v - s


def rounded_to_one(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    v = 0.5 * v + x
    s = nn.functional.hardtanh(v).round()
    return s, cleared(s, v)


def of_a_constant(v: Any, x: Tensor) -> tuple[Tensor, Any]:
    """A number in float32 where types must agree."""
    v = 0.5 * v + x
    at_zero = torch.tensor(1.0)
    s = torch.heaviside(v - THETA, at_zero) - torch.heaviside(-v - THETA, at_zero)
    return s, v - THETA * s


FORMS: dict[str, tuple[Callable[[Any, Tensor], tuple[Tensor, Any]], Neuron]] = {
    "difference": (difference, Neuron(None, THETA, 0.0, False, decay=0.25, signed=True)),
    "compared again": (compared_again, Neuron(None, THETA, 0.0, False, decay=0.25, signed=True)),
    "downwards first": (downwards_first, Neuron(None, THETA, None, False, strict=True, decay=0.5, signed=True)),
    "surrogate": (steps_of_a_surrogate, Neuron(None, THETA, 0.0, False, strict=True, decay=0.5, signed=True)),
    "sign": (sign_and_magnitude, Neuron(None, 0.5, 0.0, False, decay=0.25, signed=True)),
    "sign and gate": (sign_times_gate, Neuron(None, THETA, None, False, strict=True, signed=True)),
    "rounded to one": (
        rounded_to_one, Neuron(None, 1.0, 0.0, False, rounding="half_even", decay=0.5, signed=True),
    ),
    "of a constant": (of_a_constant, Neuron(None, THETA, None, False, decay=0.5, signed=True)),
    "rounded": (
        rounded, Neuron(None, 1.0, None, False, max_spikes=3, rounding="half_even", decay=0.5, signed=True),
    ),
}  # fmt: skip


def assert_every_spike(net: Traced, neurons: int = 2) -> None:
    """Torch's spikes in float64, of both polarities; the same integers in every engine."""
    (found,) = compare_chain(torch_oracle(net.source, net.graph), (net.graph,), net.images)
    assert (found.differ_free, found.differ_forced, len(found.layers)) == (0, 0, neurons)
    assert found.logit_difference < 1e-12
    integer = assert_exact(net.graph, net.images)
    wanted = qd.simulate(integer, net.images, engine="reference", record="events")
    assert {-1, 0, 1} <= set(np.unique(np.concatenate([v.ravel() for v in wanted.spikes.values()])))
    for engine in ("torch", "onnx"):
        assert np.array_equal(qd.simulate(integer, net.images, engine=engine).raw_output, wanted.raw_output)


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str) -> None:
    step, op = FORMS[name]
    net = network(lambda: Loop(step))
    assert net.graph["a"].op == net.graph["b"].op == op
    assert net.graph["a"].type.kind is Kind.SIGNED
    (notice,) = [n for n in net.graph.notices if "found in" in n]
    assert notice.startswith("2 neurons found in hand_written_networks.py:")
    assert "either polarity" in notice
    assert_every_spike(net)


class Amplitude(Loop):
    """Spikes times a learned height per channel (trainable ternary spikes, Eq. 12)."""

    def __init__(self) -> None:
        super().__init__(difference)
        self.height = nn.Parameter(torch.rand(1, C, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.height


def test_a_learned_height_goes_into_the_weights() -> None:
    net = network(Amplitude)
    assert net.graph["a"].op == FORMS["difference"][1]
    assert all(n.op.kind != "scale" for n in qd.quantize(net.graph, 8))
    assert_every_spike(net)


def test_verify_proves_it(tmp_path: Path) -> None:
    """The command's own comparison, and one spike more where the threshold is another."""
    net = network(lambda: Loop(difference))
    images = pixels(net.source)
    agreement, _ = qd.verify(qd.quantize(net.graph, 8), images, net.source.model, image_size=SIZE, time_steps=T)
    assert (agreement.differ_free, agreement.outputs) == (0, len(images) * 2 * T * C * SIZE * SIZE)


def one_step(body: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor], tuple[Tensor, Any]]:
    def step(v: Any, x: Tensor) -> tuple[Tensor, Any]:
        v = 0.5 * v + x
        s = body(v)
        return s, cleared(s, v)

    return step


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (lambda v: (v >= 1.0).float() - (v <= -0.5).float(), "upwards at one level and downwards at another"),
        (lambda v: 0.5 * (v >= 1.0).float() - 0.25 * (v <= -1.0).float(), "no tensor has together"),
        (lambda v: (v > 1.0).float() - (v <= -1.0).float(), "cannot be lowered"),
    ],
)
def test_what_is_no_mirror_of_itself_is_refused(body: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        network(lambda: Loop(one_step(body)))


def test_negative_spikes_that_do_not_reset_are_refused() -> None:
    def step(v: Any, x: Tensor) -> tuple[Tensor, Any]:
        v = 0.5 * v + x
        up = (v >= THETA).float()
        return up - (v <= -THETA).float(), v * (1 - up)

    with pytest.raises(UnsupportedError, match=r"part of the membrane|something else"):
        network(lambda: Loop(step))


def test_a_membrane_cut_in_place_is_no_known_neuron() -> None:
    """What a call in place does to a membrane is part of it."""

    def step(v: Any, x: Tensor) -> tuple[Tensor, Any]:
        v = 0.5 * v + x
        v.clamp_(max=1.25)
        s = (v >= THETA).float()
        return s, v * (1 - s) - 0.25 * s

    with pytest.raises(UnsupportedError):
        network(lambda: Loop(step))


def test_beside_a_shortcut() -> None:
    """Ternary spikes of one neuron are part of the drive of the next."""

    class Shortcut(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.a(self.conv1(x)[None].repeat(T, 1, 1, 1, 1))
            y = self.b(self.conv2(x.flatten(0, 1)).reshape(x.shape) + x)
            return self.head((x + y).mean((3, 4))).mean(0)

    torch.manual_seed(1)
    assert_every_spike(traced(Shortcut(lambda: Loop(difference)), image_size=SIZE))
