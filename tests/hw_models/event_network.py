"""Cores and links as processes that wait for one another (SimPy): an independent account of the time of one step.

A core goes through its neurons; one that fires sends its messages, one after another. Every link and every core has a
queue of limited length and one server; who finds a queue full waits and holds up what is behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import simpy

from qkf_deploy.hw_models.timing.mesh import EAST, NORTH
from qkf_deploy.hw_models.timing.steps import SYNAPTIC, Schedule


@dataclass(eq=False)
class EventNetwork:
    """One step of a schedule; see :func:`simulate_step`."""

    schedule: Schedule
    step: int
    queue: int
    sent: int = 0
    delivered: int = 0
    env: simpy.Environment = field(default_factory=simpy.Environment)
    queues: dict[tuple, simpy.Store] = field(default_factory=dict)
    finished: float = 0.0

    def ns(self, core: int, name: str, layer: str = "") -> float:
        operation = self.schedule.core(core).operation(name, layer)
        batch = None if operation is None else self.schedule.chip.batch_ns(operation)
        return 0.0 if operation is None or batch is None else float(batch) / (operation.lanes or 1)

    def store(self, key: tuple) -> simpy.Store:
        """Queue in front of a link or a core, with its server."""
        if key not in self.queues:
            self.queues[key] = simpy.Store(self.env, capacity=self.queue)
            self.env.process(self.take(key) if key[0] == "core" else self.pass_on(key))
        return self.queues[key]

    def neurons(self, core: int, firing: np.ndarray, messages: list[tuple[float, tuple, float]]) -> Iterator:
        """A core goes through its neurons and sends; messages: (place among the neurons, path, work at the target)."""
        update = self.ns(core, "neuron") + self.ns(core, "neuron_driven")
        pooling = int(self.schedule.traffic.comparisons[core]) * self.ns(core, "compare")
        update += pooling / len(firing) if len(firing) else 0.0
        fire, send = self.ns(core, "neuron_fire"), self.ns(core, "send")
        waiting = sorted(messages, key=lambda m: m[0])
        count, at = len(firing), 0
        for neuron in range(max(count, 1)):
            if count:
                yield self.env.timeout(update + fire * bool(firing[neuron]))
            while at < len(waiting) and (waiting[at][0] < (neuron + 1) / max(count, 1) or neuron + 1 >= count):
                _, path, work = waiting[at]
                yield self.env.timeout(send)
                self.sent += 1
                yield self.store(path[0]).put((path, 0, work))
                at += 1
        self.finished = max(self.finished, self.env.now)

    def pass_on(self, key: tuple) -> Iterator:
        across = self.schedule.hop_ns[EAST if key[1] < 2 else NORTH] or 0
        while True:
            path, position, work = yield self.queues[key].get()
            yield self.env.timeout(float(across))
            yield self.store(path[position + 1]).put((path, position + 1, work))

    def take(self, key: tuple) -> Iterator:
        while True:
            _, _, work = yield self.queues[key].get()
            yield self.env.timeout(work)
            self.delivered += 1
            self.finished = max(self.finished, self.env.now)


def simulate_step(schedule: Schedule, step: int, queue: int) -> EventNetwork:
    """One step, from empty queues to empty queues; the barrier is not in it.

    Args:
        schedule: of measured traffic, without multicast.
        step: of the chip.
        queue: messages that a link or a core holds besides the one it serves.
    """
    network, mesh, traffic = EventNetwork(schedule, step, queue), schedule.mesh, schedule.traffic
    messages: dict[int, list[tuple[float, tuple, float]]] = {}
    for send in traffic.sends:
        t = step - int(schedule.start[send.source])
        events = int(send.events[t]) if 0 <= t < traffic.time_steps else 0
        for place, target in enumerate(send.targets):
            path = (*(("link", *link) for link in mesh.links(replace(send, targets=(target,)))), ("core", target))
            work = network.ns(target, "receive")
            work += sum(counts[place] * network.ns(target, *SYNAPTIC[kind]) for kind, counts in send.fan_out.items())
            # events of one stream are spread evenly; of one event to several cores in order
            messages.setdefault(send.source, []).extend(((i + 0.5) / events, path, work) for i in range(events))
    for core, fired in enumerate(schedule.fired()[step].tolist()):
        count = int(traffic.neurons[core])
        firing = np.zeros(count, bool)
        firing[(2 * np.arange(fired) + 1) * count // (2 * fired) if fired else []] = True
        network.env.process(network.neurons(core, firing, messages.get(core, [])))
    network.env.run()
    return network
