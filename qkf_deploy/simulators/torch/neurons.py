"""Both neurons on a device, step by step, with as few passes over memory as the reference's own rounding allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.ir import Params
from qkf_deploy.ops import IntegerNeuron, Neuron
from qkf_deploy.simulators.torch.layout import blocks, empty, parameter, rows
from qkf_deploy.simulators.torch.values import Value

#: Unit roundoff of float64.
_ROUNDOFF = 2.0**-53


@dataclass(frozen=True)
class Past:
    """What a neuron brings along from the steps of earlier stretches.

    Attributes:
        state: of every image, ``(B, *shape)``; ``None`` at the start of an image.
        steps: how many there were.
        largest: bound of the magnitude of their drives.
        error: bound of the state's difference from the reference's.
    """

    state: Tensor | None = None
    steps: int = 0
    largest: float = 0.0
    error: float = 0.0


@dataclass(frozen=True)
class Fired:
    """What a neuron did.

    Attributes:
        spikes: the output.
        charged: membranes before firing, if they were asked for.
        doubtful: images in which a membrane lies so close to a threshold that rounding may decide, bool ``(B,)``;
            ``None`` where the drive is the reference's own number.
        past: for the next stretch, where this was one.
    """

    spikes: Value
    charged: Tensor | None = None
    doubtful: Tensor | None = None
    past: Past | None = None


@dataclass(frozen=True)
class Drive:
    """What a neuron takes, in its order: ``(steps, images, *shape)``, constant drives repeated.

    Attributes:
        before: state of each image before the first step, ``(images, *shape)``, where it is known; else ``initial``.
    """

    tensor: Tensor
    steps: int
    leftover: Tensor | None = None
    initial: Tensor | None = None
    before: Tensor | None = None

    @staticmethod
    def of(x: Tensor, steps: int, carry: str, leftover: Tensor | None, initial: Tensor | None) -> Drive:
        """Of a value ``(T or 1, B, *shape)``."""
        if carry == "official":  # one image after the other at each step, the first from the last one's previous step
            x = x.expand(steps, *x.shape[1:]).reshape(steps * x.shape[1], 1, *x.shape[2:])
            return Drive(x, x.shape[0], None, initial)
        return Drive(x, steps, leftover, initial)

    def parts(self) -> Iterator[tuple[slice, Drive]]:
        """Images that go through all steps together."""
        images, *shape = self.tensor.shape[1:]
        for part in blocks(images, shape, self.tensor.device):
            before = None if self.before is None else self.before[part]
            yield part, replace(self, tensor=self.tensor[:, part], before=before)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        for t in range(self.steps):
            yield t, self.tensor[t if self.tensor.shape[0] > 1 else 0]

    def state(self, t: int, previous: Tensor | None) -> Tensor | None:
        """State before step ``t``, ``None`` for zero."""
        shape = self.tensor.shape[1:]
        if self.leftover is not None:
            return self.leftover[t].expand(shape)
        previous = self.before if previous is None else previous
        if previous is not None or self.initial is None:
            return previous
        return self.initial.expand(shape)

    def outputs(self, dtype: torch.dtype) -> Tensor:
        """Uninitialized, one for every step and image."""
        images, *shape = self.tensor.shape[1:]
        return empty((self.steps, images), shape, self.tensor, dtype)

    def states(self) -> Tensor:
        """Uninitialized, one for every image."""
        images, *shape = self.tensor.shape[1:]
        return empty((images,), shape, self.tensor)


def spike_dtype(most: float | None, dtype: torch.dtype) -> torch.dtype:
    """The narrowest floating point that holds every number of spikes."""
    return torch.float32 if most is not None and most < 2**24 else dtype


class FloatNeuron:
    """:class:`qkf_deploy.ops.Neuron`, operation for operation in the reference's order.

    Args:
        op: the neuron.
        params: its parameters.
        shape: of its drive, per step.
        device: where it runs.
        dtype: float64, or float32 for runs that need not equal the reference.
    """

    def __init__(
        self, op: Neuron, params: Params, shape: Sequence[int], device: torch.device, dtype: torch.dtype
    ) -> None:
        self.op, self._dtype = op, dtype

        def put(x: np.ndarray | None) -> Tensor | None:
            return None if x is None else parameter(x, shape, device, dtype)

        levels = op.levels(params)
        self._tau, self._decay = put(levels.tau), put(levels.decay)
        self._base = put(levels.base) if levels.base.any() else None
        threshold = put(levels.v_threshold)
        if threshold is None:
            raise AssertionError("every neuron has a threshold")
        self._threshold = threshold
        self._lowest = None if levels.v_min is None else put(levels.v_min - levels.base)
        self._initial, leftover = put(params.get("initial")), params.get("leftover")
        self._leftover = None if leftover is None else torch.from_numpy(np.array(leftover)).to(device).to(dtype)
        constants = (levels.v_threshold, levels.base, levels.v_min, params.get("initial"), params.get("leftover"))
        self._constants = sum(float(np.abs(v).max()) for v in constants if v is not None)

    def run(self, x: Value, steps: int, keep: bool, past: Past | None = None) -> Fired:
        """Fire. With ``keep`` the charged membranes are returned too; with ``past`` it goes on from there."""
        drive = Drive.of(x.tensor.to(self._dtype), steps, self.op.carry, self._leftover, self._initial)
        drive = drive if past is None else replace(drive, before=past.state)
        spikes = drive.outputs(spike_dtype(self.op.max_spikes, self._dtype))
        kept = drive.outputs(self._dtype) if keep else None
        earlier = past or Past()
        margin = drive.tensor.new_empty(drive.tensor.shape[1]) if x.error or earlier.error else None
        states = None if past is None else drive.states()
        for part, some in drive.parts():
            closest, state = self._run(
                some, spikes[:, part], None if kept is None else kept[:, part], margin is not None
            )
            if margin is not None and closest is not None:
                margin[part] = closest
            if states is not None and state is not None:
                states[part] = state
        shape = (steps, *x.shape[1:])
        high = self.op.max_spikes
        largest = float(high) if high is not None else float(spikes.abs().max())
        out = Value(spikes.reshape(shape), largest, binary=high == 1 and not self.op.signed)
        doubtful = None
        after = self._after_all(x, drive.steps, earlier, states)
        if margin is not None:
            doubtful = (margin <= after.error).expand(x.shape[1])
        charged = None if kept is None else kept.reshape(shape)
        return Fired(out, charged, doubtful, None if past is None else after)

    def _run(
        self, drive: Drive, spikes: Tensor, kept: Tensor | None, judged: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """All steps of some images: smallest distance of a membrane from a threshold, if asked for, and the state."""
        scratch = torch.empty_like(drive.tensor[0])
        margin: Tensor | None = None
        state: Tensor | None = None
        for t, x in drive:
            before = drive.state(t, state)
            charged = self._charged(before, x, scratch)
            if self.op.reset_delay and before is not None:
                self._fire(before, scratch)
                charged = charged - scratch.mul_(self._threshold)
            membrane = charged if self._base is None else charged + self._base
            if kept is not None:
                kept[t] = membrane
            self._fire(membrane, spikes[t])
            if judged:
                closest = self._margin(membrane, scratch)
                margin = closest if margin is None else torch.minimum(margin, closest)
            state = self._after(charged, spikes[t], scratch)
        return margin, state

    def _charged(self, state: Tensor | None, x: Tensor, scratch: Tensor) -> Tensor:
        if state is None:
            return x / self._tau if self._tau is not None and self.op.decay_input else x.clone()
        if self._tau is None:
            return state + x if self._decay is None else torch.mul(state, self._decay).add_(x)
        if self.op.decay_input:
            return torch.sub(x, state).div_(self._tau).add_(state)
        return torch.sub(state, torch.div(state, self._tau, out=scratch)).add_(x)

    def _fire(self, membrane: Tensor, out: Tensor) -> None:
        if self.op.signed:
            self._count(membrane.abs(), out)
            out.mul_(torch.sign(membrane))
        else:
            self._count(membrane, out)

    def _count(self, membrane: Tensor, out: Tensor) -> None:
        if not self.op.several:
            fires = torch.gt if self.op.strict else torch.ge
            fires(membrane, self._threshold, out=out)
            return
        ratio = torch.div(membrane, self._threshold)
        if self.op.rounding == "half_even":
            ratio.round_()
        elif self.op.rounding == "half_up":  # within the limits first: a half is added to nothing larger
            ratio.clamp_(0, self.op.max_spikes).add_(0.5)
        out.copy_(ratio.floor_().clamp_(0, self.op.max_spikes))

    def _after(self, charged: Tensor, spikes: Tensor, scratch: Tensor) -> Tensor:
        if self.op.reset_delay:
            return charged
        if self.op.v_reset is None:
            state = charged.sub_(torch.mul(spikes, self._threshold, out=scratch))
        elif self.op.max_spikes == 1 and not self.op.signed:  # exact, where a choice would take several times as long
            state = charged.addcmul_(charged, spikes, value=-1)
        else:
            state = charged.mul_(torch.eq(spikes, 0, out=scratch))
        return state if self._lowest is None else torch.maximum(state, self._lowest)

    def _margin(self, membrane: Tensor, scratch: Tensor) -> Tensor:
        """Smallest distance of a membrane from a threshold, ``(B,)``."""
        if self.op.signed:
            membrane = membrane.abs()
        if not self.op.several:
            distance = torch.sub(membrane, self._threshold, out=scratch)
        else:
            shift = 0.0 if self.op.rounding == "floor" else 0.5
            level = torch.div(membrane, self._threshold).add_(shift).round_().clamp_(1, self.op.max_spikes)
            distance = torch.sub(membrane, level.sub_(shift).mul_(self._threshold), out=scratch)
        return rows(distance.abs_(), 1).amin(1)

    def _after_all(self, x: Value, steps: int, earlier: Past, state: Tensor | None) -> Past:
        """How far a membrane can be from the reference's: every step adds the error of its drive and some roundings.

        Without any error so far, none: drives are the reference's own, and so is every operation.
        """
        drive = max(x.largest, earlier.largest)
        done = earlier.steps + steps
        rounding = 16 * _ROUNDOFF * (self._constants + done * drive) if x.error or earlier.error else 0.0
        return Past(state, done, drive, earlier.error + steps * (x.error + rounding))


class WholeNeuron:
    """:class:`qkf_deploy.ops.IntegerNeuron` in numbers that hold all of its intermediates.

    In floating point ``>>`` is a product with a power of two and a floor, and ``//`` a quotient and a floor: both exact
    below 2^24 or 2^53 (a quotient that is no whole number is further from one than its rounding).

    Args:
        op: the neuron.
        params: its parameters.
        shape: of its drive, per step.
        device: where it runs.
        dtype: float32, float64 or int64, as :func:`largest_intermediate` allows.
        most_spikes: proven bound of the spikes per step.
    """

    def __init__(
        self,
        op: IntegerNeuron,
        params: Params,
        shape: Sequence[int],
        device: torch.device,
        dtype: torch.dtype,
        most_spikes: int,
    ) -> None:
        self.op, self.dtype, self._most_spikes = op, dtype, most_spikes
        limit = {torch.float32: 2**24, torch.float64: 2**53}.get(dtype)

        def put(x: np.ndarray | None) -> Tensor | None:
            return None if x is None else parameter(x.astype(np.int64), shape, device, dtype)

        # No membrane reaches the limit, so a threshold beyond it may as well lie there.
        theta = put(params["theta"] if limit is None else np.clip(params["theta"], -limit, limit))
        if theta is None:
            raise AssertionError("every neuron has a threshold")
        self._theta, self._lowest, self._initial = theta, put(params.get("lowest")), put(params.get("initial"))
        leftover = params.get("leftover")
        self._leftover = None if leftover is None else torch.from_numpy(np.array(leftover)).to(device).to(dtype)
        multiplier = parameter(np.asarray(op.multiplier(params)), shape, device, dtype)
        self._decays = op.decay_shift > 0 or bool((multiplier != 1).any())
        self._decay: Callable[[Tensor], Tensor]
        if dtype == torch.int64:
            self._decay = lambda state: (state * multiplier) >> op.decay_shift
        else:
            factor = multiplier * 2.0**-op.decay_shift
            self._decay = lambda state: torch.mul(state, factor).floor_()

    def run(self, x: Value, steps: int, keep: bool, past: Past | None = None) -> Fired:
        """Fire. With ``keep`` the charged membranes are returned too; with ``past`` it goes on from there."""
        drive = Drive.of(x.tensor.to(self.dtype), steps, self.op.carry, self._leftover, self._initial)
        drive = drive if past is None else replace(drive, before=past.state)
        spikes = drive.outputs(self.dtype)
        kept = torch.empty_like(spikes) if keep else None
        states = None if past is None else drive.states()
        for part, some in drive.parts():
            state = self._run(some, spikes[:, part], None if kept is None else kept[:, part])
            if states is not None and state is not None:
                states[part] = state
        shape = (steps, *x.shape[1:])
        binary = self.op.max_spikes == 1 and not self.op.signed
        out = Value(spikes.reshape(shape), self._most_spikes, binary=binary)
        return Fired(out, None if kept is None else kept.reshape(shape), past=None if past is None else Past(states))

    def _run(self, drive: Drive, spikes: Tensor, kept: Tensor | None) -> Tensor | None:
        """All steps of some images; their state."""
        scratch = torch.empty_like(drive.tensor[0])
        state: Tensor | None = None
        for t, x in drive:
            before = drive.state(t, state)
            shifted = x * 2**self.op.fraction_bits if self.op.fraction_bits else x
            if before is None:
                charged = shifted.clone()
            else:
                charged = self._decay(before).add_(shifted) if self._decays else before + shifted
            if self.op.reset_delay:
                self._fire(torch.zeros_like(charged) if before is None else before, scratch)
                charged.sub_(scratch.mul_(self._theta))
            if kept is not None:
                kept[t] = charged
            self._fire(charged, spikes[t])
            state = self._after(charged, spikes[t], scratch)
        return state

    def _fire(self, charged: Tensor, out: Tensor) -> None:
        if self.op.signed:
            self._count(charged.abs(), out)
            out.mul_(torch.sign(charged))
        else:
            self._count(charged, out)

    def _count(self, charged: Tensor, out: Tensor) -> None:
        if not self.op.several:
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
        elif self.op.max_spikes == 1 and not self.op.signed:
            state = charged.addcmul_(charged, spikes, value=-1)
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
