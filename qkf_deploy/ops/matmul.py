"""Products of two activations: the matrix products of spiking self-attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.operator import Arrays, Counts, Interval, Operator, Params, StaticCost, Types
from qkf_deploy.ir.values import Timing, ValueType
from qkf_deploy.ops.activity import coincidences, magnitude, nonzero_per_image, per_image, polarity, product_sum
from qkf_deploy.ops.exact import matmul


@dataclass(frozen=True)
class MatMul(Operator):
    """``(..., n, k) @ (..., k, m)``, leading axes (heads) equal. Events times events gives counts.

    With ``chunk`` the sum runs over k and over time: Σ over the steps t' of the chunk that t lies in, and every step t
    of the chunk has the same result (the K^T V of STAtten, arXiv 2409.19764). It is known when the chunk's last step
    is: such a product is not causal.

    Attributes:
        chunk: time steps, one after the other, that are summed together; 1 for each step by itself.
    """

    chunk: int = 1

    kind: ClassVar[str] = "matmul"
    ports: ClassVar[tuple[str, ...]] = ("left", "right")

    @property
    def steps_awaited(self) -> int:
        return self.chunk

    def check_steps(self, params: Params, time_steps: int) -> None:
        if time_steps % self.chunk:
            raise GraphError(f"{time_steps} time steps do not part into chunks of {self.chunk}")

    def infer(self, inputs: Types, params: Params) -> ValueType:
        a, b = inputs
        if self.chunk < 1:
            raise GraphError(f"a chunk of {self.chunk} time steps")
        fits = len(a.shape) == len(b.shape) >= 2 and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
        if not fits:
            raise GraphError(f"cannot multiply values of shape {a.shape} and {b.shape}")
        if Timing.IMAGE in (a.timing, b.timing):
            raise GraphError("a product of activations cannot follow the readout")
        shape = (*a.shape[:-1], b.shape[-1])
        timing = a.timing if a.timing is b.timing else Timing.STEP
        if not (a.is_events and b.is_events):
            return ValueType.drive(shape, timing)
        high = None if a.high is None or b.high is None else a.high * b.high * a.shape[-1] * self.chunk
        return ValueType.sums(shape, high, timing, inputs)

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        return over_chunks(matmul(inputs[0], inputs[1]), self.chunk)

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        a, b = (np.array([int(i.low.min()), int(i.high.max())], dtype=object) for i in inputs)
        corners = [int(x) * int(y) for x in a for y in b]
        k = types[0].shape[-1] * self.chunk
        one = np.ones((1,) * len(types[0].shape), object)  # Python integers: the products may pass 62 bits
        return Interval(one * (min(corners) * k), one * (max(corners) * k))

    def count(self, inputs: Arrays, output: np.ndarray, params: Params, types: Types, time_steps: int) -> Counts:
        left, right = inputs
        if not all(t.is_events for t in types):
            macs = self.static_cost(types, params).dense_macs
            return {"mac": np.full(output.shape[1], macs * output.shape[0], np.int64)}
        counts = {
            "coincidences": coincidences(left, right),
            "coincidences_unary": per_image(output) if self.chunk == 1 else product_sum(left, right),
            "fanout_left": nonzero_per_image(left) * right.shape[-1],
            "fanout_right": nonzero_per_image(right) * left.shape[-2],
        }
        if any(t.is_signed for t in types):
            counts["coincidences_unary"] = product_sum(magnitude(left), magnitude(right))
            # Equal polarities count up, opposite ones (XNOR) down: of n pairs with a sum s, (n - s) / 2 are opposite.
            balance = product_sum(polarity(left), polarity(right))
            counts["coincidences_negative"] = (counts["coincidences"] - balance) // 2
        return counts

    def static_cost(self, inputs: Types, params: Params) -> StaticCost:
        macs = inputs[0].size * inputs[1].shape[-1]
        return StaticCost(macs, macs)


def over_chunks(y: np.ndarray, chunk: int) -> np.ndarray:
    """Each step's sum over its chunk of time steps, ``(T or 1, B, *shape)``; T = 1 stands for equal steps."""
    if chunk == 1:
        return y
    if y.shape[0] == 1:
        return y * chunk
    sums = y.reshape(-1, chunk, *y.shape[1:]).sum(axis=1)
    return np.repeat(sums, chunk, axis=0)
