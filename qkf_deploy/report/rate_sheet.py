"""How often neurons fired, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qkf_deploy.display.numbers import percent
from qkf_deploy.display.tables import Field, Sheet, summed, tabulate

_FIELDS: tuple[Field[Mapping[str, Any]], ...] = (
    Field("layer", "layer", lambda r: r["node"], left=True),
    summed("neurons", "neurons", lambda r: r["neurons"]),
    summed("never", "never fired", lambda r: r["rates"][0]),
    Field("never_share", "share", lambda r: r["rates"][0] / r["neurons"], percent),
    summed("always", "always fired", lambda r: r["rates"][-1]),
    Field("always_share", "share", lambda r: r["rates"][-1] / r["neurons"], percent),
)


def activity_sheet(rows: Sequence[Mapping[str, Any]]) -> Sheet:
    """One row per neuron layer of :func:`qkf_deploy.runs.first.activity`."""
    images = rows[0]["images"]
    of = f"the first {images} samples" if images > 1 else "the first sample"
    return tabulate(f"Neurons that never or always fired, {of}", _FIELDS, rows)
