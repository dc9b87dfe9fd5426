"""What a network is made of: operators, shapes, parameters, dense operations, widths, audit, node by node."""

from __future__ import annotations

from dataclasses import dataclass

from qkf_deploy.ir import Graph, Node
from qkf_deploy.ops.exact import signed_bits
from qkf_deploy.passes.audit import audit, input_words


@dataclass(frozen=True)
class Layer:
    """One node.

    Attributes:
        name, kind: of the node and its operator.
        inputs: what each operand is: ``binary``, ``count up to 4``, ``real``, ``drive``.
        input_shapes, output_shape: per image and time step.
        parameters: stored numbers.
        dense_macs, border_exact_macs: multiply-accumulates per time step, with and without taps beyond the border.
        accumulator_bits: proven width of its sums; ``None`` for neurons, float graphs and what does not sum.
        membrane_bits: proven width of its membranes; ``None`` for everything else.
        audit: what the spike audit says of it, or "".
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    output_shape: tuple[int, ...]
    parameters: int
    dense_macs: int
    border_exact_macs: int
    accumulator_bits: int | None
    membrane_bits: int | None
    audit: str


def layers(graph: Graph) -> tuple[Layer, ...]:
    """Every node, in network order."""
    findings = {f.node: f"{'' if f.severity == 'ok' else f.severity + ': '}{f.text}" for f in audit(graph)}
    return tuple(_layer(graph, node, findings.get(node.name, "")) for node in graph)


def _layer(graph: Graph, node: Node, finding: str) -> Layer:
    types = graph.input_types(node)
    cost = node.op.static_cost(types, node.params)
    widths = graph.widths.get(node.name)
    return Layer(
        name=node.name,
        kind=node.op.kind,
        inputs=tuple(input_words(t) for t in types),
        input_shapes=tuple(t.shape for t in types),
        output_shape=node.type.shape,
        parameters=sum(p.size for p in node.params.values()),
        dense_macs=cost.dense_macs,
        border_exact_macs=cost.border_exact_macs,
        accumulator_bits=signed_bits(*widths.partial) if widths and widths.membrane is None else None,
        membrane_bits=signed_bits(*widths.membrane) if widths and widths.membrane else None,
        audit=finding,
    )
