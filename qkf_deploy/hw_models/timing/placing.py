"""Which core stands where on the mesh: cores that exchange many messages near one another."""

from __future__ import annotations

import networkx as nx
import numpy as np

from qkf_deploy.hw_models.architecture.chip import Chip
from qkf_deploy.hw_models.timing.mesh import Mesh, in_order
from qkf_deploy.hw_models.timing.traffic import INPUT, Traffic

#: Passes over all pairs of cores; each keeps every exchange of places that shortens the ways.
_PASSES = 20
#: More cores stay where the walk puts them.
_MOST_EXCHANGED = 1000


def by_traffic(chip: Chip, traffic: Traffic) -> Mesh:
    """Places such that messages x hops is small; never more than in order of computation.

    Cores go along a snake over the tiles in the order of a walk through the heaviest links (maximum spanning tree);
    from there, and from the order of computation, places are exchanged while that shortens the ways. Only cores of one
    kind exchange places. With multicast the ways to several targets are counted apart.

    Raises:
        UsageError: the chip file says nothing of a network.
    """
    first = in_order(chip, traffic)
    weights = exchanged(traffic)
    starts = [np.array(first.place)]
    if len(chip.cores) == 1:
        starts.append(_along_a_walk(first, weights, traffic))
    kinds = [core.kind for core in chip.cores]
    kind = np.array([kinds.index(chip.core_at(max(p, 0)).kind) for p in first.place])
    found = [_exchanged_places(first, weights, place, kind) for place in starts]
    best = min(found, key=lambda place: ways(first, weights, place))
    return Mesh(first.network, first.cores_per_chip, tuple(best.tolist()))


def exchanged(traffic: Traffic) -> np.ndarray:
    """Messages between each two cores, both directions together, ``(cores, cores)``."""
    out = np.zeros((traffic.cores, traffic.cores), np.int64)
    for send in traffic.sends:
        for target in send.targets:
            out[send.source, target] += send.events.sum()
    return out + out.T


def ways(mesh: Mesh, weights: np.ndarray, place: np.ndarray) -> int:
    """Messages x hops."""
    return int((weights * _hops(mesh, place)).sum()) // 2


def _hops(mesh: Mesh, place: np.ndarray) -> np.ndarray:
    at = Mesh(mesh.network, mesh.cores_per_chip, tuple(place.tolist()))
    tiles = np.array([at.tile(core) for core in range(len(place))])
    return np.abs(tiles[:, None] - tiles[None, :]).sum(axis=2)


def _along_a_walk(mesh: Mesh, weights: np.ndarray, traffic: Traffic) -> np.ndarray:
    """Places along a snake in the order of a walk through the heaviest links from the input."""
    graph: nx.Graph = nx.Graph()
    graph.add_nodes_from(range(traffic.cores))
    graph.add_weighted_edges_from((a, b, weights[a, b]) for a, b in np.argwhere(np.triu(weights)).tolist())
    tree = nx.maximum_spanning_tree(graph)
    walk = list(nx.dfs_preorder_nodes(tree, traffic.cores - 1))
    walk += [core for core in range(traffic.cores) if core not in set(walk)]
    places = np.array([core for core in mesh.place if core >= 0])
    snake = sorted(places.tolist(), key=lambda place: _snake(mesh, place))
    out = np.array(mesh.place)
    for core, place in zip([c for c in walk if traffic.unit[c] != INPUT], snake, strict=True):
        out[core] = place
    return out


def _snake(mesh: Mesh, place: int) -> tuple[int, int, int, int]:
    chip, within = divmod(place, mesh.cores_per_chip)
    row, column = divmod(within // mesh.network.cores_per_tile, mesh.network.columns)
    return chip, row, column if row % 2 == 0 else -column, within


def _exchanged_places(mesh: Mesh, weights: np.ndarray, place: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Exchanges of two places, the best for each core in turn, while any shortens the ways."""
    place, hops = place.copy(), _hops(mesh, place)
    movable = np.flatnonzero(place >= 0)
    for _ in range(_PASSES if len(movable) <= _MOST_EXCHANGED else 0):
        moved = False
        for core in movable.tolist():
            now = weights[core] @ hops[core] + (weights * hops).sum(axis=1)
            then = hops @ weights[core] + weights @ hops[core] + 2 * weights[core] * hops[core]
            gain = np.where((place >= 0) & (kind == kind[core]), now - then, 0)
            gain[core] = 0
            other = int(gain.argmax())
            if gain[other] > 0:
                pair = [core, other]
                place[pair] = place[pair[::-1]]
                hops[pair] = hops[pair[::-1]]
                hops[:, pair] = hops[:, pair[::-1]]
                moved = True
        if not moved:
            break
    return place
