"""Which class a neuron is, decided by what it computes with; its state and its values, against torch in float64."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from frontend_networks import Traced, assert_exact, assert_faithful, traced
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

import qkf_deploy as qd
from qkf_deploy.converters.torch.trace import NeuronModule, register_neuron
from qkf_deploy.converters.torch.trace.neurons import recognize
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.ops import IntegerNeuron, Neuron

C, SIZE, T = 4, 8, 4


class Net(nn.Module):
    """Convolution, the neuron, convolution, another of its kind, classifier."""

    def __init__(self, make: Callable[[], nn.Module], single_step: bool = False, tokens: bool = False) -> None:
        super().__init__()
        self.T, self.single_step, self.tokens = T, single_step, tokens
        self.a, self.b = make(), make()
        self.conv1, self.conv2 = nn.Conv2d(3, C, 3, padding=1), nn.Conv2d(C, C, 3, padding=1)
        self.head = nn.Linear(C, 3)
        for conv in (self.conv1, self.conv2):  # no batch norms: SpikingJelly takes values as tensors in float64 only
            conv.weight.data *= 4
            conv.bias.data += 1  # type: ignore[union-attr]

    def neurons(self, module: nn.Module, x: Tensor) -> Tensor:
        """Multi-step on ``(T, B, C, H, W)`` or on ``(T * B, C, H * W)``, or once per step."""
        if self.tokens:
            return module(x.flatten(2)).reshape(x.shape)
        x = x.reshape(self.T, -1, *x.shape[1:])
        out = torch.stack([module(step) for step in x]) if self.single_step else module(x)
        return out.flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch = len(x)
        x = x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1).flatten(0, 1)
        x = self.neurons(self.a, self.conv1(x))
        x = self.neurons(self.b, self.conv2(x))
        return self.head(x.mean((2, 3)).reshape(self.T, batch, C).mean(0))


def network(make: Callable[[], nn.Module], **form: bool) -> Traced:
    torch.manual_seed(1)
    return traced(Net(make, **form), image_size=SIZE)


def check(make: Callable[[], nn.Module], **form: bool) -> Traced:
    """Every spike is torch's, and the integer engines agree."""
    net = network(make, **form)
    assert_faithful(net)
    assert_exact(net.graph, net.images)
    return net


def lif(cls: type = neuron.LIFNode, **attributes: Any) -> nn.Module:
    module = cls(step_mode="m")
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def started(value: Any, cls: type = neuron.LIFNode, **attributes: Any) -> nn.Module:
    module = lif(cls, **attributes)
    module.set_reset_value("v", value)
    module.reset()
    return module


# -- subclasses that change nothing ----------------------------------------------------------------------------------


class Renamed(neuron.LIFNode):
    """Another name, other defaults, something to show: the same neuron."""

    def __init__(self, **given: Any) -> None:
        super().__init__(tau=4.0, v_threshold=0.5, **given)

    def extra_repr(self) -> str:
        return "mine"

    def rate(self) -> float:
        return 0.0


class ParametricLIFNode(neuron.IFNode):
    """Called like another class."""


def test_a_class_that_inherits_its_dynamics_is_its_base() -> None:
    net = check(lambda: Renamed(step_mode="m"))
    assert net.graph["a"].op == Neuron(4.0, 0.5, 0.0)
    assert recognize(ParametricLIFNode(step_mode="s")) == NeuronModule(Neuron(None, 1.0, 0.0, False), False)


@pytest.mark.parametrize("cls", [neuron.HalfThresholdIFNode, neuron.SimpleIFNode, neuron.SimpleLIFNode])
def test_further_classes(cls: type) -> None:
    if cls is neuron.SimpleLIFNode:
        check(lambda: cls(tau=2.0, decay_input=True, v_reset=-0.5, step_mode="m"))
    else:
        check(lambda: cls(step_mode="m"))


@pytest.mark.parametrize("most", [1, 2, 4])
def test_the_integer_valued_neuron(most: int) -> None:
    """round(H / V_th) within 0 and D, the counts subtracted; ties go to the even number."""
    spikes = surrogate.MultiLevelSpikeCount(most)
    net = check(lambda: neuron.ILIFNode(tau=2.0, v_threshold=0.5, surrogate_function=spikes, step_mode="m"))
    assert net.graph["a"].op == Neuron(2.0, 0.5, None, False, max_spikes=most, rounding="half_even")
    assert net.graph["a"].type.high == most


def test_an_integer_valued_neuron_that_does_not_round() -> None:
    class Odd(surrogate.MultiLevelSpikeCount):
        def forward(self, x: Tensor) -> Tensor:
            return x.clamp(0, 4).floor()

    with pytest.raises(UnsupportedError, match="does not round within 0 and 4"):
        recognize(neuron.ILIFNode(surrogate_function=Odd(4)))


def test_a_simple_lif_without_a_reset_voltage_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="has none"):
        recognize(neuron.SimpleLIFNode(tau=2.0, decay_input=True, v_reset=None))


# -- overrides -------------------------------------------------------------------------------------------------------


class SingleStep(neuron.LIFNode):
    def single_step_functional_forward(self, inputs, states, **given):
        return super().single_step_functional_forward(inputs, states, **given)


