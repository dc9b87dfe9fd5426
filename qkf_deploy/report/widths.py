"""The widths table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qkf_deploy.report.formats import Column, Sheet
from qkf_deploy.runs.widths import WIDTH_KEYS

_TITLES = (
    "layer", "type", "weight", "bias", "accumulator", "lowest", "highest", "threshold", "membrane", "lowest", "highest",
    "output",
)  # fmt: skip
_COLUMNS = tuple(Column(k, t, k in ("layer", "type")) for k, t in zip(WIDTH_KEYS, _TITLES, strict=True))


def width_sheet(rows: Sequence[Mapping[str, Any]]) -> Sheet:
    """The table of :func:`qkf_deploy.runs.widths.width_rows`."""
    cells = tuple(tuple(row[c.key] for c in _COLUMNS) for row in rows)
    shown = tuple(tuple(_text(v) for v in row) for row in cells)
    return Sheet("Proven widths in bits (no input can exceed them)", _COLUMNS, cells, shown)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)
