"""Both neurons on a device, step by step, with as few passes over memory as the reference's own rounding allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.ir import Params
from qkf_deploy.ops import IntegerNeuron, Neuron
from qkf_deploy.simulators.torch.values import Value

#: Unit roundoff of float64.
_ROUNDOFF = 2.0**-53


@dataclass(frozen=True)
class Fired:
    """What a neuron did.

    Attributes:
        spikes: the output.
        charged: membranes before firing, if they were asked for.
        doubtful: images in which a membrane lies so close to a threshold that rounding may decide, bool ``(B,)``;
            ``None`` where the drive is the reference's own number.
    """

    spikes: Value
    charged: Tensor | None = None
    doubtful: Tensor | None = None


def on_device(x: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor of a parameter; a number as one with an axis, so that a GPU divides by it and does not multiply by its
    rounded reciprocal."""
    return torch.from_numpy(np.array(np.atleast_1d(x))).to(device).to(dtype)


@dataclass(frozen=True)
class _Sequence:
    """The order in which a neuron takes its drive: ``(steps, images, *shape)``, constant drives repeated."""

    drive: Tensor
    steps: int
    leftover: Tensor | None
    initial: Tensor | None

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        for t in range(self.steps):
            yield t, self.drive[t if self.drive.shape[0] > 1 else 0]

    def state(self, t: int, previous: Tensor | None) -> Tensor:
        """State before step ``t``."""
        shape = self.drive.shape[1:]
        if self.leftover is not None:
            return self.leftover[t].expand(shape)
        if previous is not None:
            return previous
        return self.drive.new_zeros(shape) if self.initial is None else self.initial.expand(shape)


def _sequence(x: Tensor, steps: int, carry: str, leftover: Tensor | None, initial: Tensor | None) -> _Sequence:
    if carry == "official":  # one image after the other at each step, the first from the last one's previous step
        x = x.expand(steps, *x.shape[1:]).reshape(steps * x.shape[1], 1, *x.shape[2:])
        return _Sequence(x, x.shape[0], None, initial)
    return _Sequence(x, steps, leftover, initial)


