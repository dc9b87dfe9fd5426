"""Spikes that the torch engine takes from float32: the reference's, whatever the network and however close the tie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_torch_engine import assert_same

from qkf_deploy.ir import Graph, GraphBuilder, Operand, View
from qkf_deploy.ops import Conv, Input, MaxPool, Neuron, Output
from qkf_deploy.simulators import reference
from qkf_deploy.simulators import torch as torch_engine
from qkf_deploy.simulators.run import Record
from qkf_deploy.simulators.torch import engine, screening

NEURONS = [
    Neuron(2.0, 0.6, 0.0),
    Neuron(3.0, 0.6, None),
    Neuron(1.5, 0.7, 0.0, decay_input=False),
    Neuron(2.5, 0.9, None, decay_input=False),
    Neuron(None, 0.8, 0.0),
    Neuron(None, 0.8, None),
]


def network(seed: int, neuron: Neuron, *, tenths: bool = False, per_channel: bool = False) -> Graph:
    """Windows of all kinds: strides, dilation, pooling with borders, one axis behind a reshape, no bias."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-3, 4, shape) / 10 if tenths else rng.normal(0.1, 0.4, shape)

    params = {}
    if per_channel:
        levels = rng.uniform(0.5, 1, (6, 1, 1))
        neuron = Neuron(neuron.tau, float(levels.max()), neuron.v_reset, neuron.decay_input)
        params = {"v_threshold": levels}
    b = GraphBuilder()
    x = b.add("input", Input((3, 9, 8), "frames", high=3))
    x = b.add("conv", Conv((1, 1), (1, 1), (1, 1)), [x], {"weight": weights(6, 3, 3, 3), "bias": weights(6)})
    x = b.add("pool", MaxPool((3, 3), (2, 2), (1, 1)), [x])
    x = b.add("lif", neuron, [x], params)
    x = b.add("wide", Conv((2, 1), (2, 1), (2, 1)), [x], {"weight": weights(6, 6, 3, 2), "bias": weights(6)})
    x = b.add("lif2", neuron, [x], params)
    c, h, w = b.nodes["lif2"].type.shape
    row = Operand(x, View.of((c, h, w), (0, 1, 2), (c, h * w)))
    x = b.add("line", Conv((1,), (0,), (1,)), [row], {"weight": weights(6, 6, 1)})
    back = Operand(x, View.of((c, h * w), (0, 1), (c, h, w)))
    x = b.add("lif3", neuron, [back], params)
    b.add("output", Output(), [x])
    return b.build(time_steps=4, input_encoding="frames")


def frames(seed: int, images: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 4, (4, images, 3, 9, 8)) * rng.integers(0, 2, (images, 1, 1, 1))).astype(np.float64)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every place that is too close is computed by itself, however many there are; how many that was."""
    monkeypatch.setattr(screening, "_AT_LEAST", 10**9)
    found: list[int] = []
    settle = screening.Screen._settle
    monkeypatch.setattr(
        screening.Screen, "_settle", lambda self, *a: found.append(len(a[2].images)) or settle(self, *a)
    )
    return found


def test_chains_are_found() -> None:
    assert set(screening.chains(network(0, NEURONS[0]))) == {"lif", "lif2", "lif3"}


@pytest.mark.parametrize("neuron", NEURONS, ids=str)
@pytest.mark.parametrize("fields", [{}, {"tenths": True}, {"per_channel": True}], ids=str)
def test_spikes_and_counts_are_the_references(neuron: Neuron, fields: dict[str, Any], places: list[int]) -> None:
    assert_same(network(1, neuron, **fields), frames(2))
    assert places, "without a close membrane this shows nothing"


@pytest.mark.parametrize("neuron", NEURONS[:3], ids=str)
def test_many_close_membranes_go_through_float64(neuron: Neuron, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "_AT_LEAST", 0)
    monkeypatch.setattr(screening, "_FEW", 10**9)
    assert_same(network(1, neuron, tenths=True), frames(2))


def test_without_the_bounds_spikes_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the tests before: float32 alone does not give the reference's spikes."""
    monkeypatch.setattr(screening._Synapse, "closeness", lambda self, *a: np.full(len(self.error), -1.0))
    with pytest.raises(AssertionError):
        assert_same(network(1, NEURONS[0], tenths=True), frames(2))


def test_the_bounds_hold_and_are_not_far_off() -> None:
    """Drives in float32 against float64: within the bound; the worst input that there is comes near to it."""
    graph = network(3, NEURONS[0])
    setting = engine.engine_for(graph, torch_engine.devices.open_device("cpu"), False).setting
    node = graph["conv"]
    synapse = screening._Synapse(setting, node, 3.0)
    exact = synapse._exact
    off = exact["weight"].reshape(6, -1) - node.params["weight"].reshape(6, -1)
    offset = exact["bias"] - node.params["bias"]
    worst = np.maximum((3 * np.maximum(off, 0)).sum(1) + offset, -(3 * np.minimum(off, 0)).sum(1) - offset)
    assert (np.abs(worst) <= synapse.error).all()
    assert (np.abs(worst) >= synapse.error / 3).all()
    whole = np.ldexp(exact["weight"].reshape(6, -1), synapse.bits[:, None])
    assert (whole == np.rint(whole)).all()
    assert (3 * np.abs(whole).sum(axis=1) < 2**26).all()


@pytest.mark.parametrize("wanted", ["values", "membranes"])
def test_drives_and_membranes_that_are_asked_for_are_float64(wanted: str) -> None:
    graph, x = network(4, NEURONS[0]), frames(5, 3)
    record = Record.of(graph, "all") if wanted == "values" else Record.of(graph, (), "all")
    expected, got = reference.run(graph, x, record), torch_engine.run(graph, x, record)
    for name, value in getattr(expected, wanted).items():
        np.testing.assert_allclose(getattr(got, wanted)[name], value, rtol=0, atol=1e-12, err_msg=name)


def test_threads_take_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = engine.Engine.run
    monkeypatch.setattr(engine.Engine, "run", lambda self, x, *a: sizes.append(x.shape[1]) or run(self, x, *a))
    assert_same(network(1, NEURONS[0]), frames(2), threads=2)
    assert sorted(sizes) == [20, 20]
