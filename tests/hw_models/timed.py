"""Networks on chips with measured traffic, for the tests of time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from netbuild import Net

import qkf_deploy as qd
from qkf_deploy.hw_models.architecture.chip import Chip
from qkf_deploy.hw_models.architecture.reading import load_chip
from qkf_deploy.hw_models.mapping import map_network
from qkf_deploy.hw_models.timing.mesh import Mesh, in_order
from qkf_deploy.hw_models.timing.steps import Schedule
from qkf_deploy.hw_models.timing.traffic import Traffic, measured_traffic
from qkf_deploy.ir import Graph

#: Loihi's prices as in SANA-FE's file, on a core that executes every operator.
LOIHI = load_chip(Path(__file__).parents[1] / "data" / "loihi-like.toml")


def three_layers(shape: tuple[int, int, int] = (2, 6, 6), channels: tuple[int, int] = (4, 4), kernel: int = 3) -> Graph:
    """Two convolutions with neurons and a classifier, on event frames."""
    net = Net(0, shape, frames=True)
    kind = dict(kernel=kernel, padding=kernel // 2)
    spikes = net.lif("a", net.conv("conv_a", "input", channels[0], **kind))
    net.head(net.lif("b", net.conv("conv_b", spikes, channels[1], **kind)))
    return qd.quantize(net.build())


def frames(graph: Graph, seed: int = 0, rate: float = 0.4) -> np.ndarray:
    """One random recording."""
    rng = np.random.default_rng(seed)
    return (rng.random((1, graph.time_steps, *graph.input.type.shape)) < rate).astype(np.int64)


def traffic_of(graph: Graph, images: np.ndarray, chip: Chip, image: int = 0) -> Traffic:
    run = qd.simulate(graph, images, engine="reference", record=["events", "input"])
    return measured_traffic(graph, map_network(graph, chip), run.values, image)


def pipelined(chip: Chip, traffic: Traffic, place: tuple[int, ...] = ()) -> Schedule:
    """A pipeline with cores in order, or on given places."""
    assert chip.network is not None
    mesh = Mesh(chip.network, chip.cores_per_chip, place) if place else in_order(chip, traffic)
    return Schedule.pipelined(chip, mesh, traffic)
