"""What the clients of an export computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qkf_deploy.report.formats import Column, Sheet

if TYPE_CHECKING:
    from qkf_deploy.converters.export_check import CheckResult

_COLUMNS = (
    Column("client", "client", True),
    Column("compared", "values compared"),
    Column("different", "different"),
    Column("logits_error", "largest logit error"),
    Column("refused", "refused", True),
)


def check_sheet(results: Sequence[CheckResult]) -> Sheet:
    """One row per client."""
    rows = tuple((r.client, r.compared, r.different, r.logits_error, r.refused) for r in results)
    shown = tuple(
        (r.client, f"{r.compared:,}", f"{r.different:,}", f"{r.logits_error:.1e}", r.refused[:80]) for r in results
    )
    return Sheet("export check", _COLUMNS, rows, shown)
