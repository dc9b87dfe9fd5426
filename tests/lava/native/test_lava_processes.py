"""The processes by themselves: built by hand, found by Lava's own search for models, read through Vars."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg

from qkf_deploy import ops
from qkf_deploy.errors import GraphError
from qkf_deploy.ir import Kind, Timing, ValueType
from qkf_deploy.simulators.lava.processes.endpoints import Sink, Source
from qkf_deploy.simulators.lava.processes.operators import IntegerNeuron, Synapse

T = 4
PIXELS = ValueType((2, 5, 5), Kind.REAL, Timing.CONSTANT, 255, 0)
CONV = ops.Conv((1, 1), (1, 1), (1, 1), weight_bits=8)
LIF = ops.IntegerNeuron(1, 1)


def test_a_network_built_by_hand() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (3, 2, 3, 3)).astype(np.int8)
    theta = np.array([[[2000]], [[4000]], [[100]]])
    image = rng.integers(0, 256, (1, 1, 2, 5, 5))
    source = Source(image, time_steps=T)
    conv = Synapse(CONV, [PIXELS], {"weight": weight}, time_steps=T)
    neuron = IntegerNeuron(LIF, [conv.type], {"theta": theta}, time_steps=T)
    sink = Sink(ops.Output(), [neuron.type], time_steps=T)
    source.y.connect(conv.x)
    conv.y.connect(neuron.x)
    neuron.y.connect(sink.x)
    drive = CONV.run([image], {"weight": weight}, T)
    expected = LIF.run([drive], {"theta": theta}, T)
    membranes = LIF.membranes([drive], {"theta": theta}, T)
    assert 0 < expected.mean() < 1
    try:
        for time in range(T):
            sink.run(RunSteps(num_steps=1), Loihi2SimCfg(select_tag="fixed_pt"))
            np.testing.assert_array_equal(sink.value.get(), expected[time, 0])
            np.testing.assert_array_equal(neuron.u.get(), membranes[time, 0])
            np.testing.assert_array_equal(neuron.m.get(), np.where(expected[time, 0], 0, membranes[time, 0]))
        np.testing.assert_array_equal(conv.weight.get(), weight)
    finally:
        sink.stop()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(GraphError, match="does not fit input"):
        Synapse(CONV, [PIXELS], {"weight": np.zeros((3, 4, 3, 3), np.int8)}, time_steps=T)


def test_neither_torch_nor_numba_is_loaded() -> None:
    assert sys.version_info[:2] == (3, 10)
    assert not {"torch", "numba"} & set(sys.modules)
