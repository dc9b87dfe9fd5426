"""A membrane over time: what the float and the integer neuron share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.operator import Arrays, Counts, Operator, Params, Types
from qkf_deploy.ir.values import Timing, ValueType
from qkf_deploy.ops.activity import magnitude, nonzero_per_image, per_image
from qkf_deploy.ops.exact import broadcasts_to

#: How the membrane is carried from step to step. ``own``: each image its own, from its initial value. ``official``: the
#: neuron's time axis is time x batch (as the published code runs it), so a step starts from what the previous image
#: left. ``stored``: step t starts from a stored leftover (parameter ``leftover``) instead of its own previous step.
Carry = Literal["own", "official", "stored"]

#: How many spikes a membrane of H / V_th is worth, at most ``max_spikes``: ``floor``, or the nearest whole number with
#: halves going up (``floor(x + 0.5)``) or to the even one (IEEE 754, `torch.round`).
Rounding = Literal["floor", "half_up", "half_even"]

#: ``(state, drive) -> (charged membrane, next state)``; the state is relative to the reset voltage.
Charge = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def membrane_steps(
    x: np.ndarray, time_steps: int, charge: Charge, carry: Carry, params: Params
) -> tuple[np.ndarray, np.ndarray]:
    """Run a neuron over time.

    Args:
        x: drive ``(T or 1, B, *shape)``.
        time_steps: T; a drive that is constant over time is repeated.
        charge: see :data:`Charge`.
        carry: see :data:`Carry`.
        params: ``initial`` (state before the first step, broadcastable to ``shape``, 0 if absent); ``leftover``
            ``(T, *shape)`` for ``stored``, axes of size 1 where it is the same for all.

    Returns:
        ``(charged membranes, states after reset)``, each ``(T, B, *shape)``.
    """
    x = np.broadcast_to(x, (time_steps, *x.shape[1:]))
    if carry == "official":  # one image after the other at each step, the first from the last one's previous step
        sequence = x.reshape(time_steps * x.shape[1], 1, *x.shape[2:])
        charged, state = membrane_steps(sequence, len(sequence), charge, "own", params)
        return charged.reshape(x.shape), state.reshape(x.shape)
    state = initial_state(params, x.shape[1:], x.dtype)
    charged_out, state_out = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    for t in range(time_steps):
        if carry == "stored":
            state = np.broadcast_to(params["leftover"][t].astype(x.dtype), x.shape[1:])
        charged_out[t], state = charge(state, x[t])
        state_out[t] = state
    return charged_out, state_out


def initial_state(params: Params, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """State before the first step: the parameter ``initial``, or zeros."""
    initial = params.get("initial")
    return np.zeros(shape, dtype) if initial is None else np.broadcast_to(initial.astype(dtype), shape)


class SpikingNeuron(Operator):
    """What both forms share: types and counts."""

    carry: Carry
    max_spikes: int | None
    rounding: Rounding
    strict: bool
    reset_delay: bool
    signed: bool

    @property
    def several(self) -> bool:
        """True if spikes are counted, not compared: several per step, or a rounded membrane."""
        return self.max_spikes != 1 or self.rounding != "floor"

    @property
    def graded(self) -> bool:
        """True if spikes are other numbers than 0 and 1: several, rounded, or of either polarity."""
        return self.several or self.signed

    def check_firing(self, *, soft: bool, bounded: bool) -> None:
        """Raises GraphError for ways of firing that do not go together.

        Args:
            soft: the reset subtracts.
            bounded: the membrane has a lower bound.
        """
        if self.max_spikes is not None and self.max_spikes < 1:
            raise GraphError(f"max_spikes is {self.max_spikes}, at least 1")
        if self.strict and self.several:
            raise GraphError("strict is of neurons with one spike per step that do not round")
        if self.signed and bounded:
            raise GraphError("a signed neuron has no lower bound: it fires there")
        if self.reset_delay and (self.graded or not soft or bounded):
            raise GraphError("a delayed reset subtracts, takes one spike per step and no lower bound")

    @abstractmethod
    def history(self, inputs: Arrays, params: Params, time_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Charged membrane potentials before firing and reset, and states after each step, ``(T, B, *shape)`` each.

        A state is relative to the reset voltage; it is what the parameter ``initial`` is at the start of an image.
        """

    @abstractmethod
    def spikes(self, charged: np.ndarray, params: Params) -> np.ndarray:
        """What charged membranes ``(T, B, *shape)`` fire."""

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        return self.spikes(self.membranes(inputs, params, time_steps), params)

    def membranes(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        """The first of :meth:`history`."""
        return self.history(inputs, params, time_steps)[0]

    def leftovers(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        """The second of :meth:`history`."""
        return self.history(inputs, params, time_steps)[1]

    def check_steps(self, params: Params, time_steps: int) -> None:
        leftover = params.get("leftover")
        if leftover is not None and len(leftover) != time_steps:
            raise GraphError(f"leftovers of {len(leftover)} steps, the network has {time_steps}")

    def spiking_type(self, x: ValueType, max_spikes: int | None) -> ValueType:
        """Spikes, or counts of up to ``max_spikes`` per step (``None``: no limit is known)."""
        if x.timing is Timing.IMAGE:
            raise GraphError("a neuron cannot follow the readout")
        return ValueType.events(x.shape, max_spikes, Timing.STEP, signed=self.signed)

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        (x,) = inputs
        repeat = time_steps // x.shape[0]
        driven = nonzero_per_image(x) * repeat
        return {
            "neuron_updates_driven": driven,
            "neuron_updates_idle": types[0].size * time_steps - driven,
            "resets": per_image(magnitude(output) if self.signed else output),
        }


def check_parameters(params: Params, allowed: tuple[str, ...], carry: Carry, shape: tuple[int, ...]) -> None:
    """Raises GraphError for unknown parameters, parameters that do not fit, and contradictions with ``carry``."""
    unknown = sorted(set(params) - {*allowed, "initial", "leftover"})
    if unknown:
        raise GraphError(f"a neuron has no parameter {', '.join(unknown)}")
    for name, array in params.items():
        if name != "leftover" and not broadcasts_to(array.shape, shape):
            raise GraphError(f"{name} {array.shape} does not broadcast to {shape}")
    leftover = params.get("leftover")
    if carry not in ("own", "official", "stored"):
        raise GraphError(f"unknown carry {carry!r}", hint="use own, official or stored")
    if (carry == "stored") != (leftover is not None):
        raise GraphError("carry 'stored' and the parameter 'leftover' go together")
    if leftover is not None and (leftover.ndim != len(shape) + 1 or not broadcasts_to(leftover.shape[1:], shape)):
        raise GraphError(f"leftover {leftover.shape} does not fit {shape}")
