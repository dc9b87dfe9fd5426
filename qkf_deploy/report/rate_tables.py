"""Energy from firing rates as tables: per layer, totals, and several profiles side by side."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from qkf_deploy.display.numbers import joules, ratio, si, unless_zero, whole
from qkf_deploy.display.tables import Field, Sheet, summed, tabulate
from qkf_deploy.hw_models.rate_pricing import RateReport, RateRow
from qkf_deploy.report.formats import for_people, to_csv, to_json


def _operations(row: RateRow) -> Fraction:
    return sum(row.operations.values(), start=Fraction(0))


_LAYERS: tuple[Field[RateRow], ...] = (
    Field("layer", "layer", lambda r: r.layer, left=True),
    Field("type", "type", lambda r: r.type, left=True),
    Field("mean_in", "mean in", lambda r: r.mean_in, ratio),
    summed("dense_macs_per_step", "dense MACs/step", lambda r: r.dense_macs, unless_zero(whole)),
    Field("quantity", "priced as", lambda r: ", ".join(r.operations), left=True),
    summed("operations", "operations", _operations, unless_zero(si)),
    summed("energy_pj", "energy", lambda r: r.energy_pj, joules),
)
_TOTALS: tuple[Field[RateReport], ...] = (
    Field("profile", "profile", lambda r: r.profile.id, left=True),
    Field("regime", "price regime", lambda r: r.profile.regime, left=True),
    Field("energy_pj", "energy per image", lambda r: r.energy_pj, joules),
)


def layer_sheet(report: RateReport) -> Sheet:
    """One row per layer, for one image; four digits, as rates are rounded."""
    title = f"Energy of {report.network} from rates, T = {report.time_steps}, profile {report.profile.id}"
    return tabulate(title, _LAYERS, report.rows)


def total_sheet(reports: Sequence[RateReport]) -> Sheet:
    """Profiles side by side."""
    return tabulate("Profiles side by side, from rates", _TOTALS, reports)


def render_rates(reports: Sequence[RateReport], fmt: str, *, totals_only: bool = False) -> str:
    """All reports in a format of :data:`qkf_deploy.report.formats.FORMATS`."""
    if fmt == "json":
        return to_json({"schema_version": 1, "kind": "energy-from-rates", "reports": [r.to_dict() for r in reports]})
    if fmt == "csv":
        return to_csv(total_sheet(reports) if totals_only else _long(reports))
    draw, bullet = for_people(fmt), "- " if fmt == "md" else ""
    parts: list[str] = []
    for report in [] if totals_only else reports:
        parts += [draw(layer_sheet(report)), *(f"{bullet}{line}\n" for line in _footnotes(report))]
    if totals_only or len(reports) > 1:
        parts.append(draw(total_sheet(reports)))
    return "\n".join(parts) if fmt == "table" and totals_only else "".join(parts)


def _footnotes(report: RateReport) -> list[str]:
    unpriced = ", ".join(f"{name} {si(count)}" for name, count in report.unpriced.items())
    return [
        f"energy per image {joules(report.energy_pj)}",
        *([f"not priced: {unpriced}"] if unpriced else []),
        *report.notes,
    ]


def _long(reports: Sequence[RateReport]) -> Sheet:
    """All profiles in one sheet, the profile in the first column."""
    first: Field[tuple[RateReport, RateRow]] = Field("profile", "profile", lambda pair: pair[0].profile.id, left=True)
    fields = (first, *(_of_row(field) for field in _LAYERS))
    return tabulate("energy from rates", fields, [(report, row) for report in reports for row in report.rows])


def _of_row(field: Field[RateRow]) -> Field[tuple[RateReport, RateRow]]:
    return Field(field.key, field.title, lambda pair: field.value(pair[1]))
