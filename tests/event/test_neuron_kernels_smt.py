"""The vector code of neurons, proven by an SMT solver: the numbers of the formula for every input let in.

What runs are the writers of the code themselves. A builder of symbols takes LLVM's place, one lane stands for all.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from smt import proven, z3

from qkf_deploy.simulators.event.kernels import fire, fire16
from qkf_deploy.simulators.event.kernels.fire import FRACTION, MULTIPLIER, SHIFT, SOFT
from qkf_deploy.simulators.event.proofs import INT16

_EXACT = 24  # bits that no intermediate of the formula passes

DECAYS = [(0, 0), (1, 0), (1, 1), (3, 2), (7, 3)]
#: Bits of a lane. With 32 a solver takes minutes for what it does here in a moment, and the code is that of any width.
_WIDTH = 7


class Lane:
    """One lane of a vector: a term of bit vectors, and the type that writers ask for."""

    def __init__(self, term: Any) -> None:
        self.term = term
        self.type = SimpleNamespace(count=16)


class Symbols:
    """What writers ask of a builder, on terms."""

    def add(self, a: Lane, b: Lane) -> Lane:
        return Lane(a.term + b.term)

    def sub(self, a: Lane, b: Lane) -> Lane:
        return Lane(a.term - b.term)

    def mul(self, a: Lane, b: Lane) -> Lane:
        return Lane(a.term * b.term)

    def neg(self, a: Lane) -> Lane:
        return Lane(-a.term)

    def and_(self, a: Lane, b: Lane) -> Lane:
        return Lane(a.term & b.term)

    def shl(self, a: Lane, b: Lane) -> Lane:
        return Lane(a.term << b.term)

    def ashr(self, a: Lane, b: Lane) -> Lane:
        return Lane(a.term >> b.term)

    def icmp_signed(self, comparison: str, a: Lane, b: Lane) -> Lane:
        assert comparison == ">="
        return Lane(a.term >= b.term)

    def select(self, condition: Lane, a: Lane, b: Lane) -> Lane:
        return Lane(z3.If(condition.term, a.term, b.term))


def exactly(form: list[int], state: Any, drive: Any, theta: Any) -> tuple[Any, Any, Any]:
    """The formula of a step: charged membrane, whether it fires, state after it."""
    charged = ((state * form[MULTIPLIER]) >> form[SHIFT]) + (drive << form[FRACTION])
    fires = charged >= theta
    return charged, fires, z3.If(fires, charged - theta if form[SOFT] else 0, charged)


def wide(term: Any) -> Any:
    return z3.SignExt(_EXACT - term.size(), term)


def magnitude(term: Any) -> Any:
    return z3.If(term < 0, -term, term)


@pytest.mark.parametrize("soft", [0, 1])
@pytest.mark.parametrize("fraction", [0, 5])
@pytest.mark.parametrize(("multiplier", "shift"), DECAYS)
def test_wide_lanes(multiplier: int, shift: int, fraction: int, soft: int) -> None:
    """Where :func:`proofs.neuron_fits` holds; and the state it leaves is one it holds for."""
    form, limit = [multiplier, shift, fraction, soft], 2 ** (_WIDTH - 1) - 1
    neuron = object.__new__(fire._Neuron32)
    neuron.b, neuron.multiply = Symbols(), multiplier != 1
    neuron.form = [Lane(z3.BitVecVal(value, _WIDTH)) for value in form]
    state, drive, theta = z3.BitVecs("state drive theta", _WIDTH)
    charged, fired = neuron.step(Lane(state), neuron.charge(Lane(drive)), Lane(theta))
    after = neuron.after(charged, fired, Lane(theta))
    exact, fires, left = exactly(form, *map(wide, (state, drive, theta)))

    most, lowest = z3.BitVecs("most lowest", _EXACT)  # of what neuron_fits looks at
    fits = [
        most * max(multiplier, 1) < limit, most >= 0, most < limit,
        magnitude(wide(drive)) << fraction < limit,
        lowest > -limit, wide(theta) >= lowest, wide(theta) < limit,
        magnitude(wide(state)) <= most, magnitude(exact) <= most,  # by the width proof
        *([exact - lowest <= most] if soft else []),
    ]  # fmt: skip
    same = z3.And(wide(charged.term) == exact, fired.term == fires, wide(after.term) == left)
    proven(z3.And(same, magnitude(left) <= most), *fits)


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A writer of 16-bit neurons on symbols; ``writer(shift)`` gives it and where the bits that fire are put."""

    def write(shift: int) -> tuple[fire16.NeuronWriter, list[Lane]]:
        fired: list[Lane] = []

        def word(b: Symbols, first: Lane, second: Lane) -> Any:
            fired.extend((first, second))
            return SimpleNamespace(type=SimpleNamespace(width=32))

        def saturated(b: Symbols, x: Lane, y: Lane) -> Lane:
            total = z3.SignExt(1, x.term) + z3.SignExt(1, y.term)
            cut = z3.If(total > INT16, INT16, z3.If(total < -INT16 - 1, -INT16 - 1, total))
            return Lane(z3.Extract(15, 0, cut))

        vectors = SimpleNamespace(
            load_each=lambda b, lanes, kinds: lanes, splat=lambda b, lane, count: lane, add_saturated=saturated,
            store_each=lambda *_: None, store=lambda *_: None, const=lambda value: Lane(z3.BitVecVal(value, 64)),
        )  # fmt: skip
        monkeypatch.setattr(fire16, "v", vectors)
        monkeypatch.setattr(fire16, "_word", word)
        monkeypatch.setattr(fire16, "ir", SimpleNamespace(Constant=lambda *_: Lane(z3.BitVecVal(0, 16))))
        made = object.__new__(fire16.NeuronWriter)
        made.b, made.kinds, made.shift = Symbols(), [], Lane(z3.BitVecVal(shift, 16))
        made.spikes = Lane(z3.BitVecVal(0, 64))
        return made, fired

    return write


