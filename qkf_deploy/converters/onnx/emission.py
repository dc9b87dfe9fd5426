"""A graph on its way to ONNX: what every lowering needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from qkf_deploy.converters.onnx.builder import OnnxWriter, Tensor, carrier
from qkf_deploy.errors import GraphError
from qkf_deploy.ir import Graph, Node, Operand, View, Widths
from qkf_deploy.ir.values import Timing


@dataclass
class Emission:
    """One graph on its way to ONNX.

    Attributes:
        graph: what is exported.
        writer: what collects the nodes.
        steps: time steps inside the ONNX graph: 1 (states are inputs and outputs) or T (states are internal).
        stateful: True for the single-step form.
        float_type: element type of float graphs.
        widths: proven ranges (integer graphs).
        values: ONNX tensor of every graph node emitted so far.
        membranes: charged membranes by neuron, for whoever wants them as outputs.
    """

    graph: Graph
    writer: OnnxWriter
    steps: int
    stateful: bool
    float_type: int
    widths: Mapping[str, Widths]
    values: dict[str, Tensor] = field(default_factory=dict)
    membranes: dict[str, Tensor] = field(default_factory=dict)

    @property
    def integer(self) -> bool:
        """True for integer graphs."""
        return self.graph.arithmetic == "integer"

    def dtype(self, node: Node) -> int:
        """Element type in which this node's sums are exact."""
        if not self.integer:
            return self.float_type
        return carrier(max(abs(v) for v in self.widths[node.name].partial), node.name)

    def operand(self, operand: Operand, dtype: int, name: str) -> str:
        """An operand in an element type, its view applied."""
        value = self.writer.carried(self.values[operand.node], dtype)
        if operand.view is None:
            return value
        return apply_view(self.writer, value, operand.view, f"{name}.view")

    def stretched(self, node: Node, operand: Operand, dtype: int) -> str:
        """An operand, repeated over time where the node's other operands change from step to step."""
        value = self.operand(operand, dtype, node.name)
        steps = self.steps_of(node)
        if self.values[operand.node].steps == steps:
            return value
        repeats = self.writer.ints([steps] + [1] * len(self.graph.operand_type(operand).shape))
        return self.writer.op("Tile", [value, repeats], f"{node.name}.every_step")

    def steps_of(self, node: Node) -> int:
        """Time steps stacked in this node's output."""
        return self.steps if node.type.timing is Timing.STEP else 1


Lowering = Callable[[Emission, Node], Tensor]
Op = TypeVar("Op")


def operator(node: Node, kind: type[Op]) -> Op:
    """The node's operator, known to be of this class. Raises GraphError where it is not."""
    if not isinstance(node.op, kind):
        raise GraphError(f"is {node.op.kind}, not {kind.__name__}", where=node.name)
    return node.op


def apply_view(writer: OnnxWriter, value: str, view: View, name: str) -> str:
    """Reshape, slice, transpose, reshape; steps that change nothing are left out."""
    value = writer.reshape(value, (-1, *view.split), name)
    cut = [a for a, (part, n) in enumerate(zip(view.take, view.split, strict=True)) if part != (0, n)]
    if cut:
        bounds = ([view.take[a][i] for a in cut] for i in (0, 1))
        starts, stops = (writer.ints(b) for b in bounds)
        value = writer.op("Slice", [value, starts, stops, writer.ints([a + 1 for a in cut])], name)
    if list(view.perm) != sorted(view.perm):
        value = writer.op("Transpose", [value], name, perm=[0, *(p + 1 for p in view.perm)])
    return writer.reshape(value, (-1, *view.shape), name)
