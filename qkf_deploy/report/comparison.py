"""Several conventions on one run, and the spiking network against its dense twins."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from qkf_deploy.display.numbers import joules, rate, ratio, unless_zero, whole
from qkf_deploy.display.tables import Field, Sheet, tabulate
from qkf_deploy.hw_models.pricing import EnergyReport
from qkf_deploy.hw_models.twins import Twin, Verdict, mixed_regimes, verdict
from qkf_deploy.hw_models.yan import CurvePoint, MovedTwin, curve, moved_twins
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


_MOVED: tuple[Field[MovedTwin], ...] = (
    Field("movement", "price of movement", lambda t: t.movement.name, left=True),
    Field("sparse_pj_per_bit", "sparse pJ/bit", lambda t: t.movement.sparse_pj),
    Field("dense_pj_per_bit", "dense pJ/bit", lambda t: t.movement.dense_pj),
    Field("snn_energy_per_image_pj", "spiking", lambda t: t.snn_pj, joules),
    Field("snn_movement_per_image_pj", "spiking movement", lambda t: t.snn_movement_pj, joules),
    Field("twin_energy_per_image_pj", "quantized twin", lambda t: t.twin_pj, joules),
    Field("twin_movement_per_image_pj", "twin movement", lambda t: t.twin_movement_pj, joules),
    Field("twin_over_snn", "twin / spiking", lambda t: t.ratio, ratio),
)
_CURVE: tuple[Field[CurvePoint], ...] = (
    Field("time_steps", "T", lambda p: p.time_steps),
    Field("activation_bits", "bits of the twin", lambda p: p.bits),
    Field("dense_ratio", "spiking / twin, dense", lambda p: p.dense_ratio, ratio),
    Field("weight_fetch_rate", "break-even rate, weight fetches", lambda p: p.weight_fetch, rate),
    Field("published_rate", "published", lambda p: p.published, rate),
    Field("published_low", "low", lambda p: p.low, rate),
    Field("published_high", "high", lambda p: p.high, rate),
    Field("weights", "for", lambda p: p.weights, left=True),
)


def moved_twin_sheet(ledger: Ledger) -> Sheet:
    """The quantized twin with data movement."""
    title = "Against the quantized twin with data movement (reconstruction after Yan et al. 2026, 22 nm)"
    return tabulate(title, _MOVED, moved_twins(ledger))


def curve_sheet() -> Sheet:
    """Thresholds over T."""
    return tabulate("Firing rate below which a spiking network wins (Yan et al. 2026)", _CURVE, curve())


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
    sheets = (
        comparison_sheet(reports), conventions_sheet(ledger, reports), unpriced_sheet(reports), twin_sheet(found),
        moved_twin_sheet(ledger), curve_sheet(),
    )  # fmt: skip
    if fmt == "csv":
        return to_csv(sheets[1])
    if fmt == "json":
        names = ("profiles", "layers", "unpriced", "twins", "moved_twins", "thresholds")
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
