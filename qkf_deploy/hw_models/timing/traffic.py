"""Who sends what to whom at each time step: the events of one image between cores, followed element by element."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from qkf_deploy.errors import UnsupportedError, UsageError
from qkf_deploy.hw_models.gates import shown
from qkf_deploy.hw_models.mapping import CoreMapping, Placement, pieces
from qkf_deploy.hw_models.reach import connections
from qkf_deploy.hw_models.units import Unit, depths
from qkf_deploy.ir import Graph, Operand
from qkf_deploy.ir.values import Kind, Timing
from qkf_deploy.ops import Add, Concat, Mask, MaxPool
from qkf_deploy.ops.geometry import Axis

INPUT = "input"


@dataclass(frozen=True, eq=False)
class Send:
    """Events of one core that go to the same cores and cause the same there.

    Attributes:
        source: core.
        targets: cores.
        fan_out: operations that one event causes at each target, by kind of work
            (:func:`qkf_deploy.hw_models.reach.connections`).
        events: per time step, ``(T,)``; a graded event counts once.
    """

    source: int
    targets: tuple[int, ...]
    fan_out: Mapping[str, tuple[int, ...]]
    events: np.ndarray

    def operations(self, work: str) -> np.ndarray:
        """Of one kind, at each target and step, ``(T, targets)``."""
        return self.events[:, None] * np.array(self.fan_out.get(work, [0] * len(self.targets)))

    @property
    def all_fan_out(self) -> list[int]:
        """Operations of all kinds that one event causes at each target."""
        return [sum(counts) for counts in zip(*self.fan_out.values(), strict=True)]


@dataclass(frozen=True, eq=False)
class Traffic:
    """What the cores of a network do for one image.

    Attributes:
        unit: name of the unit on each core; ``input`` for the last, which stands for the source of the image.
        stage: of each core: units on the longest path from the input; its step t is step t + stage of the chip.
        neurons: held by each core; 0 for the input.
        comparisons: of max pooling of drives on each core at each step, whatever happens.
        fired: neurons of each core that fire at each step, ``(T, cores)``, whoever reads their events.
        sends: between cores.
    """

    unit: tuple[str, ...]
    stage: np.ndarray
    neurons: np.ndarray
    comparisons: np.ndarray
    fired: np.ndarray
    sends: tuple[Send, ...]

    @property
    def cores(self) -> int:
        """Number of cores, those of the input included."""
        return len(self.unit)

    @property
    def time_steps(self) -> int:
        """T."""
        return len(self.fired)

    def sent(self) -> np.ndarray:
        """Messages that leave each core, one per target of an event, ``(T, cores)``."""
        out = np.zeros_like(self.fired)
        for send in self.sends:
            out[:, send.source] += send.events * len(send.targets)
        return out

    def received(self) -> np.ndarray:
        """Messages that reach each core, ``(T, cores)``."""
        out = np.zeros_like(self.fired)
        for send in self.sends:
            out[:, list(send.targets)] += send.events[:, None]
        return out

    def wrapped(self) -> Traffic:
        """What happens within T steps of the chip when images follow one another: stage s works at step t - s."""

        def roll(per_step: np.ndarray, core: int) -> np.ndarray:
            return np.roll(per_step, int(self.stage[core]), axis=0)

        fired = np.stack([roll(self.fired[:, core], core) for core in range(self.cores)], axis=1)
        sends = (replace(s, events=roll(s.events, s.source)) for s in self.sends)
        return replace(self, fired=fired, sends=tuple(sends))

    def operations(self, work: str) -> np.ndarray:
        """Operations of one kind at each core, ``(T, cores)``."""
        out = np.zeros_like(self.fired)
        for send in self.sends:
            out[:, list(send.targets)] += send.operations(work)
        return out


@dataclass(frozen=True, eq=False)
class Emission:
    """Events of one node as another node sees them.

    Attributes:
        node: whose neurons fire.
        events: of its elements, bool ``(T, size)``: those that are sent on.
        elements: index of the element at each place of what is seen, ``(*shape)``; -1 where it is none of this node.
    """

    node: str
    events: np.ndarray
    elements: np.ndarray

    def same_events(self, other: Emission) -> bool:
        """Whether the same neurons fire at the same steps."""
        return self.node == other.node and np.array_equal(self.events, other.events)

    def seen_through(self, operand: Operand) -> Emission:
        """The same, through a view."""
        return self if operand.view is None else replace(self, elements=operand.view.apply(self.elements, lead=0))

    def seen(self) -> np.ndarray:
        """Where an event is seen, ``(T, *shape)``."""
        return self.events[:, np.maximum(self.elements, 0)] & (self.elements >= 0)

    def where(self, opened: np.ndarray) -> Emission:
        """The events that an open gate ``(T, *shape)`` lets pass."""
        passed = np.zeros_like(self.events)
        for step, places in zip(passed, self.seen() & opened, strict=True):
            step[self.elements[places]] = True
        return replace(self, events=passed)


def measured_traffic(graph: Graph, mapping: CoreMapping, values: Mapping[str, np.ndarray], image: int = 0) -> Traffic:
    """The events of one image, exactly.

    Args:
        graph: integer graph.
        mapping: of that graph; every unit is placed.
        values: recorded values ``(T, B, *shape)`` (T = 1 where constant) of the input and of every node with events.
        image: which of them.

    Raises:
        UsageError: a unit without cores, or a value that was not recorded.
        UnsupportedError: attention over several time steps.
    """
    if mapping.infeasible:
        names = ", ".join(p.unit.name for p in mapping.infeasible)
        raise UsageError(f"not on this chip: {names}", hint="`qkf-deploy map` names the limits; choose another chip")
    for name in graph.not_causal:
        raise UnsupportedError(
            "waits for several time steps; time is computed for networks that go step by step", where=name
        )
    return _Builder(graph, mapping, values, image).traffic()


class _Builder:
    def __init__(self, graph: Graph, mapping: CoreMapping, values: Mapping[str, np.ndarray], image: int) -> None:
        self.graph, self.mapping, self.values, self.image = graph, mapping, values, image
        self.found: dict[str, np.ndarray] = {}
        self.placed = {p.unit.name: p for p in mapping.placements}
        self.owner = {node: p.unit.name for p in mapping.placements for node in p.unit.nodes}

    def traffic(self) -> Traffic:
        cores = self.mapping.end + 1
        stages = depths(self.graph, tuple(p.unit for p in self.mapping.placements))
        unit, stage = [INPUT] * cores, np.zeros(cores, np.int64)
        neurons, comparisons = np.zeros(cores, np.int64), np.zeros(cores, np.int64)
        fired = np.zeros((self.graph.time_steps, cores), np.int64)
        for placement in self.mapping.placements:
            held = self.cores_of(placement.unit.name)
            events = self.events_of(placement.unit.name)
            if self.graph[placement.unit.name].type.timing is Timing.IMAGE:
                events = np.zeros_like(events)  # a result is read out, nothing fires
            here = slice(placement.first_core, placement.first_core + placement.cores)
            unit[here] = [placement.unit.name] * placement.cores
            stage[here] = stages[placement.unit.name]
            place = held.reshape(-1) - placement.first_core
            elements = np.bincount(place, minlength=placement.cores)
            neurons[here] = elements * placement.unit.neurons_per_output
            comparisons[here] = self.comparisons(placement.unit) * elements // held.size
            work = events + self.and_events(placement)
            fired[:, here] = [weighted_counts(place, step, placement.cores) for step in work]
        fired[:, -1] = self.events_of(self.graph.input.name).sum(axis=1)
        sends = [send for placement in self.mapping.placements for send in self.into(placement)]
        return Traffic(tuple(unit), stage, neurons, comparisons, fired, (*sends, *self.into_gates()))

    def and_events(self, placement: Placement) -> np.ndarray:
        """AND neurons that fire for each sum of a product, ``(T or 1, size)``: as many as the sum counts."""
        if placement.unit.neurons_per_output == 1:
            return np.zeros((1, 1), np.int64)
        value = self.values[placement.unit.name][:, self.image]
        return value.reshape(len(value), -1).astype(np.int64)

    def comparisons(self, unit: Unit) -> int:
        """Comparisons of max pooling of what the unit itself computes, at one step."""
        count = 0
        for node in (self.graph[name] for name in unit.nodes):
            if isinstance(node.op, MaxPool) and node.inputs[0].node in unit.nodes:
                count += _taps(node.op.axes(self.graph.input_types(node)[0].shape)) * node.type.shape[0]
        return count

    def cores_of(self, node: str) -> np.ndarray:
        """Core of each element of the value of a node, ``(*shape)``."""
        shape = self.graph[node].type.shape
        if self.graph[node].op.kind == "input":
            return np.full(shape, self.mapping.end)
        return pieces(self.placed[self.owner[node]]).reshape(shape)

    def events_of(self, node: str) -> np.ndarray:
        """Where a node sends an event, bool ``(T, size)``: not zero; pixels once, at the first step, whatever they
        are; drives (membrane shortcuts) at every step they exist."""
        if node in self.found:
            return self.found[node]
        kind, timing, size = (getattr(self.graph[node].type, k) for k in ("kind", "timing", "size"))
        events = self.found.setdefault(node, np.zeros((self.graph.time_steps, size), bool))
        if self.graph[node].op.kind == "input" and self.graph.input_encoding != "frames":
            events[0] = True
        elif kind is Kind.DRIVE:
            events[{Timing.CONSTANT: slice(1), Timing.IMAGE: slice(-1, None), Timing.STEP: slice(None)}[timing]] = True
        elif node not in self.values:
            raise UsageError(f"no events of {node} were recorded", hint='record="events" and "input"')
        else:
            found = self.values[node][:, self.image] != 0
            events[: len(found)] = found.reshape(len(found), -1)
        return events

    def emissions(self, operand: Operand) -> list[Emission]:
        """Whose events make up what an operand sees; additions and gates are routing."""
        node = self.graph[operand.node]
        if node.name in self.owner or node.op.kind == "input":
            elements = np.arange(node.type.size).reshape(node.type.shape)
            found = [Emission(node.name, self.events_of(node.name), elements)]
        elif isinstance(node.op, Add | Concat):
            found = [
                replace(emission, elements=shown(self.graph, node, number, emission.elements))
                for number, source in enumerate(node.inputs)
                for emission in self.emissions(source)
            ]
        else:
            gate, masked = node.inputs
            opened = np.zeros((self.graph.time_steps, *node.type.shape), bool)
            for emission in self.emissions(gate):
                opened |= emission.seen()
            opened ^= isinstance(node.op, Mask) and node.op.invert
            found = [emission.where(opened) for emission in self.emissions(masked)]
        return [emission.seen_through(operand) for emission in found]

    def into(self, placement: Placement) -> Iterator[Send]:
        """What one unit receives."""
        targets = range(placement.first_core, placement.first_core + placement.cores)
        known: list[tuple[Emission, dict[str, np.ndarray]]] = []
        for operand, work, counts in _counted(self.graph, placement.unit, pieces(placement), targets):
            for emission in self.emissions(operand):
                same = [kinds for other, kinds in known if other.same_events(emission)]  # read twice, sent once
                if not same:
                    known.append((emission, {}))
                kinds = (same or [known[-1][1]])[0]
                work = "" if placement.lowered and work in ("and", "compare") else work  # neurons add what comes
                kinds[work] = kinds.get(work, 0) + self.spread(emission, counts)
        for emission, kinds in known:
            yield from self.sends(emission, kinds, targets)

    def spread(self, emission: Emission, counts: np.ndarray) -> np.ndarray:
        """Counts ``(targets, *shape seen)`` moved to the elements of the node, ``(targets, size)``."""
        size, here = self.graph[emission.node].type.size, emission.elements >= 0
        elements = emission.elements[here]
        if here.all() and np.array_equal(elements, np.arange(size)):
            return counts.reshape(-1, size)
        return np.stack([weighted_counts(elements, row[here], size) for row in counts])

    def sends(self, emission: Emission, kinds: Mapping[str, np.ndarray], targets: range) -> Iterator[Send]:
        """Events to the cores of one unit, grouped by who sends and what they cause."""
        held = self.cores_of(emission.node).reshape(1, -1)
        groups, group = alike(np.concatenate([held, *kinds.values()]))
        events = np.stack([np.bincount(group[fired], minlength=groups.shape[1]) for fired in emission.events])
        for number, (source, *counts) in enumerate(groups.T.tolist()):
            fan_out = np.array(counts).reshape(len(kinds), len(targets))
            chosen = np.flatnonzero(fan_out.any(axis=0))
            if len(chosen):
                yield Send(
                    source,
                    tuple(targets[i] for i in chosen),
                    {work: tuple(row[chosen].tolist()) for work, row in zip(kinds, fan_out, strict=True)},
                    events[:, number],
                )

    def into_gates(self) -> Iterator[Send]:
        """A gate's events go to the cores that hold what it masks: one AND for each element there."""
        for node in self.graph:
            if not isinstance(node.op, Mask) or node.name in self.owner:
                continue
            gate, masked = node.inputs
            behind: dict[str, list[np.ndarray]] = {}
            for emission in self.emissions(masked):
                behind.setdefault(emission.node, []).append(emission.elements)
            for name, ways in behind.items():  # met by several ways, sent once
                if self.graph[name].op.kind == "input":
                    continue
                cores = self.cores_of(name).reshape(-1)
                held = np.stack([np.where(elements >= 0, cores[elements], -1) for elements in ways])
                targets = range(int(cores.min()), int(cores.max()) + 1)
                counts = np.stack([(held == core).sum(axis=0) for core in targets])
                for emission in self.emissions(gate):
                    # a gate is narrower than what it masks: its elements are repeated over the rest
                    wide = replace(emission, elements=np.broadcast_to(emission.elements, node.type.shape))
                    yield from self.sends(emission, {"and": self.spread(wide, counts)}, targets)


