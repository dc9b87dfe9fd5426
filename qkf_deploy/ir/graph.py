"""Nodes and graphs: immutable, in topological order, verified as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qkf_deploy.display.overview import Overview, SelfDescribing
from qkf_deploy.errors import GraphError
from qkf_deploy.ir import summary
from qkf_deploy.ir.assumption import Assumption, lines
from qkf_deploy.ir.operator import Operator, Params
from qkf_deploy.ir.parameters import check_integer_parameters
from qkf_deploy.ir.part import Part, class_part
from qkf_deploy.ir.schema import check_attributes
from qkf_deploy.ir.values import Timing, ValueType
from qkf_deploy.ir.view import View

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame

InputEncoding = Literal["direct", "frames"]
Arithmetic = Literal["float", "integer"]
#: Of the side of an image.
MOST_PIXELS = 2**16
Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]


@dataclass(frozen=True)
class Operand:
    """One input of a node: the value of ``node``, read through ``view`` (``None``: as it is)."""

    node: str
    view: View | None = None


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: torch module path, or ``path.operation`` for functions called inside a module.
        op: operator with its attributes.
        inputs: operands in port order.
        params: arrays by name (``weight``, ``bias``, ``theta`` ...), read-only.
        type: type of the output.
        source: ``file:line`` of the call in the model, where known.
    """

    name: str
    op: Operator
    inputs: tuple[Operand, ...]
    type: ValueType
    params: Params = field(default_factory=lambda: freeze({}))
    source: str = ""


@dataclass(frozen=True)
class Resize:
    """Image files of any size to the input's size: the shorter side is scaled, then the centre is cropped.

    As torchvision's ``Resize(shorter)`` and ``CenterCrop`` do it with Pillow.

    Attributes:
        shorter: pixels of the shorter side after scaling, at least those of the input.
        interpolation: Pillow's filter.
    """

    shorter: int
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        check_attributes(self)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises GraphError unless images scaled so hold the input of that shape."""
        if len(shape) != 3 or not max(shape[1:]) <= self.shorter <= MOST_PIXELS:
            raise GraphError(f"images of {self.shorter} pixels a side do not hold an input of {shape}")


@dataclass(frozen=True)
class Preprocessing:
    """Image files to network input: resizing, if one is known, then ``(byte / 255 - mean[c]) / std[c]``.

    Attributes:
        mean, std: per channel, of pixels in 0..1.
        resize: how image files are brought to the input's size; ``None``: they must have it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Resize | None = None


@dataclass(frozen=True)
class Widths:
    """Proven signed integer ranges of one node of an integer graph: no input can leave them.

    Attributes:
        value: (low, high) of the output.
        partial: (low, high) of every partial sum in any order of summation (synapses, sums, matmul), else ``value``.
        membrane: (low, high) of the charged membrane potential U (neurons), else ``None``.
    """

    value: tuple[int, int]
    partial: tuple[int, int]
    membrane: tuple[int, int] | None = None


