"""Spiking neurons: the float equations of the frameworks and one canonical integer form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from qkf_deploy.errors import GraphError, ProofError
from qkf_deploy.ir.operator import Arrays, Counts, Interval, Operator, Params, Types
from qkf_deploy.ir.values import Timing, ValueType
from qkf_deploy.ops.exact import broadcasts_to, nonzero_per_image, per_image

#: How the membrane is carried from step to step. ``own``: each image its own, zero at its start. ``official``: the
#: neuron's time axis is time x batch (as the published code runs it), so a step starts from what the previous image
#: left. ``stored``: step t starts from a stored leftover (parameter ``leftover``) instead of its own previous step.
Carry = Literal["own", "official", "stored"]
_FIXPOINT_STEPS = 4096
_MOST_BITS = 32
_PROOF_LIMIT = 2.0**62


def membrane_steps(
    x: np.ndarray,
    time_steps: int,
    charge: Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]],
    carry: Carry,
    leftover: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Run a neuron over time.

    Args:
        x: drive ``(T or 1, B, *shape)``.
        time_steps: T; a drive that is constant over time is repeated.
        charge: ``(state, drive, step) -> (charged membrane, next state)``; the state is relative to the reset voltage.
        carry: see :data:`Carry`.
        leftover: ``(T, *shape)`` for ``stored``.

    Returns:
        ``(charged membranes, states after reset)``, each ``(T, B, *shape)``.
    """
    x = np.broadcast_to(x, (time_steps, *x.shape[1:]))
    if carry == "official":  # one image after the other at each step, the first from the last one's previous step
        sequence = x.reshape(time_steps * x.shape[1], 1, *x.shape[2:])
        charged, state = membrane_steps(sequence, len(sequence), charge, "own", None)
        return charged.reshape(x.shape), state.reshape(x.shape)
    state = np.zeros(x.shape[1:], x.dtype)
    charged_out, state_out = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    for t in range(time_steps):
        if carry == "stored" and leftover is not None:
            state = np.broadcast_to(leftover[t].astype(x.dtype), x.shape[1:])
        charged_out[t], state = charge(state, x[t], t)
        state_out[t] = state
    return charged_out, state_out


class _NeuronBase(Operator):
    """What both forms share: types and counts."""

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        if x.timing is Timing.IMAGE:
            raise GraphError("a neuron cannot follow the readout")
        return ValueType.spikes(x.shape)

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        (x,) = inputs
        repeat = time_steps // x.shape[0]
        driven = nonzero_per_image(x) * repeat
        return {
            "neuron_updates_driven": driven,
            "neuron_updates_idle": types[0].size * time_steps - driven,
            "resets": per_image(output),
        }


