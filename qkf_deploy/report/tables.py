"""Energy tables: per layer, totals, assumptions, and several profiles side by side."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.pricing import EnergyReport, LayerEnergy
from qkf_deploy.report.formats import (
    FORMATS,
    Column,
    Sheet,
    joules,
    percent,
    rate,
    si,
    signed_percent,
    to_csv,
    to_json,
    to_markdown,
    to_text,
    whole,
)

SCHEMA_VERSION = 1

_COLUMNS = (
    Column("layer", "layer", left=True),
    Column("type", "type", left=True),
    Column("input_kind", "input", left=True),
    Column("firing_rate_in", "rate in"),
    Column("nonzero_rate_in", "non-zero in"),
    Column("dense_macs_per_step", "dense MACs/step"),
    Column("sops_rate_times_dense", "SOPs rate × dense"),
    Column("sops_exact", "SOPs exact"),
    Column("sops_difference", "difference"),
    Column("macs", "MACs"),
    Column("energy_pj", "energy"),
    Column("share", "share"),
)


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
    if fmt not in FORMATS:
        raise UsageError(f"no format {fmt!r}", hint=f"one of: {', '.join(FORMATS)}")
    if fmt == "json":
        return to_json(energy_data(many))
    if fmt == "csv":
        return to_csv(_long_sheet(many))
    draw = to_text if fmt == "table" else to_markdown
    below = _as_list if fmt == "md" else str
    parts = [
        part
        for report in many
        for part in (draw(energy_sheet(report, every_node=every_node)), below(footnotes(report)))
    ]
    if len(many) > 1:
        parts.append(draw(comparison_sheet(many)))
    return "\n".join(parts)


def energy_data(reports: Sequence[EnergyReport]) -> dict[str, Any]:
    """Plain data: ``energy_pj`` of the rows adds up exactly to ``total_energy_pj``, both over all images."""
    return {"schema_version": SCHEMA_VERSION, "kind": "energy", "reports": [_report_data(r) for r in reports]}


def _report_data(report: EnergyReport) -> dict[str, Any]:
    profile = report.profile
    head = ("id", "title", "citation", "url", "node_nm", "voltage_v", "precision", "regime", "evidence", "scope")
    return {
        "profile": {k: getattr(profile, k) for k in head},
        "images": report.images,
        "time_steps": report.time_steps,
        "total_energy_pj": report.total_energy_pj,
        "mean_energy_per_image_pj": report.mean_energy_pj,
        "sd_energy_per_image_pj": report.sd_energy_pj,
        "energy_per_image_pj": list(report.energy_per_image_pj),
        "energy_by_quantity_pj": dict(report.energy_by_quantity_pj),
        "ann_twin_energy_pj": report.ann_twin_energy_pj,
        "unpriced": dict(report.unpriced),
        "assumptions": list(report.assumptions),
        "layers": [_row_data(row) for row in report.layers],
    }


def _row_data(row: LayerEnergy) -> dict[str, Any]:
    cells = dict(zip((c.key for c in _COLUMNS), _cells(row), strict=True))
    return {
        **cells,
        "border_exact_macs_per_step": row.border_exact_macs,
        "counts": dict(row.counts),
        "energy_by_quantity_pj": dict(row.energy_by_quantity_pj),
    }


def _cells(row: LayerEnergy) -> tuple[Any, ...]:
    return (
        row.layer,
        row.type,
        row.input_kind,
        row.firing_rate_in,
        row.nonzero_rate_in,
        row.dense_macs,
        row.sops_rate,
        row.sops_exact,
        row.sops_difference,
        row.macs,
        row.energy_pj,
        row.share,
    )


def _long_sheet(reports: Sequence[EnergyReport]) -> Sheet:
    """All profiles in one sheet, the profile in the first column, so that a spreadsheet can pivot it."""
    rows = tuple((r.profile.id, r.images, *_cells(row)) for r in reports for row in r.layers)
    return Sheet("energy", (Column("profile", "profile", True), Column("images", "images"), *_COLUMNS), rows)


def energy_sheet(report: EnergyReport, *, every_node: bool = False) -> Sheet:
    """Per-layer table; exact sums over all images for machines, means per image for people."""
    layers = [r for r in report.layers if every_node or r.energy_pj or r.dense_macs or r.sops_exact]
    n = report.images
    shown = tuple(
        (
            r.layer,
            r.type,
            r.input_kind,
            rate(r.firing_rate_in),
            rate(r.nonzero_rate_in),
            whole(r.dense_macs) if r.dense_macs else "",
            whole(Fraction(r.sops_rate, n)) if r.sops_rate else "",
            whole(Fraction(r.sops_exact, n)) if r.sops_exact else "",
            signed_percent(r.sops_difference),
            whole(Fraction(r.macs, n)) if r.macs else "",
            joules(Fraction(r.energy_pj) / n),
            percent(r.share),
        )
        for r in layers
    )
    dense, by_rate, exact, macs = (
        sum(getattr(r, k) for r in report.layers) for k in ("dense_macs", "sops_rate", "sops_exact", "macs")
    )
    footer = (
        "total", "", "", "", "", whole(dense), whole(Fraction(by_rate, n)), whole(Fraction(exact, n)),
        signed_percent(Fraction(by_rate, exact) - 1 if exact else None), whole(Fraction(macs, n)),
        joules(report.mean_energy_pj), "100.00 %" if report.total_energy_pj else "",
    )  # fmt: skip
    title = f"Energy per image, profile {report.profile.id}: {report.profile.title}"
    return Sheet(title, _COLUMNS, tuple(_cells(r) for r in layers), shown, footer)


def footnotes(report: EnergyReport) -> str:
    """Totals, dense twin, what has no price, assumptions: the lines under a table."""
    lines = [f"energy per image  {joules(report.mean_energy_pj)}{_spread(report)}"]
    if report.ann_twin_energy_pj is not None and report.twin_ratio is not None:
        twin = Fraction(report.ann_twin_energy_pj) / report.images
        lines.append(f"dense ANN twin    {joules(twin)}, {float(report.twin_ratio):.3g} times the spiking network")
    if report.unpriced:
        lines.append("not priced (per image):")
        lines += [f"  {name}: {si(Fraction(count, report.images))}" for name, count in report.unpriced.items()]
    lines.append("assumptions:")
    lines += [f"  - {sentence}" for sentence in report.assumptions]
    return "\n".join(lines) + "\n"


def _as_list(text: str) -> str:
    """Lines as a Markdown list; indented ones become its second level."""
    return "".join(f"{line}\n" if line.startswith("  - ") else _item(line) for line in text.splitlines())


def _item(line: str) -> str:
    return f"  - {line.strip()}\n" if line.startswith(" ") else f"- {' '.join(line.split())}\n"


def _spread(report: EnergyReport) -> str:
    return f" ± {joules(report.sd_energy_pj)} (sd over {report.images} images)" if report.images > 1 else ""


def comparison_sheet(reports: Sequence[EnergyReport]) -> Sheet:
    """Totals of several profiles side by side; the first one is the unit of the last column."""
    columns = (
        Column("profile", "profile", True),
        Column("regime", "price regime", True),
        Column("scope", "scope", True),
        Column("evidence", "evidence", True),
        Column("energy_per_image_pj", "energy per image"),
        Column("ann_twin_per_image_pj", "dense twin"),
        Column("relative", "relative"),
    )
    base = reports[0].mean_energy_pj
    rows, shown = [], []
    for r in reports:
        twin = None if r.ann_twin_energy_pj is None else Fraction(r.ann_twin_energy_pj) / r.images
        relative = r.mean_energy_pj / base if base else None
        p = r.profile
        rows.append((p.id, p.regime, p.scope, p.evidence, r.mean_energy_pj, twin, relative))
        texts = ("" if twin is None else joules(twin), "" if relative is None else f"{float(relative):.3g}")
        shown.append((p.id, p.regime, p.scope, p.evidence, joules(r.mean_energy_pj), *texts))
    return Sheet("Profiles side by side", columns, tuple(rows), tuple(shown))
