"""Initial membranes, values per position, several spikes per step, lower bounds: by hand, against SpikingJelly, and
against loops over single neurons that share no code with the operators."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import neuron as sj

from qkf_deploy.errors import GraphError, ProofError
from qkf_deploy.ir import Interval, Node
from qkf_deploy.ir.values import Kind, ValueType
from qkf_deploy.ops import IntegerNeuron, Neuron
from qkf_deploy.passes.neurons import integer_neuron

DRIVE = ValueType((3, 2, 2), Kind.DRIVE)
STEPS = 5


def column(*values: float) -> np.ndarray:
    """One neuron's drive over time, ``(T, 1, 1)``."""
    return np.array(values, np.float64).reshape(-1, 1, 1)


def test_several_spikes_by_hand() -> None:
    """U = 2.5, 0.75, 1.25, -2.75, -1.75 with soft reset by 1; what two, none and one spike leave is carried on."""
    op, drive = Neuron(None, 1.0, None, False, max_spikes=None), column(2.5, 0.25, 0.5, -3.0, 1.0)
    assert op.membranes([drive], {}, 5).ravel().tolist() == [2.5, 0.75, 1.25, -2.75, -1.75]
    assert op.run([drive], {}, 5).ravel().tolist() == [2, 0, 1, 0, 0]
    assert op.leftovers([drive], {}, 5).ravel().tolist() == [0.5, 0.75, 0.25, -2.75, -1.75]
    capped = Neuron(None, 1.0, None, False, max_spikes=2)
    assert capped.run([column(3.5, 0.0, 0.0)], {}, 3).ravel().tolist() == [2, 1, 0]
    hard = Neuron(None, 1.0, 0.0, False, max_spikes=None)
    assert hard.run([column(3.5, 0.75, 0.5)], {}, 3).ravel().tolist() == [3, 0, 1]
    bounded = Neuron(None, 1.0, None, False, max_spikes=None, v_min=-1.0)
    assert bounded.leftovers([column(-3.0, 1.5, 0.5)], {}, 3).ravel().tolist() == [-1.0, 0.5, 0.0]


def test_several_spikes_by_hand_in_integers() -> None:
    op = IntegerNeuron(1, 0, 1, soft_reset=True, max_spikes=2)
    params = {"theta": np.array([5]), "lowest": np.array([-4]), "initial": np.array([3])}
    drive = np.array([6, 0, -9, 5]).reshape(-1, 1, 1)  # U = 3 + 12, 15 - 10 + 0, 0 - 18, -4 + 10
    assert op.membranes([drive], params, 4).ravel().tolist() == [15, 5, -18, 6]
    assert op.run([drive], params, 4).ravel().tolist() == [2, 1, 0, 1]
    assert op.leftovers([drive], params, 4).ravel().tolist() == [5, 0, -4, 1]


def one_integer_neuron(drive: list[int], op: IntegerNeuron, theta: int, m: int, start: int, lowest: int | None):
    """Spelled out with Python integers: (charged, spikes) over time."""
    state, charged, spikes = start, [], []
    for x in drive:
        u = math.floor(Fraction(state * m, 2**op.decay_shift)) + x * 2**op.fraction_bits
        count = 0
        while u - count * theta >= theta and (op.max_spikes is None or count < op.max_spikes):
            count += 1
        state = u if not count else (u - count * theta if op.soft_reset else 0)
        state = state if lowest is None else max(state, lowest)
        charged.append(u)
        spikes.append(count)
    return charged, spikes