class Forward(neuron.IFNode):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Charge(neuron.SimpleLIFNode):
    def neuronal_charge(self, x: Tensor) -> None:
        self.v = self.v * 0.25 + x


class Reset(neuron.ParametricLIFNode):
    def reset(self) -> None:
        super().reset()
        self.v = 0.5


class SoftReset(neuron.LIFNode):
    @staticmethod
    def apply_soft_reset(v: Tensor, spike: Tensor, v_threshold: float) -> Tensor:
        return v - 0.5 * spike


class Threshold(neuron.LIFNode):
    @property
    def v_threshold(self) -> float:
        return 2.0

    @v_threshold.setter
    def v_threshold(self, value: float) -> None: ...


class Between(neuron.BaseNode):
    def materialize_states(self, inputs, states, step_mode):
        return super().materialize_states(inputs, states, step_mode)


class FromBoth(neuron.LIFNode, Between):
    """Its own methods are LIFNode's; what LIFNode inherits is not any more."""


class LIFNode(neuron.BaseNode):
    """Called like a known class, with dynamics of its own."""

    def single_step_functional_forward(self, inputs, states, **given):
        v = states[0] * 0.25 + inputs[0]
        spike = (v >= self.v_threshold).to(v)
        return (spike,), (v - spike * self.v_threshold,)


OVERRIDES = {
    SingleStep: "SingleStep, derived from LIFNode, overrides single_step_functional_forward",
    Forward: "Forward, derived from IFNode, overrides forward",
    Charge: "Charge, derived from SimpleLIFNode, overrides neuronal_charge",
    Reset: "Reset, derived from ParametricLIFNode, overrides reset",
    SoftReset: "SoftReset, derived from LIFNode, overrides apply_soft_reset",
    Threshold: "Threshold, derived from LIFNode, defines v_threshold in its class",
    FromBoth: "FromBoth, derived from LIFNode, overrides materialize_states",
    LIFNode: "neuron LIFNode has dynamics of its own: single_step_functional_forward",
}


@pytest.mark.parametrize("cls", OVERRIDES, ids=lambda c: c.__name__)
def test_an_override_is_refused_by_name_and_place(cls: type) -> None:
    def make() -> nn.Module:
        return cls(2.0, True) if cls is Charge else cls()

    with pytest.raises(UnsupportedError, match=OVERRIDES[cls]) as caught:
        network(make, single_step=True)
    assert "test_neuron_classes.py:" in caught.value.message
    assert "a: " in caught.value.message
    assert "b: " in caught.value.message
    assert "register_neuron" in (caught.value.hint or "")


def test_parallel_neurons_are_refused_for_their_matrix_over_time() -> None:
    with pytest.raises(UnsupportedError, match="neuron PSN multiplies the drives of all time steps") as caught:
        network(lambda: neuron.PSN(T=2, surrogate_function=surrogate.ATan()))
    assert "weights from step to step" in caught.value.message


def test_a_registered_class_may_override() -> None:
    path = f"{LIFNode.__module__}.{LIFNode.__qualname__}"
    op = Neuron(4 / 3, 1.0, None, decay_input=False)  # 1 - 1/τ = 1/4
    register_neuron(path, lambda m: NeuronModule(op, m.step_mode == "m"))
    try:
        check(lambda: LIFNode(v_reset=None, step_mode="m"))
    finally:
        from qkf_deploy.converters.torch.trace import neurons

        del neurons._REGISTERED[path]


def patched() -> nn.Module:
    module = lif()
    module.single_step_functional_forward = types.MethodType(LIFNode.single_step_functional_forward, module)
    return module


def hooked() -> nn.Module:
    module = lif()
    module.register_forward_hook(lambda _m, _x, out: 1 - out)
    return module


def pre_hooked() -> nn.Module:
    module = lif()
    module.register_forward_pre_hook(lambda _m, x: (2 * x[0],))
    return module


class Above(surrogate.Sigmoid):
    """Fires above the threshold, not at it."""

    @staticmethod
    def spiking_function(x: Tensor, alpha: float) -> Tensor:
        return (x > 0).to(x)


class Steps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.add(1).floor().clamp(0, 3)


class Mine(nn.Module):
    """A step with some gradient of one's own."""

    def forward(self, x: Tensor) -> Tensor:
        return (x >= 0).to(x)


