"""Mapping an integer network onto the cores of a chip: cores, memory, utilisation, traffic between cores.

Each unit (neurons with their synapses) is cut into equal pieces of channels x positions so that a piece fits a core;
pieces are placed in order of computation, a core holds one piece. Not an optimal placement: a compiler can
beat it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import networkx as nx
import numpy as np

from qkf_deploy.hw_models.architecture.chip import Chip, Core
from qkf_deploy.hw_models.core_limits import broken_rules, fits, memory_bits, synapses
from qkf_deploy.hw_models.gates import cores_behind, gated
from qkf_deploy.hw_models.lowering import lowered
from qkf_deploy.hw_models.reach import distinct_inputs, groups_that_read
from qkf_deploy.hw_models.read_events import frame_events, share_read
from qkf_deploy.hw_models.units import Unit, event_sources, unit_of, units
from qkf_deploy.hw_models.whole_layers import one_each, whole_layer
from qkf_deploy.ir import Graph
from qkf_deploy.ir.needs import need_integers
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
        lowered: what the core does with neurons because it cannot do it otherwise.
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
    lowered: tuple[str, ...] = ()

    @property
    def cores(self) -> int:
        """Number of cores; 0 where it cannot be placed."""
        return 0 if self.limits_broken else self.channel_groups * self.tiles


@dataclass(frozen=True)
class Traffic:
    """Events from one unit to another, mean per image.

    Attributes:
        source, target: unit names.
        events: events that leave the source for this target; those that it does not read are not sent.
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
    def end(self) -> int:
        """Number behind the last core in use; cores of kinds that are not used in order leave gaps."""
        return max((p.first_core + p.cores for p in self.placements if p.cores), default=0)

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
    need_integers(graph, "only integer networks can be mapped")
    found, readers = units(graph), _readers(graph)
    placed: dict[str, Placement] = {}
    ways: dict[str, list[Placement]] = {}
    for unit in reversed(found):  # how many cores an event goes to is known when its readers are cut
        targets = [placed[name] for name in readers[unit.name] if name in placed]
        ways[unit.name] = [place(graph, unit, core, targets=targets) for core in chip.cores]
        placed[unit.name] = min(ways[unit.name], key=lambda p: (len(p.limits_broken), p.cores))
    if any(core.layer for core in chip.cores):
        placed = one_each(chip, ways)
    placements = _numbered(chip, [placed[unit.name] for unit in found])
    traffic = _traffic(graph, placements, chip, ledger) if ledger is not None else ()
    cores = sum(p.cores for p in placements)
    chips = -(-CoreMapping(chip, placements, (), cores, 0).end // chip.cores_per_chip)
    return CoreMapping(chip, placements, traffic, cores, chips)


def place(graph: Graph, unit: Unit, core: Core, targets: Sequence[Placement] = ()) -> Placement:
    """The cut of one unit with the fewest cores; ties go to fewer tiles (events then reach fewer cores).

    Args:
        graph: integer graph.
        unit: of it.
        core: the kind of core.
        targets: the units that read it, already cut.
    """
    if core.layer is not None:
        whole = whole_layer(graph, unit, core, core.layer, len(targets))
        neurons = unit.channels * unit.positions
        return Placement(unit, 1, 1, core, neurons, whole.kernel_words, whole.held_bytes, 0, whole.problems)
    way = lowered(graph, unit, core)
    broken = (*way.problems, *broken_rules(way.unit, core, len(targets)))
    copies = sum(most_targets(target) for target in targets)
    for _, tiles, channels in sorted(_cuts(way.unit, core)):
        piece = _piece(way.unit, core, channels, tiles, broken, way.how)
        if _sends(piece) * copies > (core.axons_out_max or math.inf):
            continue
        limit = core.axons_in_max
        if limit is None or all(inputs <= limit for inputs in _inputs_of_pieces(graph, piece)):
            return piece
    smallest = _piece(way.unit, core, 1, unit.positions, broken, way.how)
    return replace(smallest, limits_broken=(*broken, _smallest_does_not_fit(graph, smallest, copies)))


def _readers(graph: Graph) -> Mapping[str, tuple[str, ...]]:
    """Units that the events of each unit go to; a gate's go to what it masks."""
    found = units(graph)
    owner = unit_of(found)
    pairs = [
        (u, unit.name) for unit in found for source in unit.sources for u, _ in event_sources(graph, source, owner)
    ]
    pairs += [(gate, masked) for _, (gate, _), masked in gated(graph, owner)]
    return {unit.name: tuple(dict.fromkeys(b for a, b in pairs if a == unit.name)) for unit in found}


def _numbered(chip: Chip, placements: Sequence[Placement]) -> tuple[Placement, ...]:
    """Cores of each kind in order of computation; with several kinds the cores of a unit are on one chip."""
    used = dict.fromkeys((core.kind for core in chip.cores), 0)
    out = []
    for placement in placements:
        kind, cores, count = placement.core.kind, placement.cores, placement.core.count
        if len(chip.cores) > 1 and cores > count:
            rule = f"{cores} cores of kind {kind}, a chip has {count}"
            placement, cores = replace(placement, limits_broken=(rule,)), 0
        if len(chip.cores) > 1 and cores > count - used[kind] % count:
            used[kind] += count - used[kind] % count
        offset = sum(core.count for core in chip.cores[: [c.kind for c in chip.cores].index(kind)])
        of_chip, within = divmod(used[kind], count)
        first = of_chip * chip.cores_per_chip + offset + within if len(chip.cores) > 1 else used[kind]
        out.append(replace(placement, first_core=first))
        used[kind] += cores
    return tuple(out)


def _sends(piece: Placement) -> int:
    """Neurons of the fullest core that send events."""
    return piece.neurons_per_core // piece.unit.neurons_per_output


def most_targets(placement: Placement) -> int:
    """Most cores of a unit that one event goes to: all groups of channels, and every tile that a window can touch."""
    tiles, halo = placement.tiles, placement.unit.halo
    if halo:
        pooled = math.prod(out for _, out, _, _ in halo) != placement.unit.positions
        reach = [-(-window // stride) + pooled for _, _, window, stride in halo]
        tiles = min(tiles, math.prod(reach), 2 * reach[0] if len(reach) > 1 else tiles)
    return placement.channel_groups * tiles


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


def _piece(
    unit: Unit, core: Core, channels: int, tiles: int, broken: tuple[str, ...], how: tuple[str, ...]
) -> Placement:
    groups = -(-unit.channels // channels)
    channels = -(-unit.channels // groups)  # equal pieces
    positions = -(-unit.positions // tiles)
    return Placement(
        unit,
        groups,
        tiles,
        core,
        channels * positions * unit.neurons_per_output,
        synapses(unit, core, channels, positions),
        -(-sum(memory_bits(unit, core, channels, positions)) // 8),
        0,
        broken,
        how,
    )


def _channels_that_fit(unit: Unit, core: Core, positions: int) -> int:
    """Most channels of ``positions`` positions that one core holds; 0 if not even one."""
    low, high = 0, unit.channels
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(unit, core, middle, positions) else (low, middle - 1)
    return low


def _smallest_does_not_fit(graph: Graph, piece: Placement, copies: int) -> str:
    """The rule that a single neuron breaks."""
    unit, core = piece.unit, piece.core
    if unit.neurons_per_output > core.neurons_max:
        return f"one product needs {unit.neurons_per_output} neurons, at most {core.neurons_max} per core"
    if core.synapses_max is not None and piece.synapses_per_core > core.synapses_max:
        return f"one neuron needs {piece.synapses_per_core} synapses, at most {core.synapses_max} per core"
    bits = piece.synapses_per_core * unit.weight_bits
    if core.synapse_bits_max is not None and bits > core.synapse_bits_max:
        return f"one neuron needs {bits} synapse bits, at most {core.synapse_bits_max} per core"
    if core.biases_max is not None and unit.biases_per_channel > core.biases_max:
        return f"one neuron needs {unit.biases_per_channel} biases, at most {core.biases_max} per core"
    if core.axons_out_max is not None and copies > core.axons_out_max:
        return f"one neuron sends to {copies} cores, at most {core.axons_out_max} (neuron, core) pairs per core"
    if problem := core.memory_problem(*memory_bits(piece.unit, core, 1, 1)):
        return f"one neuron needs {problem}"
    return f"one neuron reads {most_inputs(graph, piece)} distinct inputs, at most {core.axons_in_max} per core"


def _traffic(graph: Graph, placements: tuple[Placement, ...], chip: Chip, ledger: Ledger) -> tuple[Traffic, ...]:
    by_name = {p.unit.name: p for p in placements if p.cores}
    owner = unit_of(tuple(p.unit for p in placements))
    flows: nx.DiGraph = nx.DiGraph()
    for goal in by_name.values():
        for source in goal.unit.sources:
            groups = groups_that_read(graph, goal.unit, goal.channel_groups, source)
            copies = Fraction(int(groups.sum()), max(int(np.count_nonzero(groups)), 1)) * tiles_reached(goal)
            origins = tuple(dict.fromkeys(event_sources(graph, source, owner)))
            sent = {node: _events(graph, ledger, node) for _, node in origins}
            share = share_read(graph, ledger, goal.unit, source, groups, sent)
            for unit, node in origins:
                _flow(flows, unit, goal.unit.name, _events_of(graph, ledger, unit, node, owner) * share, copies)
    for node, (unit, gate), masked in gated(graph, owner):  # its spikes go to the cores that hold what it masks
        if masked in by_name:
            pairs = cores_behind(graph, owner, node, gate, masked, pieces(by_name[masked]))
            copies = Fraction(pairs, graph[gate].type.size)
            _flow(flows, unit, masked, _events(graph, ledger, gate), copies)
    return tuple(_edge(a, b, d["events"], d["messages"], by_name, chip) for a, b, d in flows.edges(data=True))


def _flow(flows: nx.DiGraph, source: str, target: str, events: Fraction, copies: Fraction) -> None:
    known = flows.get_edge_data(source, target, {"events": Fraction(0), "messages": Fraction(0)})
    flows.add_edge(source, target, events=known["events"] + events, messages=known["messages"] + events * copies)


def pieces(placement: Placement) -> np.ndarray:
    """Core of each (channel, position) of a unit."""
    unit = placement.unit
    channels, positions = -(-unit.channels // placement.channel_groups), -(-unit.positions // placement.tiles)
    group, tile = np.arange(unit.channels) // channels, np.arange(unit.positions) // positions
    return placement.first_core + group[:, None] * placement.tiles + tile[None, :]


def _events(graph: Graph, ledger: Ledger, node: str) -> Fraction:
    kind, size = graph[node].type.kind, graph[node].type.size
    if graph[node].op.kind == "input":
        return frame_events(graph, ledger) if graph.input_encoding == "frames" else Fraction(size)
    if kind is Kind.DRIVE:  # a membrane shortcut sends every value at every step
        return Fraction(size * ledger.time_steps)
    return Fraction(ledger[node].total("events_out_graded"), ledger.images)


def _events_of(graph: Graph, ledger: Ledger, unit: str, node: str, owner: Mapping[str, str]) -> Fraction:
    """Events of one unit among those that make up the value of a node; behind a gate of a sum of several units, as
    many of each as the gate lets pass of all."""
    if node in owner or graph[node].op.kind != "mask":
        return _events(graph, ledger, node)
    masked = graph[node].inputs[1].node
    inner = dict.fromkeys(event_sources(graph, masked, owner))
    if len(inner) == 1:
        return _events(graph, ledger, node)
    met, passed = (ledger[name].total("events_out_unary") for name in (masked, node))
    own = sum((_events_of(graph, ledger, u, n, owner) for u, n in inner if u == unit), Fraction(0))
    return own * Fraction(passed, met) if met else Fraction(0)


def _edge(
    source: str, target: str, events: Fraction, messages: Fraction, placed: Mapping[str, Placement], chip: Chip
) -> Traffic:
    away = _other_chip(placed.get(source), placed[target], chip)
    return Traffic(source, target, events, messages, messages * away)


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
