"""Energy tables: per layer, totals, assumptions, and several profiles side by side."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from qkf_deploy.display.numbers import joules, ratio
from qkf_deploy.display.tables import Field, Sheet, tabulate
from qkf_deploy.hw_models.energy_table import energy_sheet, footnotes, layer_fields, sum_fields
from qkf_deploy.hw_models.pricing import EnergyReport, LayerEnergy
from qkf_deploy.report.formats import below, check_format, for_people, to_csv, to_json

SCHEMA_VERSION = 1


def render_energy(
    reports: EnergyReport | Sequence[EnergyReport], fmt: str = "table", *, every_node: bool = False
) -> str:
    """Energy of one run under one or more profiles.

    Args:
        reports: one per profile; counts are sums over all images in JSON and CSV, means per image in tables for people.
        fmt: ``table``, ``json``, ``csv`` or ``md``.
        every_node: tables for people also show nodes without operations of interest (views, gates without a price ...).

    Returns:
        Text ending with a newline.

    Raises:
        UsageError: an unknown format.
    """
    many = [reports] if isinstance(reports, EnergyReport) else list(reports)
    check_format(fmt)
    if fmt == "json":
        return to_json(energy_data(many))
    if fmt == "csv":
        return to_csv(_long_sheet(many))
    draw = for_people(fmt)
    parts = [
        part
        for report in many
        for part in (draw(energy_sheet(report, every_node=every_node)), _below(footnotes(report), fmt))
    ]
    if len(many) > 1:
        parts.append(draw(comparison_sheet(many)))
    return "\n".join(parts)


def energy_data(reports: Sequence[EnergyReport]) -> dict[str, Any]:
    """Plain data, per image; what is added up over all images is called ``..._sum`` (rows add up to it exactly)."""
    return {"schema_version": SCHEMA_VERSION, "kind": "energy", "reports": [r.to_dict() for r in reports]}


def _long_sheet(reports: Sequence[EnergyReport]) -> Sheet:
    """All profiles in one sheet, the profile in the first column, so that a spreadsheet can pivot it."""
    fields: tuple[Field[tuple[EnergyReport, LayerEnergy]], ...] = (
        Field("profile", "profile", lambda r: r[0].profile.id, left=True),
        Field("images", "images", lambda r: r[0].images),
        *(_of_row(name) for name in [f.key for f in (*layer_fields(1), *sum_fields())]),
    )
    return tabulate("energy", fields, [(report, row) for report in reports for row in report.layers])


def _of_row(key: str) -> Field[tuple[EnergyReport, LayerEnergy]]:
    """A column of the layer table, per image of the report a row is of."""

    def value(pair: tuple[EnergyReport, LayerEnergy]) -> Any:
        report, row = pair
        return {f.key: f for f in (*layer_fields(report.images), *sum_fields())}[key].value(row)

    return Field(key, key, value)


def _below(lines: Sequence[str], fmt: str) -> str:
    return _as_list(lines) if fmt == "md" else below(fmt, "\n".join(lines) + "\n")


def _as_list(lines: Sequence[str]) -> str:
    """Lines as a Markdown list; indented ones become its second level."""
    return "".join(f"{line}\n" if line.startswith("  - ") else _item(line) for line in lines)


def _item(line: str) -> str:
    return f"  - {line.strip()}\n" if line.startswith(" ") else f"- {' '.join(line.split())}\n"


_COMPARISON: tuple[Field[tuple[EnergyReport, Fraction]], ...] = (
    Field("profile", "profile", lambda r: r[0].profile.id, left=True),
    Field("regime", "price regime", lambda r: r[0].profile.regime, left=True),
    Field("scope", "scope", lambda r: r[0].profile.scope, left=True),
    Field("evidence", "evidence", lambda r: r[0].profile.evidence, left=True),
    Field("energy_per_image_pj", "energy per image", lambda r: r[0].mean_energy_pj, joules),
    Field("ann_twin_per_image_pj", "dense twin", lambda r: _twin(r[0]), lambda pj: "" if pj is None else joules(pj)),
    Field("relative", "relative", lambda r: r[0].mean_energy_pj / r[1] if r[1] else None, ratio),
)


def comparison_sheet(reports: Sequence[EnergyReport]) -> Sheet:
    """Totals of several profiles side by side; the first one is the unit of the last column."""
    base = reports[0].mean_energy_pj
    return tabulate("Profiles side by side", _COMPARISON, [(report, base) for report in reports])


def _twin(report: EnergyReport) -> Fraction | None:
    return None if report.ann_twin_energy_pj is None else Fraction(report.ann_twin_energy_pj) / report.images


def energy_lines(reports: Sequence[EnergyReport]) -> str:
    """Mean energy per image, one profile per line."""
    return "\n".join(f"energy per image, {r.profile.id:<11} {joules(r.mean_energy_pj)}" for r in reports)