@pytest.mark.parametrize("seed", range(24))
def test_integer_neurons_equal_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shift = int(rng.integers(0, 4))
    multipliers = rng.integers(0, 2**shift + 1, (3, 1, 1)) if seed % 2 else None
    multiplier = int(multipliers.max()) if multipliers is not None else int(rng.integers(0, 2**shift + 1))
    op = IntegerNeuron(
        multiplier, shift, int(rng.choice([0, 3])), bool(seed % 3), max_spikes=[None, 1, 3][int(rng.integers(3))]
    )
    reach = [3, 40, 10**5][seed % 3]
    theta = rng.integers(1, reach + 1, [(1, 1, 1), (3, 1, 1), (3, 2, 2)][int(rng.integers(3))])
    params = {"theta": theta, "initial": rng.integers(-5 * reach, 5 * reach, (3, 2, 2))}
    if multipliers is not None:
        params["decay_multiplier"] = multipliers
    if seed % 4 > 1:
        params["lowest"] = rng.integers(-reach, 1, (3, 1, 1))
    drive = rng.integers(-reach, 2 * reach, (STEPS, 2, 3, 2, 2))
    op.infer((DRIVE,), params)
    charged, spikes = op.membranes([drive], params, STEPS), op.run([drive], params, STEPS)
    wide = {k: np.broadcast_to(v, (3, 2, 2)) for k, v in params.items()}
    for b, *place in itertools.product(range(2), range(3), range(2), range(2)):
        at = tuple(place)
        m = int(wide["decay_multiplier"][at]) if multipliers is not None else multiplier
        lowest = int(wide["lowest"][at]) if "lowest" in wide else None
        drives = [int(v) for v in drive[(slice(None), b, *at)]]
        expected = one_integer_neuron(drives, op, int(wide["theta"][at]), m, int(wide["initial"][at]), lowest)
        assert (charged[(slice(None), b, *at)].tolist(), spikes[(slice(None), b, *at)].tolist()) == expected


