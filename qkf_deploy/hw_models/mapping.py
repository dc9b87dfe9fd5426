"""Mapping an integer network onto the cores of a chip: cores, memory, utilisation, traffic between cores.

Each unit (neurons with their synapses) is cut into equal pieces of channels x positions so that a piece fits a core;
pieces are placed in order of computation, a core holds one piece. Not an optimal placement: a compiler can
beat it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import networkx as nx

from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.architecture.chip import Chip, Core
from qkf_deploy.hw_models.reach import distinct_inputs
from qkf_deploy.hw_models.units import Unit, event_sources, unit_of, units
from qkf_deploy.ir import Graph
from qkf_deploy.ir.values import Kind
from qkf_deploy.ledger import Ledger


@dataclass(frozen=True)
class Placement:
    """One unit on cores.

    Attributes:
        unit: what.
        channel_groups, tiles: the cut; cores = their product.
        core: the kind of core.
        neurons_per_core, synapses_per_core, memory_per_core_bytes: of the fullest core.
        first_core: index of its first core over all chips.
        limits_broken: why it cannot be placed, empty where it can.
    """

    unit: Unit
    channel_groups: int
    tiles: int
    core: Core
    neurons_per_core: int
    synapses_per_core: int
    memory_per_core_bytes: int
    first_core: int
    limits_broken: tuple[str, ...] = ()

    @property
    def cores(self) -> int:
        """Number of cores; 0 where it cannot be placed."""
        return 0 if self.limits_broken else self.channel_groups * self.tiles


@dataclass(frozen=True)
class Traffic:
    """Events from one unit to another, mean per image.

    Attributes:
        source, target: unit names.
        events: events that leave the source for this target.
        messages: the same, once per core of the target that needs them.
        between_chips: messages whose target core is on another chip, source cores taken as equally busy.
    """

    source: str
    target: str
    events: Fraction
    messages: Fraction
    between_chips: Fraction


@dataclass(frozen=True)
class CoreMapping:
    """A network on a chip.

    Attributes:
        chip: the limits.
        placements: one per unit, in order.
        traffic: measured events between units; empty without a ledger.
        cores, chips: needed in all.
    """

    chip: Chip
    placements: tuple[Placement, ...]
    traffic: tuple[Traffic, ...]
    cores: int
    chips: int

    @property
    def infeasible(self) -> tuple[Placement, ...]:
        """Units that break a limit."""
        return tuple(p for p in self.placements if p.limits_broken)

    def utilisation(self, what: str) -> Fraction:
        """Share of ``neurons`` or ``memory`` used on the cores taken."""
        pairs = [
            (p.neurons_per_core, p.core.neurons_max)
            if what == "neurons"
            else (p.memory_per_core_bytes, p.core.memory_bytes)
            for p in self.placements
            for _ in range(p.cores)
        ]
        return Fraction(sum(used for used, _ in pairs), sum(limit for _, limit in pairs)) if pairs else Fraction(0)


def map_network(graph: Graph, chip: Chip, ledger: Ledger | None = None) -> CoreMapping:
    """Place a network.

    Args:
        graph: integer graph with widths.
        chip: limits.
        ledger: counts of a run of this graph, for the traffic.

    Raises:
        UsageError: a float graph.
    """
    if graph.arithmetic != "integer":
        raise UsageError("only integer networks can be mapped", hint="`qkf-deploy quantize` it first")
    placements, next_core = [], 0
    for unit in units(graph):
        placement = place(graph, unit, chip.cores[0], next_core)
        placements.append(placement)
        next_core += placement.cores
    chips = -(-next_core // chip.cores_per_chip)
    traffic = _traffic(graph, tuple(placements), chip, ledger) if ledger is not None else ()
    return CoreMapping(chip, tuple(placements), traffic, next_core, chips)


def place(graph: Graph, unit: Unit, core: Core, first_core: int = 0) -> Placement:
    """The cut of one unit with the fewest cores; ties go to fewer tiles (events then reach fewer cores)."""
    broken = _broken(graph, unit, core)
    for _, tiles, channels in sorted(_cuts(unit, core)):
        piece = _piece(unit, core, channels, tiles, first_core, broken)
        limit = core.axons_in_max
        if limit is None or all(inputs <= limit for inputs in _inputs_of_pieces(graph, piece)):
            return piece
    smallest = _piece(unit, core, 1, unit.positions, first_core, broken)
    return replace(smallest, limits_broken=(*broken, _smallest_does_not_fit(graph, smallest, core)))


def _cuts(unit: Unit, core: Core) -> Iterator[tuple[int, int, int]]:
    """(cores, tiles, channels of a core) of the cuts that fit; with fewer channels where inputs are limited."""
    for tiles in _tile_counts(unit):
        channels = _channels_that_fit(unit, core, -(-unit.positions // tiles))
        while channels:
            yield -(-unit.channels // channels) * tiles, tiles, channels
            channels = channels // 2 if core.axons_in_max is not None else 0


def most_inputs(graph: Graph, placement: Placement) -> int:
    """Distinct inputs of the core that reads most, over all tiles."""
    return max(_inputs_of_pieces(graph, placement))


def _inputs_of_pieces(graph: Graph, placement: Placement) -> Iterator[int]:
    """Every tile of the first and the last channels and some between: channel groups of one size read alike."""
    unit = placement.unit
    channels = -(-unit.channels // placement.channel_groups)
    positions = -(-unit.positions // placement.tiles)
    for group in _spread(-(-unit.channels // channels)):
        for tile in range(-(-unit.positions // positions)):
            piece = (
                slice(start, start + n) for start, n in ((group * channels, channels), (tile * positions, positions))
            )
            yield distinct_inputs(graph, unit, *piece)


def _spread(count: int, most: int = 5) -> list[int]:
    """All of ``count`` indices, or ``most`` of them from the first to the last."""
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)}) if count > most else list(range(count))


def _tile_counts(unit: Unit) -> list[int]:
    """Every number of tiles that makes a different tile size."""
    sizes = {-(-unit.positions // n) for n in range(1, math.isqrt(unit.positions) + 2)}
    sizes |= set(range(1, math.isqrt(unit.positions) + 2))
    return sorted({-(-unit.positions // size) for size in sizes if size <= unit.positions})


def _piece(unit: Unit, core: Core, channels: int, tiles: int, first_core: int, broken: tuple[str, ...]) -> Placement:
    groups = -(-unit.channels // channels)
    channels = -(-unit.channels // groups)  # equal pieces
    positions = -(-unit.positions // tiles)
    return Placement(
        unit,
        groups,
        tiles,
        core,
        channels * positions,
        _synapses(unit, core, channels, positions),
        -(-sum(_memory_bits(unit, core, channels, positions)) // 8),
        first_core,
        broken,
    )


def _synapses(unit: Unit, core: Core, channels: int, positions: int) -> int:
    if core.share_convolution_weights:
        return channels * unit.weights_per_channel
    return channels * positions * unit.connections_per_neuron


def _memory_bits(unit: Unit, core: Core, channels: int, positions: int) -> tuple[int, int]:
    """Bits of weights (with biases and thresholds) and of state."""
    weights = _synapses(unit, core, channels, positions) * unit.weight_bits + channels * unit.channel_bits
    state = channels * positions * (unit.state_bits + unit.leftover_bits)
    held = -(-unit.held_bits * channels * positions // (unit.channels * unit.positions))  # spread evenly
    return weights, state + held


def _channels_that_fit(unit: Unit, core: Core, positions: int) -> int:
    """Most channels of ``positions`` positions that one core holds; 0 if not even one."""
    low, high = 0, unit.channels
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(unit, core, middle, positions) else (low, middle - 1)
    return low


def _fits(unit: Unit, core: Core, channels: int, positions: int) -> bool:
    synapses = _synapses(unit, core, channels, positions)
    return (
        channels * positions <= core.neurons_max
        and (core.synapses_max is None or synapses <= core.synapses_max)
        and not core.memory_problem(*_memory_bits(unit, core, channels, positions))
    )


def _broken(graph: Graph, unit: Unit, core: Core) -> tuple[str, ...]:
    problems = []
    unsupported = sorted({graph[n].op.kind for n in unit.nodes} - core.supports - {"input", "output"})
    if unsupported:
        problems.append(f"not supported: {', '.join(unsupported)}")
    if unit.weight_bits > core.weight_bits_max:
        problems.append(f"{unit.weight_bits}-bit weights, at most {core.weight_bits_max}")
    if unit.state_bits > core.state_bits_max:
        problems.append(f"{unit.state_bits}-bit state, at most {core.state_bits_max}")
    if core.fan_in_max is not None and unit.connections_per_neuron > core.fan_in_max:
        problems.append(f"fan-in {unit.connections_per_neuron}, at most {core.fan_in_max}")
    return tuple(problems)


def _smallest_does_not_fit(graph: Graph, piece: Placement, core: Core) -> str:
    if core.synapses_max is not None and piece.synapses_per_core > core.synapses_max:
        return f"one neuron needs {piece.synapses_per_core} synapses, at most {core.synapses_max} per core"
    if problem := core.memory_problem(*_memory_bits(piece.unit, core, 1, 1)):
        return f"one neuron needs {problem}"
    return f"one neuron reads {most_inputs(graph, piece)} distinct inputs, at most {core.axons_in_max} per core"


def _traffic(graph: Graph, placements: tuple[Placement, ...], chip: Chip, ledger: Ledger) -> tuple[Traffic, ...]:
    by_name = {p.unit.name: p for p in placements if p.cores}
    owner = unit_of(tuple(p.unit for p in placements))
    flows: nx.DiGraph = nx.DiGraph()
    for placement in by_name.values():
        for source in placement.unit.sources:
            for unit, node in event_sources(graph, source, owner):
                _flow(flows, unit, placement.unit.name, _events(graph, ledger, node))
    for node in graph:  # a gate's spikes go to the core that holds what it masks
        if node.op.kind == "mask":
            gate, masked = (event_sources(graph, o.node, owner)[0] for o in node.inputs)
            _flow(flows, gate[0], masked[0], _events(graph, ledger, gate[1]))
    return tuple(_edge(a, b, d["events"], by_name, chip) for a, b, d in flows.edges(data=True) if b in by_name)


def _flow(flows: nx.DiGraph, source: str, target: str, events: Fraction) -> None:
    known = flows.get_edge_data(source, target, {"events": Fraction(0)})["events"]
    flows.add_edge(source, target, events=known + events)


def _events(graph: Graph, ledger: Ledger, node: str) -> Fraction:
    if graph[node].op.kind == "input":
        return Fraction(graph[node].type.size * (ledger.time_steps if graph.input_encoding == "frames" else 1))
    if graph[node].type.kind is Kind.DRIVE:  # a membrane shortcut sends every value at every step
        return Fraction(graph[node].type.size * ledger.time_steps)
    return Fraction(ledger[node].total("events_out_graded"), ledger.images)


def _edge(source: str, target: str, events: Fraction, placed: Mapping[str, Placement], chip: Chip) -> Traffic:
    goal = placed[target]
    copies = goal.channel_groups * tiles_reached(goal)
    messages = events * copies
    origin = placed.get(source)
    return Traffic(source, target, events, messages, messages * _other_chip(origin, goal, chip))


def tiles_reached(placement: Placement) -> Fraction:
    """Mean number of tiles that read one input position: tiles are bands of rows with a halo of the window."""
    tiles, halo = placement.tiles, placement.unit.halo
    if tiles == 1 or not halo:
        return Fraction(1)
    size_in, size_out, window, stride = halo[0]
    if tiles > size_out:  # tiles cut through rows: every position of the window may lie in a tile of its own
        return Fraction(min(tiles, window ** len(halo)))
    rows = -(-size_out // tiles)
    read = [min((min((t + 1) * rows, size_out) - t * rows - 1) * stride + window, size_in) for t in range(tiles)]
    return max(Fraction(sum(r for r in read if r > 0), size_in), Fraction(1))


def _other_chip(origin: Placement | None, goal: Placement, chip: Chip) -> Fraction:
    """Share of messages that leave a chip, when every source core is as busy as the next."""
    if origin is None or not origin.cores:
        return Fraction(0)
    per_chip = chip.cores_per_chip
    counts = []
    for placement in (origin, goal):
        on: dict[int, int] = {}
        for core in range(placement.first_core, placement.first_core + placement.cores):
            on[core // per_chip] = on.get(core // per_chip, 0) + 1
        counts.append(on)
    same = sum(counts[0][c] * counts[1].get(c, 0) for c in counts[0])
    return 1 - Fraction(same, origin.cores * goal.cores)
