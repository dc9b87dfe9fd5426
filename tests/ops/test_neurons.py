"""Neurons: the float form against SpikingJelly spike by spike, the integer form against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import neuron as sj

from qkf_deploy.ops import IntegerNeuron, Neuron
from qkf_deploy.passes.decay import approximate

TAUS = [2.0, 4.0, 1.5]
RESETS = [0.0, None, -0.5, 0.25]
STEPS = [1, 2, 4, 16]


def torch_neuron(op: Neuron, plif: bool = False) -> torch.nn.Module:
    common = {"v_threshold": op.v_threshold, "v_reset": op.v_reset, "step_mode": "m"}
    if op.tau is None:
        return sj.IFNode(**common).double()
    if plif:
        return sj.ParametricLIFNode(init_tau=op.tau, decay_input=op.decay_input, **common).double()
    return sj.LIFNode(tau=op.tau, decay_input=op.decay_input, **common).double()


def torch_spikes(module: torch.nn.Module, drive: np.ndarray) -> np.ndarray:
    module.reset()
    with torch.no_grad():
        return module(torch.from_numpy(drive)).numpy()


def drives(kind: str, steps: int, seed: int) -> np.ndarray:
    """``smooth`` drives hit no threshold exactly; ``ties`` are multiples of 1/4 and often do; ``extreme`` are huge."""
    rng = np.random.default_rng(seed)
    shape = (steps, 3, 500)
    if kind == "smooth":
        return rng.normal(0.6, 1.2, shape)
    if kind == "ties":
        return rng.integers(-8, 13, shape) / 4
    return rng.choice([-1e12, -1.0, 0.0, 1.0, 1e12], shape)


def float_neurons() -> list[Neuron]:
    out = [Neuron(None, v, r, decay_input=False) for v in (1.0, 0.5) for r in RESETS if r is None or r < v]
    out += [Neuron(t, 1.0, r, d) for t in TAUS for r in RESETS for d in (True, False)]
    return [*out, Neuron(2.0, 0.5, 0.0, True), Neuron(2.0, 0.5, None, False)]


@pytest.mark.parametrize(
    "op", float_neurons(), ids=lambda n: f"tau{n.tau}-th{n.v_threshold}-r{n.v_reset}-{n.decay_input}"
)
@pytest.mark.parametrize("kind", ["smooth", "ties", "extreme"])
def test_spikes_equal_spikingjelly(op: Neuron, kind: str) -> None:
    module = torch_neuron(op)
    fired = 0
    for steps in STEPS:
        drive = drives(kind, steps, steps)
        expected = torch_spikes(module, drive)
        got = op.run([drive], {}, steps)
        wrong = got != expected
        if kind == "ties" and op.tau == 1.5:  # 1/1.5 is not a float: rounding decides at a tie
            wrong &= np.abs(op.membranes([drive], {}, steps) - op.v_threshold) > 1e-12
        assert not wrong.any()
        fired += int(expected.sum())
    assert fired > 0


@pytest.mark.parametrize("tau", [2.0, 4.0, 1.5])
@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("reset", [0.0, None])
def test_spikes_equal_parametric_lif(tau: float, decay_input: bool, reset: float | None) -> None:
    learned = 1.0 + math.exp(math.log(tau - 1.0))  # what sigmoid(w) = 1 / tau stores
    op = Neuron(learned, 1.0, reset, decay_input)
    drive = drives("smooth", 8, 3)
    expected = torch_spikes(torch_neuron(Neuron(tau, 1.0, reset, decay_input), plif=True), drive)
    assert np.array_equal(op.run([drive], {}, 8), expected)


def test_membrane_and_state() -> None:
    op = Neuron(2.0, 1.0, 0.0)
    drive = np.array([1.0, 1.0, 2.0, 0.0]).reshape(4, 1, 1)
    assert np.array_equal(op.membranes([drive], {}, 4).ravel(), [0.5, 0.75, 1.375, 0.0])
    assert np.array_equal(op.leftovers([drive], {}, 4).ravel(), [0.5, 0.75, 0.0, 0.0])
    assert np.array_equal(op.run([drive], {}, 4).ravel(), [0, 0, 1, 0])
    raised = Neuron(2.0, 1.0, 0.5)
    assert raised.membranes([np.zeros((1, 1, 1))], {}, 1).ravel()[0] == 0.5


def test_a_constant_drive_is_repeated() -> None:
    op, drive = Neuron(2.0, 1.0, 0.0), drives("ties", 1, 5)
    assert np.array_equal(op.run([drive], {}, 6), op.run([np.repeat(drive, 6, axis=0)], {}, 6))


@pytest.mark.parametrize("integer", [False, True])
def test_official_carry_is_one_long_sequence(integer: bool) -> None:
    """Image b at step t starts from what image b - 1 left at step t, image 0 from the last one at step t - 1."""
    rng = np.random.default_rng(6)
    drive = rng.integers(-3, 6, (4, 5, 7))
    if integer:
        op, params = IntegerNeuron(1, 1, carry="official"), {"theta": np.array([4])}
    else:
        op, params, drive = Neuron(2.0, 1.0, 0.0, carry="official"), {}, drive / 2
    own = type(op)(**{**vars(op), "carry": "own"})
    merged = drive.reshape(20, 1, 7)
    assert np.array_equal(op.run([drive], params, 4), own.run([merged], params, 20).reshape(4, 5, 7))
    if not integer:
        module = torch_neuron(op)
        assert np.array_equal(op.run([drive], params, 4), torch_spikes(module, drive.reshape(20, 7)).reshape(4, 5, 7))
    assert not np.array_equal(op.run([drive], params, 4), own.run([drive], params, 4))


@pytest.mark.parametrize("integer", [False, True])
def test_stored_carry_starts_every_step_from_the_leftover(integer: bool) -> None:
    rng = np.random.default_rng(7)
    drive, leftover = rng.integers(-3, 6, (3, 4, 5)), rng.integers(-4, 4, (3, 5))
    if integer:
        op, params = IntegerNeuron(1, 1, carry="stored"), {"theta": np.array([4]), "leftover": leftover}
        expected = ((leftover >> 1)[:, None] + drive) >= 4
    else:
        op, params = Neuron(2.0, 4.0, 0.0, carry="stored"), {"leftover": leftover.astype(float)}
        expected = (leftover[:, None] + (drive - leftover[:, None]) / 2) >= 4
        drive = drive.astype(float)
    assert np.array_equal(op.run([drive], params, 3), expected)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    drive=st.lists(st.integers(-(2**40), 2**40) | st.integers(-6, 6), min_size=1, max_size=16),
    theta=st.integers(1, 2**40) | st.integers(1, 8),
    shift=st.integers(0, 5),
)
def test_decay_by_a_power_of_two_is_lossless_without_fraction(drive: list[int], theta: int, shift: int) -> None:
    """m = 1: floors nest, so flooring the state at every step never changes a spike (τ = 2 is shift 1, IF shift 0)."""
    op = IntegerNeuron(1, shift)
    x = np.array(drive, np.int64).reshape(-1, 1, 1)
    got = op.run([x], {"theta": np.array([theta])}, len(drive)).ravel()
    state, expected = Fraction(0), []
    for value in drive:
        state = state / 2**shift + value
        expected.append(int(state >= theta))
        state = Fraction(0) if expected[-1] else state
    assert got.tolist() == expected


@settings(max_examples=200, deadline=None, derandomize=True)
@given(drive=st.lists(st.integers(-50, 50), min_size=1, max_size=16), theta=st.integers(1, 60))
def test_integrate_and_fire_with_soft_reset_is_exact(drive: list[int], theta: int) -> None:
    op = IntegerNeuron(1, 0, soft_reset=True)
    x = np.array(drive, np.int64).reshape(-1, 1, 1)
    got = op.run([x], {"theta": np.array([theta])}, len(drive)).ravel()
    state, expected = 0, []
    for value in drive:
        state += value
        expected.append(int(state >= theta))
        state -= theta * expected[-1]
    assert got.tolist() == expected


@pytest.mark.parametrize(
    ("m", "k", "f", "soft"), [(3, 2, 0, False), (683, 11, 8, True), (1, 1, 4, True), (1, 0, 3, False)]
)
def test_integer_recurrence(m: int, k: int, f: int, soft: bool) -> None:
    """Spelled out with Python integers, floor and all."""
    rng = np.random.default_rng(8)
    op = IntegerNeuron(m, k, f, soft)
    theta = np.array([5, 60, 700]) << f
    drive = rng.integers(-300, 500, (9, 4, 3))
    charged, spikes = op.membranes([drive], {"theta": theta}, 9), op.run([drive], {"theta": theta}, 9)
    left = op.leftovers([drive], {"theta": theta}, 9)
    for b in range(4):
        for c in range(3):
            state = 0
            for t in range(9):
                u = math.floor(Fraction(state * m, 2**k)) + (int(drive[t, b, c]) << f)
                fired = u >= int(theta[c])
                state = (u - int(theta[c]) if soft else 0) if fired else u
                assert (u, int(fired), state) == (charged[t, b, c], spikes[t, b, c], left[t, b, c])
            state = 0


def test_fraction_bits_bring_other_decays_closer() -> None:
    """τ = 1.5: with more fraction bits fewer spikes differ from float64, until only threshold ties are left."""
    drive, theta = np.random.default_rng(9).integers(-40, 90, (8, 20, 1000)), 53
    op = Neuron(1.5, theta, 0.0, decay_input=False)
    expected, membranes = (f([drive.astype(float)], {}, 8) for f in (op.run, op.membranes))
    decay, wrong = approximate(1.5, 16), []
    for f in (0, 2, 4, 14):
        integer = IntegerNeuron(decay.multiplier, decay.shift, f)
        wrong.append(integer.run([drive], {"theta": np.array([theta << f])}, 8) != expected)
    counts = [int(w.sum()) for w in wrong]
    assert counts[0] > counts[1] > counts[2] > counts[3]
    first = wrong[3].cumsum(axis=0) == 1  # what follows a flipped tie may differ for good
    assert np.abs(membranes[wrong[3] & first] - theta).max() < 1e-9


def test_a_gate_is_an_or() -> None:
    """Threshold 1 on non-negative integers: no memory, whatever the decay."""
    x = np.random.default_rng(10).integers(0, 3, (6, 5, 40))
    for k in (0, 1, 3):
        assert np.array_equal(IntegerNeuron(1, k).run([x], {"theta": np.array([1])}, 6), x >= 1)
