"""Cores that talk stand near one another: never worse than in order, as good as every order tried on few cores."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from digits_network import DigitsNetwork
from netbuild import small_transformer
from timed import LOIHI, frames, three_layers, traffic_of

import qkf_deploy as qd
from qkf_deploy.hw_models.timing.mesh import in_order
from qkf_deploy.hw_models.timing.placing import by_traffic, exchanged, ways
from qkf_deploy.hw_models.timing.traffic import Traffic

#: One core per tile: every message between cores takes hops.
ONE = replace(LOIHI, network=replace(LOIHI.network, columns=16, rows=8, cores_per_tile=1))


def cut(graph: qd.Graph, images: np.ndarray, neurons: int) -> Traffic:
    return traffic_of(graph, images, replace(ONE, cores=(replace(ONE.cores[0], neurons_max=neurons),)))


def placed(chip, traffic: Traffic) -> tuple[int, int]:
    """Messages x hops in order of computation, and placed by traffic."""
    weights = exchanged(traffic)
    first, found = in_order(chip, traffic), by_traffic(chip, traffic)
    assert sorted(found.place) == sorted(first.place)
    return ways(first, weights, np.array(first.place)), ways(first, weights, np.array(found.place))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ways_are_never_longer_than_in_order(seed: int) -> None:
    graph = qd.quantize(small_transformer(seed))
    images = np.random.default_rng(seed).integers(0, 256, (1, *graph.input.type.shape), np.uint8)
    before, after = placed(ONE, cut(graph, images, 48))
    assert 0 < after < before


def test_as_good_as_every_order_of_few_cores() -> None:
    """Six cores on two rows of three tiles: all 720 orders."""
    graph = three_layers()
    chip = replace(ONE, network=replace(ONE.network, columns=3, rows=2))
    traffic = cut(graph, frames(graph), 72)
    assert traffic.cores - 1 == 5
    mesh, weights = in_order(chip, traffic), exchanged(traffic)
    best = min(ways(mesh, weights, np.array([*order, -1])) for order in permutations(range(5)))
    assert placed(chip, traffic)[1] == best


def test_digits(network: DigitsNetwork) -> None:
    traffic = traffic_of(network.integer_graph, network.pixels[:1], ONE)
    before, after = placed(ONE, traffic)
    assert after < 0.6 * before
    weights = exchanged(traffic)
    assert weights.sum() == 2 * traffic.sent().sum()  # every message once, seen from both ends


def test_kinds_of_cores_keep_their_places() -> None:
    graph = three_layers()
    traffic = cut(graph, frames(graph), 72)
    small = replace(ONE.cores[0], kind="small", count=2)
    chip = replace(ONE, cores=(small, replace(ONE.cores[0], kind="large")))
    found = by_traffic(chip, traffic)
    assert set(found.place[:2]) == {0, 1}
    assert found.place[-1] == -1
