"""The width rule of the integer neuron, proven by an SMT solver for all numbers.

What runs is the code of :mod:`qkf_deploy.ops.integer_neuron` itself, with a numpy of symbols. A solver then looks for
numbers that break the rule; it finds none, for integers of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from smt import proven, z3

from qkf_deploy.ops import IntegerNeuron, integer_neuron

_INT64 = 2**63 - 1
#: (multiplier, shift): every decay of up to 3 bits, and some of more.
DECAYS = [(m, k) for k in range(4) for m in range(2**k + 1)] + [(15, 4), (243, 8), (4095, 12), (2**24 - 1, 24)]
#: Thresholds of neurons with several spikes, which divide by them; else any integer.
DIVISORS = (1, 2, 3, 7, 64)


class Number:
    """A term, as what the rule takes for an array of integers (or of truth values)."""

    def __init__(self, term: Any) -> None:
        self.term = z3.IntVal(term) if isinstance(term, int) else term

    def astype(self, *_: Any, **__: Any) -> Number:
        return self

    def number(self) -> Any:
        return z3.If(self.term, 1, 0) if z3.is_bool(self.term) else self.term

    def __add__(self, other: Any) -> Number:
        return Number(self.number() + _term(other))

    def __sub__(self, other: Any) -> Number:
        return Number(self.number() - _term(other))

    def __mul__(self, other: Any) -> Number:
        return Number(self.number() * _term(other))

    def __lshift__(self, bits: int) -> Number:
        return Number(self.number() * 2**bits)

    def __rshift__(self, bits: int) -> Number:
        return Number(self.number() / 2**bits)  # of integers: rounded down, as `>>`

    def __floordiv__(self, other: Any) -> Number:
        return Number(self.number() / _term(other))  # rounded down where the divisor is above 0

    def __ge__(self, other: Any) -> Number:
        return Number(self.number() >= _term(other))

    def __lt__(self, other: Any) -> Number:
        return Number(self.number() < _term(other))


def _term(value: Any) -> Any:
    return value.number() if isinstance(value, Number) else value


def _where(condition: Number, yes: Any, no: Any) -> Number:
    truth = condition.term if z3.is_bool(condition.term) else condition.term != 0
    return Number(z3.If(truth, _term(yes), _term(no)))


def _least(a: Any, b: Any) -> Number:
    return Number(z3.If(_term(a) <= _term(b), _term(a), _term(b)))


def _most(a: Any, b: Any) -> Number:
    return Number(z3.If(_term(a) >= _term(b), _term(a), _term(b)))


def _clip(x: Number, low: int, high: int | None) -> Number:
    return _most(x, low) if high is None else _least(_most(x, low), high)


@pytest.fixture(autouse=True)
def symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule meets symbols; its refusals beyond 62 bits are left out, they only refuse."""
    numpy = SimpleNamespace(
        minimum=_least, maximum=_most, where=_where, clip=_clip, zeros_like=lambda x: Number(0),
        full_like=lambda x, value: Number(value), iinfo=lambda kind: SimpleNamespace(max=_INT64, min=-_INT64 - 1),
        int64=None,
    )  # fmt: skip
    monkeypatch.setattr(integer_neuron, "np", numpy)
    monkeypatch.setattr(integer_neuron, "Interval", lambda low, high: SimpleNamespace(low=low, high=high))
    monkeypatch.setattr(integer_neuron, "_check_membrane", lambda *_: None)


def _forms() -> Iterator[tuple[bool, int | None, int | None, bool]]:
    """(soft reset, most spikes, divisor or None, lowest membrane)."""
    for soft in (False, True):
        for lowest in (False, True):
            yield soft, 1, None, lowest
            for most in (3, None):
                for divisor in DIVISORS:
                    yield soft, most, divisor, lowest


def _params(divisor: int | None, lowest: bool) -> tuple[dict[str, Number], list[Any]]:
    theta = z3.Int("theta")
    params, given = {"theta": Number(theta if divisor is None else divisor)}, []
    if lowest:
        params["lowest"] = Number(z3.Int("lowest"))
        given.append(z3.Int("lowest") <= 0)
    return params, given


def _within(x: Number, low: Number, high: Number) -> Any:
    return z3.And(low.term <= x.term, x.term <= high.term)


@pytest.mark.parametrize("decay", DECAYS, ids=lambda d: f"{d[0]}/2^{d[1]}")
def test_a_step_stays_in_its_range(decay: tuple[int, int]) -> None:
    """Any number of steps: from a state and a drive within their ranges comes a state within the rule's next range."""
    names = ("state", "state_low", "state_high", "drive", "low", "high")
    state, state_low, state_high, drive, low, high = (Number(z3.Int(name)) for name in names)
    inside = [_within(state, state_low, state_high), _within(drive, low, high)]
    for soft, most, divisor, lowest in _forms():
        op = IntegerNeuron(*decay, fraction_bits=2, soft_reset=soft, max_spikes=most)
        params, given = _params(divisor, lowest)
        charged, after = op.step(state, drive, params)
        charged_low, charged_high = (
            ((s * decay[0]) >> decay[1]) + (x << 2) for s, x in ((state_low, low), (state_high, high))
        )
        after_low, after_high = op._after(charged_low, charged_high, params["theta"], params)
        claim = z3.And(_within(charged, charged_low, charged_high), _within(after, after_low, after_high))
        proven(claim, *given, *inside)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("initial", [False, True])
def test_no_membrane_leaves_its_proof(steps: int, initial: bool) -> None:
    """The whole rule, from the first step on, for every drive of every step."""
    low, high = Number(z3.Int("low")), Number(z3.Int("high"))
    for soft, most, divisor, lowest in ((False, 1, None, False), (True, 1, None, False), (True, 3, 3, True)):
        for decay in ((1, 0), (1, 1), (3, 2)):
            op = IntegerNeuron(*decay, soft_reset=soft, max_spikes=most)
            params, given = _params(divisor, lowest)
            if initial:
                params["initial"] = Number(z3.Int("initial"))
            given += [z3.And(x > -(2**56), x < 2**56) for x in z3.Ints("theta lowest initial low high")]
            state = params.get("initial", Number(0))
            found = op.membrane_interval([SimpleNamespace(low=low, high=high)], params, steps)
            for t in range(steps):
                drive = Number(z3.Int(f"drive{t}"))
                given.append(_within(drive, low, high))
                charged, state = op.step(state, drive, params)
                proven(_within(charged, found.low, found.high), *given)
