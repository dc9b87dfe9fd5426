"""Memory and data movement as a table."""

from __future__ import annotations

from collections.abc import Sequence

from qkf_deploy.hw_models.movement import CONVENTION, OTHER_CONVENTIONS, LayerMovement
from qkf_deploy.report.formats import Column, Sheet, joules, si

_COLUMNS = (
    Column("layer", "layer", True),
    Column("type", "type", True),
    Column("weight_size_bytes", "weights"),
    Column("weight_level", "held in", True),
    Column("weight_traffic_bytes", "weights read"),
    Column("state_size_bytes", "membranes"),
    Column("state_level", "held in", True),
    Column("state_traffic_bytes", "membranes moved"),
    Column("event_bits", "event bits"),
    Column("event_traffic_bytes", "events out"),
    Column("energy_pj", "energy"),
)

NOTE = "\n".join((CONVENTION, OTHER_CONVENTIONS))


def movement_sheet(rows: Sequence[LayerMovement]) -> Sheet:
    """Bytes per layer and image. Energy covers weights and membranes at the price of the level that holds them."""
    cells = tuple(
        (
            r.layer, r.type, r.weight_size, r.weight_level, r.weight_traffic, r.state_size, r.state_level,
            r.state_traffic, r.event_bits, r.event_traffic, r.energy_pj,
        )
        for r in rows
    )  # fmt: skip
    shown = tuple(
        (
            r.layer, r.type, _bytes(r.weight_size), r.weight_level, _bytes(r.weight_traffic), _bytes(r.state_size),
            r.state_level, _bytes(r.state_traffic), str(r.event_bits or ""), _bytes(r.event_traffic),
            joules(r.energy_pj) if r.energy_pj else "",
        )
        for r in rows
    )  # fmt: skip
    sums = [sum(getattr(r, k) for r in rows) for k in ("weight_size", "weight_traffic", "state_size", "state_traffic")]
    footer = (
        "total", "", _bytes(sums[0]), "", _bytes(sums[1]), _bytes(sums[2]), "", _bytes(sums[3]), "",
        _bytes(sum(r.event_traffic for r in rows)), joules(sum(r.energy_pj for r in rows)),
    )  # fmt: skip
    return Sheet("Memory and data movement per image", _COLUMNS, cells, shown, footer)


def _bytes(value: object) -> str:
    return si(value, "B") if value else ""  # type: ignore[arg-type]
