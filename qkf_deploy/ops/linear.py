"""Fully connected synapse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.operator import Arrays, Counts, Interval, Operator, Params, StaticCost, Types
from qkf_deploy.ir.values import ValueType
from qkf_deploy.ops import synapse
from qkf_deploy.ops.exact import matmul


@dataclass(frozen=True)
class Linear(Operator):
    """y[..., o] = Σ w[o, i] x[..., i] + b[o] over the last axis.

    Parameters: ``weight`` ``(O, I)`` and optionally ``bias`` ``(O,)``; in float graphs optionally ``scale``
    (:func:`qkf_deploy.ops.synapse.check_scale`).

    Attributes:
        weight_bits: bits per stored weight in an integer graph, ``None`` in a float graph.
    """

    weight_bits: int | None = None

    kind: ClassVar[str] = "linear"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        weight = params.get("weight")
        if weight is None or weight.ndim != 2 or not x.shape or x.shape[-1] != weight.shape[1]:
            raise GraphError(f"a linear layer cannot read a value of shape {x.shape}")
        if "bias" in params and params["bias"].shape != weight.shape[:1]:
            raise GraphError(f"bias {params['bias'].shape} does not fit weight {weight.shape}")
        synapse.check_scale(params, len(weight))
        return ValueType.drive((*x.shape[:-1], weight.shape[0]), x.timing)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        y = matmul(inputs[0], params["weight"].T)
        return y + params["bias"] if "bias" in params else y

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        return self._bounds(inputs[0], params, types[0], partial=False)

    def partial_interval(self, inputs: Sequence[Interval], params: Params, types: Types) -> Interval:
        """Range of every partial sum (bias included) in any order of summation."""
        return self._bounds(inputs[0], params, types[0], partial=True)

    def _bounds(self, x: Interval, params: Params, type_: ValueType, *, partial: bool) -> Interval:
        per_input = synapse.channel_bounds(x, type_.shape, axis=len(type_.shape) - 1)
        low, high = synapse.tap_extremes(params["weight"], per_input, 1, partial=partial)
        if "bias" in params:
            low, high = synapse.add_bias(low, high, params["bias"].astype(np.int64), partial=partial)
        return Interval(low, high)

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        weight = params["weight"]
        fanout = np.full(weight.shape[1], weight.shape[0], np.int64)
        nonzero = np.count_nonzero(weight, axis=0).astype(np.int64)
        return synapse.count(inputs[0], output, params, types[0], time_steps, fanout, nonzero, self.weight_bits)

    def static_cost(self, inputs: Types, params: Params) -> StaticCost:
        macs = inputs[0].size * params["weight"].shape[0]
        return StaticCost(macs, macs)
