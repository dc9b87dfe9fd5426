"""Two hundred random torch networks against every engine; ten thousand with ``cd tests && python -m oracle 10000``."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from oracle.compare import compare, search, traced
from oracle.networks import Network

#: Networks per chunk; ``QKF_ORACLE_DRAWS=500`` makes ten thousand of them.
DRAWS = int(os.environ.get("QKF_ORACLE_DRAWS", "10"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_networks(seed: int) -> None:
    """At 32 bits every spike is that of float64 torch, and every engine gives the reference's integers."""
    outcomes = list(search(seed, 1, DRAWS, bits=(32, (4, 8, 16, 24)[seed % 4])))
    assert [(o.case, o.faults) for o in outcomes if o.faults] == []
    assert all(o.compared or o.refused for o in outcomes)


def test_most_networks_are_compared() -> None:
    """Networks are left out by how near their membranes come to a threshold, not by their result; that is the few."""
    outcomes = list(search(300, 4, 5, bits=(32,)))
    assert sum(not o.close and not o.refused for o in outcomes) >= 10


def test_a_changed_weight_is_seen() -> None:
    """Guards the others: a network whose weights are off is a fault."""
    network = Network(2)
    graph = traced(network)
    conv = next(n for n in graph if "weight" in n.params)
    wrong = replace(conv, params={**conv.params, "weight": conv.params["weight"] * np.float64(1.2)})
    out = compare(network, replace(graph, nodes={**graph.nodes, conv.name: wrong}), (2, 0), (8,))
    assert out.close or any(fault.startswith("traced") for fault in out.faults)
