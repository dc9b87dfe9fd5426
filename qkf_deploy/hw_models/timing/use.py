"""What images ask of the network between cores, and how long they take: sums over images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qkf_deploy.hw_models.mapping import CoreMapping
from qkf_deploy.hw_models.timing.latency import latency
from qkf_deploy.hw_models.timing.mesh import EAST, WEST
from qkf_deploy.hw_models.timing.network import schedule_of
from qkf_deploy.ir import Graph


@dataclass(frozen=True)
class NetworkUse:
    """Messages and times of a network whose layers have cores of their own, stages at work at once.

    Attributes:
        images: summed over.
        messages: given to the network and taken from it, by (``send`` or ``receive``, kind of core).
        hops: messages over links, by ``east_west`` and ``north_south``.
        latency_ns, period_ns: of the images one by one, and between images that follow one another.
        waits_ns: the latency by what it waited for.
        busy_ns: time that each core works.
        untimed: what the chip file gives no time for.
    """

    images: int
    messages: Mapping[tuple[str, str], int]
    hops: Mapping[str, int]
    latency_ns: Fraction
    period_ns: Fraction
    waits_ns: Mapping[str, Fraction]
    busy_ns: tuple[Fraction, ...]
    untimed: tuple[str, ...]

    def __add__(self, other: NetworkUse) -> NetworkUse:
        return NetworkUse(
            self.images + other.images,
            Counter(self.messages) + Counter(other.messages),
            Counter(self.hops) + Counter(other.hops),
            self.latency_ns + other.latency_ns,
            self.period_ns + other.period_ns,
            {name: ns + other.waits_ns[name] for name, ns in self.waits_ns.items()},
            tuple(a + b for a, b in zip(self.busy_ns, other.busy_ns, strict=True)),
            tuple(sorted({*self.untimed, *other.untimed})),
        )


def network_use(graph: Graph, mapping: CoreMapping, values: Mapping[str, np.ndarray], image: int = 0) -> NetworkUse:
    """One image; arguments and errors as of :func:`qkf_deploy.hw_models.timing.network.schedule_of`."""
    schedule = schedule_of(graph, mapping, values, image)
    found = latency(schedule)
    messages: Counter[tuple[str, str]] = Counter()
    for name, counts in (("send", schedule.sent()), ("receive", schedule.received())):
        for core, count in enumerate(counts.sum(axis=0)):
            messages[name, schedule.core(core).kind] += int(count)
    hops: Counter[str] = Counter()
    for direction, load in enumerate(np.moveaxis(schedule.loads(), 1, 0)):
        hops["east_west" if direction in (EAST, WEST) else "north_south"] += int(load.sum())
    whole = Fraction(found.latency_ns)
    return NetworkUse(
        1,
        messages,
        hops,
        whole,
        Fraction(found.period_ns),
        {name: Fraction(ns) for name, ns in found.reason_ns.items()},
        tuple(Fraction(float(share)) * whole for share in found.busy),
        found.left_out,
    )
