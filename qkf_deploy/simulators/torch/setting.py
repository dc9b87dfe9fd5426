"""What preparing a node needs to know, and what is said of its value: proven ranges, or error bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qkf_deploy.ir import Graph, Node, Widths
from qkf_deploy.ir.values import Kind
from qkf_deploy.simulators.torch.carriers import FLOAT32, FLOAT64, Carrier, exact_dtype
from qkf_deploy.simulators.torch.devices import Device
from qkf_deploy.simulators.torch.values import Value

Step = Callable[[Sequence[Value]], Value]
ROUNDOFF = 2.0**-53


@dataclass(frozen=True)
class Setting:
    """What preparing a node needs to know.

    Attributes:
        graph: float or integer.
        widths: proven ranges (integer graphs).
        device: checked.
        carrier: numbers of float graphs.
    """

    graph: Graph
    widths: Mapping[str, Widths]
    device: Device
    carrier: Carrier = FLOAT64

    @property
    def whole(self) -> bool:
        """True for integer graphs."""
        return self.graph.arithmetic == "integer"

    def put(self, x: np.ndarray, dtype: torch.dtype) -> Tensor:
        """A parameter on the device."""
        return torch.from_numpy(np.array(x)).to(self.device.torch).to(dtype)

    def value(self, node: Node, tensor: Tensor, largest: float = 0.0, error: float = 0.0) -> Value:
        """The output of a node; ``largest`` and ``error`` are those of float graphs."""
        if self.whole:
            largest = self.magnitude(node.name)
        integral = self.whole or node.type.is_events
        return Value(tensor, largest, binary=node.type.kind is Kind.SPIKE, integral=integral, error=error)

    def magnitude(self, name: str) -> int:
        """Proven largest magnitude of a node's value."""
        return max(map(abs, self.widths[name].value))

    def operand_shape(self, node: Node) -> tuple[int, ...]:
        """Per-step shape of a node's first operand."""
        return self.graph.input_types(node)[0].shape

    def sums(self, node: Node) -> int:
        """Proven largest magnitude of every partial sum of a node, its operands included."""
        operands = [self.magnitude(o.node) for o in node.inputs]
        return max(*map(abs, self.widths[node.name].partial), *operands)

    def dtype(self, node: Node) -> torch.dtype:
        """Numbers in which sums of a node's operands are exact."""
        return exact_dtype(self.sums(node)) if self.whole else self.carrier.dtype

    def sum_carrier(self, inputs: Sequence[Value], largest: float) -> Carrier:
        """Numbers of a float graph for sums of that magnitude: float32 for small whole numbers that are known."""
        known = all(x.error == 0 and x.integral for x in inputs)
        return FLOAT32 if known and max(largest, *(x.largest for x in inputs)) < 2**FLOAT32.sum_bits else self.carrier


def elementwise(s: Setting, node: Node, y: Tensor, inputs: Sequence[Value], largest: float, gain: float = 1.0) -> Value:
    """The result of operations on single elements, which both engines round alike if their operands are equal."""
    error = sum(x.error for x in inputs)
    return s.value(node, y, largest, gain * error + 4 * ROUNDOFF * largest if error else 0.0)


def total(
    s: Setting, node: Node, y: Tensor, inputs: Sequence[Value], largest: float, terms: int, error: float
) -> Value:
    """A sum of ``terms``: exact for whole numbers, else rounded by each engine in its own order."""
    if all(x.error == 0 and x.integral for x in inputs) and largest < 2**53:
        return s.value(node, y, largest)
    return s.value(node, y, largest, error + 2 * 1.01 * (terms + 1) * ROUNDOFF * largest)
