"""Sums over axes (Q-K attention, token pooling) and over time (rate readout)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.operator import Arrays, Counts, Interval, Operator, Params, Types
from qkf_deploy.ir.values import Timing, ValueType
from qkf_deploy.ops.activity import elements_per_image, magnitude, nonzero_per_image, per_image


@dataclass(frozen=True)
class Sum(Operator):
    """Sum over axes of the per-step shape: over a head's channels (Q-K token attention), over tokens, over positions.

    Attributes:
        axes: axes summed, non-negative, ascending.
        keepdims: keep them with size 1.
        role: ``attention`` where a neuron follows, ``readout`` where only the classifier follows.
    """

    axes: tuple[int, ...]
    keepdims: bool = False
    role: Literal["attention", "readout"] = "attention"

    kind: ClassVar[str] = "sum"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        if (
            not self.axes
            or list(self.axes) != sorted(set(self.axes))
            or not 0 <= self.axes[0] <= self.axes[-1] < len(x.shape)
        ):
            raise GraphError(f"cannot sum axes {self.axes} of a value of shape {x.shape}")
        shape = self._out_shape(x.shape)
        if not x.is_events:
            return ValueType.drive(shape, x.timing)
        high = None if x.high is None else x.high * self._terms(x.shape)
        return ValueType.sums(shape, high, x.timing, inputs)

    def _terms(self, shape: Sequence[int]) -> int:
        return math.prod(shape[a] for a in self.axes)

    def _out_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        if self.keepdims:
            return tuple(1 if a in self.axes else n for a, n in enumerate(shape))
        return tuple(n for a, n in enumerate(shape) if a not in self.axes)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        return inputs[0].sum(axis=tuple(a + 2 for a in self.axes), keepdims=self.keepdims)

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        shape = types[0].shape
        return Interval(*(self._sum_of_ends(v, shape) for v in (inputs[0].low, inputs[0].high)))

    def _sum_of_ends(self, ends: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Sum over the axes in Python integers; an axis along which nothing changes is a factor."""
        out = ends.reshape((1,) * (len(shape) - ends.ndim) + ends.shape).astype(object)
        for axis in self.axes:
            out = out * shape[axis] if out.shape[axis] == 1 else out.sum(axis=axis, keepdims=True)
        return out if self.keepdims else out.reshape([n for a, n in enumerate(out.shape) if a not in self.axes])

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        (x,) = inputs
        name = "head_adds" if self.role == "readout" else "attention_sum_adds"
        if not types[0].is_events:
            return {f"{name}_unary": np.full(x.shape[1], elements_per_image(x), np.int64)}
        unary = per_image(magnitude(x)) if types[0].is_signed else per_image(output)
        return {f"{name}_unary": unary, f"{name}_graded": nonzero_per_image(x)}


@dataclass(frozen=True)
class Readout(Operator):
    """Sum over all time steps; one value per image from here on. The mean is a scale folded into the classifier."""

    kind: ClassVar[str] = "readout"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        if x.timing is Timing.IMAGE:
            raise GraphError("the value is per image already")
        if not x.is_events:
            return ValueType.drive(x.shape, Timing.IMAGE)
        return ValueType.sums(x.shape, None, Timing.IMAGE, inputs)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        (x,) = inputs
        return x.sum(axis=0, keepdims=True) * (time_steps // x.shape[0])

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        return inputs[0].times(time_steps)

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        (x,) = inputs
        if not types[0].is_events:
            return {"head_adds_unary": np.full(x.shape[1], types[0].size * time_steps, np.int64)}
        repeat = time_steps // x.shape[0]
        unary = per_image(magnitude(x)) * repeat if types[0].is_signed else per_image(output)
        return {"head_adds_unary": unary, "head_adds_graded": nonzero_per_image(x) * repeat}
