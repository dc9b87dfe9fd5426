"""The network as a layered drawing: rows by longest path, order within a row by the barycentre of the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

_ROW, _HEIGHT, _GAP, _MARGIN = 40.0, 22.0, 18.0, 14.0
_CHARACTER = 6.9
_STYLES = {
    "conv": "synapse",
    "linear": "synapse",
    "matmul": "gate",
    "mask": "gate",
    "sum": "gate",
    "neuron": "neuron",
    "integer_neuron": "neuron",
    "add": "add",
    "concat": "add",
}


@dataclass(frozen=True)
class DrawnNode:
    """A box: ``id`` is unique and safe in an address, ``x`` and ``y`` its top left corner in pixels."""

    id: str
    name: str
    label: str
    style: str
    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Drawing:
    """Boxes and edge paths (SVG path data) with the size of the picture."""

    nodes: tuple[DrawnNode, ...]
    edges: tuple[str, ...]
    width: float
    height: float


def draw(nodes: Sequence[Mapping[str, Any]]) -> Drawing:
    """Lay out a graph summary's nodes (``name``, ``op``, ``inputs``)."""
    graph: nx.DiGraph = nx.DiGraph()
    for node in nodes:
        graph.add_node(node["name"])
        graph.add_edges_from((source, node["name"]) for source in node["inputs"])
    position = {node["name"]: i for i, node in enumerate(nodes)}
    centres = _place([sorted(row, key=position.__getitem__) for row in nx.topological_generations(graph)], graph)
    left = min(x - _width(name) / 2 for name, (x, _) in centres.items()) - _MARGIN
    boxes = tuple(
        DrawnNode(
            f"node-{i}", n["name"], n["name"], _STYLES.get(n["op"], "other"),
            round(centres[n["name"]][0] - _width(n["name"]) / 2 - left, 1), centres[n["name"]][1], _width(n["name"]),
        )
        for i, n in enumerate(nodes)
    )  # fmt: skip
    by_name = {box.name: box for box in boxes}
    edges = tuple(_edge(by_name[a], by_name[b]) for a, b in graph.edges)
    reach = max((box.x + box.width for box in boxes), default=0.0)
    bow = max((_bow(by_name[a], by_name[b]) for a, b in graph.edges), default=0.0)
    bottom = max((box.y for box in boxes), default=0.0) + _HEIGHT + _MARGIN
    return Drawing(boxes, edges, round(reach + bow * 0.75 + _MARGIN, 1), round(bottom, 1))


def _width(name: str) -> float:
    return round(len(name) * _CHARACTER + 16, 1)


def _place(rows: Sequence[Sequence[str]], graph: nx.DiGraph) -> dict[str, tuple[float, float]]:
    centres: dict[str, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        wanted = {n: _barycentre(n, graph, centres) for n in row}
        order = sorted(row, key=wanted.__getitem__)
        total = sum(_width(n) for n in order) + _GAP * (len(order) - 1)
        x = sum(wanted.values()) / len(wanted) - total / 2
        for name in order:
            centres[name] = (x + _width(name) / 2, _MARGIN + level * _ROW)
            x += _width(name) + _GAP
    return centres


def _barycentre(name: str, graph: nx.DiGraph, centres: Mapping[str, tuple[float, float]]) -> float:
    known = [centres[p][0] for p in graph.predecessors(name)]
    return sum(known) / len(known) if known else 0.0


def _span(a: DrawnNode, b: DrawnNode) -> int:
    return round((b.y - a.y) / _ROW)


def _bow(a: DrawnNode, b: DrawnNode) -> float:
    """How far an edge that skips rows swings out to the right, past the boxes between."""
    return 0.0 if _span(a, b) <= 1 else min(60.0 + 22.0 * _span(a, b), 320.0)


def _edge(a: DrawnNode, b: DrawnNode) -> str:
    x1, y1, x2, y2 = a.x + a.width / 2, a.y + _HEIGHT, b.x + b.width / 2, b.y
    bow = _bow(a, b)
    if not bow:
        middle = (y1 + y2) / 2
        return f"M{x1:.1f} {y1:.1f}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}"
    side1, side2 = a.x + a.width, b.x + b.width
    y1, y2 = a.y + _HEIGHT / 2, b.y + _HEIGHT / 2
    out = max(side1, side2) + bow
    return f"M{side1:.1f} {y1:.1f}C{out:.1f} {y1:.1f} {out:.1f} {y2:.1f} {side2:.1f} {y2:.1f}"