class FloatNeuron:
    """:class:`qkf_deploy.ops.Neuron`, operation for operation in the reference's order.

    Args:
        op: the neuron.
        params: its parameters.
        device: where it runs.
        dtype: float64, or float32 for runs that need not equal the reference.
    """

    def __init__(self, op: Neuron, params: Params, device: torch.device, dtype: torch.dtype) -> None:
        self.op = op

        def put(x: np.ndarray | None) -> Tensor | None:
            return None if x is None else on_device(x, device, dtype)

        levels = op.levels(params)
        self._tau, self._decay = put(levels.tau), put(levels.decay)
        self._base = put(levels.base) if levels.base.any() else None
        threshold = put(levels.v_threshold)
        if threshold is None:
            raise AssertionError("every neuron has a threshold")
        self._threshold = threshold
        self._lowest = None if levels.v_min is None else put(levels.v_min - levels.base)
        self._leftover, self._initial = put(params.get("leftover")), put(params.get("initial"))
        constants = (levels.v_threshold, levels.base, levels.v_min, params.get("initial"), params.get("leftover"))
        self._constants = sum(float(np.abs(v).max()) for v in constants if v is not None)

    def run(self, x: Value, steps: int, keep: bool) -> Fired:
        """Fire. With ``keep`` the charged membranes are returned too."""
        sequence = _sequence(x.tensor, steps, self.op.carry, self._leftover, self._initial)
        spikes = sequence.drive.new_empty((sequence.steps, *sequence.drive.shape[1:]))
        kept = torch.empty_like(spikes) if keep else None
        margin = sequence.drive.new_full((sequence.drive.shape[1],), math.inf) if x.error else None
        scratch = torch.empty_like(spikes[0])
        state: Tensor | None = None
        for t, drive in sequence:
            before = sequence.state(t, state)
            charged = self._charged(before, drive, scratch)
            if self.op.reset_delay:
                self._fire(before, scratch)
                charged = charged - scratch.mul_(self._threshold)
            membrane = charged if self._base is None else charged + self._base
            if kept is not None:
                kept[t] = membrane
            self._fire(membrane, spikes[t])
            if margin is not None:
                margin = torch.minimum(margin, self._margin(membrane, scratch))
            state = self._after(charged, spikes[t], scratch)
        shape = (steps, *x.shape[1:])
        high = self.op.max_spikes
        largest = float(high) if high is not None else float(spikes.max())
        out = Value(spikes.reshape(shape), largest, binary=high == 1)
        doubtful = None
        if margin is not None:
            doubtful = (margin <= self._tolerance(x, sequence.steps)).expand(x.shape[1])
        return Fired(out, None if kept is None else kept.reshape(shape), doubtful)

    def _charged(self, state: Tensor, x: Tensor, scratch: Tensor) -> Tensor:
        if self._tau is None:
            return state + x if self._decay is None else torch.mul(state, self._decay).add_(x)
        if self.op.decay_input:
            return torch.sub(x, state).div_(self._tau).add_(state)
        return torch.sub(state, torch.div(state, self._tau, out=scratch)).add_(x)

    def _fire(self, membrane: Tensor, out: Tensor) -> None:
        if not self.op.graded:
            fires = torch.gt if self.op.strict else torch.ge
            fires(membrane, self._threshold, out=out)
            return
        torch.div(membrane, self._threshold, out=out)
        if self.op.rounding == "half_even":
            out.round_()
        elif self.op.rounding == "half_up":  # within the limits first: a half is added to nothing larger
            out.clamp_(0, self.op.max_spikes).add_(0.5)
        out.floor_().clamp_(0, self.op.max_spikes)

    def _after(self, charged: Tensor, spikes: Tensor, scratch: Tensor) -> Tensor:
        if self.op.reset_delay:
            return charged
        if self.op.v_reset is None:
            state = charged.sub_(torch.mul(spikes, self._threshold, out=scratch))
        else:  # a product, where a choice would take several times as long
            state = charged.mul_(torch.eq(spikes, 0, out=scratch))
        return state if self._lowest is None else torch.maximum(state, self._lowest)

    def _margin(self, membrane: Tensor, scratch: Tensor) -> Tensor:
        """Smallest distance of a membrane from a threshold, ``(B,)``."""
        if not self.op.graded:
            distance = torch.sub(membrane, self._threshold, out=scratch)
        else:
            shift = 0.0 if self.op.rounding == "floor" else 0.5
            level = torch.div(membrane, self._threshold).add_(shift).round_().clamp_(1, self.op.max_spikes)
            distance = torch.sub(membrane, level.sub_(shift).mul_(self._threshold), out=scratch)
        return distance.abs_().flatten(1).amin(1)

    def _tolerance(self, x: Value, steps: int) -> float:
        """How far a membrane can be from the reference's: every step adds the error of its drive and some roundings."""
        largest = self._constants + steps * x.largest
        return steps * (x.error + 16 * _ROUNDOFF * largest)