@dataclass(frozen=True)
class Neuron(_NeuronBase):
    """IF or LIF neuron in float64, Eq. 12-14 of arXiv 2403.16552 in SpikingJelly's order of operations.

    With decaying input H = V + (X - (V - V_reset)) / τ, otherwise H = V - (V - V_reset) / τ + X (IF: H = V + X);
    S = H >= V_th; then V = V_reset (hard) or H - V_th (soft).

    Attributes:
        tau: membrane time constant in steps, ``None`` for IF.
        v_threshold: threshold V_th.
        v_reset: reset voltage, ``None`` for soft reset.
        decay_input: whether the input is divided by τ too.
        carry: see :data:`Carry`; with ``stored`` the parameter ``leftover`` ``(T, *shape)`` holds V - V_reset.
        time_merged_with_batch: True if the model ran this neuron over a merged time and batch axis.
    """

    tau: float | None
    v_threshold: float
    v_reset: float | None
    decay_input: bool = True
    carry: Carry = "own"
    time_merged_with_batch: bool = False

    kind: ClassVar[str] = "neuron"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        if not self.v_threshold > (self.v_reset or 0.0) or (self.tau is not None and not self.tau > 1.0):
            raise GraphError(f"a neuron needs V_th > V_reset and τ > 1, got {self}")
        _check_leftover(self.carry, params, inputs)
        return super().infer(inputs, params)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        return (self.membranes(inputs, params, time_steps) >= self.v_threshold).astype(np.float64)

    def membranes(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        """Charged membrane potential H before firing and reset, float64 ``(T, B, *shape)``."""
        return self._trace(inputs[0], params, time_steps)[0] + (self.v_reset or 0.0)

    def leftovers(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        """State V - V_reset after each step, float64 ``(T, B, *shape)``."""
        return self._trace(inputs[0], params, time_steps)[1]

    def _trace(self, x: np.ndarray, params: Params, time_steps: int) -> tuple[np.ndarray, np.ndarray]:
        return membrane_steps(x, time_steps, self._charge, self.carry, params.get("leftover"))

    def _charge(self, state: np.ndarray, x: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        # The state is V - V_reset; for V_reset = 0 (every published model) this is the framework's own rounding.
        base = self.v_reset or 0.0
        if self.tau is None:
            charged = state + x
        elif self.decay_input:
            charged = state + (x - state) / self.tau
        else:
            charged = state - state / self.tau + x
        fired = charged + base >= self.v_threshold
        after = charged - self.v_threshold if self.v_reset is None else np.zeros_like(charged)
        return charged, np.where(fired, after, charged)

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        raise GraphError("a float neuron has no integer range", hint="quantize the graph first")


@dataclass(frozen=True)
class IntegerNeuron(_NeuronBase):
    """The canonical integer neuron.

        U = ((M * decay_multiplier) >> decay_shift) + (X << fraction_bits)
        S = U >= theta
        M = 0 (hard) or U - theta (soft) where S, else U

    ``>>`` is arithmetic (floor); M is 0 at the start of every image. Parameter: ``theta``, int64, broadcastable to the
    per-step shape; optionally ``leftover`` (``carry`` = ``stored``).

    Attributes:
        decay_multiplier, decay_shift: m and k with m / 2^k = 1 - 1/τ (IF: 1 and 0).
        fraction_bits: extra resolution of the membrane.
        soft_reset: subtract the threshold instead of clearing.
        carry, time_merged_with_batch: as in :class:`Neuron`.
    """

    decay_multiplier: int
    decay_shift: int
    fraction_bits: int = 0
    soft_reset: bool = False
    carry: Carry = "own"
    time_merged_with_batch: bool = False

    kind: ClassVar[str] = "integer_neuron"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        theta = params.get("theta")
        if theta is None or not broadcasts_to(theta.shape, inputs[0].shape):
            raise GraphError(f"the threshold does not broadcast to {inputs[0].shape}")
        if self.decay_multiplier < 0 or not (0 <= self.decay_shift <= _MOST_BITS >= self.fraction_bits >= 0):
            raise GraphError(f"decay shift and fraction bits go from 0 to {_MOST_BITS}, multipliers from 0: {self}")
        if self.decay_multiplier > 1 << self.decay_shift:
            raise GraphError(f"the decay {self.decay_multiplier}/2^{self.decay_shift} exceeds 1")
        _check_leftover(self.carry, params, inputs)
        return super().infer(inputs, params)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        return (self.membranes(inputs, params, time_steps) >= params["theta"]).astype(np.int64)

    def membranes(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        """Charged membrane potential U before firing and reset, int64 ``(T, B, *shape)``."""
        return self._trace(inputs[0], params, time_steps)[0]

    def leftovers(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        """State M after each step, int64 ``(T, B, *shape)``."""
        return self._trace(inputs[0], params, time_steps)[1]

    def step(self, state: np.ndarray, drive: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """One time step: ``(charged membrane U, state M after firing and reset)``, int64.

        Args:
            state: M of the previous step: zero at the start of an image, or a stored leftover (``carry`` = ``stored``).
            drive: X of this step; every array ends in the per-step shape.
            params: ``theta``.
        """
        theta = params["theta"].astype(np.int64, copy=False)
        charged = ((state * self.decay_multiplier) >> self.decay_shift) + (drive << self.fraction_bits)
        return charged, np.where(charged >= theta, charged - theta if self.soft_reset else 0, charged)

    def _trace(self, x: np.ndarray, params: Params, time_steps: int) -> tuple[np.ndarray, np.ndarray]:
        def charge(state: np.ndarray, drive: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
            return self.step(state, drive, params)

        return membrane_steps(x.astype(np.int64), time_steps, charge, self.carry, params.get("leftover"))

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        zero = np.zeros((1,) * len(types[0].shape), np.int64)
        return Interval(zero, zero + 1)

    def membrane_interval(self, inputs: Sequence[Interval], params: Params, time_steps: int) -> Interval:
        """Range of the charged membrane U over ``time_steps`` steps, per threshold element.

        Extremes are reached by a drive that stays at its extreme (the state after a step is monotone in the drive
        until it fires).

        Raises:
            ProofError: the membrane could pass 62 bits, or has no bound.
        """
        theta = params["theta"].astype(np.int64)
        shift, m, k = self.fraction_bits, self.decay_multiplier, self.decay_shift
        _check_membrane(inputs[0].low, inputs[0].high, 2.0**shift)
        x_low, x_high = inputs[0].low << shift, inputs[0].high << shift
        state_low = state_high = np.zeros_like(theta)
        low = np.full_like(theta, np.iinfo(np.int64).max)
        high = np.full_like(theta, np.iinfo(np.int64).min)
        # With carry-over a membrane lives for as many steps as there are images: iterate until nothing changes.
        steps = _FIXPOINT_STEPS if self.carry == "official" else time_steps
        for t in range(steps):
            if self.carry == "stored":
                state_low = state_high = params["leftover"][t].astype(np.int64)
            _check_membrane(state_low, state_high, float(m))
            u_low, u_high = ((state_low * m) >> k) + x_low, ((state_high * m) >> k) + x_high
            grown_low, grown_high = np.minimum(low, u_low), np.maximum(high, u_high)
            if self.carry == "official" and np.array_equal(grown_low, low) and np.array_equal(grown_high, high):
                return Interval(low, high)
            low, high = grown_low, grown_high
            after_low, after_high = self._after(u_low, u_high, theta)
            if self.carry == "official":  # all states so far, so that a range that stops growing stays
                after_low, after_high = np.minimum(after_low, state_low), np.maximum(after_high, state_high)
            state_low, state_high = after_low, after_high
        if self.carry == "official":
            raise ProofError("the membrane has no bound when images carry it over", hint="use carry='own'")
        return Interval(low, high)

    def _after(self, low: np.ndarray, high: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Range of the state after firing and reset, given the range of the charged membrane."""
        silent_low, silent_high = np.minimum(low, theta - 1), np.minimum(high, theta - 1)
        can_fire, can_rest = high >= theta, low < theta
        fired_low = np.maximum(low, theta) - theta if self.soft_reset else np.zeros_like(low)
        fired_high = high - theta if self.soft_reset else np.zeros_like(high)
        new_low = np.where(can_rest, silent_low, fired_low)
        new_high = np.where(can_rest, silent_high, fired_high)
        new_low = np.where(can_fire, np.minimum(new_low, fired_low), new_low)
        return new_low, np.where(can_fire, np.maximum(new_high, fired_high), new_high)


def _check_membrane(low: np.ndarray, high: np.ndarray, factor: float) -> None:
    """Refuse a product that int64 could not hold together with the sum that follows it."""
    largest = max(abs(float(low.min())), abs(float(high.max()))) * factor
    if largest >= _PROOF_LIMIT:
        raise ProofError(f"a membrane can reach {largest:.3g}, more than 62 bits", hint="use fewer fraction bits")


def _check_leftover(carry: Carry, params: Params, inputs: Types) -> None:
    leftover = params.get("leftover")
    if carry not in ("own", "official", "stored"):
        raise GraphError(f"unknown carry {carry!r}", hint="use own, official or stored")
    if (carry == "stored") != (leftover is not None):
        raise GraphError("carry 'stored' and the parameter 'leftover' go together")
    if leftover is not None and leftover.shape[1:] != inputs[0].shape:
        raise GraphError(f"leftover {leftover.shape} does not fit {inputs[0].shape}")
