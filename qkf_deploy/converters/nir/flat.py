"""Nested NIR graphs as one acyclic list of nodes."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from qkf_deploy.converters.nir.safety import MAX_NODES, RawGraph, RawNode
from qkf_deploy.errors import InputError, UnsupportedError


@dataclass(frozen=True)
class FlatGraph:
    """A NIR graph without nested graphs, in an order in which every node follows its sources.

    Attributes:
        nodes: by name.
        sources: names of what enters each node.
        metadata: of the outermost graph.
        version: of nir, as the file says; "" where it does not.
    """

    nodes: Mapping[str, RawNode]
    sources: Mapping[str, tuple[str, ...]]
    metadata: Mapping[str, str] = field(default_factory=dict)
    version: str = ""

    def readers(self, name: str) -> list[str]:
        """Nodes that a node feeds."""
        return self._readers.get(name, [])

    @cached_property
    def _readers(self) -> dict[str, list[str]]:
        out: dict[str, list[str]] = {}
        for target, sources in self.sources.items():
            for source in sources:
                out.setdefault(source, []).append(target)
        return out


def flatten_graphs(graph: RawGraph, version: str = "") -> FlatGraph:
    """Nested graphs inlined as ``outer.inner``.

    Raises:
        InputError: too many nodes, duplicate edges, not exactly one input and output.
        UnsupportedError: recurrent connections, with the nodes of one cycle.
    """
    nodes: dict[str, RawNode] = {}
    edges: list[tuple[str, str]] = []
    _inline(graph, "", nodes, edges)
    if len(nodes) > MAX_NODES:
        raise InputError(f"more than {MAX_NODES} nodes")
    if len(set(edges)) != len(edges):
        raise InputError("the same edge twice; NIR adds what meets at a node, and names every source once")
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        sources[target].append(source)
    try:
        order = list(graphlib.TopologicalSorter(sources).static_order())
    except graphlib.CycleError as error:
        cycle = " -> ".join(error.args[1][:8])
        raise UnsupportedError(
            f"recurrent connections: {cycle}", hint="only feed-forward networks are simulated here"
        ) from error
    ordered = {n: tuple(sorted(s)) for n, s in sources.items()}
    return FlatGraph({n: nodes[n] for n in order}, ordered, graph.metadata, version)


def _inline(graph: RawGraph, prefix: str, nodes: dict[str, RawNode], edges: list[tuple[str, str]]) -> None:
    entry: dict[str, str] = {}
    leave: dict[str, str] = {}
    for name, node in graph.nodes.items():
        label = f"{prefix}{name}"
        if isinstance(node, RawGraph):
            refuse_marker(node.metadata, label)
            _inline(node, f"{label}.", nodes, edges)
            entry[name], leave[name] = (_only(node, kind, label) for kind in ("Input", "Output"))
        else:
            nodes[label] = node
            entry[name] = leave[name] = label
    edges += [(leave[a], entry[b]) for a, b in graph.edges]


def _only(graph: RawGraph, kind: str, label: str) -> str:
    found = [n for n, node in graph.nodes.items() if isinstance(node, RawNode) and node.type == kind]
    if len(found) != 1:
        raise InputError(f"a nested graph with {len(found)} {kind} nodes, exactly one is read", where=label)
    return f"{label}.{found[0]}"


def refuse_marker(metadata: Mapping[str, str], label: str) -> None:
    """Raises UnsupportedError for a stand-in of an annotated file."""
    if '"reason"' in metadata.get("qkf", "") or '"role": "operand"' in metadata.get("qkf", ""):
        raise UnsupportedError(
            "a stand-in for an operator that NIR lacks; the sidecar that says which is gone or was ignored",
            where=label,
            hint="import the file as it was exported, without --stock",
        )
