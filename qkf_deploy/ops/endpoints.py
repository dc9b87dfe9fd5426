"""Where a graph begins and ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar, Literal

import numpy as np

from qkf_deploy.errors import GraphError, InputError
from qkf_deploy.ir.operator import Arrays, Interval, Operator, Params, Types
from qkf_deploy.ir.part import Part
from qkf_deploy.ir.values import Kind, Timing, ValueType
from qkf_deploy.ops.exact import broadcasts_to

_FIXED_BITS = (2, 32)
_MOST_EVENTS = 2**31 - 1
InputFormat = Literal["real", "bytes", "fixed", "frames"]


@dataclass(frozen=True)
class Input(Operator):
    """The network's input, given by the caller.

    Attributes:
        shape: ``(C, H, W)`` of one image or one event frame.
        format: ``real`` normalized images (float graphs), ``bytes`` raw pixels 0..255 (integer graphs), ``fixed``
            signed integers of ``bits`` bits (integer graphs without pixels), ``frames`` event counts 0..``high``.
        bits: width of ``fixed`` inputs.
        high: largest event count per element of ``frames``.
    """

    shape: tuple[int, ...]
    format: InputFormat = "real"
    bits: int = 8
    high: int = 255

    kind: ClassVar[str] = "input"
    ports: ClassVar[tuple[str, ...]] = ()

    def infer(self, inputs: Types, params: Params) -> ValueType:
        if not self.shape or any(n < 1 for n in self.shape):
            raise GraphError(f"an input cannot have the shape {self.shape}")
        if not _FIXED_BITS[0] <= self.bits <= _FIXED_BITS[1] or not 1 <= self.high <= _MOST_EVENTS:
            raise GraphError(f"input bits go from 2 to 32, event counts from 1 to 2^31 - 1: {self}")
        if self.format == "frames":
            return ValueType.events(self.shape, self.high, Timing.STEP)
        low, high = self._range()
        return ValueType(self.shape, Kind.REAL, Timing.CONSTANT, high, low)

    def _range(self) -> tuple[int | None, int | None]:
        if self.format == "bytes":
            return 0, 255
        if self.format == "fixed":
            return -(2 ** (self.bits - 1)) + 1, 2 ** (self.bits - 1) - 1
        return None, None

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        raise InputError("an input has no value of its own; the engine provides it")

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        low, high = (0, self.high) if self.format == "frames" else self._range()
        if low is None or high is None:
            raise GraphError("a real-valued input has no integer range", hint="quantize the graph first")
        ones = np.ones((1,) * len(self.shape), np.int64)
        return Interval(ones * low, ones * high)


@dataclass(frozen=True)
class Output(Operator):
    """The logits: integer × scale + bias. In a float graph scale is absent.

    Parameters (integer graphs): ``scale``, float64, broadcastable to the logits.

    Attributes:
        names, shapes: of several outputs, which lie side by side in a value of one axis; empty: the value is the one
            output.
    """

    names: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()

    kind: ClassVar[str] = "output"

    @property
    def parts(self) -> tuple[Part, ...]:
        """Several outputs, in order; empty for one."""
        starts = [0, *accumulate(math.prod(shape) for shape in self.shapes)]
        return tuple(Part(*each) for each in zip(self.names, self.shapes, starts, strict=False))

    def infer(self, inputs: Types, params: Params) -> ValueType:
        (x,) = inputs
        if "scale" in params and not broadcasts_to(params["scale"].shape, x.shape):
            raise GraphError(f"the output scale does not broadcast to {x.shape}")
        if self.names or self.shapes:
            self._check_parts(x)
        return x

    def _check_parts(self, x: ValueType) -> None:
        parts = self.parts
        if len(set(self.names)) != len(self.names) or len(self.names) != len(self.shapes) or not all(self.names):
            raise GraphError(f"outputs need a name and a shape each, got {self.names} and {self.shapes}")
        if any(n < 1 for part in parts for n in part.shape) or x.shape != (sum(part.size for part in parts),):
            raise GraphError(f"outputs of shapes {self.shapes} do not lie side by side in a value of shape {x.shape}")

    def run(self, inputs: Arrays, params: Params, time_steps: int) -> np.ndarray:
        return inputs[0]

    def logits(self, value: np.ndarray, params: Params) -> np.ndarray:
        """Real-valued logits ``(B, *shape)`` (``(T, B, *shape)`` for a network without readout) from the raw output."""
        real = value.astype(np.float64) * params["scale"] if "scale" in params else value
        return real[0] if real.shape[0] == 1 else real

    def interval(self, inputs: Sequence[Interval], params: Params, types: Types, time_steps: int) -> Interval:
        return inputs[0]