@dataclass(frozen=True, repr=False)
class Graph(SelfDescribing):
    """A network, per image and time step.

    Attributes:
        nodes: by name, in topological order; exactly one ``input`` and one ``output``.
        time_steps: T.
        input_encoding: ``direct`` (one image shown T times) or ``frames`` (T event frames).
        arithmetic: ``float`` (float64) or ``integer`` (int64).
        preprocessing: resizing and pixel normalization of ``direct`` inputs, ``None`` for frames.
        class_names: labels of the logits, may be empty.
        provenance: where the graph came from (source, hashes, passes), strings.
        notices: sentences a user should read (batch carry-over, rounded decays ...).
        widths: proven ranges by node, filled by quantization.
        factors: by node, one factor per operand: the model's own value is the factor times the value read here. Folding
            moves divisors (average pooling, means, constant scales) into weights; these keep what it moved. Absent: 1.
        assumptions: values that were neither in the source nor given.
    """

    nodes: Mapping[str, Node]
    time_steps: int
    input_encoding: InputEncoding = "direct"
    arithmetic: Arithmetic = "float"
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    provenance: Mapping[str, str] = field(default_factory=dict[str, str])
    notices: tuple[str, ...] = ()
    widths: Mapping[str, Widths] = field(default_factory=dict[str, Widths])
    factors: Mapping[str, tuple[Fraction, ...]] = field(default_factory=dict[str, tuple[Fraction, ...]])
    assumptions: tuple[Assumption, ...] = ()

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __getitem__(self, name: str) -> Node:
        try:
            return self.nodes[name]
        except KeyError:
            raise GraphError("no such node", where=name, hint="`qkf-deploy inspect` lists the node names") from None

    @property
    def input(self) -> Node:
        """The input node."""
        return self._only("input")

    @property
    def output(self) -> Node:
        """The output node; its value is the logits."""
        return self._only("output")

    @property
    def parts(self) -> tuple[Part, ...]:
        """The outputs, where there are several: they lie side by side in the output node's value."""
        return getattr(self.output.op, "parts", ())

    @property
    def classes(self) -> Part | None:
        """The output that is one number per class: the first such one, ``None`` if there is none."""
        return class_part(self.parts, self.output.type.shape)

    @property
    def assumed(self) -> tuple[str, ...]:
        """What was assumed, as lines for people."""
        return lines(self.assumptions)

    def _only(self, kind: str) -> Node:
        found = [n for n in self if n.op.kind == kind]
        if len(found) != 1:
            raise GraphError(f"a graph has exactly one {kind} node, this one has {len(found)}")
        return found[0]

    def consumers(self) -> dict[str, list[Node]]:
        """Nodes that read each node, in order."""
        out: dict[str, list[Node]] = {name: [] for name in self.nodes}
        for node in self:
            for operand in node.inputs:
                out[operand.node].append(node)
        return out

    def operand_type(self, operand: Operand) -> ValueType:
        """Type of a value as the operand sees it."""
        source = self[operand.node].type
        return source if operand.view is None else replace(source, shape=operand.view.shape)

    def input_types(self, node: Node) -> tuple[ValueType, ...]:
        """Types of all operands of a node."""
        return tuple(self.operand_type(o) for o in node.inputs)

    def input_factors(self, node: Node) -> tuple[Fraction, ...]:
        """What to multiply each operand of a node with to get the model's own value."""
        return self.factors.get(node.name) or (Fraction(1),) * len(node.inputs)

    @property
    def not_causal(self) -> dict[str, int]:
        """Nodes whose value at a step depends on later ones, their own and those that read them: steps of the chunk.

        A chip that works step by step must wait there, and hold what it meets meanwhile.
        """
        out: dict[str, int] = {}
        for node in self:
            steps = math.lcm(node.op.steps_awaited, *(out.get(o.node, 1) for o in node.inputs))
            if steps > 1 and node.type.timing is Timing.STEP:
                out[node.name] = steps
        return out

    def parameter_count(self) -> int:
        """Number of stored parameters (weights, biases, batch-norm and neuron parameters)."""
        return sum(p.size for n in self for p in n.params.values())

    def overview(self) -> Overview:
        """Headline, the largest nodes, notices."""
        return summary.overview(self)

    def to_dict(self) -> dict[str, Any]:
        """The network without its arrays, as plain data for JSON: enough to draw it and to describe every node."""
        return summary.data(self)

    def to_pandas(self) -> DataFrame:
        """One row per node: operator, operands, shape, kind, parameters, dense MACs per image and time step.

        Raises:
            GraphError: a graph that does not verify.
            MissingComponent: pandas is not installed.
        """
        return summary.frame(self.verify())

    def verify(self) -> Graph:
        """Check everything; returns the graph itself so that passes can end with it.

        Raises:
            GraphError: dangling or unknown values, wrong order, wrong types, missing input or output.
        """
        seen: set[str] = set()
        for name, node in self.nodes.items():
            _verify_node(self, name, node, seen)
            seen.add(name)
        _ = self.input
        output = self.output
        for name, users in self.consumers().items():
            if not users and name != output.name:
                raise GraphError("nothing reads this value", where=name, hint="drop the node before verification")
        if self.time_steps < 1:
            raise GraphError(f"time_steps is {self.time_steps}, must be at least 1")
        return self


