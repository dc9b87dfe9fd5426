"""Memory and data movement as a table."""

from __future__ import annotations

from collections.abc import Sequence

from qkf_deploy.display.numbers import Number, joules, si, unless_zero
from qkf_deploy.display.tables import Field, Sheet, summed, tabulate
from qkf_deploy.hw_models.movement import CONVENTION, OTHER_CONVENTIONS, LayerMovement


@unless_zero
def _bytes(value: Number) -> str:
    return si(value, "B")


_FIELDS: tuple[Field[LayerMovement], ...] = (
    Field("layer", "layer", lambda r: r.layer, left=True),
    Field("type", "type", lambda r: r.type, left=True),
    summed("weight_size_bytes", "weights", lambda r: r.weight_size, _bytes),
    Field("weight_level", "held in", lambda r: r.weight_level, left=True),
    summed("weight_traffic_bytes", "weights read", lambda r: r.weight_traffic, _bytes),
    summed("state_size_bytes", "membranes", lambda r: r.state_size, _bytes),
    Field("state_level", "held in", lambda r: r.state_level, left=True),
    summed("state_traffic_bytes", "membranes moved", lambda r: r.state_traffic, _bytes),
    Field("event_bits", "event bits", lambda r: r.event_bits, unless_zero(str)),
    summed("event_traffic_bytes", "events out", lambda r: r.event_traffic, _bytes),
    Field(
        "energy_pj",
        "energy",
        lambda r: r.energy_pj,
        unless_zero(joules),
        total=lambda rows: joules(sum(r.energy_pj for r in rows)),
    ),
)

NOTE = "\n".join((CONVENTION, OTHER_CONVENTIONS))


def movement_sheet(rows: Sequence[LayerMovement]) -> Sheet:
    """Bytes per layer and image. Energy covers weights and membranes at the price of the level that holds them."""
    return tabulate("Memory and data movement per image", _FIELDS, rows)
