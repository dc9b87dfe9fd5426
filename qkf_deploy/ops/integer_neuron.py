"""The canonical integer neuron: what every engine computes, and how far its membrane can go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qkf_deploy.errors import GraphError, ProofError
from qkf_deploy.ir.operator import Arrays, Interval, Params, Types
from qkf_deploy.ir.values import ValueType
from qkf_deploy.ops.exact import broadcasts_to
from qkf_deploy.ops.membrane import Carry, Rounding, SpikingNeuron, check_parameters, membrane_steps

_FIXPOINT_STEPS = 4096
_MOST_BITS = 32
_PROOF_LIMIT = 2.0**62


@dataclass(frozen=True)
class IntegerNeuron(SpikingNeuron):
    """The canonical integer neuron.

        U = ((M * decay_multiplier) >> decay_shift) + (X << fraction_bits)
        S = U >= theta                                       one spike per step (strict: U > theta)
        S = max(0, U // theta), at most max_spikes           several
        S = max(0, round(U / theta)), at most max_spikes     with rounding, halves up or to the even number
        S = sign(U) times what |U| fires                     signed
        M = 0 (hard) or U - S * theta (soft) where S, else U
        M = max(M, lowest)                                   with a lower bound

    With a delayed (soft) reset, M = U and U = ((M * decay_multiplier) >> decay_shift) + (X << fraction_bits) - R *
    theta, R being the spikes of M.

    ``>>`` and ``//`` floor. Parameters, int64, each broadcastable to the per-step shape: ``theta``; optionally
    ``initial`` (M at the start of every image, 0 if absent), ``lowest``, and ``decay_multiplier`` where it differs
    between positions (the attribute is then the largest). ``leftover`` ``(T, *shape)`` with ``carry`` = ``stored``,
    axes of size 1 where it is the same for all.

    Attributes:
        decay_multiplier, decay_shift: m and k with m / 2^k = 1 - 1/τ (IF: 1 and 0).
        fraction_bits: extra resolution of the membrane.
        soft_reset: subtract the threshold instead of clearing.
        carry, time_merged_with_batch: as in :class:`qkf_deploy.ops.Neuron`.
        max_spikes: most spikes per step; ``None`` for no limit (quantization sets the proven maximum).
        rounding, strict, reset_delay, signed: as in :class:`qkf_deploy.ops.Neuron`.
    """

    decay_multiplier: int
    decay_shift: int
    fraction_bits: int = 0
    soft_reset: bool = False
    carry: Carry = "own"
    time_merged_with_batch: bool = False
    max_spikes: int | None = 1
    rounding: Rounding = "floor"
    strict: bool = False
    reset_delay: bool = False
    signed: bool = False

    kind: ClassVar[str] = "integer_neuron"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        theta = params.get("theta")
        if theta is None or not broadcasts_to(theta.shape, x.shape):
            raise GraphError(f"the threshold does not broadcast to {x.shape}")
        check_parameters(params, ("theta", "lowest", "decay_multiplier"), self.carry, x.shape)
        self.check_firing(soft=self.soft_reset, bounded="lowest" in params)
        if self.graded and theta.min() < 1:
            raise GraphError("several or signed spikes per step, and rounding, need thresholds of at least 1")
        if "lowest" in params and params["lowest"].max() > 0:
            raise GraphError("the lowest membrane is above 0, what a reset leaves")
        self._check_decay(params)
        return self.spiking_type(x, self.max_spikes)

    def _check_decay(self, params: Params) -> None:
        if self.decay_multiplier < 0 or not (0 <= self.decay_shift <= _MOST_BITS >= self.fraction_bits >= 0):
            raise GraphError(f"decay shift and fraction bits go from 0 to {_MOST_BITS}, multipliers from 0: {self}")
        if self.decay_multiplier > 1 << self.decay_shift:
            raise GraphError(f"the decay {self.decay_multiplier}/2^{self.decay_shift} exceeds 1")
        each = params.get("decay_multiplier")
        if each is not None and (each.min() < 0 or each.max() != self.decay_multiplier):
            raise GraphError(f"the multiplier {self.decay_multiplier} is not the largest of the parameter")

    def plain(self, params: Params) -> bool:
        """True for the common case: one spike per step at the threshold, reset in that step, one decay for all, no
        lower bound; from 0 or from an initial membrane."""
        odd = self.graded or self.strict or self.reset_delay
        return self.carry == "own" and not odd and set(params) <= {"theta", "initial"}

    def multiplier(self, params: Params) -> np.ndarray | int:
        """m of every position."""
        each = params.get("decay_multiplier")
        return self.decay_multiplier if each is None else each.astype(np.int64, copy=False)

    def history(self, inputs: Arrays, params: Params, time_steps: int) -> tuple[np.ndarray, np.ndarray]:
        def charge(state: np.ndarray, drive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return self.step(state, drive, params)

        return membrane_steps(inputs[0].astype(np.int64), time_steps, charge, self.carry, params)

    def spikes(self, charged: np.ndarray, params: Params) -> np.ndarray:
        """Spikes S of charged membranes U, int64."""
        return self._fired(charged, params["theta"].astype(np.int64, copy=False)).astype(np.int64)

    def _fired(self, charged: np.ndarray, theta: np.ndarray) -> np.ndarray:
        if self.signed:
            return np.sign(charged) * self._counted(np.abs(charged), theta)
        return self._counted(charged, theta)

    def _counted(self, charged: np.ndarray, theta: np.ndarray) -> np.ndarray:
        if not self.several:
            return charged > theta if self.strict else charged >= theta
        whole = charged // theta
        if self.rounding != "floor":  # compared without doubling, which could leave int64
            above = charged - whole * theta
            below = theta - above
            whole = whole + ((above > below) | ((above == below) & self._tie_goes_up(whole)))
        return np.clip(whole, 0, self.max_spikes)

    def _tie_goes_up(self, whole: np.ndarray) -> np.ndarray | bool:
        """Where ``whole`` and a half is one more."""
        return True if self.rounding == "half_up" else whole % 2 == 1

    def first_level(self, theta: np.ndarray) -> np.ndarray:
        """The smallest membrane that fires, int64."""
        if self.rounding == "floor":
            return theta + self.strict
        return theta // 2 + 1 if self.rounding == "half_even" else (theta + 1) // 2

    def step(self, state: np.ndarray, drive: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """One time step: ``(charged membrane U, state M after firing and reset)``, int64.

        Args:
            state: M of the previous step: the initial one at the start of an image, or a stored leftover.
            drive: X of this step; every array ends in the per-step shape.
            params: see above.
        """
        theta = params["theta"].astype(np.int64, copy=False)
        charged = ((state * self.multiplier(params)) >> self.decay_shift) + (drive << self.fraction_bits)
        if self.reset_delay:
            charged = charged - self._fired(state, theta) * theta
            return charged, charged
        return charged, self.after(charged, params)

    def after(self, charged: np.ndarray, params: Params) -> np.ndarray:
        """State M that firing and the reset of the same step leave of U, int64."""
        theta = params["theta"].astype(np.int64, copy=False)
        spikes = self._fired(charged, theta)
        after = np.where(spikes, charged - spikes * theta if self.soft_reset else 0, charged)
        return np.maximum(after, params["lowest"]) if "lowest" in params else after

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        zero = np.zeros((1,) * len(types[0].shape), np.int64)
        if not self.several:
            return Interval(zero - self.signed, zero + 1)
        reach, theta = self.membrane_interval(inputs, params, time_steps), params["theta"].astype(np.int64)
        lowest = np.minimum(self._fired(reach.low, theta), 0) if self.signed else 0
        return Interval(zero + lowest, zero + np.maximum(self._fired(reach.high, theta), 0))

    def membrane_interval(self, inputs: Sequence[Interval], params: Params, time_steps: int) -> Interval:
        """Range of the membrane over ``time_steps`` steps, per threshold element: U, and M at the start if not 0.

        Extremes are reached by a drive that stays at its extreme (the state after a step is monotone in the drive
        until it fires).

        Raises:
            ProofError: the membrane could pass 62 bits, or has no bound.
        """
        theta = params["theta"].astype(np.int64)
        shift, m, k = self.fraction_bits, self.multiplier(params), self.decay_shift
        _check_membrane(inputs[0].low, inputs[0].high, 2.0**shift)
        x_low, x_high = inputs[0].low << shift, inputs[0].high << shift
        if "initial" in params:
            state_low = state_high = low = high = params["initial"].astype(np.int64)
        else:
            state_low = state_high = np.zeros_like(theta)
            low = np.full_like(theta, np.iinfo(np.int64).max)
            high = np.full_like(theta, np.iinfo(np.int64).min)
        # With carry-over a membrane lives for as many steps as there are images: iterate until nothing changes.
        steps = _FIXPOINT_STEPS if self.carry == "official" else time_steps
        for t in range(steps):
            if self.carry == "stored":
                state_low = state_high = params["leftover"][t].astype(np.int64)
            _check_membrane(state_low, state_high, float(self.decay_multiplier))
            left_low, left_high = ((state_low * m) >> k), ((state_high * m) >> k)
            if self.reset_delay:
                left_low, left_high = self._late_reset(state_low, state_high, theta, m)
            u_low, u_high = left_low + x_low, left_high + x_high
            grown_low, grown_high = np.minimum(low, u_low), np.maximum(high, u_high)
            after_low, after_high = self._after(u_low, u_high, theta, params)
            if self.carry == "official":  # all states so far, so that a range that stops growing stays
                after_low, after_high = np.minimum(after_low, state_low), np.maximum(after_high, state_high)
                settled = (after_low == state_low).all() and (after_high == state_high).all()
                if settled and np.array_equal(grown_low, low) and np.array_equal(grown_high, high):
                    return Interval(low, high)
            low, high = grown_low, grown_high
            state_low, state_high = after_low, after_high
        if self.carry == "official":
            raise ProofError("the membrane has no bound when images carry it over", hint="use carry 'own' or 'stored'")
        return Interval(low, high)

    def _after(
        self, low: np.ndarray, high: np.ndarray, theta: np.ndarray, params: Params
    ) -> tuple[np.ndarray, np.ndarray]:
        """Range of the state after firing and reset, given the range of the charged membrane."""
        if self.reset_delay:
            return low, high
        if self.signed:  # below 0 as above it, mirrored
            above = self._after_charge(np.maximum(low, 0), np.maximum(high, 0), theta, params)
            below = self._after_charge(np.maximum(-high, 0), np.maximum(-low, 0), theta, params)
            return np.minimum(above[0], -below[1]), np.maximum(above[1], -below[0])
        return self._after_charge(low, high, theta, params)

    def _after_charge(
        self, low: np.ndarray, high: np.ndarray, theta: np.ndarray, params: Params
    ) -> tuple[np.ndarray, np.ndarray]:
        first = self.first_level(theta)
        silent_low, silent_high = np.minimum(low, first - 1), np.minimum(high, first - 1)
        can_fire, can_rest = high >= first, low < first
        fired_low = np.zeros_like(low)
        fired_high = np.zeros_like(high)
        if self.soft_reset and not self.several:
            fired_low, fired_high = np.maximum(low, first) - theta, high - theta
        elif self.soft_reset:  # what is left of several spikes: less than a threshold, or what passes the most spikes
            most = theta - 1
            if self.rounding != "floor":  # between the halves
                fired_low, most = -(theta // 2), (theta - (self.rounding == "half_up")) // 2
            fired_high = np.maximum(most, high - self._counted(high, theta) * theta)
        new_low = np.where(can_rest, silent_low, fired_low)
        new_high = np.where(can_rest, silent_high, fired_high)
        new_low = np.where(can_fire, np.minimum(new_low, fired_low), new_low)
        new_high = np.where(can_fire, np.maximum(new_high, fired_high), new_high)
        if "lowest" in params:
            return np.maximum(new_low, params["lowest"]), np.maximum(new_high, params["lowest"])
        return new_low, new_high

    def _late_reset(
        self, low: np.ndarray, high: np.ndarray, theta: np.ndarray, m: np.ndarray | int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Range of what a step keeps of a state whose spikes are taken now."""
        first, k = self.first_level(theta), self.decay_shift
        silent = ((np.minimum(low, first - 1) * m) >> k, (np.minimum(high, first - 1) * m) >> k)
        fired = (((np.maximum(low, first) * m) >> k) - theta, ((np.maximum(high, first) * m) >> k) - theta)
        can_fire, can_rest = high >= first, low < first
        new_low = np.where(can_rest, silent[0], fired[0])
        new_high = np.where(can_rest, silent[1], fired[1])
        new_low = np.where(can_fire, np.minimum(new_low, fired[0]), new_low)
        return new_low, np.where(can_fire, np.maximum(new_high, fired[1]), new_high)


def _check_membrane(low: np.ndarray, high: np.ndarray, factor: float) -> None:
    """Refuse a product that int64 could not hold together with the sum that follows it."""
    largest = max(abs(float(low.min())), abs(float(high.max()))) * factor
    if largest >= _PROOF_LIMIT:
        raise ProofError(f"a membrane can reach {largest:.3g}, more than 62 bits", hint="use fewer fraction bits")