def spread(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """One value for all channels, one per channel, or one per position; multiples of 1/8."""
    shape = [(1, 1, 1), (3, 1, 1), (3, 2, 2)][int(rng.integers(3))]
    return rng.integers(int(low * 8), int(high * 8) + 1, shape) / 8


@pytest.mark.parametrize("seed", range(30))
def test_values_per_position_equal_spikingjelly(seed: int) -> None:
    """Thresholds, τ, reset voltages and initial membranes as tensors, torch in float64, ties included."""
    rng = np.random.default_rng(seed)
    leaky, hard, decay_input = bool(seed % 3), bool(seed % 2), bool(seed % 5 % 2)
    module: torch.nn.Module = sj.LIFNode(decay_input=decay_input) if leaky else sj.IFNode()
    threshold, tau = spread(rng, 0.5, 2), rng.choice([2.0, 4.0, 1.5], (3, 1, 1))
    reset, start = (spread(rng, -1, 0.25) if hard else None), spread(rng, -2, 3)
    module.v_threshold = torch.from_numpy(threshold)
    module.v_reset = None if reset is None else torch.from_numpy(reset)
    if leaky:
        module.tau = torch.from_numpy(tau)
    drive = rng.choice([-1e9, 1e9, *(np.arange(-8, 17) / 8)], (8, 1, 3, 2, 2), p=[0.02, 0.02, *[0.96 / 25] * 25])
    expected = []
    module.v = torch.from_numpy(np.broadcast_to(start, (1, 3, 2, 2)).copy())
    with torch.no_grad():
        expected = np.stack([module(torch.from_numpy(x)).numpy() for x in drive])
    op = Neuron(
        float(tau.max()) if leaky else None, float(threshold.max()), None if reset is None else float(reset.max()),
        decay_input,
    )  # fmt: skip
    params = {"v_threshold": threshold, "initial": start - (0.0 if reset is None else reset)}
    params |= {"tau": tau} if leaky else {}
    params |= {} if reset is None else {"v_reset": reset}
    op.infer((DRIVE,), params)
    wrong = op.run([drive], params, 8) != expected
    if leaky:  # 1 / 1.5 is not a float: rounding decides at a tie
        close = np.abs(op.membranes([drive], params, 8) - threshold) < 1e-9
        wrong &= ~np.maximum.accumulate(close, axis=0)
    assert not wrong.any()
    assert 0 < expected.sum() < expected.size


@pytest.mark.parametrize(
    ("op", "params", "message"),
    [
        (Neuron(2.0, 1.0, 0.0), {"v_threshold": np.ones(5)}, "does not broadcast"),
        (Neuron(2.0, 1.0, 0.0), {"v_threshold": np.full((3, 1, 1), 0.5)}, "not the largest"),
        (Neuron(None, 1.0, 0.0), {"tau": np.full((3, 1, 1), 2.0)}, "not the largest"),
        (Neuron(2.0, 1.0, 0.0), {"gain": np.ones(1)}, "no parameter gain"),
        (Neuron(2.0, 1.0, 0.5, max_spikes=None), {}, "soft reset or a reset to 0"),
        (Neuron(2.0, 1.0, None, max_spikes=0), {}, "at least 1"),
        (Neuron(2.0, 1.0, 0.0, v_min=0.5), {}, "above the reset voltage"),
        (Neuron(2.0, 1.0, 0.0), {"v_threshold": np.array([[[1.0]], [[0.0]], [[1.0]]])}, "V_th > V_reset"),
        (IntegerNeuron(1, 1, max_spikes=2), {"theta": np.array([0])}, "thresholds of at least 1"),
        (IntegerNeuron(1, 1), {"theta": np.array([1]), "lowest": np.array([1])}, "above 0"),
        (IntegerNeuron(1, 1), {"theta": np.array([1]), "initial": np.ones((2, 2, 2), np.int64)}, "initial"),
        (IntegerNeuron(1, 1), {"theta": np.array([1]), "decay_multiplier": np.array([2])}, "not the largest"),
    ],
)
def test_contradictions_are_refused(op: Neuron | IntegerNeuron, params: dict, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        op.infer((DRIVE,), params)


def test_output_types() -> None:
    assert Neuron(2.0, 1.0, 0.0).infer((DRIVE,), {}) == ValueType.spikes((3, 2, 2))
    assert Neuron(2.0, 1.0, None, max_spikes=5).infer((DRIVE,), {}).high == 5
    unlimited = Neuron(2.0, 1.0, None, max_spikes=None).infer((DRIVE,), {})
    assert (unlimited.kind, unlimited.high) == (Kind.COUNT, None)


@pytest.mark.parametrize("seed", range(60))
def test_membrane_bounds_hold_and_are_reached(seed: int) -> None:
    """Every sequence of drives from a small range, by enumeration; the start belongs to the range."""
    rng = np.random.default_rng(seed)
    op = IntegerNeuron(
        int(rng.integers(0, 3)), 1, int(rng.choice([0, 2])), bool(seed % 2), max_spikes=[1, None, 2][seed % 3]
    )
    reach = 20 if seed % 5 == 0 else 1
    theta, start = int(rng.integers(1, 9)), int(rng.integers(-reach, reach + 1))
    params = {"theta": np.array([theta]), "initial": np.array([start])}
    if seed % 4 == 0:
        params["lowest"] = np.array([-3])
    low, high, steps = int(rng.integers(-4, 1)), int(rng.integers(1, 6)), 3
    sequences = np.array(list(itertools.product(range(low, high + 1), repeat=steps))).T[:, :, None]
    seen = op.membranes([sequences], params, steps)
    counts = op.run([sequences], params, steps)
    x = Interval(np.array([low]), np.array([high]))
    bound = op.membrane_interval([x], params, steps)
    assert bound.low.item() <= min(start, int(seen.min()))
    assert max(start, int(seen.max())) <= bound.high.item()
    most = op.interval([x], params, (ValueType((1,), Kind.DRIVE),), steps).high.item()
    assert counts.max() <= most
    if op.max_spikes == 1 and not op.fraction_bits and not op.soft_reset:
        assert (bound.low.item(), bound.high.item()) == (min(start, int(seen.min())), max(start, int(seen.max())))


def test_what_several_spikes_leave_is_bounded_by_the_threshold() -> None:
    """Drives of 6 to 10 always pass 5; 9 leaves 4, more than 10 leaves: 4 + 10 is the largest membrane."""
    op, params = IntegerNeuron(1, 0, soft_reset=True, max_spikes=None), {"theta": np.array([5])}
    bound = op.membrane_interval([Interval(np.array([6]), np.array([10]))], params, 2)
    assert op.membranes([np.array([9, 10]).reshape(2, 1, 1)], params, 2).max() == bound.high.item() == 14


def float_node(op: Neuron, **params: np.ndarray) -> Node:
    return Node("n", op, (), ValueType((1,), Kind.SPIKE), params)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    drive=st.lists(st.integers(-30, 60), min_size=1, max_size=8),
    threshold=st.fractions(1, 40, max_denominator=64),
    start=st.fractions(-200, 200, max_denominator=64),
)
def test_an_initial_membrane_of_an_if_neuron_is_exact(drive: list[int], threshold: Fraction, start: Fraction) -> None:
    """Θ - ceil(θ - v): whole drives make the integer neuron fire exactly where the real one does."""
    node = float_node(Neuron(None, float(threshold), 0.0, False), initial=np.array([float(start)]))
    made = integer_neuron(node, node.op, np.ones(1), None, 12)  # type: ignore[arg-type]
    assert made.op.fraction_bits == 0
    got = made.op.run([np.array(drive).reshape(-1, 1, 1)], made.params, len(drive)).ravel().tolist()
    state, expected = Fraction(float(start)), []
    for x in drive:
        state += x
        expected.append(int(state >= Fraction(float(threshold))))
        state = Fraction(0) if expected[-1] else state
    assert got == expected


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    drive=st.lists(st.integers(-30, 60), min_size=1, max_size=8),
    theta=st.integers(1, 40),
    start=st.fractions(-200, 200, max_denominator=64),
)
def test_an_initial_membrane_is_exact_where_thresholds_are_whole(drive: list[int], theta: int, start: Fraction) -> None:
    """τ = 2 without fraction bits: floors nest, the one of the initial membrane too."""
    node = float_node(Neuron(2.0, theta, 0.0, False), initial=np.array([float(start)]))
    made = integer_neuron(node, node.op, np.ones(1), None, 12)  # type: ignore[arg-type]
    assert made.params["initial"].item() == math.floor(start)
    got = made.op.run([np.array(drive).reshape(-1, 1, 1)], made.params, len(drive)).ravel().tolist()
    state, expected = Fraction(float(start)), []
    for x in drive:
        state = state / 2 + x
        expected.append(int(state >= theta))
        state = Fraction(0) if expected[-1] else state
    assert got == expected


