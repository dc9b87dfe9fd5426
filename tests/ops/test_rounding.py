"""Neurons that round, fire above their threshold, subtract it later or keep a decay: against loops in own words."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from netbuild import drive_type

from qkf_deploy.errors import GraphError
from qkf_deploy.ir import Interval
from qkf_deploy.ops import IntegerNeuron, Neuron

#: Every multiple of a quarter, so that halves of the threshold are met exactly.
QUARTERS = np.arange(-4, 26) / 4
DRIVES = np.stack(np.meshgrid(QUARTERS, QUARTERS, QUARTERS[::3], indexing="ij")).reshape(3, 1, -1)


def rounded(rounding: str, x: torch.Tensor, most: int) -> torch.Tensor:
    if rounding == "half_even":
        return torch.round(torch.clamp(x, 0, most))
    return torch.floor(torch.clamp(x, 0, most) + 0.5)


@pytest.mark.parametrize(("rounding", "threshold", "keep"), product(("half_up", "half_even"), (1.0, 0.75), (0.25, 0.0)))
def test_integer_valued_neurons_of_published_code(rounding: str, threshold: float, keep: float) -> None:
    """SpikeYOLO and E-SpikeFormer: what is left after subtraction decays and the next drive is added."""
    op = Neuron(None, threshold, None, max_spikes=4, rounding=rounding, decay=keep)  # type: ignore[arg-type]
    x, spikes, left = torch.from_numpy(DRIVES), [], torch.zeros(DRIVES.shape[1:], dtype=torch.float64)
    for drive in x:
        membrane = left * keep + drive
        spikes.append(rounded(rounding, membrane / threshold, 4))
        left = membrane - spikes[-1] * threshold
    assert np.array_equal(op.run([DRIVES], {}, 3), torch.stack(spikes).numpy())


def test_both_ties() -> None:
    """0.5, 1.5, 2.5: up is 1, 2, 3; even is 0, 2, 2."""
    x = np.array([0.5, 1.5, 2.5, -0.5, 9.0]).reshape(1, 1, 5)
    up = Neuron(None, 1.0, None, max_spikes=4, rounding="half_up", decay=0.0)
    even = Neuron(None, 1.0, None, max_spikes=4, rounding="half_even", decay=0.0)
    assert up.run([x], {}, 1).ravel().tolist() == [1, 2, 3, 0, 4]
    assert even.run([x], {}, 1).ravel().tolist() == [0, 2, 2, 0, 4]


@pytest.mark.parametrize(("strict", "late"), product((False, True), (False, True)))
def test_the_subtraction_of_snntorch(strict: bool, late: bool) -> None:
    """Leaky with ``subtract``: the spikes of the last membrane are taken from the next one, undecayed."""
    op = Neuron(None, 1.0, None, strict=strict, reset_delay=late, decay=0.75)
    membrane = spikes = np.zeros(DRIVES.shape[1:])
    out = []
    for drive in DRIVES:
        membrane = 0.75 * membrane + drive - spikes if late else 0.75 * (membrane - spikes) + drive
        spikes = (membrane > 1.0 if strict else membrane >= 1.0).astype(float)
        out.append(spikes)
    assert np.array_equal(op.run([DRIVES], {}, 3), np.stack(out))


def integer_spikes(op: IntegerNeuron, drives: list[int], theta: int) -> list[int]:
    """The recurrence in rational numbers; a tie is one of fractions."""
    state, out = 0, []
    for x in drives:
        charged = ((state * op.decay_multiplier) >> op.decay_shift) + (x << op.fraction_bits)
        whole, part = divmod(Fraction(charged, theta), 1)
        up = part > Fraction(1, 2) or (part == Fraction(1, 2) and (op.rounding == "half_up" or whole % 2 == 1))
        spikes = min(max(int(whole) + up, 0), op.max_spikes or 0)
        state = 0 if spikes and not op.soft_reset else charged - spikes * theta
        out.append(spikes)
    return out


@pytest.mark.parametrize(("rounding", "soft", "theta"), product(("half_up", "half_even"), (False, True), (1, 2, 3, 4)))
def test_all_integers_of_small_neurons(rounding: str, soft: bool, theta: int) -> None:
    """Every drive of three steps within -3 to 6; no membrane leaves the proven range."""
    op = IntegerNeuron(1, 1, soft_reset=soft, max_spikes=3, rounding=rounding)  # type: ignore[arg-type]
    drives = np.array(list(product(range(-3, 7), repeat=3))).T.reshape(3, 1, -1)
    params = {"theta": np.array([theta])}
    wanted = np.array([integer_spikes(op, list(map(int, d)), theta) for d in drives[:, 0].T]).T
    assert np.array_equal(op.run([drives], params, 3)[:, 0], wanted)
    proven = op.membrane_interval([Interval(np.array([-3]), np.array([6]))], params, 3)
    charged = op.membranes([drives], params, 3)
    assert proven.low.min() <= charged.min()
    assert charged.max() <= proven.high.max()


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Neuron(None, 1.0, None, max_spikes=2, strict=True), "strict"),
        (Neuron(None, 1.0, 0.0, reset_delay=True), "delayed reset"),
        (Neuron(None, 1.0, None, reset_delay=True, v_min=-1.0), "delayed reset"),
        (Neuron(None, 1.0, None, reset_delay=True, max_spikes=2), "delayed reset"),
        (Neuron(2.0, 1.0, None, decay=0.5), "takes the place of τ"),
        (Neuron(None, 1.0, None, decay=1.5), "from 0 to 1"),
        (Neuron(None, 1.0, 0.5, rounding="half_up"), "soft reset or a reset to 0"),
        (IntegerNeuron(1, 1, strict=True, rounding="half_up"), "strict"),
        (IntegerNeuron(1, 1, reset_delay=True), "delayed reset"),
    ],
)
def test_what_does_not_go_together(op: Any, message: str) -> None:
    params = {"theta": np.array([1])} if isinstance(op, IntegerNeuron) else {}
    with pytest.raises(GraphError, match=message):
        op.infer((drive_type((1,)),), params)
