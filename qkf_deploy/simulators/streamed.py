"""What a readout reads over many time steps, of which a few are held at a time: its sums, and what is counted of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from qkf_deploy.ir import Node, Operator
from qkf_deploy.ir.values import ValueType
from qkf_deploy.ops import Readout, activity
from qkf_deploy.simulators.counting import Arrays


class Streamed:
    """A value ``(T, B, *shape)``, some steps after the other.

    Args:
        op: the readout.
        time_steps: T.
        counted: its type, where its elements are to be counted.
        divisor: what every element is divided by, to whole numbers.

    Attributes:
        shape: of all of it.
        over_time: what the readout makes of it, ``(1, B, *shape)``.
        total, nonzero, magnitude, negative: per image, what :mod:`qkf_deploy.ops.activity` says of it, int64 ``(B,)``.
    """

    def __init__(self, op: Operator, time_steps: int, counted: ValueType | None = None, divisor: float = 1.0) -> None:
        if not isinstance(op, Readout):
            raise TypeError(f"{op.kind} is no sum over time")
        self._op, self._steps, self._divisor = op, time_steps, divisor
        self._counted = counted is not None and counted.is_events
        self.shape: tuple[int, ...] = ()
        self.over_time = np.zeros(0)
        self.total = self.nonzero = self.magnitude = self.negative = np.int64(0)

    def undivided(self) -> Streamed:
        """One for the values as they are: this one, where they are not divided."""
        return self if self._divisor == 1.0 else Streamed(self._op, self._steps)

    def summing_to(self, total: Any) -> Streamed:
        """What has the same shape and another total."""
        out = copy.copy(self)
        out.total = total
        return out

    def add(self, x: np.ndarray, start: int) -> None:
        """The steps from ``start`` on, ``(steps, B, *shape)``."""
        x = x if self._divisor == 1.0 else np.rint(x / self._divisor)
        if self._counted:
            self.total = self.total + activity.per_image(x)
            self.nonzero = self.nonzero + activity.nonzero_per_image(x)
            self.magnitude = self.magnitude + activity.per_image(np.abs(x))
            self.negative = self.negative + activity.per_image(np.maximum(-x, 0))
        if self._op.weights:
            x = x * self._op.of_steps(self._steps, x.dtype)[start : start + len(x)].reshape(-1, *[1] * (x.ndim - 1))
        for row in x[:, None]:  # one after the other, as the sum of all steps goes
            self.over_time = self.over_time + row if self.shape else row
            self.shape = (self._steps, *x.shape[1:])


class StreamedArrays(Arrays):
    """Arrays, and values that have gone by: those are divided already, and were summed."""

    def divided(self, value: Any, factor: float) -> Any:
        return value if isinstance(value, Streamed) else super().divided(value, factor)

    def run(self, node: Node, inputs: Sequence[Any], time_steps: int) -> Any:
        x = inputs[0]
        return x.over_time if isinstance(x, Streamed) else super().run(node, inputs, time_steps)


@activity.per_image.register(Streamed)
def _(x: Streamed) -> Any:
    return x.total


@activity.nonzero_per_image.register(Streamed)
def _(x: Streamed) -> Any:
    return x.nonzero


@activity.magnitude.register(Streamed)
def _(x: Streamed) -> Any:
    return x.summing_to(x.magnitude)


@activity.negative.register(Streamed)
def _(x: Streamed) -> Any:
    return x.summing_to(x.negative)
