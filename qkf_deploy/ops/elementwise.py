"""Addition, gating, scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.operator import Arrays, Counts, Interval, Operator, Params, Types
from qkf_deploy.ir.values import Kind, Timing, ValueType
from qkf_deploy.ops.activity import both_nonzero, elements_per_image, nonzero_per_image
from qkf_deploy.ops.exact import broadcasts_to


def joint_timing(a: ValueType, b: ValueType) -> Timing:
    """When a value computed from two others exists. Raises GraphError for one per image and one per step."""
    if (a.timing is Timing.IMAGE) != (b.timing is Timing.IMAGE):
        raise GraphError("one operand is per image, the other per time step")
    return a.timing if a.timing is b.timing else Timing.STEP


@dataclass(frozen=True)
class Add(Operator):
    """a + b. Spikes and counts add to counts (0, 1, ... k); everything else adds to a drive."""

    kind: ClassVar[str] = "add"
    ports: ClassVar[tuple[str, ...]] = ("a", "b")

    def infer(self, inputs: Types, params: Params) -> ValueType:
        a, b = inputs
        if a.shape != b.shape:
            raise GraphError(f"cannot add values of shape {a.shape} and {b.shape}")
        timing = joint_timing(a, b)
        if a.is_events and b.is_events:
            high = None if a.high is None or b.high is None else a.high + b.high
            return ValueType.sums(a.shape, high, timing, inputs)
        return ValueType.drive(a.shape, timing)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        return inputs[0] + inputs[1]

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        a, b = inputs
        return Interval(a.low + b.low, a.high + b.high)

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        if all(t.is_events for t in types):
            if not any(t.is_signed for t in types) and inputs[0].shape == inputs[1].shape:
                a, b, either = (nonzero_per_image(x) for x in (*inputs, output))
                return {"residual_adds": a + b - either}
            return {"residual_adds": both_nonzero(inputs[0], inputs[1])}
        return {"residual_adds": np.full(output.shape[1], elements_per_image(output), np.int64)}


@dataclass(frozen=True)
class Mask(Operator):
    """x where the gate spikes, else 0: an AND, executed as addressing. The gate may broadcast over axes of size 1.

    A gate of signed events {-1, 0, 1} turns the sign of what passes where it is negative.

    Attributes:
        invert: pass where the gate is silent instead.
    """

    invert: bool = False

    kind: ClassVar[str] = "mask"
    ports: ClassVar[tuple[str, ...]] = ("gate", "x")

    def infer(self, inputs: Types, params: Params) -> ValueType:
        gate, x = inputs
        turns = gate.is_signed and gate.high == 1 and not self.invert
        if gate.kind is not Kind.SPIKE and not turns:
            raise GraphError(f"a gate must be spikes, not {gate.kind.value}", hint="put a neuron before the mask")
        if not broadcasts_to(gate.shape, x.shape):
            raise GraphError(f"a gate of shape {gate.shape} does not broadcast to {x.shape}")
        timing = joint_timing(gate, x)
        if turns and not x.is_events:
            return ValueType.drive(x.shape, timing)
        return ValueType.sums(x.shape, x.high, timing, inputs) if turns else replace(x, timing=timing)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        gate, x = inputs
        return x * (1 - gate) if self.invert else x * gate

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        x, low, high = inputs[1], inputs[1].low, inputs[1].high
        if types[0].is_signed:
            low, high = np.minimum(low, -x.high), np.maximum(high, -x.low)
        return Interval(np.minimum(low, 0), np.maximum(high, 0))

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        met = nonzero_per_image(inputs[1]) * (output.shape[0] // inputs[1].shape[0])
        return {"gate_ands": met, "events_stopped": met - nonzero_per_image(output)}


@dataclass(frozen=True)
class Scale(Operator):
    """factor * x. Folding moves it into the next synapse or threshold; integer graphs have none.

    Attributes:
        factor: the constant.
    """

    factor: float

    kind: ClassVar[str] = "scale"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        if not np.isfinite(self.factor) or self.factor == 0:
            raise GraphError(f"a scale of {self.factor} has no meaning")
        return ValueType.drive(inputs[0].shape, inputs[0].timing)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        return inputs[0] * self.factor

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        raise GraphError("a scale has no integer form", hint="fold and quantize the graph")

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        return {"scale_multiplies": np.full(output.shape[1], elements_per_image(output), np.int64)}


@dataclass(frozen=True)
class Shift(Operator):
    """x / 2^bits, rounded to the nearest integer (halves up): ``(x + 2^(bits-1)) >> bits``.

    Integer graphs only. It brings a drive that a synapse computed from another drive, and that therefore has a finer
    unit, to the unit of the membrane shortcut it is added to.

    Attributes:
        bits: per channel, or one for all.
        axis: channel axis of the per-step shape.
    """

    bits: tuple[int, ...]
    axis: int = 0

    kind: ClassVar[str] = "shift"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        fits = 0 <= self.axis < len(x.shape) and len(self.bits) in (1, x.shape[self.axis])
        if not fits or any(not 0 <= b < 63 for b in self.bits):
            raise GraphError(f"{len(self.bits)} shifts along axis {self.axis} do not fit a value of shape {x.shape}")
        return ValueType.drive(x.shape, x.timing)

    def amounts(self, rank: int) -> np.ndarray:
        """``bits`` as int64, broadcastable to a per-step shape of this rank."""
        return np.array(self.bits, np.int64).reshape([-1 if i == self.axis else 1 for i in range(rank)])

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        (x,) = inputs
        return self._rounded(x.astype(np.int64), x.ndim - 2)

    def _rounded(self, x: np.ndarray, rank: int) -> np.ndarray:
        bits = self.amounts(rank)
        return (x + np.where(bits > 0, np.int64(1) << np.maximum(bits - 1, 0), 0)) >> bits

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        rank = len(types[0].shape)
        return Interval(self._rounded(inputs[0].low, rank), self._rounded(inputs[0].high, rank))

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        return {"scale_multiplies": np.full(output.shape[1], elements_per_image(output), np.int64)}
