"""Batch normalization with running statistics; gone after folding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qkf_deploy.errors import GraphError
from qkf_deploy.ir.operator import Arrays, Interval, Operator, Params, Types
from qkf_deploy.ir.values import ValueType


@dataclass(frozen=True)
class BatchNorm(Operator):
    """y[c] = (x[c] - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c], channel axis first.

    Parameters: ``mean``, ``var``, ``weight``, ``bias``, each ``(C,)``.

    Attributes:
        eps: added to the variance.
    """

    eps: float

    kind: ClassVar[str] = "batch_norm"

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        for name in ("mean", "var", "weight", "bias"):
            if name not in params or params[name].shape != x.shape[:1]:
                raise GraphError(f"batch norm over {x.shape[:1]} channels lacks a fitting {name!r}")
        if (params["var"] + self.eps <= 0).any():
            raise GraphError("a batch norm with a negative variance", hint="the checkpoint it comes from is damaged")
        return ValueType.drive(x.shape, x.timing)

    def affine(self, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """``(scale, shift)`` with y = scale * x + shift, float64 ``(C,)``."""
        scale = params["weight"].astype(np.float64) / np.sqrt(params["var"].astype(np.float64) + self.eps)
        return scale, params["bias"].astype(np.float64) - params["mean"].astype(np.float64) * scale

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        (x,) = inputs
        scale, shift = (v.reshape(-1, *[1] * (x.ndim - 3)) for v in self.affine(params))
        return x * scale + shift

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        raise GraphError("batch norm has no integer form", hint="fold the graph before quantizing it")
