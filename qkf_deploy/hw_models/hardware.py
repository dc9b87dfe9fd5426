"""A network on a chip: energy by component, time, and the dense twin on the same chip."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property

from qkf_deploy.display.numbers import quantity
from qkf_deploy.hw_models.activity import Activity
from qkf_deploy.hw_models.architecture.chip import Chip
from qkf_deploy.hw_models.architecture.ranges import BOUNDS, Bound, Range
from qkf_deploy.hw_models.dataflow.network import Choice, Goal, execute, layers, left_out
from qkf_deploy.hw_models.dataflow.pricing import Part, network_parts, times, total, unit_parts, unit_waits
from qkf_deploy.hw_models.dataflow.twin import silent, twin_activity, twin_chip, twin_layer
from qkf_deploy.hw_models.energies import exact_sum
from qkf_deploy.hw_models.mapping import CoreMapping, map_network
from qkf_deploy.hw_models.timing.use import NetworkUse
from qkf_deploy.ir import Graph

#: Static energy is a power times a measured time: rounded to this, so that every sum stays exact.
_STEP = Decimal("0.000001")


@dataclass(frozen=True)
class UnitCost:
    """One unit.

    Attributes:
        choice: how it is executed, and what else was possible.
        parts: what that costs, all images.
        waits_ns: time of all images on its own, by what it waits for; a lower bound where the chip file gives no time
            for something.
    """

    choice: Choice
    parts: tuple[Part, ...]
    waits_ns: Mapping[str, Fraction]

    @property
    def name(self) -> str:
        """Of the unit."""
        return self.choice.layer.unit.name

    @property
    def ns(self) -> Fraction:
        """Time of all images on its own."""
        return sum(self.waits_ns.values(), Fraction(0))

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
        network: messages and hops; empty where layers share the cores, or where no traffic was measured.
        use: measured traffic and times of it, else ``None``.
        left_out: units without a place on the chip, with the limit that they break: nothing of them is in here.
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
    network: tuple[Part, ...]
    use: NetworkUse | None
    left_out: Mapping[str, str]
    static: Range | None
    untimed: tuple[str, ...]
    mapping: CoreMapping | None = None

    @cached_property
    def waits_ns(self) -> Mapping[str, Fraction]:
        """Latency of all images by what it waits for: of the pipeline where its traffic was measured, else of one unit
        after another."""
        if self.use is not None:
            return self.use.waits_ns
        out: dict[str, Fraction] = {}
        for unit in self.units:
            for name, ns in unit.waits_ns.items():
                out[name] = out.get(name, Fraction(0)) + ns
        return out

    @property
    def ns(self) -> Fraction:
        """Latency of all images, one by one."""
        return sum(self.waits_ns.values(), Fraction(0)) if self.use is None else self.use.latency_ns

    @property
    def period_ns(self) -> Fraction:
        """Time of all images that follow one another."""
        return self.ns if self.use is None else self.use.period_ns

    @property
    def utilization(self) -> Fraction:
        """Mean share of the latency that cores work; else, that the lanes of a working core are full."""
        if not self.ns:
            return Fraction(0)
        if self.use is not None:
            return sum(self.use.busy_ns, Fraction(0)) / len(self.use.busy_ns) / self.ns
        return sum((_computing(u, self.chip) for u in self.units), Fraction(0)) / self.ns

    @property
    def parts(self) -> Iterator[Part]:
        """Everything but static power."""
        for unit in self.units:
            yield from unit.parts
        yield from self.network

    @cached_property
    def components(self) -> Mapping[str, Range]:
        """Energy by component: compute, every buffer, DRAM, network, static."""
        found: dict[str, list[Range]] = {}
        for part in self.parts:
            if part.pj is not None:
                found.setdefault(part.component, []).append(part.pj)
        out = {name: total(tuple(parts)) for name, parts in found.items()}
        return out | ({"static": self.static} if self.static else {})

    @cached_property
    def pj(self) -> Range:
        """Everything that has a price."""
        return total(tuple(self.components.values()))

    @cached_property
    def alike(self) -> Range:
        """What the twin is compared by: everything, or where layers have cores of their own only what these cost while
        they work (dense layers would wait for each other and send other messages)."""
        return self.pj if self.chip.execution != "resident" else total(tuple(u.pj for u in self.units))

    @cached_property
    def unpriced_counts(self) -> Mapping[str, int]:
        """Work that occurs and has no price in the chip file, with how much of it there is; of all images."""
        out: dict[str, int] = {}
        for part in self.parts:
            if part.pj is None:
                name = f"{part.component}: {part.what}"
                out[name] = out.get(name, 0) + part.count
        return dict(sorted(out.items()))

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Names of :attr:`unpriced_counts`."""
        return tuple(self.unpriced_counts)

    @property
    def excluded(self) -> tuple[str, ...]:
        """Everything that is not in the energy, in words."""
        out = [f"{quantity(len(self.left_out), 'unit')} without a place"] if self.left_out else []
        out += ["the network between cores"] if self.mapping is not None and self.use is None else []
        out += ["neurons that stand for other operations"] if any(self.stand_ins) else []
        out += ["work without a price"] if self.unpriced_counts else []
        out += ["static power, as no time is known"] if self.static is None and not self.powerless else []
        return (*out, *([f"static power of {', '.join(self.powerless)}"] if self.powerless else []))

    @property
    def stand_ins(self) -> tuple[str, ...]:
        """What cores do with neurons because they cannot do it otherwise: no update of these neurons is in here."""
        places = self.mapping.placements if self.mapping is not None else ()
        return tuple(how for place in places if place.unit.name not in self.left_out for how in place.lowered)

    @property
    def powerless(self) -> tuple[str, ...]:
        """What the chip file gives no static power of; nothing where it has a figure for the rest of the chip."""
        if self.chip.static_mw is not None:
            return ()
        own = [f"{core.kind} cores" for core in self.chip.cores if core.static_mw is None]
        every = [*self.chip.buffers, *(b for core in self.chip.cores for b in core.buffers)]
        return (*own, *dict.fromkeys(b.name for b in every if b.leakage_mw is None))

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
    graph: Graph, activity: Activity, chip: Chip, *, goal: Goal = "energy", only: Collection[str] = (),
    use: NetworkUse | None = None,
) -> Hardware:  # fmt: skip
    """A network on a chip, every layer executed the best way.

    Args:
        graph: integer graph with widths.
        activity: measured, of this graph.
        chip: where.
        goal: what is smallest: energy, delay or their product.
        only: dataflows to choose among, where not all of the chip's.
        use: traffic of the same images where every layer has cores of its own.

    Raises:
        UsageError: a float graph, a layer that fits no core, or a chip without one of these dataflows.
    """
    mapping = map_network(graph, chip) if chip.execution == "resident" else None
    choices = execute(graph, activity, chip, goal=goal, only=only, mapping=mapping)
    missing = left_out(graph, layers(graph, activity), chip, mapping)
    return _cost(activity, chip, goal, choices, mapping, missing, use)


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
    twin = _cost(dense, chip, found.goal, choices, found.mapping, found.left_out)
    flows = {u.choice.best.work.dataflow for u in found.units} - {""}
    none = silent(activity)
    quiet = execute(graph, none, found.chip, goal=found.goal, only=flows, mapping=found.mapping)
    nothing = _cost(none, found.chip, found.goal, quiet, found.mapping, found.left_out)
    here, there, quiet_pj = (h.alike for h in (found, twin, nothing))
    return Verdict(
        twin,
        nothing,
        {b: here.at(b) < there.at(b) for b in BOUNDS},
        {b: _break_even(here.at(b), quiet_pj.at(b), there.at(b)) for b in BOUNDS},
    )


