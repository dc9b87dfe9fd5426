"""Batch norms of values side by side: each value gets its part of the norm, which then finds its own synapse."""

from __future__ import annotations

from dataclasses import replace

from qkf_deploy.ir import Graph, GraphBuilder, Node
from qkf_deploy.ops import BatchNorm, Concat


def split_norms(graph: Graph) -> Graph:
    """The float graph with every batch norm that alone reads values side by side in front of them instead."""
    readers = graph.consumers()
    builder = GraphBuilder()
    norms = {
        node.inputs[0].node: node
        for node in graph
        if isinstance(node.op, BatchNorm) and node.inputs[0].view is None and _along_channels(graph, node, readers)
    }
    if not norms:
        return graph
    split = {norm.name: name for name, norm in norms.items()}
    for node in graph:
        if node.name in norms:
            continue
        if node.name not in split:
            builder.add(node.name, node.op, node.inputs, node.params, node.source)
            continue
        both, first = graph[split[node.name]], 0
        parts: list[str] = []
        for side, (operand, type_) in enumerate(zip(both.inputs, graph.input_types(both), strict=True)):
            own = {key: array[first : first + type_.shape[0]] for key, array in node.params.items()}
            first += type_.shape[0]
            parts.append(builder.add(_free(graph, f"{node.name}.{side}"), node.op, [operand], own, node.source))
        builder.add(node.name, both.op, parts, {}, node.source)
    again = replace(graph, nodes=dict(builder.nodes)).verify()
    return split_norms(again)  # a norm of three values is one of two, twice


def _along_channels(graph: Graph, node: Node, readers: dict[str, list[Node]]) -> bool:
    source = graph[node.inputs[0].node]
    return isinstance(source.op, Concat) and source.op.axis == 0 and len(readers[source.name]) == 1


def _free(graph: Graph, name: str) -> str:
    while name in graph.nodes:
        name += "#"
    return name
