"""A mapping onto cores as tables."""

from __future__ import annotations

from qkf_deploy.display.numbers import percent, quantity, si
from qkf_deploy.display.tables import Field, Sheet, summed, tabulate
from qkf_deploy.hw_models.mapping import CoreMapping, Placement, Traffic
from qkf_deploy.report.formats import below, for_people, to_csv, to_json


def placement_sheet(mapping: CoreMapping) -> Sheet:
    """One row per unit."""
    several = len(mapping.chip.cores) > 1
    fields: tuple[Field[Placement], ...] = (
        Field("unit", "unit", lambda p: p.unit.name, left=True),
        *([Field[Placement]("kind", "kind of core", _kind, left=True)] if several else []),
        Field("cores", "cores", lambda p: p.cores, total=lambda _: mapping.cores),
        Field("channel_groups", "channel groups", lambda p: p.channel_groups),
        Field("tiles", "tiles", lambda p: p.tiles),
        Field("neurons_per_core", "neurons/core", lambda p: p.neurons_per_core),
        Field("synapses_per_core", "weights/core", lambda p: p.synapses_per_core),
        Field("memory_per_core_bytes", "bytes/core", lambda p: p.memory_per_core_bytes),
        Field(
            "memory_used",
            "memory used",
            lambda p: p.memory_per_core_bytes / p.core.memory_bytes,
            percent,
            total=lambda _: mapping.utilisation("memory"),
        ),
        Field("problem", "limits broken", lambda p: "; ".join(p.limits_broken), left=True),
    )
    return tabulate(f"{mapping.chip.title}: cores per unit", fields, mapping.placements)


def _kind(placement: Placement) -> str:
    return placement.core.kind if placement.cores else ""


_TRAFFIC: tuple[Field[Traffic], ...] = (
    Field("source", "from", lambda t: t.source, left=True),
    Field("target", "to", lambda t: t.target, left=True),
    summed("events_per_image", "events", lambda t: t.events, si),
    summed("messages_per_image", "messages", lambda t: t.messages, si),
    summed("between_chips_per_image", "between chips", lambda t: t.between_chips, si),
)


def traffic_sheet(mapping: CoreMapping) -> Sheet:
    """One row per pair of units that exchange events, mean per image."""
    return tabulate("Events between units per image", _TRAFFIC, mapping.traffic)


def summary(mapping: CoreMapping) -> str:
    """The lines under the tables."""
    lines = [
        f"{quantity(mapping.cores, 'core')} on {quantity(mapping.chips, 'chip')} of "
        f"{mapping.chip.cores_per_chip}; on these cores {percent(mapping.utilisation('neurons'))} of the neurons and "
        f"{percent(mapping.utilisation('memory'))} of the memory are used"
    ]
    if mapping.infeasible:
        lines.append(f"not mappable: {', '.join(p.unit.name for p in mapping.infeasible)}")
    lines += [f"done with neurons: {how}" for p in mapping.placements if p.cores for how in p.lowered]
    lines.append("assumptions:")
    lines += [f"  - {a}" for a in _assumptions(mapping)]
    return "\n".join(lines) + "\n"


_CUT = (
    "Every unit is cut into equal pieces of channels x positions, one piece per core, cores filled in order of "
    "computation: a compiler that shares cores or places better needs fewer.",
)
_OWN = (
    "Residual additions of spikes and gates are routing: events of both operands are delivered, masked events are "
    "dropped where they arise. Drives that leave a unit (membrane shortcuts) are sent whole at every step.",
    "A message is one event to one core; inputs of a core are not multicast. Events are taken as spread evenly over "
    "positions and source cores.",
)


def _assumptions(mapping: CoreMapping) -> list[str]:
    held = [p.unit for p in mapping.placements if p.unit.held_bits]
    each = ", ".join(f"{unit.name} {-(-unit.held_bits // 8):,} bytes" for unit in held)
    cut = () if any(core.layer for core in mapping.chip.cores) else _CUT
    return [*mapping.chip.assumptions, *cut, *_OWN, *([_HELD.format(each)] if held else [])]


#: Of networks that are not causal.
_HELD = (
    "Attention over chunks of time steps is not causal: a unit computes when the last step of a chunk is there. Until "
    "then both operands of such a product, and whatever a result of it meets later, are held, all steps of the chunk, "
    "spread evenly over the cores of the unit: {}."
)


def render_mapping(mapping: CoreMapping, fmt: str) -> str:
    """A mapping in a format of :data:`qkf_deploy.report.formats.FORMATS`."""
    placements, traffic = placement_sheet(mapping), traffic_sheet(mapping)
    if fmt == "csv":
        return to_csv(placements)
    if fmt == "json":
        return to_json(
            {
                "schema_version": 1,
                "kind": "mapping",
                "chip": mapping.chip.id,
                "cores": mapping.cores,
                "chips": mapping.chips,
                "units": placements.records(),
                "traffic": traffic.records(),
                "assumptions": _assumptions(mapping),
            }
        )
    draw = for_people(fmt)
    return "\n".join([draw(placements), *([draw(traffic)] if mapping.traffic else []), below(fmt, summary(mapping))])
