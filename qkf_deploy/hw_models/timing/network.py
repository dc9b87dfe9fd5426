"""Time of a mapped network, from what one image did."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qkf_deploy.hw_models.mapping import CoreMapping
from qkf_deploy.hw_models.timing.latency import Latency, latency
from qkf_deploy.hw_models.timing.placing import by_traffic
from qkf_deploy.hw_models.timing.steps import Schedule
from qkf_deploy.hw_models.timing.traffic import measured_traffic
from qkf_deploy.ir import Graph


def schedule_of(
    graph: Graph, mapping: CoreMapping, values: Mapping[str, np.ndarray], image: int = 0, *, pipelined: bool = True
) -> Schedule:
    """The work of every core and step for one image; every layer has cores of its own, placed by traffic.

    Args:
        graph: integer graph.
        mapping: of that graph; every unit is placed.
        values: recorded values ``(T, B, *shape)`` (T = 1 where constant) of the input and of every node with events.
        image: which of them.
        pipelined: stages work at successive steps at once; else each does all T steps before the next begins.

    Raises:
        UsageError: a unit without cores, a value that was not recorded, or a chip of whose network nothing is known.
    """
    traffic = measured_traffic(graph, mapping, values, image)
    make = Schedule.pipelined if pipelined else Schedule.layer_by_layer
    return make(mapping.chip, by_traffic(mapping.chip, traffic), traffic)


def network_latency(
    graph: Graph, mapping: CoreMapping, values: Mapping[str, np.ndarray], image: int = 0, *, pipelined: bool = True
) -> Latency:
    """Latency, throughput and what the time is spent on; see :func:`schedule_of` for the arguments and errors."""
    return latency(schedule_of(graph, mapping, values, image, pipelined=pipelined))