@pytest.mark.parametrize("shift", [0, 1, 2, 7, 15])
@pytest.mark.parametrize("soft", [False, True])
def test_16_bits(writer: Any, shift: int, soft: bool) -> None:
    """Hard reset: right, or the lowest number is left, by which it is noticed. Soft: right where the charge fits."""
    neurons, fired = writer(shift)
    states, drives, thetas = ([z3.BitVec(f"{name}{i}", 16) for i in range(2)] for name in ("state", "drive", "theta"))
    neurons.states, neurons.thresholds = ([Lane(t) for t in terms] for terms in (states, thetas))
    afters = neurons.fire([Lane(t) for t in drives], soft=soft)
    for state, drive, theta, fire_bit, after in zip(states, drives, thetas, fired, afters, strict=True):
        exact, fires, left = exactly([1, shift, 0, soft], *map(wide, (state, drive, theta)))
        same = z3.And(fire_bit.term == fires, wide(after.term) == left)
        if soft:
            proven(same, theta >= 0, exact >= -INT16 - 1, exact <= INT16)
        else:
            noticed = after.term == -INT16 - 1
            proven(z3.Or(same, noticed), theta >= -INT16, state > -INT16 - 1)
            proven(z3.Implies(z3.Not(noticed), after.term > -INT16 - 1), theta >= -INT16)


@pytest.mark.parametrize("shift", [0, 1, 15])
@pytest.mark.parametrize("soft", [False, True])
def test_a_state_is_no_larger_than_all_drives_together(shift: int, soft: bool) -> None:
    """So 16 bits hold every charge of a soft reset where they hold the sum of the magnitudes of all drives so far."""
    state, drive, theta, so_far = z3.BitVecs("state drive theta so_far", 16)
    _, _, left = exactly([1, shift, 0, soft], *map(wide, (state, drive, theta)))
    known = [magnitude(wide(state)) <= wide(so_far), theta >= 0]
    proven(magnitude(left) <= wide(so_far) + magnitude(wide(drive)), *known)
