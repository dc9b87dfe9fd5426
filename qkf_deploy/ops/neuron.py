"""Spiking neurons in float64: the equations of the frameworks. The integer form is in :mod:`.integer_neuron`.

One operator covers IF, LIF and PLIF, hard and soft reset, an initial membrane, values that differ from channel to
channel or position to position, and **several spikes per step** (``max_spikes``): sinabs' ``MultiSpike`` and
``MaxSpike`` with ``MembraneSubtract`` or ``MembraneReset``, its lower bound ``min_v_mem`` being ``v_min``; and the
integer-valued neurons of SpikeYOLO (arXiv 2407.20708, Eq. 5-7) and E-SpikeFormer (arXiv 2411.16061), which round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.operator import Arrays, Interval, Params, Types
from qkf_deploy.ir.values import ValueType
from qkf_deploy.ops.membrane import Carry, Rounding, SpikingNeuron, check_parameters, membrane_steps

#: Attributes that may differ from position to position: then a parameter of the same name has the values.
PER_POSITION = ("tau", "decay", "v_threshold", "v_reset", "v_min")


class Levels(NamedTuple):
    """What a neuron computes with, each broadcastable to its per-step shape; ``None`` as in :class:`Neuron`."""

    tau: np.ndarray | None
    decay: np.ndarray | None
    v_threshold: np.ndarray
    v_reset: np.ndarray | None
    v_min: np.ndarray | None

    @property
    def base(self) -> np.ndarray:
        """What the state is relative to: the reset voltage, 0 with a soft reset."""
        return np.zeros(()) if self.v_reset is None else self.v_reset

    @property
    def kept(self) -> np.ndarray | None:
        """Part of the state that a step keeps: 1 - 1/τ or ``decay``; ``None`` for all of it (IF)."""
        return self.decay if self.tau is None else 1.0 - 1.0 / self.tau

    @property
    def time_constant(self) -> np.ndarray | None:
        """τ in steps, also of a neuron that has a decay; infinite where only some positions keep all they had."""
        if self.tau is not None or self.decay is None or (self.decay == 1.0).all():
            return self.tau
        with np.errstate(divide="ignore"):
            return 1.0 / (1.0 - self.decay)


@dataclass(frozen=True)
class Neuron(SpikingNeuron):
    """IF or LIF neuron in float64, Eq. 12-14 of arXiv 2403.16552 in SpikingJelly's order of operations.

    With decaying input H = V + (X - (V - V_reset)) / τ, otherwise H = V - (V - V_reset) / τ + X (IF: H = V + X);
    with ``decay``, the form of neurons written by hand, H = V_reset + decay (V - V_reset) + X.
    S = H >= V_th (``strict``: H > V_th); then V = V_reset (hard) or H - V_th (soft).

    With ``max_spikes`` other than 1, S = floor(H / V_th), at least 0 and at most ``max_spikes``, and the soft reset
    takes all of them: V = H - S V_th (sinabs 3: ``activation/spike_generation.py``, ``reset_mechanism.py``). With
    ``rounding``, S is H / V_th within 0 and ``max_spikes``, rounded.

    With ``reset_delay``, V = H, and what the spikes take is taken from the next charge: H = ... + X - S V_th, not
    decayed (snnTorch's ``subtract``).

    With ``signed``, S is what |H| fires, with the sign of H: -1, 0 or 1 of ternary spikes (arXiv 2312.06372, Eq. 9).

    Where τ, V_th, V_reset or ``v_min`` differ between channels or positions, the parameter of that name holds them,
    broadcastable to the per-step shape, and the attribute is their largest. The parameter ``initial`` (same shapes) is
    V - V_reset before the first step of every image, 0 if absent.

    Attributes:
        tau: membrane time constant in steps, ``None`` for IF.
        v_threshold: threshold V_th.
        v_reset: reset voltage, ``None`` for soft reset.
        decay_input: whether the input is divided by τ too.
        carry: see :data:`Carry`; with ``stored`` the parameter ``leftover`` ``(T, *shape)`` holds V - V_reset.
        time_merged_with_batch: True if the model ran this neuron over a merged time and batch axis.
        max_spikes: most spikes per step; ``None`` for no limit.
        v_min: V is raised to this after the reset, ``None`` for no lower bound.
        rounding: see :data:`Rounding`.
        strict: fires above the threshold, not at it.
        reset_delay: the soft reset is that of the step before.
        signed: fires in both directions, at V_th and at -V_th.
        decay: part of the state that a step keeps, in place of 1 - 1/τ and in this order of operations: 0 (a neuron
            without memory) to 1; ``None`` where ``tau`` says it.
    """

    tau: float | None
    v_threshold: float
    v_reset: float | None
    decay_input: bool = True
    carry: Carry = "own"
    time_merged_with_batch: bool = False
    max_spikes: int | None = 1
    v_min: float | None = None
    rounding: Rounding = "floor"
    strict: bool = False
    reset_delay: bool = False
    decay: float | None = None
    signed: bool = False

    kind: ClassVar[str] = "neuron"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        check_parameters(params, PER_POSITION, self.carry, x.shape)
        self.check_firing(soft=self.v_reset is None, bounded=self.v_min is not None)
        self._check_levels(params)
        return self.spiking_type(x, self.max_spikes)

    def _check_levels(self, params: Params) -> None:
        for name in PER_POSITION:
            largest = getattr(self, name)
            if name in params and (largest is None or float(params[name].max()) != largest):
                raise GraphError(f"{name} is {largest}, not the largest of the parameter {name}")
        levels = self.levels(params)
        if not (levels.v_threshold > levels.base).all() or (levels.tau is not None and not (levels.tau > 1.0).all()):
            raise GraphError(f"a neuron needs V_th > V_reset and τ > 1, got {self}")
        if levels.decay is not None and (self.tau is not None or not ((levels.decay >= 0) & (levels.decay <= 1)).all()):
            raise GraphError(f"a decay goes from 0 to 1 and takes the place of τ, got {self}")
        if levels.v_min is not None and not (levels.v_min <= levels.base).all():
            raise GraphError(f"the lowest membrane is above the reset voltage: {self}")
        if self.graded and levels.base.any():
            raise GraphError("several or signed spikes per step need a soft reset or a reset to 0")

    def levels(self, params: Params) -> Levels:
        """τ, V_th, V_reset and ``v_min`` of every position; the attributes alone do not tell."""

        def of(name: str, attribute: float | None) -> np.ndarray | None:
            value = params.get(name, attribute)
            return None if value is None else np.asarray(value, np.float64)

        v_threshold = np.asarray(params.get("v_threshold", self.v_threshold), np.float64)
        v_reset, v_min = of("v_reset", self.v_reset), of("v_min", self.v_min)
        return Levels(of("tau", self.tau), of("decay", self.decay), v_threshold, v_reset, v_min)

    def history(self, inputs: Arrays, params: Params, time_steps: int) -> tuple[np.ndarray, np.ndarray]:
        levels = self.levels(params)

        def charge(state: np.ndarray, drive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return self._step(state, drive, levels)

        charged, left = membrane_steps(inputs[0], time_steps, charge, self.carry, params)
        return charged + levels.base, left

    def spikes(self, charged: np.ndarray, params: Params) -> np.ndarray:
        """Spikes S of charged membranes H, float64."""
        return self._spikes(charged, self.levels(params)).astype(np.float64)

    def _step(self, state: np.ndarray, x: np.ndarray, levels: Levels) -> tuple[np.ndarray, np.ndarray]:
        # The state is V - V_reset; for V_reset = 0 (every published model) this is the framework's own rounding.
        if levels.tau is None:
            charged = (state if levels.decay is None else levels.decay * state) + x
        elif self.decay_input:
            charged = state + (x - state) / levels.tau
        else:
            charged = state - state / levels.tau + x
        if self.reset_delay:
            charged = charged - self._spikes(state, levels) * levels.v_threshold
            return charged, charged
        spikes = self._spikes(charged + levels.base, levels)
        after = charged - spikes * levels.v_threshold if self.v_reset is None else np.zeros_like(charged)
        state = np.where(spikes, after, charged)
        return charged, state if levels.v_min is None else np.maximum(state, levels.v_min - levels.base)

    def _spikes(self, membrane: np.ndarray, levels: Levels) -> np.ndarray:
        if self.signed:
            return np.sign(membrane) * self._count(np.abs(membrane), levels)
        return self._count(membrane, levels)

    def _count(self, membrane: np.ndarray, levels: Levels) -> np.ndarray:
        if not self.several:
            return membrane > levels.v_threshold if self.strict else membrane >= levels.v_threshold
        ratio = membrane / levels.v_threshold
        if self.rounding == "floor":
            return np.clip(np.floor(ratio), 0, self.max_spikes)
        ratio = np.clip(ratio, 0, self.max_spikes)
        return np.rint(ratio) if self.rounding == "half_even" else np.floor(ratio + 0.5)

    def margin(self, membrane: np.ndarray, params: Params) -> np.ndarray:
        """Distance of membranes from the nearest level at which the number of spikes changes, in thresholds."""
        levels = self.levels(params)
        ratio = (membrane - levels.base) / (levels.v_threshold - levels.base)
        ratio = np.abs(ratio) if self.signed else ratio
        if not self.several:
            return np.abs(ratio - 1.0)
        shift = 0.0 if self.rounding == "floor" else 0.5
        return np.abs(ratio - np.clip(np.rint(ratio + shift), 1, self.max_spikes) + shift)

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        raise GraphError("a float neuron has no integer range", hint="quantize the graph first")
