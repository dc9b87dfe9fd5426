"""Several conventions on one run, and the spiking network against its dense twins."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from qkf_deploy.hw_models.pricing import EnergyReport
from qkf_deploy.hw_models.twins import Twin, Verdict, mixed_regimes, verdict
from qkf_deploy.ledger import Ledger
from qkf_deploy.report.formats import Column, Sheet, joules, to_csv, to_json, to_markdown, to_text, whole
from qkf_deploy.report.tables import SCHEMA_VERSION, comparison_sheet


def twin_sheet(found: Verdict) -> Sheet:
    """SNN and dense twin per regime."""
    columns = (
        Column("regime", "price regime", True),
        Column("ac_pj", "AC pJ"),
        Column("mac_pj", "MAC pJ"),
        Column("snn_energy_per_image_pj", "spiking"),
        Column("twin_energy_per_image_pj", "dense twin"),
        Column("twin_over_snn", "twin / spiking"),
        Column("snn_memory_per_image_pj", "spiking memory"),
        Column("twin_memory_per_image_pj", "twin memory"),
        Column("twin_over_snn_with_memory", "twin / spiking with memory"),
        Column("break_even_spikes_per_synapse", "break-even"),
        Column("source", "source", True),
    )
    rows = tuple(_twin_row(t) for t in found.twins)
    shown = tuple(
        (
            t.regime.name, str(t.regime.ac_pj), str(t.regime.mac_pj), joules(t.snn_pj), joules(t.twin_pj),
            _times(t.ratio), joules(t.snn_memory_pj), joules(t.twin_memory_pj), _times(t.ratio_with_memory),
            f"{float(t.break_even):.3g}", t.regime.source,
        )
        for t in found.twins
    )  # fmt: skip
    return Sheet(
        "Against the dense twin, one price regime per row: arithmetic alone, and with memory", columns, rows, shown
    )


def _twin_row(t: Twin) -> tuple[Any, ...]:
    r = t.regime
    memory = (t.snn_memory_pj, t.twin_memory_pj, t.ratio_with_memory)
    return (r.name, r.ac_pj, r.mac_pj, t.snn_pj, t.twin_pj, t.ratio, *memory, t.break_even, r.source)


def _times(ratio: Fraction | None) -> str:
    return "" if ratio is None else f"{float(ratio):.3g}"


def conventions_sheet(ledger: Ledger, reports: Sequence[EnergyReport]) -> Sheet:
    """Energy per layer under every profile, per image, with the difference of the last from the first."""
    columns = (Column("layer", "layer", True), *(Column(f"{r.profile.id}_pj", r.profile.id) for r in reports))
    rows, shown = [], []
    for index, layer in enumerate(ledger):
        energies = [Fraction(r.layers[index].energy_pj) / r.images for r in reports]
        if any(energies):
            rows.append((layer.name, *energies))
            shown.append((layer.name, *(joules(e) if e else "" for e in energies)))
    footer = ("total", *(joules(r.mean_energy_pj) for r in reports))
    return Sheet("Energy per image and layer, by profile", columns, tuple(rows), tuple(shown), footer)


def unpriced_sheet(reports: Sequence[EnergyReport]) -> Sheet:
    """Work that occurred and has no price: count per image, and the profiles that leave it out."""
    columns = (
        Column("class", "class", True),
        Column("count_per_image", "count per image"),
        Column("not_priced_by", "not priced by", True),
    )
    counts: dict[str, Fraction] = {}
    without: dict[str, list[str]] = {}
    for report in reports:
        for name, number in report.unpriced.items():
            counts[name] = Fraction(number, report.images)
            without.setdefault(name, []).append(report.profile.id)
    rows = [(name, count, ", ".join(without[name])) for name, count in counts.items()]
    shown = tuple((name, whole(count), _all_or_names(profiles, len(reports))) for name, count, profiles in rows)
    return Sheet("Work that occurred and has no price", columns, tuple(rows), shown)


def _all_or_names(profiles: str, count: int) -> str:
    return "every profile here" if count > 1 and len(profiles.split(", ")) == count else profiles


def render_comparison(ledger: Ledger, reports: Sequence[EnergyReport], fmt: str) -> str:
    """Profiles side by side, twins, thresholds; ``fmt`` as in :func:`qkf_deploy.report.tables.render_energy`."""
    found, warning = verdict(ledger), mixed_regimes(reports)
    sheets = (comparison_sheet(reports), conventions_sheet(ledger, reports), unpriced_sheet(reports), twin_sheet(found))
    if fmt == "csv":
        return to_csv(sheets[1])
    if fmt == "json":
        names = ("profiles", "layers", "unpriced", "twins")
        return to_json(
            {
                "schema_version": SCHEMA_VERSION,
                "kind": "comparison",
                "images": ledger.images,
                "warning": warning,
                **{name: sheet.records() for name, sheet in zip(names, sheets, strict=True)},
                "spikes_per_synapse_per_inference": found.spikes_per_synapse,
                "verdict": list(found.sentences),
            }
        )
    draw = to_text if fmt == "table" else to_markdown
    lines = [*([f"warning: {warning}"] if warning else []), *found.sentences]
    bullets = "\n".join(f"- {line}" for line in lines)
    return "\n".join([*(draw(s) for s in sheets if s.rows), bullets]) + "\n"
