"""A network on a chip: energy by component, time, and the dense twin on the same chip."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property

from qkf_deploy.hw_models.activity import Activity
from qkf_deploy.hw_models.architecture.chip import Chip
from qkf_deploy.hw_models.architecture.ranges import BOUNDS, Bound, Range
from qkf_deploy.hw_models.dataflow.network import Choice, Goal, execute, layers
from qkf_deploy.hw_models.dataflow.pricing import Part, times, total, unit_ns, unit_parts
from qkf_deploy.hw_models.dataflow.twin import silent, twin_activity, twin_chip, twin_layer
from qkf_deploy.hw_models.energies import exact_sum
from qkf_deploy.hw_models.mapping import CoreMapping, map_network
from qkf_deploy.ir import Graph

#: Static energy is a power times a measured time: rounded to this, so that every sum stays exact.
_STEP = Decimal("0.000001")


@dataclass(frozen=True)
class UnitCost:
    """One unit.

    Attributes:
        choice: how it is executed, and what else was possible.
        parts: what that costs, all images.
        ns: time of all images on its own; a lower bound where the chip file gives no time for something.
    """

    choice: Choice
    parts: tuple[Part, ...]
    ns: Fraction

    @property
    def name(self) -> str:
        """Of the unit."""
        return self.choice.layer.unit.name

    @cached_property
    def pj(self) -> Range:
        """All priced parts."""
        return total(tuple(p.pj for p in self.parts if p.pj is not None))


@dataclass(frozen=True)
class Hardware:
    """A network on a chip; energies and times of all images together.

    Attributes:
        chip: where.
        images, time_steps: of the run.
        goal: what the dataflows were chosen for.
        units: in order of computation.
        cores, chips: in use.
        static: of the whole latency; ``None`` without any static power or without a time.
        untimed: what the chip file gives no time for.
        mapping: where every layer has cores of its own.
    """

    chip: Chip
    images: int
    time_steps: int
    goal: Goal
    units: tuple[UnitCost, ...]
    cores: int
    chips: int
    static: Range | None
    untimed: tuple[str, ...]
    mapping: CoreMapping | None = None

    @property
    def ns(self) -> Fraction:
        """Layer by layer, one image after another."""
        return sum((u.ns for u in self.units), Fraction(0))

    @cached_property
    def components(self) -> Mapping[str, Range]:
        """Energy by component: compute, every buffer, DRAM, static."""
        found: dict[str, list[Range]] = {}
        for unit in self.units:
            for part in unit.parts:
                if part.pj is not None:
                    found.setdefault(part.component, []).append(part.pj)
        out = {name: total(tuple(parts)) for name, parts in found.items()}
        return out | ({"static": self.static} if self.static else {})

    @cached_property
    def pj(self) -> Range:
        """Everything that has a price."""
        return total(tuple(self.components.values()))

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Work that occurs and has no price in the chip file."""
        return tuple(sorted({f"{p.component}: {p.what}" for u in self.units for p in u.parts if p.pj is None}))

    @property
    def edp(self) -> Fraction:
        """Energy x delay of one image, pJ x ns, nominal."""
        return Fraction(self.pj.nominal) * self.ns / self.images**2


@dataclass(frozen=True)
class Verdict:
    """A network against its dense twin on the same chip.

    Attributes:
        twin, silent: the twin, and the network if no neuron fired.
        wins: by price bound, whether the spiking network needs less.
        break_even: by price bound, firing relative to the measured one at which both need the same (linear between
            silence and what was measured); ``None`` where more firing costs nothing, below zero where not even
            silence wins.
    """

    twin: Hardware
    silent: Hardware
    wins: Mapping[Bound, bool]
    break_even: Mapping[Bound, Fraction | None]


def hardware(
    graph: Graph, activity: Activity, chip: Chip, *, goal: Goal = "energy", only: Collection[str] = ()
) -> Hardware:
    """A network on a chip, every layer executed the best way.

    Args:
        graph: integer graph with widths.
        activity: measured, of this graph.
        chip: where.
        goal: what is smallest: energy, delay or their product.
        only: dataflows to choose among, where not all of the chip's.

    Raises:
        UsageError: a float graph, a layer that fits no core, or a chip without one of these dataflows.
    """
    mapping = map_network(graph, chip) if chip.execution == "resident" else None
    choices = execute(graph, activity, chip, goal=goal, only=only, mapping=mapping)
    return _cost(activity, chip, goal, choices, mapping)


def compared(graph: Graph, activity: Activity, found: Hardware) -> Verdict:
    """The dense twin beside it, and the firing rate at which both need the same.

    Args:
        graph, activity: of the network.
        found: what it needs.
    """
    steps = activity.time_steps
    dense = twin_activity(graph, activity)
    chip = twin_chip(found.chip, steps)
    units = tuple(twin_layer(graph, layer, steps) for layer in layers(graph, dense))
    choices = execute(graph, dense, chip, goal=found.goal, mapping=found.mapping, found=units)
    twin = _cost(dense, chip, found.goal, choices, found.mapping)
    flows = {u.choice.best.work.dataflow for u in found.units} - {""}
    none = silent(activity)
    quiet = execute(graph, none, found.chip, goal=found.goal, only=flows, mapping=found.mapping)
    nothing = _cost(none, found.chip, found.goal, quiet, found.mapping)
    return Verdict(
        twin,
        nothing,
        {b: found.pj.at(b) < twin.pj.at(b) for b in BOUNDS},
        {b: _break_even(found.pj.at(b), nothing.pj.at(b), twin.pj.at(b)) for b in BOUNDS},
    )


def _break_even(now: Decimal, quiet: Decimal, twin: Decimal) -> Fraction | None:
    return Fraction(twin - quiet) / Fraction(now - quiet) if now > quiet else None


def _cost(
    activity: Activity, chip: Chip, goal: Goal, choices: tuple[Choice, ...], mapping: CoreMapping | None
) -> Hardware:
    units, untimed = [], set[str]()
    for choice in choices:
        ns, missing = unit_ns(choice.best.work, chip)
        untimed.update(missing)
        units.append(UnitCost(choice, unit_parts(choice.best.work, chip), ns))
    chips = mapping.chips if mapping else 1
    whole = sum((u.ns for u in units), Fraction(0))
    return Hardware(
        chip,
        activity.images,
        activity.time_steps,
        goal,
        tuple(units),
        mapping.cores if mapping else chip.cores_per_chip,
        chips,
        _static(chip, chips, whole),
        tuple(sorted(untimed)),
        mapping,
    )


def _static(chip: Chip, chips: int, ns: Fraction) -> Range | None:
    """Static power of all chips (mW) times the time (ns), in pJ."""
    powers = [(chip.static_mw, 1), *((b.leakage_mw, 1) for b in chip.buffers)]
    for core in chip.cores:
        powers += [(core.static_mw, core.count), *((b.leakage_mw, core.count) for b in core.buffers)]
    known = [times(power, count * chips) for power, count in powers if power is not None]
    if not known or not ns:
        return None
    power = Range(*(exact_sum(column) for column in zip(*known, strict=True)))
    return Range(*(_rounded(Fraction(mw) * ns) for mw in power))


def _rounded(value: Fraction) -> Decimal:
    return (Decimal(value.numerator) / Decimal(value.denominator)).quantize(_STEP)