def alike(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different columns of an array of whole numbers, in lexicographic order, and which of them each column is:
    ``np.unique`` over columns, by one number for each instead of a comparison of rows."""
    code, most = np.zeros(rows.shape[1], np.int64), 1
    for row in rows:
        low, high = int(row.min()), int(row.max())
        if low == high:
            continue
        if high - low >= 2**31:
            row = np.unique(row, return_inverse=True)[1].reshape(-1)
            low, high = 0, int(row.max())
        if most * (high - low + 1) >= 2**62:
            code = np.unique(code, return_inverse=True)[1].reshape(-1)
            most = int(code.max()) + 1
        code = code * (high - low + 1) + (row - low)
        most *= high - low + 1
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    return rows[:, first], which.reshape(-1)


def weighted_counts(elements: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Sum of the weights at each of ``size`` elements, int64; exact where sums stay below 2^53."""
    return np.bincount(elements, weights, size).astype(np.int64)


def _taps(axes: tuple[Axis, ...]) -> int:
    """Existing taps of all windows."""
    return math.prod(int(axis.reads().sum()) for axis in axes)


def _counted(graph: Graph, unit: Unit, held: np.ndarray, targets: range) -> Iterator[tuple[Operand, str, np.ndarray]]:
    """(operand, kind of layer, connections of each element to each target core) of everything a unit reads."""
    per_core = [list(connections(graph, unit, held == core)) for core in targets]
    for same in zip(*per_core, strict=True):
        operand, layer, _ = same[0]
        yield operand, layer, np.stack([counts for _, _, counts in same])
