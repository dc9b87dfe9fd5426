"""Convolution, 1-d and 2-d, grouped; transposed ones as convolutions of a map with nothing between its elements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.operator import Arrays, Counts, Interval, Operator, Params, StaticCost, Types
from qkf_deploy.ir.values import ValueType
from qkf_deploy.ops import synapse
from qkf_deploy.ops.exact import matmul
from qkf_deploy.ops.geometry import Axis
from qkf_deploy.ops.remember import Remembered

#: Fan-outs through all weights and through those that are not zero.
_FANOUTS = Remembered[tuple[np.ndarray, np.ndarray]]()


@dataclass(frozen=True)
class Conv(Operator):
    """y[o] = Σ w[o, c, tap] x[c, position] + b[o], zero padding.

    Input ``(C, W)`` or ``(C, H, W)``. Parameters: ``weight`` ``(O, C / groups, *kernel)`` and optionally ``bias``,
    either ``(O,)`` or, where the bias depends on the border, ``(O, *cases)`` with the cases of
    :meth:`qkf_deploy.ops.geometry.Axis.cases` per axis (normalization folded into a padded first layer); in float
    graphs optionally ``scale`` (:func:`qkf_deploy.ops.synapse.check_scale`).

    Attributes:
        stride, padding, dilation: one entry per spatial axis.
        groups: as in torch.
        weight_bits: bits per stored weight in an integer graph, ``None`` in a float graph.
        spread, tail: per spatial axis, of the map that is read (:class:`qkf_deploy.ops.geometry.Axis`); empty: an
            ordinary convolution.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    weight_bits: int | None = None
    spread: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()

    kind: ClassVar[str] = "conv"

    def axes(self, shape: Sequence[int], weight: np.ndarray) -> tuple[Axis, ...]:
        """The sliding window along each spatial axis of an input of this shape."""
        rank = len(self.stride)
        if any(len(entries) not in (0, rank) for entries in (self.spread, self.tail)):
            raise GraphError(f"spread {self.spread} and tail {self.tail} are not of {rank} axes")
        spread, tail = self.spread or (1,) * rank, self.tail or (0,) * rank
        window = (self.stride, self.padding, self.dilation, spread, tail)
        return tuple(Axis(*entries) for entries in zip(shape[1:], weight.shape[2:], *window, strict=True))

    def laid_out(self, x: np.ndarray) -> np.ndarray:
        """A map ``(..., *spatial)`` with zeros at the places that hold nothing; itself without any."""
        if not self.spread:
            return x
        sizes = x.shape[-len(self.spread) :]
        tail = self.tail or (0,) * len(sizes)
        axes = (Axis(n, 1, spread=s, tail=t) for n, s, t in zip(sizes, self.spread, tail, strict=True))
        out = np.zeros((*x.shape[: -len(sizes)], *(axis.places for axis in axes)), x.dtype)
        out[(..., *(slice(0, (n - 1) * s + 1, s) for n, s in zip(sizes, self.spread, strict=True)))] = x
        return out

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        weight = params.get("weight")
        rank = len(self.stride)
        if weight is None or weight.ndim != rank + 2 or len(x.shape) != rank + 1 or rank not in (1, 2):
            raise GraphError(f"a {rank}-d convolution cannot read a value of shape {x.shape}")
        if self.groups < 1 or x.shape[0] != weight.shape[1] * self.groups or weight.shape[0] % self.groups:
            raise GraphError(f"weight {weight.shape} with {self.groups} groups does not fit input {x.shape}")
        axes = self.axes(x.shape, weight)
        self._check_bias(params, weight, axes)
        synapse.check_scale(params, len(weight))
        return ValueType.drive((weight.shape[0], *(a.out for a in axes)), x.timing)

    @staticmethod
    def _check_bias(params: Params, weight: np.ndarray, axes: tuple[Axis, ...]) -> None:
        bias = params.get("bias")
        if bias is None:
            return
        cases = tuple(len(a.cases()[0]) for a in axes)
        if bias.shape not in ((weight.shape[0],), (weight.shape[0], *cases)):
            raise GraphError(f"bias {bias.shape} fits neither {weight.shape[0]} channels nor border cases {cases}")

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        (x,) = inputs
        weight = params["weight"]
        axes = self.axes(x.shape[2:], weight)
        group_in, group_out = weight.shape[1], weight.shape[0] // self.groups
        padded = np.pad(self.laid_out(x), [(0, 0)] * 3 + [(p, p) for p in self.padding])
        out_sizes = tuple(a.out for a in axes)
        y = np.zeros((*x.shape[:2], weight.shape[0], math.prod(out_sizes)), _result_dtype(x, weight))
        for tap, window in self._taps(padded, axes):
            for g in range(self.groups):
                w = weight[(slice(g * group_out, (g + 1) * group_out), slice(None), *tap)]
                v = window[:, :, g * group_in : (g + 1) * group_in]
                y[:, :, g * group_out : (g + 1) * group_out] += matmul(w, v.reshape(*v.shape[:3], -1))
        y = y.reshape(*y.shape[:3], *out_sizes)
        return y + self.bias_map(params["bias"], axes) if "bias" in params else y

    def _taps(self, padded: np.ndarray, axes: tuple[Axis, ...]) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Each tap with the part of the padded input it reads, ``(T, B, C, *out)``."""
        for tap in itertools.product(*(range(a.kernel) for a in axes)):
            index = tuple(
                slice(t * a.dilation, t * a.dilation + (a.out - 1) * a.stride + 1, a.stride)
                for t, a in zip(tap, axes, strict=True)
            )
            yield tap, padded[(..., *index)]

    @staticmethod
    def bias_map(bias: np.ndarray, axes: tuple[Axis, ...]) -> np.ndarray:
        """Bias as an array that broadcasts to ``(O, *out)``."""
        if bias.ndim == 1:
            return bias.reshape(-1, *[1] * len(axes))
        return bias[(slice(None), *np.ix_(*(a.cases()[1] for a in axes)))]

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        low, high = self.case_bounds(inputs[0], params, types[0], partial=False)
        return _per_channel(low, high, len(self.stride))

    def partial_interval(self, inputs: Sequence[Interval], params: Params, types: Types) -> Interval:
        """Range of every partial sum (bias included) in any order of summation."""
        low, high = self.case_bounds(inputs[0], params, types[0], partial=True)
        return _per_channel(low, high, len(self.stride))

    def case_bounds(
        self, x: Interval, params: Params, type_: ValueType, *, partial: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Exact bounds for every output channel and border case, ``(O, *cases)``.

        A bound is reached by the input that is at its extreme wherever the weight has the matching sign.
        """
        weight = params["weight"]
        axes = self.axes(type_.shape, weight)
        masks = [a.cases()[0].astype(np.int64) for a in axes]
        per_input = synapse.channel_bounds(x, type_.shape)
        low, high = synapse.tap_extremes(weight, per_input, self.groups, partial=partial)
        for mask in reversed(masks):  # contract the last tap axis, put its cases in front of the others
            low, high = (np.moveaxis(np.tensordot(v, mask, axes=([-1], [1])), -1, 1) for v in (low, high))
        bias = params.get("bias")
        if bias is None:
            return low, high
        shift = bias.astype(np.int64).reshape(bias.shape if bias.ndim > 1 else (-1, *[1] * len(axes)))
        return synapse.add_bias(low, high, shift, partial=partial)

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        type_, weight = types[0], params["weight"]

        def fanouts() -> tuple[np.ndarray, np.ndarray]:
            readers = [a.readers() for a in self.axes(type_.shape, weight)]
            every = self._fanout(np.ones_like(weight, np.int64), readers)
            return every, self._fanout((weight != 0).astype(np.int64), readers)

        every, nonzero = _FANOUTS.get(weight, (self, type_.shape), fanouts)
        return synapse.count(inputs[0], output, params, type_, time_steps, every, nonzero, self.weight_bits)

    def _fanout(self, present: np.ndarray, readers: list[np.ndarray]) -> np.ndarray:
        """Number of outputs that read each input element through a present tap, int64 ``(C, *spatial)``."""
        out, group_in = present.shape[0] // self.groups, present.shape[1]
        taps = present.reshape(self.groups, out, group_in, *present.shape[2:]).sum(axis=1)
        taps = taps.reshape(self.groups * group_in, *present.shape[2:])
        for reader in reversed(readers):  # as in case_bounds: the last tap axis first
            taps = np.moveaxis(np.tensordot(taps, reader, axes=([-1], [1])), -1, 1)
        return taps

    def static_cost(self, inputs: Types, params: Params) -> StaticCost:
        weight = params["weight"]
        axes = self.axes(inputs[0].shape, weight)
        # A library multiplies each element of the input with the whole kernel of a transposed convolution.
        dense = weight.size * math.prod(a.size if self.spread else a.out for a in axes)
        existing = weight.shape[0] * weight.shape[1] * math.prod(int(a.exists().sum()) for a in axes)
        return StaticCost(dense, existing)


def _per_channel(low: np.ndarray, high: np.ndarray, rank: int) -> Interval:
    """Bounds over all border cases, shaped to broadcast to ``(O, *spatial)``."""
    cases = tuple(range(1, low.ndim))
    shape = (-1, *[1] * rank)
    return Interval(low.min(axis=cases).reshape(shape), high.max(axis=cases).reshape(shape))


def _result_dtype(x: np.ndarray, weight: np.ndarray) -> type[np.float64] | type[np.int64]:
    return np.float64 if "f" in (x.dtype.kind, weight.dtype.kind) else np.int64
