"""What the clients of an export computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qkf_deploy.display.tables import Field, Sheet, tabulate

if TYPE_CHECKING:
    from qkf_deploy.converters.export_check import CheckResult

_FIELDS: tuple[Field[CheckResult], ...] = (
    Field("client", "client", lambda r: r.client, left=True),
    Field("compared", "values compared", lambda r: r.compared),
    Field("different", "different", lambda r: r.different),
    Field("logits_error", "largest logit error", lambda r: r.logits_error, "{:.1e}".format),
    Field("refused", "refused", lambda r: r.refused, lambda text: text[:80], left=True),
)


def check_sheet(results: Sequence[CheckResult]) -> Sheet:
    """One row per client."""
    return tabulate("export check", _FIELDS, results)
