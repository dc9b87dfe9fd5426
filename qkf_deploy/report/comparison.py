"""Several conventions on one run, and the spiking network against its dense twins."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from qkf_deploy.display.numbers import joules, ratio, unless_zero, whole
from qkf_deploy.display.tables import Field, Sheet, tabulate
from qkf_deploy.hw_models.pricing import EnergyReport
from qkf_deploy.hw_models.twins import Twin, Verdict, mixed_regimes, verdict
from qkf_deploy.ledger import Ledger
from qkf_deploy.report.formats import below, for_people, to_csv, to_json
from qkf_deploy.report.tables import SCHEMA_VERSION, comparison_sheet

_TWINS: tuple[Field[Twin], ...] = (
    Field("regime", "price regime", lambda t: t.regime.name, left=True),
    Field("ac_pj", "AC pJ", lambda t: t.regime.ac_pj),
    Field("mac_pj", "MAC pJ", lambda t: t.regime.mac_pj),
    Field("snn_energy_per_image_pj", "spiking", lambda t: t.snn_pj, joules),
    Field("twin_energy_per_image_pj", "dense twin", lambda t: t.twin_pj, joules),
    Field("twin_over_snn", "twin / spiking", lambda t: t.ratio, ratio),
    Field("snn_memory_per_image_pj", "spiking memory", lambda t: t.snn_memory_pj, joules),
    Field("twin_memory_per_image_pj", "twin memory", lambda t: t.twin_memory_pj, joules),
    Field("twin_over_snn_with_memory", "twin / spiking with memory", lambda t: t.ratio_with_memory, ratio),
    Field("break_even_spikes_per_synapse", "break-even", lambda t: t.break_even, ratio),
    Field("source", "source", lambda t: t.regime.source, left=True),
)


def twin_sheet(found: Verdict) -> Sheet:
    """SNN and dense twin per regime."""
    title = "Against the dense twin, one price regime per row: arithmetic alone, and with memory"
    return tabulate(title, _TWINS, found.twins)


def conventions_sheet(ledger: Ledger, reports: Sequence[EnergyReport]) -> Sheet:
    """Energy per layer under every profile, per image; layers that need none are left out."""

    def column(report: EnergyReport) -> Field[int]:
        return Field(
            f"{report.profile.id}_pj",
            report.profile.id,
            lambda index: Fraction(report.layers[index].energy_pj) / report.images,
            unless_zero(joules),
            total=lambda _: joules(report.mean_energy_pj),
        )

    name: Field[int] = Field("layer", "layer", lambda index: ledger.layers[index].name, left=True)
    rows = [index for index in range(len(ledger.layers)) if any(r.layers[index].energy_pj for r in reports)]
    return tabulate("Energy per image and layer, by profile", (name, *map(column, reports)), rows)


def unpriced_sheet(reports: Sequence[EnergyReport]) -> Sheet:
    """Work that occurred and has no price: count per image, and the profiles that leave it out."""
    counts: dict[str, Fraction] = {}
    without: dict[str, list[str]] = {}
    for report in reports:
        for name, number in report.unpriced.items():
            counts[name] = Fraction(number, report.images)
            without.setdefault(name, []).append(report.profile.id)
    fields: tuple[Field[str], ...] = (
        Field("class", "class", lambda name: name, left=True),
        Field("count_per_image", "count per image", lambda name: counts[name], whole),
        Field(
            "not_priced_by",
            "not priced by",
            lambda name: ", ".join(without[name]),
            lambda profiles: _all_or_names(profiles, len(reports)),
            left=True,
        ),
    )
    return tabulate("Work that occurred and has no price", fields, counts)


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
    draw = for_people(fmt)
    lines = [*([f"warning: {warning}"] if warning else []), *found.sentences]
    bullets = "\n".join(f"- {line}" for line in lines)
    return "\n".join([*(draw(s) for s in sheets if s.rows), below(fmt, bullets)]) + "\n"