def _verify_node(graph: Graph, name: str, node: Node, seen: set[str]) -> None:
    if name != node.name:
        raise GraphError(f"stored under the name {name!r}", where=node.name)
    if len(node.inputs) != len(node.op.ports):
        raise GraphError(f"{node.op.kind} takes {len(node.op.ports)} inputs, got {len(node.inputs)}", where=name)
    for operand in node.inputs:
        if operand.node not in seen:
            known = operand.node in graph.nodes
            problem = "reads a later node (a cycle or wrong order)" if known else "reads an unknown node"
            raise GraphError(f"{problem}: {operand.node!r}", where=name)
        if operand.view is not None and math.prod(operand.view.split) != graph[operand.node].type.size:
            raise GraphError(f"view does not fit the shape of {operand.node!r}", where=name)
    try:
        if graph.arithmetic == "integer":
            check_integer_parameters(node.op, node.params)
        expected = node.op.infer(graph.input_types(node), node.params)
        node.op.check_steps(node.params, graph.time_steps)
    except GraphError as error:
        raise GraphError(error.message, where=name, hint=error.hint) from error
    if expected != node.type:
        raise GraphError(f"type is {node.type}, its operator says {expected}", where=name)


class GraphBuilder:
    """Adds nodes in order, inferring types.

    >>> from qkf_deploy import ops
    >>> b = GraphBuilder()
    >>> _ = b.add("input", ops.Input((1, 4, 4)))
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def add(
        self,
        name: str,
        op: Operator,
        inputs: Sequence[Operand | str] = (),
        params: Params | None = None,
        source: str = "",
    ) -> str:
        """Append a node and return its name.

        Raises:
            GraphError: the name is taken, an input is unknown, or shapes do not fit.
        """
        if name in self.nodes:
            raise GraphError("the name is taken", where=name)
        operands = tuple(self._operand(name, i) for i in inputs)
        types: list[ValueType] = []
        for operand in operands:
            type_ = self.nodes[operand.node].type
            types.append(type_ if operand.view is None else replace(type_, shape=operand.view.shape))
        params = freeze(params or {})
        try:
            out = op.infer(types, params)
        except GraphError as error:
            raise GraphError(error.message, where=name, hint=error.hint) from error
        self.nodes[name] = Node(name, op, operands, out, params, source)
        return name

    def _operand(self, name: str, given: Operand | str) -> Operand:
        """The operand, without a view that changes nothing."""
        operand = Operand(given) if isinstance(given, str) else given
        if operand.node not in self.nodes:
            raise GraphError(f"reads an unknown node: {operand.node!r}", where=name)
        view = operand.view
        unchanged = view is not None and view.is_reshape and view.shape == self.nodes[operand.node].type.shape
        return Operand(operand.node) if unchanged else operand

    def build(
        self, *, time_steps: int, input_encoding: InputEncoding = "direct", arithmetic: Arithmetic = "float"
    ) -> Graph:
        """The verified graph."""
        return Graph(dict(self.nodes), time_steps, input_encoding, arithmetic).verify()


def freeze(params: Params) -> Params:
    """Read-only copies of the mapping, arrays marked read-only (data shared)."""
    out: dict[str, np.ndarray] = {}
    for name, array in params.items():
        frozen = np.asarray(array).view()
        frozen.flags.writeable = False
        out[name] = frozen
    return MappingProxyType(out)