class Pair(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x


REFUSED = {
    "method of the object": (patched, "its single_step_functional_forward replaced on the object"),
    "hook": (hooked, "has a forward hook"),
    "pre-hook": (pre_hooked, "has a forward pre-hook"),
    "not spiking": (lambda: lif(surrogate_function=surrogate.Sigmoid(spiking=False)), "spiking is False"),
    "fires above": (lambda: lif(surrogate_function=Above()), "Above is not 1 from 0 on"),
    "several levels": (lambda: lif(surrogate_function=Steps()), "Steps is not 1 from 0 on"),
    "function of two": (lambda: lif(surrogate_function=Pair()), "cannot be tried"),
    "threshold is text": (lambda: lif(v_threshold="high"), "v_threshold is str high, not finite numbers"),
    "threshold is infinite": (lambda: lif(v_threshold=float("inf")), "not finite numbers"),
    "no threshold": (lambda: lif(v_threshold=None), "v_threshold is NoneType"),
    "reset value is text": (lambda: started("low"), "the reset value of v is str"),
    "another neuron": (lambda: neuron.QIFNode(step_mode="m"), "QIFNode has dynamics without an exact form"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_compute_something_else_is_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        network(make)


def test_a_surrogate_function_of_ones_own_is_tried_and_told() -> None:
    net = check(lambda: lif(surrogate_function=Mine()))
    assert any("a: its surrogate function Mine is taken for a step at 0" in text for text in net.graph.notices)


# -- state and values ------------------------------------------------------------------------------------------------

PER_CHANNEL = torch.linspace(0.5, 1.25, C).view(1, C, 1, 1)
TAUS = torch.tensor([2.0, 4.0, 2.0, 8.0]).view(C, 1, 1)
VALUES = {
    "starts at half": lambda: started(0.5),
    "starts above": lambda: started(3.0),
    "starts below": lambda: started(-2.0, v_reset=None),
    "starts per element": lambda: started(torch.rand(1, C, SIZE, SIZE) * 2 - 1),
    "starts elsewhere than at its reset": lambda: lif(v_reset=-0.5),
    "thresholds": lambda: lif(v_threshold=PER_CHANNEL),
    "threshold of one element": lambda: lif(v_threshold=torch.tensor([0.75])),
    "thresholds per position": lambda: lif(v_threshold=torch.rand(SIZE, SIZE) + 0.5),
    "thresholds soft": lambda: lif(v_threshold=PER_CHANNEL, v_reset=None),
    "taus": lambda: lif(tau=TAUS, decay_input=False),
    "resets": lambda: lif(v_reset=-PER_CHANNEL),
    "all": lambda: started(0.25, tau=TAUS, v_threshold=PER_CHANNEL, v_reset=-PER_CHANNEL / 4),
    "if": lambda: started(0.25, neuron.IFNode, v_threshold=nn.Parameter(PER_CHANNEL)),
    "learned taus": lambda: lif(neuron.ParametricLIFNode, w=nn.Parameter(torch.linspace(-1, 1, C).view(C, 1, 1))),
}


@pytest.mark.parametrize("name", VALUES)
def test_state_and_values(name: str) -> None:
    check(VALUES[name])


@pytest.mark.parametrize("name", ["starts at half", "thresholds", "taus"])
def test_state_and_values_once_per_step(name: str) -> None:
    def make() -> nn.Module:
        module = VALUES[name]()
        module.step_mode = "s"
        return module

    check(make, single_step=True)


def test_values_where_time_and_batch_are_merged() -> None:
    """One step is ``(C, N)``: there is no batch axis, and the values follow the tensor's axes, not the image's."""
    taus = TAUS.view(C, 1)
    start = torch.rand(C, SIZE * SIZE)
    net = network(lambda: started(start, tau=taus, v_threshold=torch.rand(SIZE * SIZE) + 0.5), tokens=True)
    assert_faithful(net)
    assert net.graph["a"].params["initial"].shape == (C, SIZE * SIZE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: started(torch.tensor(0.5)), "a tensor without axes"),
        (lambda: started(torch.zeros(1, C, 1, 1) + 0.5), "SpikingJelly replaces it by the reset voltage"),
        (lambda: lif(v_threshold=torch.ones(5, 1, C, SIZE, SIZE)), "differs within one step"),
        (lambda: lif(v_threshold=torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)), "differs within one step"),
    ],
)
def test_values_that_do_not_fit_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        network(make)


def test_a_membrane_that_was_set_is_told() -> None:
    """What counts is what a reset leaves."""
    net = check(lambda: lif(v=0.75))
    assert any("a: its membrane is 0.75 now; every image starts from its reset value 0" in t for t in net.graph.notices)


@pytest.mark.parametrize(("engine", "bits"), [("onnx", 16), ("event", 32)])
def test_integers_of_every_engine(engine: str, bits: int, tmp_path: Any) -> None:
    """Through a file, with everything at once; 32 bits give the spikes of float64."""
    net = network(VALUES["all"])
    integer = qd.quantize(net.graph, bits)
    qd.save(integer, tmp_path / "net.qkf")
    loaded = qd.load(tmp_path / "net.qkf")
    assert isinstance(loaded["a"].op, IntegerNeuron)
    assert {"initial", "decay_multiplier"} <= set(loaded["a"].params)
    names = ["a", "b"]
    wanted = qd.simulate(integer, net.images, record=names, membranes=names, engine="reference")
    got = qd.simulate(loaded, net.images, record=names, membranes=names, engine=engine)
    real = qd.simulate(net.graph, net.images, record=names)
    for name in names:
        assert np.array_equal(got.membranes[name], wanted.membranes[name])
        assert np.array_equal(got.spikes[name], wanted.spikes[name])
        assert bits < 32 or np.array_equal(got.spikes[name], real.spikes[name])
    assert got.ledger.to_dict() == wanted.ledger.to_dict()
