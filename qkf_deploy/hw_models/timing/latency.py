"""Time of one image on a mapped network, where it goes, and how busy the cores are.

Within a step every core goes through its neurons, so its messages come evenly spread over that time; a core that takes
messages is a queue with one server, and so is a link. A queue whose work arrives evenly is done at

    max over the ends G of its senders (and the first arrival):  G + what arrives after G

(the longest uninterrupted stretch of work that ends the step), never before its own work alone takes, nor before its
last message is there. A step ends with the last core and link; then comes the barrier. Senders that wait for one
receiver, and so are late for the others, are not in it: single steps can be longer (docs/hardware.md says how much).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qkf_deploy.hw_models.timing.steps import Schedule, StepTimes, step_energy, step_times

#: What a step waits for.
REASONS = ("neurons", "messages", "links", "barrier")


@dataclass(frozen=True, eq=False)
class Latency:
    """Times of one image.

    Attributes:
        step_ns: of every step of the chip, barrier included.
        bound_ns: of every step: no schedule is faster (the busiest core alone, the busiest link alone).
        reason_ns: time of all steps by what they waited for, of :data:`REASONS`; adds up to the latency.
        unit: name of the unit on each core; ``input`` for the last.
        busy: share of the latency that each core works, ``(cores,)``: the longer of its neurons and its messages.
        period_ns: between two images when they follow one another.
        network_pj: energy of making, moving and taking messages; without what the chip file has no price for.
        left_out: operations for which the chip file has no time; with any, all of this is a lower bound.
    """

    step_ns: np.ndarray
    bound_ns: np.ndarray
    reason_ns: dict[str, float]
    unit: tuple[str, ...]
    busy: np.ndarray
    period_ns: float
    network_pj: Fraction
    left_out: tuple[str, ...]

    @property
    def latency_ns(self) -> float:
        """From the first step of the image to the end of its last."""
        return float(self.step_ns.sum())

    @property
    def images_per_second(self) -> float:
        """Throughput of a stream of images."""
        return 1e9 / self.period_ns if self.period_ns else float("inf")


def latency(schedule: Schedule) -> Latency:
    """Time of one image under a schedule."""
    times = step_times(schedule)
    steps = [_step(schedule, times, number) for number in range(schedule.steps)]
    barrier, energy = times.barrier / times.per_ns, step_energy(schedule)
    waits = {"neurons": 0.0, "messages": 0.0, "links": 0.0, "barrier": barrier * len(steps)}
    for whole, _, reason in steps:
        waits[reason] += whole
    step_ns = np.array([whole for whole, _, _ in steps]) + barrier
    work = np.maximum(times.generate, times.receive).sum(axis=0) / times.per_ns
    total = float(step_ns.sum())
    return Latency(
        step_ns,
        np.array([bound for _, bound, _ in steps]) + barrier,
        waits,
        schedule.traffic.unit,
        work / total if total else np.zeros(len(work)),
        _period(schedule, total),
        energy["messages"] + energy["hops"],
        times.left_out,
    )


def _period(schedule: Schedule, latency_ns: float) -> float:
    """Time between images. A pipeline takes one every T steps, with all its stages at work; else one after another."""
    traffic = schedule.traffic
    stages = int(traffic.stage.max()) + 1
    if schedule.steps == traffic.time_steps * stages and stages > 1:
        return latency_ns
    steady = Schedule(schedule.chip, schedule.mesh, traffic.wrapped(), traffic.time_steps, np.zeros_like(traffic.stage))
    times = step_times(steady)
    barrier = times.barrier / times.per_ns
    return sum(_step(steady, times, number)[0] + barrier for number in range(steady.steps))


def _step(schedule: Schedule, times: StepTimes, number: int) -> tuple[float, float, str]:
    """(time without the barrier, lower bound, what it waited for) of one step."""
    generate, receive, links = (x[number] / times.per_ns for x in (times.generate, times.receive, times.links))
    ends, last = _queues(schedule, number, generate, receive)
    found = {"neurons": float(generate.max()), "messages": max(ends, default=0.0), "links": float(links.max(initial=0))}
    if found["links"]:
        found["links"] += last
    reason = max(found, key=found.__getitem__)
    bound = max(float(generate.max()), float(receive.max()), float(links.max(initial=0)))
    return found[reason], bound, reason


def _queues(schedule: Schedule, number: int, generate: np.ndarray, receive: np.ndarray) -> tuple[list[float], float]:
    """When each core that gets messages is done, and the shortest way of a message."""
    arrivals: dict[int, list[tuple[int, float, float, float]]] = {}
    for send, ways in zip(schedule.traffic.sends, schedule.ways_ns, strict=True):
        step = number - int(schedule.start[send.source])
        events = float(send.events[step]) if 0 <= step < len(send.events) else 0.0
        for target, fan_out, way in zip(send.targets, send.all_fan_out, ways, strict=True) if events else ():
            arrivals.setdefault(target, []).append((send.source, events, events * (1.0 + fan_out), way))
    ends = []
    for target, found in arrivals.items():
        sources, counts, work, way = (np.array(column) for column in zip(*found, strict=True))
        work *= receive[target] / work.sum()
        through = generate[sources]  # when the sender has gone through all its neurons
        after = np.array([(work * np.clip(1 - g / np.maximum(through, 1e-12), 0, 1)).sum() for g in through])
        first = float((through / counts / 2 + way).min())
        ends.append(max(first + float(work.sum()), float((through + way + after + work / counts).max())))
    return ends, min((way for found in arrivals.values() for *_, way in found), default=0.0)
