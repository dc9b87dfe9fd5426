"""All units of a network on a chip, each executed the best way."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Literal

from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.activity import Activity
from qkf_deploy.hw_models.architecture.chip import Chip, Core
from qkf_deploy.hw_models.dataflow.execution import Execution, Setting
from qkf_deploy.hw_models.dataflow.layer import Layer, layer_of
from qkf_deploy.hw_models.dataflow.plan import OVER_TIME, Plan, plans
from qkf_deploy.hw_models.dataflow.pricing import unit_ns, unit_parts
from qkf_deploy.hw_models.mapping import CoreMapping, Placement
from qkf_deploy.hw_models.units import event_sources, unit_of, units
from qkf_deploy.hw_models.work import UnitWork
from qkf_deploy.ir import Graph

Goal = Literal["energy", "delay", "product"]


@dataclass(frozen=True)
class Candidate:
    """One way to execute a unit.

    Attributes:
        work: what it does.
        pj: energy of all images without static power, nominal; work without a price is left out in all ways alike.
        chip: where.
    """

    work: UnitWork
    pj: Fraction
    chip: Chip

    @cached_property
    def ns(self) -> Fraction:
        """Time of all images on its own."""
        return unit_ns(self.work, self.chip)[0]

    def cost(self, goal: Goal) -> Fraction:
        """What is to be smallest."""
        if goal == "energy":
            return self.pj
        return self.ns if goal == "delay" else self.pj * self.ns


@dataclass(frozen=True)
class Choice:
    """What was chosen for a unit among what.

    Attributes:
        layer: the unit.
        best: chosen.
        by_dataflow: the best of every dataflow that fits, by its name.
    """

    layer: Layer
    best: Candidate
    by_dataflow: Mapping[str, Candidate]


def layers(graph: Graph, activity: Activity) -> tuple[Layer, ...]:
    """Every unit with its sizes, in order of computation."""
    return tuple(layer_of(graph, unit, activity) for unit in units(graph))


def setting(graph: Graph, activity: Activity, chip: Chip, found: tuple[Layer, ...]) -> Setting:
    """What the units have in common; additions and gates of events belong to the unit that sends the last operand."""
    owner = unit_of(tuple(layer.unit for layer in found))
    routing: dict[str, tuple[str, ...]] = {}
    for node in graph:
        if node.op.kind in ("add", "mask") and node.name not in owner:
            sender = event_sources(graph, node.inputs[-1].node, owner)[-1][0]
            routing[sender] = (*routing.get(sender, ()), node.name)
    return Setting(graph, activity, chip, sum(layer.weight_bits for layer in found), routing)


def execute(
    graph: Graph, activity: Activity, chip: Chip, *, goal: Goal = "energy", only: Collection[str] = (),
    mapping: CoreMapping | None = None, found: tuple[Layer, ...] = (),
) -> tuple[Choice, ...]:  # fmt: skip
    """The best way for every unit that has a place.

    Args:
        graph: integer graph with widths.
        activity: measured, of this graph.
        chip: where.
        goal: what is smallest.
        only: dataflows to choose among, where not all of the chip's.
        mapping: of a chip whose layers have cores of their own.
        found: the units, where they are not those of :func:`layers`.

    Raises:
        UsageError: a layer for which no dataflow fits.
    """
    found = found or layers(graph, activity)
    common = setting(graph, activity, chip, found)
    placed = {p.unit.name: p for p in mapping.placements} if mapping else {}
    missing = left_out(graph, found, chip, mapping)
    here = [layer for layer in found if layer.unit.name not in missing]
    return tuple(_choose(common, layer, placed.get(layer.unit.name), goal, only) for layer in here)


def left_out(graph: Graph, found: tuple[Layer, ...], chip: Chip, mapping: CoreMapping | None) -> Mapping[str, str]:
    """Units without a place on the chip, with the limit that they break."""
    if mapping is not None:
        return {p.unit.name: "; ".join(p.limits_broken) for p in mapping.infeasible}
    known = chip.cores[0].supports | {"input", "output"}
    kinds = {layer.unit.name: sorted({graph[n].op.kind for n in layer.unit.nodes} - known) for layer in found}
    return {name: f"not supported: {', '.join(strange)}" for name, strange in kinds.items() if strange}


def _choose(common: Setting, layer: Layer, placement: Placement | None, goal: Goal, only: Collection[str]) -> Choice:
    chip = common.chip
    core = next(c for c in chip.cores if c.kind == placement.core.kind) if placement else chip.cores[0]
    if only:
        core = replace(core, dataflows=tuple(d for d in core.dataflows if d in only))
    cores = placement.cores if placement else core.count
    execution = Execution(common, layer, core, cores)
    steps = common.activity.time_steps
    ways = _placed(layer, placement, core, steps) if placement else plans(layer, core, cores, steps)
    best: dict[str, Candidate] = {}
    for plan in ways:
        work = execution.work(plan)
        parts = unit_parts(work, chip)
        pj = sum((p.pj.nominal for p in parts if p.pj is not None), Decimal(0))
        candidate = Candidate(work, Fraction(pj), chip)
        if plan.dataflow not in best or candidate.cost(goal) < best[plan.dataflow].cost(goal):
            best[plan.dataflow] = candidate
    if not best:
        raise UsageError(
            f"{layer.unit.name}: no tile fits the buffers of a core under {', '.join(core.dataflows) or 'no dataflow'}",
            hint="larger buffers, or another dataflow",
        )
    return Choice(layer, min(best.values(), key=lambda c: c.cost(goal)), best)


def _placed(layer: Layer, placement: Placement, core: Core, steps: int) -> list[Plan]:
    """The cut of a mapping; tiles that are not whole bands count as the next larger number of bands.

    Layers of a pipeline get their input step by step, so nothing waits for all of them.
    """
    if not layer.synapses:
        return [Plan()]
    known = sorted(set.intersection(*(set(s.activity.bands) for s in layer.synapses)))
    bands = next((n for n in known if n >= placement.tiles), known[-1])
    flows = [d for d in core.dataflows if d not in OVER_TIME or steps == 1]
    groups = min(placement.channel_groups, *(s.outputs for s in layer.synapses))
    # residual additions are delivered as separate events
    return [Plan(d, bands, groups, d == "event-scatter" and any(s.has_counts for s in layer.synapses)) for d in flows]
