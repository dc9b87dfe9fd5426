"""Values side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.operator import Arrays, Interval, Operator, Params, Types
from qkf_deploy.ir.values import ValueType
from qkf_deploy.ops.elementwise import joint_timing


@dataclass(frozen=True)
class Concat(Operator):
    """b behind a along one axis: addressing, no arithmetic.

    A value behind itself is a repetition, so nearest upsampling is this too.

    Attributes:
        axis: of the per-step shape, non-negative.
    """

    axis: int = 0

    kind: ClassVar[str] = "concat"
    ports: ClassVar[tuple[str, ...]] = ("a", "b")

    def infer(self, inputs: Types, params: Params) -> ValueType:
        a, b = inputs
        rest = [[n for axis, n in enumerate(t.shape) if axis != self.axis] for t in inputs]
        if not 0 <= self.axis < len(a.shape) or len(a.shape) != len(b.shape) or rest[0] != rest[1]:
            raise GraphError(
                f"values of shape {a.shape} and {b.shape} do not stand side by side along axis {self.axis}"
            )
        shape = tuple(n + b.shape[self.axis] if axis == self.axis else n for axis, n in enumerate(a.shape))
        timing = joint_timing(a, b)
        if a.kind is not b.kind and not (a.is_events and b.is_events):
            return ValueType.drive(shape, timing)
        high = None if a.high is None or b.high is None else max(a.high, b.high)
        low = None if a.low is None or b.low is None else min(a.low, b.low)
        return (
            ValueType(shape, a.kind, timing, high, low)
            if a.kind is b.kind
            else ValueType.sums(shape, high, timing, inputs)
        )

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        steps = max(len(x) for x in inputs)
        return np.concatenate([np.broadcast_to(x, (steps, *x.shape[1:])) for x in inputs], axis=self.axis + 2)

    def joined(self, parts: Sequence[np.ndarray], types: Types) -> np.ndarray:
        """What stands for the result, as the parts stand for the operands (broadcastable to their per-step shapes)."""
        rank = len(types[0].shape)
        parts = [p.reshape((1,) * (rank - p.ndim) + p.shape) for p in parts]
        shape = np.broadcast_shapes(*(p.take([0], axis=self.axis).shape for p in parts))
        full = [
            np.broadcast_to(p, (*shape[: self.axis], t.shape[self.axis], *shape[self.axis + 1 :]))
            for p, t in zip(parts, types, strict=True)
        ]
        return np.concatenate(full, axis=self.axis)

    def parts(self, whole: np.ndarray, types: Types) -> tuple[np.ndarray, np.ndarray]:
        """An array of the result's per-step shape, cut into what belongs to each operand."""
        first, second = np.split(whole, [types[0].shape[self.axis]], axis=self.axis)
        return first, second

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        return Interval(*(self.joined(ends, types) for ends in zip(*((x.low, x.high) for x in inputs), strict=True)))