def test_decays_per_channel_share_a_shift() -> None:
    """1/2, 3/4, 1 - 1/1.5 (rounded), 7/8: each floors as it would alone."""
    tau = np.array([2.0, 4.0, 1.5, 8.0]).reshape(4, 1, 1)
    node = float_node(Neuron(8.0, 10.0, 0.0, False), tau=tau)
    made = integer_neuron(node, node.op, np.ones((1, 1, 1)), 0, 12)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    drive = rng.integers(-30, 40, (6, 9, 4, 2, 2))
    together = made.op.run([drive], made.params, 6)
    for c, value in enumerate([2.0, 4.0, 1.5, 8.0]):
        alone = float_node(Neuron(value, 10.0, 0.0, False))
        single = integer_neuron(alone, alone.op, np.ones((1, 1, 1)), 0, 12)  # type: ignore[arg-type]
        expected = single.op.run([drive[:, :, c : c + 1]], single.params, 6)
        assert np.array_equal(together[:, :, c : c + 1], expected)
    assert [d.target for d in made.rounded] == [1 - 1 / 1.5]


def test_a_huge_initial_membrane_is_refused() -> None:
    node = float_node(Neuron(None, 1.0, 0.0, False), initial=np.array([1e30]))
    with pytest.raises(ProofError, match="61 bits"):
        integer_neuron(node, node.op, np.ones(1), None, 12)  # type: ignore[arg-type]
