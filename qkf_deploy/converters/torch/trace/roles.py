"""Sums that only feed the classifier are part of the readout, the others of attention."""

from __future__ import annotations

from dataclasses import replace

from qkf_deploy.ir import Graph
from qkf_deploy.ops import IntegerNeuron, Neuron, Sum


def assign_roles(graph: Graph) -> Graph:
    """Set the role of every sum: ``readout`` if no neuron comes after it."""
    consumers = graph.consumers()
    before_neuron: dict[str, bool] = {}
    for node in reversed(list(graph)):
        before_neuron[node.name] = any(
            isinstance(user.op, Neuron | IntegerNeuron) or before_neuron[user.name] for user in consumers[node.name]
        )
    nodes = dict(graph.nodes)
    for name, node in graph.nodes.items():
        if isinstance(node.op, Sum) and not before_neuron[name]:
            nodes[name] = replace(node, op=replace(node.op, role="readout"))
    return replace(graph, nodes=nodes).verify()
