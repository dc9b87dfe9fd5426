"""What each core does in one step of a chip whose cores step together, and what that costs in time and energy.

The order of things is that of SANA-FE (Boyle et al., IEEE TCAD 44(8), 2025; `schedule.cpp` and `chip.cpp` of version
2.2.9): a core goes through its neurons and sends the events of those that fire; in parallel it takes the messages it
gets and executes their synaptic operations; a barrier ends the step. Its "simple" time of a step is the slowest of all
these, plus the barrier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from qkf_deploy.hw_models.architecture.chip import Chip, Core, Link, Operation
from qkf_deploy.hw_models.timing.mesh import EAST, NORTH, WEST, Mesh
from qkf_deploy.hw_models.timing.traffic import INPUT, Send, Traffic

#: Kind of a synaptic operation (see :func:`qkf_deploy.hw_models.reach.connections`) -> operation of a core, its layer.
SYNAPTIC: Mapping[str, tuple[str, str]] = {
    "conv": ("accumulate", "conv"),
    "linear": ("accumulate", "linear"),
    "multiply": ("multiply", ""),
    "and": ("and", ""),
    "compare": ("compare", ""),
    "": ("accumulate", ""),
}
_NEURON = ("neuron", "neuron_driven", "neuron_fire")


@dataclass(frozen=True, eq=False)
class Schedule:
    """The steps of a chip for one image, every core with the work of its own step.

    All neurons are updated at every step, as neurons with a bias or a membrane are.

    Attributes:
        chip, mesh, traffic: what runs where.
        steps: T + stages - 1: the image goes through the units one step apart (``pipelined``), or T x stages: a
            stage works only when the one before is done with all steps (``layer-by-layer``).
        start: step of the chip at which each core begins.
    """

    chip: Chip
    mesh: Mesh
    traffic: Traffic
    steps: int
    start: np.ndarray

    @staticmethod
    def pipelined(chip: Chip, mesh: Mesh, traffic: Traffic) -> Schedule:
        """Stage s does step t of the image while stage s + 1 does step t - 1."""
        stages = int(traffic.stage.max()) + 1
        return Schedule(chip, mesh, traffic, traffic.time_steps + stages - 1, traffic.stage)

    @staticmethod
    def layer_by_layer(chip: Chip, mesh: Mesh, traffic: Traffic) -> Schedule:
        """Stage s + 1 begins when stage s has done all T steps."""
        stages = int(traffic.stage.max()) + 1
        return Schedule(chip, mesh, traffic, traffic.time_steps * stages, traffic.stage * traffic.time_steps)

    @cached_property
    def ways_ns(self) -> list[list[float]]:
        """Time of a message of every send to each of its targets, on the empty network."""
        tiles = [self.mesh.tile(core) for core in range(self.traffic.cores)]
        across, along = (float(self.hop_ns[d] or 0) for d in (EAST, NORTH))
        return [
            [
                abs(tiles[t][0] - tiles[send.source][0]) * across + abs(tiles[t][1] - tiles[send.source][1]) * along
                for t in send.targets
            ]
            for send in self.traffic.sends
        ]

    @cached_property
    def hop_ns(self) -> tuple[Fraction | None, ...]:
        """Time of one message over one link, by direction; ``None`` where the chip file has none."""
        return tuple(
            None if k is None or k.ns is None else Fraction(k.ns) * _items(self.mesh, k) for k in _links(self.mesh)
        )

    @property
    def barrier_ns(self) -> Fraction:
        """Time of the barrier that ends a step."""
        table = self.mesh.network.barrier_ns
        return Fraction(table[min(self.mesh.tiles_in_use, len(table)) - 1]) if table else Fraction(0)

    def core(self, index: int) -> Core:
        """Kind of a core; the input stands in for a core of the first kind."""
        place = self.mesh.place[index]
        return self.chip.core_at(max(place, 0))

    def on_chip(self, per_step: np.ndarray, by: np.ndarray | None = None) -> np.ndarray:
        """``(T, cores)`` of the image's steps moved to the chip's steps, ``(steps, cores)``.

        Args:
            per_step: counts.
            by: first step of each column, that of the core by default.
        """
        start = self.start if by is None else by
        out = np.zeros((self.steps, per_step.shape[1]), per_step.dtype)
        for column, first in enumerate(start):
            out[first : first + len(per_step), column] = per_step[:, column]
        return out

    def fired(self) -> np.ndarray:
        """``(steps, cores)``; an input's events are not made by a neuron."""
        out = self.on_chip(self.traffic.fired)
        out[:, [u == INPUT for u in self.traffic.unit]] = 0
        return out

    def sent(self) -> np.ndarray:
        """Messages made by each core, ``(steps, cores)``."""
        out = np.zeros_like(self.traffic.fired)
        for send in self.traffic.sends:
            out[:, send.source] += send.events * self.mesh.messages(send)
        return self.on_chip(out)

    def received(self) -> np.ndarray:
        """Messages that reach each core at the step at which they are sent, ``(steps, cores)``."""
        return self._at_targets(lambda send: np.repeat(send.events[:, None], len(send.targets), axis=1))

    def operations(self, work: str) -> np.ndarray:
        """Operations of one kind at each core, ``(steps, cores)``."""
        return self._at_targets(lambda send: send.operations(work))

    def _at_targets(self, counts: Callable[[Send], np.ndarray]) -> np.ndarray:
        out = np.zeros((self.steps, self.traffic.cores), self.traffic.fired.dtype)
        for send in self.traffic.sends:
            first = self.start[send.source]
            out[first : first + len(send.events), list(send.targets)] += counts(send)
        return out

    def loads(self) -> np.ndarray:
        """Messages over each link, ``(steps, 4 directions, columns, rows)``."""
        out = np.zeros((self.steps, 4, self.mesh.columns, self.mesh.network.rows), self.traffic.fired.dtype)
        for send in self.traffic.sends:
            first = self.start[send.source]
            for direction, column, row in self.mesh.links(send):
                out[first : first + len(send.events), direction, column, row] += send.events
        return out


