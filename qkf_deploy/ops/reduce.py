"""Sums over axes (Q-K attention, token pooling) and over time (rate readout)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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
    """Sum over all time steps; one value per image from here on. The mean is a scale folded into the classifier.

    Attributes:
        weights: of the time steps, one each; whole numbers in an integer graph. Empty: all 1.
    """

    weights: tuple[float, ...] = ()

    kind: ClassVar[str] = "readout"

    @property
    def counts(self) -> bool:
        """True if what it makes of events are numbers of events."""
        return all(w >= 0 and w == int(w) for w in self.weights)

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        if x.timing is Timing.IMAGE:
            raise GraphError("the value is per image already")
        if self.weights and not any(self.weights):
            raise GraphError("a readout whose weights are all 0")
        if not x.is_events or not self.counts:
            return ValueType.drive(x.shape, Timing.IMAGE)
        return ValueType.sums(x.shape, None, Timing.IMAGE, inputs)

    def check_steps(self, params: Params, time_steps: int) -> None:
        if self.weights and len(self.weights) != time_steps:
            raise GraphError(f"a readout with {len(self.weights)} weights in a network of {time_steps} time steps")

    def of_steps(self, time_steps: int, dtype: np.dtype[Any]) -> np.ndarray:
        """The weights, ``(T,)``. Raises GraphError where they are not whole and ``dtype`` is."""
        weights = np.array(self.weights or (1.0,) * time_steps)
        if dtype.kind != "f" and not self._whole:
            raise GraphError("a readout of an integer graph has whole weights")
        return weights.astype(dtype)

    @property
    def picks(self) -> bool:
        """True if it takes the value of one step, the last one for example."""
        return sorted(self.weights)[-2:] in ([0.0, 1.0], [1.0]) and not min(self.weights) < 0

    @property
    def _whole(self) -> bool:
        return all(w == int(w) for w in self.weights)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        (x,) = inputs
        if not self.weights:
            return x.sum(axis=0, keepdims=True) * (time_steps // x.shape[0])
        weights = self.of_steps(time_steps, x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return (x * weights).sum(axis=0, keepdims=True)

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        if not self.weights:
            return inputs[0].times(time_steps)
        weights = [int(w) for w in self.of_steps(time_steps, np.dtype(np.int64))]
        more, less = sum(w for w in weights if w > 0), sum(w for w in weights if w < 0)
        low, high = (v.astype(object) for v in (inputs[0].low, inputs[0].high))
        return Interval(more * low + less * high, more * high + less * low)

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        (x,) = inputs
        if self.weights and not self.picks:
            return {"head_macs": np.full(x.shape[1], types[0].size * np.count_nonzero(self.weights), np.int64)}
        if not types[0].is_events:
            steps = 1 if self.picks else time_steps
            return {"head_adds_unary": np.full(x.shape[1], types[0].size * steps, np.int64)}
        if self.picks:
            return {"head_adds_unary": per_image(magnitude(output)), "head_adds_graded": nonzero_per_image(output)}
        repeat = time_steps // x.shape[0]
        unary = per_image(magnitude(x)) * repeat if types[0].is_signed else per_image(output)
        return {"head_adds_unary": unary, "head_adds_graded": nonzero_per_image(x) * repeat}
