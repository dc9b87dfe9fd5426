"""Max pooling and sum pooling (average pooling is sum pooling and a scale)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.operator import Arrays, Counts, Interval, Operator, Params, Types
from qkf_deploy.ir.values import ValueType
from qkf_deploy.ops.activity import magnitude, per_image, weighted
from qkf_deploy.ops.geometry import Axis
from qkf_deploy.ops.synapse import channel_bounds


@dataclass(frozen=True)
class _Pool(Operator):
    """Window over the spatial axes of ``(C, *spatial)``; one entry per axis in each attribute."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def axes(self, shape: Sequence[int]) -> tuple[Axis, ...]:
        """The window along each spatial axis."""
        if len(shape) != len(self.kernel) + 1:
            raise GraphError(f"a {len(self.kernel)}-d pool cannot read a value of shape {tuple(shape)}")
        return tuple(Axis(*a) for a in zip(shape[1:], self.kernel, self.stride, self.padding, strict=True))

    def _out_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (shape[0], *(a.out for a in self.axes(shape)))

    def _windows(self, x: np.ndarray, fill: float | int) -> Iterator[np.ndarray]:
        """What each tap reads, ``(T, B, C, *out)``, padding filled."""
        axes = self.axes(x.shape[2:])
        padded = np.pad(x, [(0, 0)] * 3 + [(p, p) for p in self.padding], constant_values=fill)
        for tap in itertools.product(*(range(k) for k in self.kernel)):
            yield padded[
                (..., *(slice(t, t + (a.out - 1) * a.stride + 1, a.stride) for t, a in zip(tap, axes, strict=True)))
            ]

    def _existing_taps(self, shape: Sequence[int]) -> int:
        """Taps that read a real element, summed over all outputs of all channels."""
        return shape[0] * math.prod(int(a.exists().sum()) for a in self.axes(shape))


@dataclass(frozen=True)
class MaxPool(_Pool):
    """Largest element of a window; padding never wins (minus infinity)."""

    kind: ClassVar[str] = "max_pool"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise GraphError("pool padding is more than half the window")
        return ValueType(self._out_shape(x.shape), x.kind, x.timing, x.high, x.low)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        (x,) = inputs
        fill = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        windows = self._windows(x, fill)
        y = next(windows).copy()
        for window in windows:
            np.maximum(y, window, out=y)
        return y

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        return _channel_interval(inputs[0], types[0])

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        shape = types[0].shape
        per_step = self._existing_taps(shape) - math.prod(self._out_shape(shape))
        return {"pool_comparisons": np.full(output.shape[1], per_step * output.shape[0], np.int64)}


@dataclass(frozen=True)
class SumPool(_Pool):
    """Sum over a window, zero padding."""

    kind: ClassVar[str] = "sum_pool"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        shape = self._out_shape(x.shape)
        if not x.is_events:
            return ValueType.drive(shape, x.timing)
        high = None if x.high is None else x.high * math.prod(self.kernel)
        return ValueType.events(shape, high, x.timing, signed=x.is_signed)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        windows = self._windows(inputs[0], 0)
        y = next(windows).copy()
        for window in windows:
            y += window
        return y

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        x = _channel_interval(inputs[0], types[0])
        fewest, most = 1, 1  # taps that exist, over all windows
        for axis in self.axes(types[0].shape):
            taps = axis.exists().sum(axis=1)
            fewest, most = fewest * int(taps.min()), most * int(taps.max())
        lower, upper = x.times(fewest), x.times(most)
        return Interval(np.minimum(lower.low, upper.low), np.maximum(lower.high, upper.high))

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        (x,) = inputs
        if not types[0].is_events:
            adds = self._existing_taps(types[0].shape) * x.shape[0]
            return {"pool_adds_unary": np.full(x.shape[1], adds, np.int64)}
        if types[0].is_signed:  # every spike as often as a window reads it
            return {"pool_adds_unary": weighted(magnitude(x), self._readers(types[0].shape))}
        return {"pool_adds_unary": per_image(output)}

    def _readers(self, shape: Sequence[int]) -> np.ndarray:
        """Windows that read each element, int64 ``(1, *spatial)``."""
        out = np.ones((1,) * len(shape), np.int64)
        for number, axis in enumerate(self.axes(shape), 1):
            along = axis.reads().sum(axis=0).reshape([-1 if i == number else 1 for i in range(len(shape))])
            out = out * along
        return out


def _channel_interval(x: Interval, type_: ValueType) -> Interval:
    bounds = channel_bounds(x, type_.shape)
    shape = (-1, *[1] * (len(type_.shape) - 1))
    return Interval(bounds.low.reshape(shape), bounds.high.reshape(shape))
