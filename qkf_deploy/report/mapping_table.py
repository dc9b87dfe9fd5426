"""A mapping onto cores as tables."""

from __future__ import annotations

from qkf_deploy.hw_models.mapping import CoreMapping, Placement
from qkf_deploy.report.formats import Column, Sheet, percent, si, to_csv, to_json, to_markdown, to_text

_PLACEMENTS = (
    Column("unit", "unit", True),
    Column("cores", "cores"),
    Column("channel_groups", "channel groups"),
    Column("tiles", "tiles"),
    Column("neurons_per_core", "neurons/core"),
    Column("synapses_per_core", "weights/core"),
    Column("memory_per_core_bytes", "bytes/core"),
    Column("memory_used", "memory used"),
    Column("problem", "limits broken", True),
)
_TRAFFIC = (
    Column("source", "from", True),
    Column("target", "to", True),
    Column("events_per_image", "events"),
    Column("messages_per_image", "messages"),
    Column("between_chips_per_image", "between chips"),
)


def placement_sheet(mapping: CoreMapping) -> Sheet:
    """One row per unit."""
    limit = mapping.chip.memory_per_core_bytes
    rows = tuple(_cells(p, limit) for p in mapping.placements)
    shown = tuple(tuple(_shown(cell) for cell in row) for row in rows)
    footer = ("total", f"{mapping.cores:,}", "", "", "", "", "", percent(mapping.utilisation("memory")), "")
    return Sheet(f"{mapping.chip.title}: cores per unit", _PLACEMENTS, rows, shown, footer)


def _shown(cell: str | int | float) -> str:
    if isinstance(cell, str):
        return cell
    return percent(cell) if isinstance(cell, float) else f"{cell:,}"


def _cells(p: Placement, limit: int) -> tuple[str | int | float, ...]:
    return (
        p.unit.name, p.cores, p.channel_groups, p.tiles, p.neurons_per_core, p.synapses_per_core,
        p.memory_per_core_bytes, p.memory_per_core_bytes / limit, "; ".join(p.limits_broken),
    )  # fmt: skip


def traffic_sheet(mapping: CoreMapping) -> Sheet:
    """One row per pair of units that exchange events, mean per image."""
    flows = mapping.traffic
    rows = tuple((t.source, t.target, t.events, t.messages, t.between_chips) for t in flows)
    shown = tuple((t.source, t.target, si(t.events), si(t.messages), si(t.between_chips)) for t in flows)
    sums = [sum(getattr(t, k) for t in flows) for k in ("events", "messages", "between_chips")]
    return Sheet("Events between units per image", _TRAFFIC, rows, shown, ("total", "", *(si(v) for v in sums)))


def summary(mapping: CoreMapping) -> str:
    """The lines under the tables."""
    lines = [
        f"{mapping.cores} cores on {mapping.chips} chip{'s' if mapping.chips != 1 else ''} of "
        f"{mapping.chip.cores_per_chip}; on these cores {percent(mapping.utilisation('neurons'))} of the neurons and "
        f"{percent(mapping.utilisation('memory'))} of the memory are used"
    ]
    if mapping.infeasible:
        lines.append(f"not mappable: {', '.join(p.unit.name for p in mapping.infeasible)}")
    lines.append("assumptions:")
    lines += [f"  - {a}" for a in (*mapping.chip.assumptions, *_OWN)]
    return "\n".join(lines) + "\n"


_OWN = (
    "Every unit is cut into equal pieces of channels x positions, one piece per core, cores filled in order of "
    "computation: a compiler that shares cores or places better needs fewer.",
    "Residual additions of spikes and gates are routing: events of both operands are delivered, masked events are "
    "dropped where they arise. Drives that leave a unit (membrane shortcuts) are sent whole at every step.",
    "A message is one event to one core; inputs of a core are not multicast. Events are taken as spread evenly over "
    "positions and source cores.",
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
                "assumptions": [*mapping.chip.assumptions, *_OWN],
            }
        )
    draw = to_text if fmt == "table" else to_markdown
    return "\n".join([draw(placements), *([draw(traffic)] if mapping.traffic else []), summary(mapping)])