class WholeNeuron:
    """:class:`qkf_deploy.ops.IntegerNeuron` in numbers that hold all of its intermediates.

    In floating point ``>>`` is a product with a power of two and a floor, and ``//`` a quotient and a floor: both exact
    below 2^24 or 2^53 (a quotient that is no whole number is further from one than its rounding).

    Args:
        op: the neuron.
        params: its parameters.
        device: where it runs.
        dtype: float32, float64 or int64, as :func:`largest_intermediate` allows.
        most_spikes: proven bound of the spikes per step.
    """

    def __init__(
        self, op: IntegerNeuron, params: Params, device: torch.device, dtype: torch.dtype, most_spikes: int
    ) -> None:
        self.op, self.dtype, self._most_spikes = op, dtype, most_spikes
        limit = {torch.float32: 2**24, torch.float64: 2**53}.get(dtype)

        def put(name: str) -> Tensor | None:
            x = params.get(name)
            if x is None:
                return None
            # No membrane reaches the limit, so a threshold beyond it may as well lie there.
            x = x if limit is None or name != "theta" else np.clip(x, -limit, limit)
            return on_device(x.astype(np.int64), device, dtype)

        theta = put("theta")
        if theta is None:
            raise AssertionError("every neuron has a threshold")
        self._theta, self._lowest, self._leftover, self._initial = theta, put("lowest"), put("leftover"), put("initial")
        multiplier = on_device(np.asarray(op.multiplier(params)), device, dtype)
        self._decays = op.decay_shift > 0 or bool((multiplier != 1).any())
        self._decay: Callable[[Tensor], Tensor]
        if dtype == torch.int64:
            self._decay = lambda state: (state * multiplier) >> op.decay_shift
        else:
            factor = multiplier * 2.0**-op.decay_shift
            self._decay = lambda state: torch.mul(state, factor).floor_()

    def run(self, x: Value, steps: int, keep: bool) -> Fired:
        """Fire. With ``keep`` the charged membranes are returned too."""
        drive = x.tensor.to(self.dtype)
        sequence = _sequence(drive, steps, self.op.carry, self._leftover, self._initial)
        spikes = drive.new_empty((sequence.steps, *sequence.drive.shape[1:]))
        kept = torch.empty_like(spikes) if keep else None
        scratch = torch.empty_like(spikes[0])
        state: Tensor | None = None
        for t, drive in sequence:
            before = sequence.state(t, state)
            shifted = drive * 2**self.op.fraction_bits if self.op.fraction_bits else drive
            charged = self._decay(before).add_(shifted) if self._decays else before + shifted
            if self.op.reset_delay:
                self._fire(before, scratch)
                charged.sub_(scratch.mul_(self._theta))
            if kept is not None:
                kept[t] = charged
            self._fire(charged, spikes[t])
            state = self._after(charged, spikes[t], scratch)
        shape = (steps, *x.shape[1:])
        out = Value(spikes.reshape(shape), self._most_spikes, binary=self.op.max_spikes == 1)
        return Fired(out, None if kept is None else kept.reshape(shape))

    def _fire(self, charged: Tensor, out: Tensor) -> None:
        if not self.op.graded:
            fires = torch.gt if self.op.strict else torch.ge
            fires(charged, self._theta, out=out)
            return
        if self.dtype == torch.int64:
            torch.div(charged, self._theta, rounding_mode="floor", out=out)
        else:
            torch.div(charged, self._theta, out=out).floor_()
        if self.op.rounding != "floor":
            above = charged - out * self._theta
            below = self._theta - above
            up = above > below
            up |= (above == below) if self.op.rounding == "half_up" else (above == below) & (out % 2 == 1)
            out.add_(up)
        out.clamp_(0, self.op.max_spikes)

    def _after(self, charged: Tensor, spikes: Tensor, scratch: Tensor) -> Tensor:
        if self.op.reset_delay:
            return charged
        if self.op.soft_reset:
            state = charged.sub_(torch.mul(spikes, self._theta, out=scratch))
        else:
            state = charged.mul_(torch.eq(spikes, 0, out=scratch))
        return state if self._lowest is None else torch.maximum(state, self._lowest)


def largest_intermediate(op: IntegerNeuron, params: Params, drive: tuple[int, int], membrane: tuple[int, int]) -> int:
    """Bound of the magnitude of everything a neuron computes with.

    Args:
        op: the neuron.
        params: its parameters.
        drive: proven range of X.
        membrane: proven range of U.
    """
    states = [abs(membrane[0]), abs(membrane[1])]
    if op.soft_reset:  # several spikes take no more than the membrane has
        states.append(membrane[1] - min(0, int(params["theta"].min())))
    if op.reset_delay or op.rounding != "floor":  # a threshold more or less than the membrane
        states.append(max(states) + largest_magnitude(params["theta"]))
    states += [largest_magnitude(params[name]) for name in ("initial", "leftover", "lowest") if name in params]
    shifted = max(abs(drive[0]), abs(drive[1])) << op.fraction_bits
    return max(max(states) * max(op.decay_multiplier, 1), shifted)


def largest_magnitude(x: np.ndarray) -> int:
    """Largest magnitude of integers, as a Python integer."""
    return max(abs(int(x.max(initial=0))), abs(int(x.min(initial=0))))