@dataclass(frozen=True, eq=False)
class StepTimes:
    """Times of every step, exact: whole numbers of ``1 / per_ns`` ns.

    Attributes:
        generate: going through the neurons of each core and sending, int64 ``(steps, cores)``.
        receive: taking messages and executing their operations, likewise.
        links: of the messages over each link, one after another, ``(steps, links)``.
        barrier: at the end of each step.
        per_ns: units in a nanosecond.
        left_out: what the chip file gives no time for: taken as no time, so the whole is a lower bound.
    """

    generate: np.ndarray
    receive: np.ndarray
    links: np.ndarray
    barrier: int
    per_ns: int
    left_out: tuple[str, ...]

    def simple_ns(self) -> list[Fraction]:
        """SANA-FE's "simple" time of every step: the slowest core, and the barrier."""
        slowest = np.maximum(self.generate.max(axis=1), self.receive.max(axis=1)) + self.barrier
        return [Fraction(int(whole), self.per_ns) for whole in slowest]


def step_times(schedule: Schedule) -> StepTimes:
    """Times of every step; see the module for the order of things."""
    clock = _Clock(schedule)
    neurons = np.broadcast_to(schedule.traffic.neurons, (schedule.steps, schedule.traffic.cores))
    generate = clock.time("neuron", neurons) + clock.time("neuron_driven", neurons)
    generate += clock.time("compare", np.broadcast_to(schedule.traffic.comparisons, neurons.shape))
    generate += clock.time("neuron_fire", schedule.fired()) + clock.time("send", schedule.sent())
    receive = clock.time("receive", schedule.received())
    for kind, (operation, layer) in SYNAPTIC.items():
        receive += clock.time(operation, schedule.operations(kind), layer)
    loads = schedule.loads()
    for direction, hop in enumerate(schedule.hop_ns):
        if hop is None and loads[:, direction].any():
            clock.missing.add("hop")
        loads[:, direction] *= clock.units(hop or Fraction(0))
    return StepTimes(
        generate,
        receive,
        loads.reshape(schedule.steps, -1),
        clock.units(schedule.barrier_ns),
        clock.per_ns,
        tuple(sorted(clock.missing)),
    )


class _Clock:
    """Counts -> exact times, core by core."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.missing: set[str] = set()
        chip = schedule.chip
        times = [chip.batch_ns(operation) for core in chip.cores for operation in core.operations.values()]
        self.per_ns = math.lcm(
            *(t.denominator for t in (*times, *schedule.hop_ns, schedule.barrier_ns) if t is not None)
        )

    def units(self, time_ns: Fraction) -> int:
        """A time of the chip file."""
        return int(time_ns * self.per_ns)

    def time(self, name: str, counts: np.ndarray, layer: str = "") -> np.ndarray:
        """Times of ``(steps, cores)`` items; lanes work on whole batches."""
        out = np.zeros(counts.shape, np.result_type(counts, np.int64))
        for column in np.flatnonzero(counts.any(axis=0)).tolist():
            operation = self.schedule.core(column).operation(name, layer)
            batch = None if operation is None else self.schedule.chip.batch_ns(operation)
            if operation is None or batch is None:
                if name not in ("neuron_driven", "neuron_fire"):  # on top of what a neuron takes anyway
                    self.missing.add(name)
                continue
            out[:, column] = -(-counts[:, column] // (operation.lanes or 1)) * self.units(batch)
        return out


def step_energy(schedule: Schedule) -> dict[str, Fraction]:
    """Energy of one image in pJ, by component: ``neurons``, ``synapses``, ``messages`` (made and taken), ``hops``.

    What the chip file gives no energy for is not in it; static power neither.
    """
    out: dict[str, Fraction] = {name: Fraction(0) for name in ("neurons", "synapses", "messages", "hops")}
    traffic = schedule.traffic
    rows = [("neurons", name, "", traffic.neurons * schedule.steps) for name in _NEURON[:2]]
    rows += [("neurons", "compare", "", traffic.comparisons * schedule.steps)]
    rows += [("neurons", "neuron_fire", "", schedule.fired().sum(axis=0))]
    rows += [("messages", "send", "", schedule.sent().sum(axis=0))]
    rows += [("messages", "receive", "", schedule.received().sum(axis=0))]
    rows += [("synapses", op, layer, schedule.operations(kind).sum(axis=0)) for kind, (op, layer) in SYNAPTIC.items()]
    for component, name, layer, counts in rows:
        for core, count in enumerate(counts):
            out[component] += int(count) * _pj(schedule.core(core).operation(name, layer))
    loads = schedule.loads()
    for direction, link in enumerate(_links(schedule.mesh)):
        if link is not None and link.pj is not None:
            out["hops"] += int(loads[:, direction].sum()) * _items(schedule.mesh, link) * Fraction(link.pj.nominal)
    return out


def _links(mesh: Mesh) -> list[Link | None]:
    names = ("east_west" if direction in (EAST, WEST) else "north_south" for direction in range(4))
    return [mesh.network.links.get(name) for name in names]


def _items(mesh: Mesh, link: Link) -> int:
    """How many of what a link is priced by are in one message."""
    return (mesh.network.message_bits or 1) if link.per == "bit" else 1


def _pj(operation: Operation | None) -> Fraction:
    return Fraction(0) if operation is None or operation.pj is None else Fraction(operation.pj.nominal)
