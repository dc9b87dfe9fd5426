"""Gates outside units: whose events open them, and which elements of which units they mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from qkf_deploy.hw_models.units import event_sources
from qkf_deploy.ir import Graph, Node, Operand


def gated(graph: Graph, owner: Mapping[str, str]) -> Iterator[tuple[Node, tuple[str, str], str]]:
    """(mask, (unit, node) whose events open it, unit that holds what it masks); one for every pair of the two."""
    for node in graph:
        if node.op.kind == "mask" and node.name not in owner:
            gates, masked = (dict.fromkeys(event_sources(graph, o.node, owner)) for o in node.inputs)
            yield from ((node, gate, unit) for gate in gates for unit in dict.fromkeys(u for u, _ in masked))


def cores_behind(graph: Graph, owner: Mapping[str, str], node: Node, gate: str, masked: str, cores: np.ndarray) -> int:
    """Pairs of an element of a gate and a core that holds something it masks.

    Args:
        graph: integer graph.
        owner: unit of every node that belongs to one.
        node: the mask.
        gate: node whose events open it.
        masked: name of a unit behind it.
        cores: core of each element of that unit.
    """
    found, most = [np.zeros(0, np.int64)], int(cores.max()) + 1
    for opening in places(graph, owner, node.inputs[0], gate):
        for behind in places(graph, owner, node.inputs[1], masked):
            wide = np.broadcast_to(opening, behind.shape)
            both = (wide >= 0) & (behind >= 0)
            found.append(np.unique(wide[both] * most + cores.reshape(-1)[behind[both]]))
    return len(np.unique(np.concatenate(found)))


def places(graph: Graph, owner: Mapping[str, str], operand: Operand, name: str) -> Iterator[np.ndarray]:
    """Which element of a node each place of an operand shows, -1 for none; once for every way through the routing."""
    node = graph[operand.node]
    found: list[np.ndarray] = []
    if node.name == name:
        found = [np.arange(node.type.size).reshape(node.type.shape)]
    elif node.name not in owner and node.op.kind != "input":
        for number, source in enumerate(node.inputs):
            if node.op.kind != "mask" or number == 1:
                found += (shown(graph, node, number, seen) for seen in places(graph, owner, source, name))
    yield from (seen if operand.view is None else operand.view.apply(seen, lead=0) for seen in found)


def shown(graph: Graph, node: Node, number: int, elements: np.ndarray) -> np.ndarray:
    """Elements at the places of one operand, at those of the value of a node that routes events; -1 where it has
    none."""
    if node.op.kind != "concat":
        return elements
    absent = [np.full(t.shape, -1) for t in graph.input_types(node)]
    return np.concatenate([*absent[:number], elements, *absent[number + 1 :]], axis=getattr(node.op, "axis", 0))