def _break_even(now: Decimal, quiet: Decimal, twin: Decimal) -> Fraction | None:
    return Fraction(twin - quiet) / Fraction(now - quiet) if now > quiet else None


def _cost(
    activity: Activity, chip: Chip, goal: Goal, choices: tuple[Choice, ...], mapping: CoreMapping | None,
    missing: Mapping[str, str], use: NetworkUse | None = None,
) -> Hardware:  # fmt: skip
    units, untimed = [], set[str](use.untimed if use else ())
    for choice in choices:
        waits, without = unit_waits(choice.best.work, chip)
        untimed.update(without if use is None else ())
        units.append(UnitCost(choice, unit_parts(choice.best.work, chip), waits))
    chips = mapping.chips if mapping else 1
    whole = sum((u.ns for u in units), Fraction(0)) if use is None else use.latency_ns
    return Hardware(
        chip,
        activity.images,
        activity.time_steps,
        goal,
        tuple(units),
        mapping.cores if mapping else chip.cores_per_chip,
        chips,
        network_parts(use, chip) if use else (),
        use,
        missing,
        _static(chip, chips, whole),
        tuple(sorted(untimed)),
        mapping,
    )


def _computing(unit: UnitCost, chip: Chip) -> Fraction:
    """Time that the lanes of all cores need for what they do, were they always full."""
    core = next(c for c in chip.cores if c.kind == unit.choice.best.work.core)
    total_ns = Fraction(0)
    for name, items in unit.choice.best.work.operations().items():
        operation = core.operations.get(name)
        batch = None if operation is None else chip.batch_ns(operation)
        if operation is not None and batch is not None:
            total_ns += items * batch / ((operation.lanes or 1) * unit.choice.best.work.cores)
    return total_ns


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
