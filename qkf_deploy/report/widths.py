"""The widths table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from qkf_deploy.display.tables import Field, Sheet, tabulate
from qkf_deploy.runs.widths import WIDTH_KEYS

_TITLES = (
    "layer", "type", "weight", "bias", "accumulator", "lowest", "highest", "threshold", "membrane", "lowest", "highest",
    "output",
)  # fmt: skip
_FIELDS: tuple[Field[Mapping[str, Any]], ...] = tuple(
    Field(key, title, itemgetter(key), left=key in ("layer", "type"))
    for key, title in zip(WIDTH_KEYS, _TITLES, strict=True)
)


def width_sheet(rows: Sequence[Mapping[str, Any]]) -> Sheet:
    """The table of :func:`qkf_deploy.runs.widths.width_rows`."""
    return tabulate("Proven widths in bits (no input can exceed them)", _FIELDS, rows)
