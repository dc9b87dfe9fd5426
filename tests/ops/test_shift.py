"""The rounding shift against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from qkf_deploy.errors import GraphError
from qkf_deploy.ir import Interval, Timing, ValueType
from qkf_deploy.ops import Shift


def expected(x: int, bits: int) -> int:
    """Nearest integer to x / 2^bits, halves up."""
    return math.floor(Fraction(x, 2**bits) + Fraction(1, 2))


@pytest.mark.parametrize("seed", range(3))
def test_rounds_to_nearest_with_halves_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-(2**40), 2**40, (2, 3, 5, 4))
    x[0, 0, :, 0] = (0, -1, 1, -(2**61), 2**61 - 1)
    x[0, 1, :, 1] = (-8, 8, -24, 24, 12)  # halves for four bits
    bits = (0, 1, 4, 20, 40)
    y = Shift(bits).run((x,), {}, 2)
    for index, value in np.ndenumerate(x):
        assert y[index] == expected(int(value), bits[index[2]])


def test_axis_and_one_value_for_all() -> None:
    x = np.arange(-12, 12).reshape(1, 1, 2, 3, 4)
    last = Shift((0, 1, 2, 3), axis=2).run((x,), {}, 1)
    assert np.array_equal(last[..., 3], (x[..., 3] + 4) >> 3)
    assert np.array_equal(last[..., 0], x[..., 0])
    assert np.array_equal(Shift((2,)).run((x,), {}, 1), (x + 2) >> 2)


def test_the_interval_is_reached() -> None:
    type_ = ValueType.drive((2, 3), Timing.STEP)
    op = Shift((3, 1))
    low, high = np.array([[-13], [-13]]), np.array([[100], [7]])
    found = op.interval((Interval(low, high),), {}, (type_,), 1)
    for bound, edge in ((found.low, low), (found.high, high)):
        value = np.broadcast_to(edge, (1, 1, 2, 3))
        assert np.array_equal(op.run((value,), {}, 1)[0, 0], np.broadcast_to(bound, (2, 3)))


@pytest.mark.parametrize("op", [Shift((1, 2, 3)), Shift((1,), axis=2), Shift((-1,)), Shift((63,)), Shift(())])
def test_impossible_shifts(op: Shift) -> None:
    with pytest.raises(GraphError, match="do not fit"):
        op.infer((ValueType.drive((2, 3), Timing.STEP),), {})
