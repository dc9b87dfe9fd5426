"""The energy table: its columns, the lines under it, and the same numbers as plain data and as a data frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from qkf_deploy.display.frames import data_frame
from qkf_deploy.display.numbers import joules, percent, rate, si, signed_percent, unless_zero, whole
from qkf_deploy.display.overview import Overview, largest
from qkf_deploy.display.tables import Field, Sheet, summed, tabulate

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame
    from qkf_deploy.hw_models.pricing import EnergyReport, LayerEnergy


def layer_fields(images: int) -> tuple[Field[LayerEnergy], ...]:
    """Columns of the layer table, per image (exact means over the images of the run)."""

    def mean(key: str, title: str, total: Callable[[LayerEnergy], Any], text: Callable[[Any], str]) -> Field[Any]:
        return summed(key, title, lambda r: Fraction(total(r)) / images, text)

    return (
        Field("layer", "layer", lambda r: r.layer, left=True),
        Field("type", "type", lambda r: r.type, left=True),
        Field("input_kind", "input", lambda r: r.input_kind, left=True),
        Field("firing_rate_in", "rate in", lambda r: r.firing_rate_in, rate),
        Field("nonzero_rate_in", "non-zero in", lambda r: r.nonzero_rate_in, rate),
        summed("dense_macs_per_step", "dense MACs/step", lambda r: r.dense_macs, unless_zero(whole)),
        mean("sops_rate_times_dense", "SOPs rate × dense", lambda r: r.sops_rate, unless_zero(whole)),
        mean("sops_exact", "SOPs exact", lambda r: r.sops_exact, unless_zero(whole)),
        Field("sops_difference", "difference", lambda r: r.sops_difference, signed_percent, total=_difference),
        mean("macs", "MACs", lambda r: r.macs, unless_zero(whole)),
        mean("energy_pj", "energy", lambda r: r.energy_pj, joules),
        summed("share", "share", lambda r: r.share, percent),
    )


def sum_fields() -> tuple[Field[LayerEnergy], ...]:
    """The same numbers added up over all images, for machines: exact, rows add up to the total to the last digit."""
    return (
        Field("sops_rate_times_dense_sum", "", lambda r: r.sops_rate),
        Field("sops_exact_sum", "", lambda r: r.sops_exact),
        Field("macs_sum", "", lambda r: r.macs),
        Field("energy_pj_sum", "", lambda r: r.energy_pj),
    )


def _difference(rows: Sequence[LayerEnergy]) -> Fraction | None:
    exact = sum(r.sops_exact for r in rows)
    return Fraction(sum(r.sops_rate for r in rows), exact) - 1 if exact else None


def energy_sheet(report: EnergyReport, *, every_node: bool = False) -> Sheet:
    """Per-layer table, per image.

    Args:
        report: energy of one run.
        every_node: also the nodes without operations of interest (views, gates without a price ...).
    """
    rows = report.layers if every_node else _at_work(report)
    return tabulate(_title(report), layer_fields(report.images), rows, report.layers)


def _at_work(report: EnergyReport) -> tuple[LayerEnergy, ...]:
    return tuple(r for r in report.layers if r.energy_pj or r.dense_macs or r.sops_exact)


def _title(report: EnergyReport) -> str:
    return f"Energy per image, profile {report.profile.id}: {report.profile.title}"


def footnotes(report: EnergyReport) -> list[str]:
    """Totals, dense twin, what has no price, assumptions: the lines under a table."""
    lines = _totals(report)
    if report.unpriced:
        lines.append("not priced (per image):")
        lines += [f"  {name}: {count}" for name, count in _unpriced(report)]
    lines.append("assumptions:")
    lines += [f"  - {sentence}" for sentence in report.assumptions]
    return lines


def _totals(report: EnergyReport) -> list[str]:
    lines = [f"energy per image  {joules(report.mean_energy_pj)}{_spread(report)}"]
    if report.low_energy_pj is not None:
        low = Fraction(report.low_energy_pj) / report.images
        lines.append(f"range             {joules(low)} to {joules(report.mean_energy_pj)}, as the source has it")
    if report.ann_twin_energy_pj is not None and report.twin_ratio is not None:
        twin = Fraction(report.ann_twin_energy_pj) / report.images
        lines.append(f"dense ANN twin    {joules(twin)}, {float(report.twin_ratio):.3g} times the spiking network")
    return lines


def _unpriced(report: EnergyReport) -> list[tuple[str, str]]:
    return [(name, si(Fraction(count, report.images))) for name, count in report.unpriced.items()]


def _spread(report: EnergyReport) -> str:
    return f" ± {joules(report.sd_energy_pj)} (sd over {report.images} images)" if report.images > 1 else ""


def overview(report: EnergyReport) -> Overview:
    """Headline, the layers that need most energy, totals, what has no price, assumptions; per image."""
    shown, left_out = largest(_at_work(report), lambda r: (r.energy_pj, r.sops_exact), "layers, those with most energy")
    unpriced = ", ".join(f"{name} {count}" for name, count in _unpriced(report))
    return Overview(
        _title(report),
        tabulate("", layer_fields(report.images), shown, report.layers),
        (*left_out, *_totals(report), *([f"not priced: {unpriced}"] if unpriced else []), *report.assumptions),
    )


def data(report: EnergyReport) -> dict[str, Any]:
    """See :meth:`qkf_deploy.hw_models.pricing.EnergyReport.to_dict`."""
    n, twin, low = report.images, report.ann_twin_energy_pj, report.low_energy_pj
    head = ("id", "title", "citation", "url", "node_nm", "voltage_v", "precision", "regime", "evidence", "scope")
    return {
        "profile": {k: getattr(report.profile, k) for k in head},
        "images": n,
        "time_steps": report.time_steps,
        "energy_pj": report.mean_energy_pj,
        "energy_sd_pj": report.sd_energy_pj,
        "energy_pj_sum": report.total_energy_pj,
        **({} if low is None else {"energy_low_pj": Fraction(low) / n, "energy_low_pj_sum": low}),
        "energy_pj_of_each_image": list(report.energy_per_image_pj),
        **_per_image("energy_by_quantity_pj", report.energy_by_quantity_pj, n),
        "ann_twin_energy_pj": None if twin is None else Fraction(twin) / n,
        "ann_twin_energy_pj_sum": twin,
        **_per_image("unpriced", report.unpriced, n),
        "assumptions": list(report.assumptions),
        "layers": [_row_data(row, n) for row in report.layers],
    }


def _per_image(name: str, sums: Mapping[str, Any], images: int) -> dict[str, Any]:
    """A group of numbers per image under its name, and added up over all images under ``name_sum``."""
    return {name: {k: Fraction(v) / images for k, v in sums.items()}, f"{name}_sum": dict(sums)}


def _row_data(row: LayerEnergy, images: int) -> dict[str, Any]:
    return {
        **{field.key: field.value(row) for field in (*layer_fields(images), *sum_fields())},
        "border_exact_macs_per_step": row.border_exact_macs,
        **_per_image("counts", row.counts, images),
        **_per_image("energy_by_quantity_pj", row.energy_by_quantity_pj, images),
    }


def frame(report: EnergyReport) -> DataFrame:
    """See :meth:`qkf_deploy.hw_models.pricing.EnergyReport.to_pandas`."""
    n = report.images
    records = [
        {
            "layer": r.layer,
            "type": r.type,
            "input_kind": r.input_kind,
            "firing_rate_in": r.firing_rate_in,
            "nonzero_rate_in": r.nonzero_rate_in,
            "dense_macs_per_step": r.dense_macs,
            "border_exact_macs_per_step": r.border_exact_macs,
            "sops_rate_times_dense_per_image": Fraction(r.sops_rate, n),
            "sops_exact_per_image": Fraction(r.sops_exact, n),
            "macs_per_image": Fraction(r.macs, n),
            "energy_per_image_pj": Fraction(r.energy_pj) / n,
            "share": r.share,
            **{f"{name}_energy_per_image_pj": Fraction(pj) / n for name, pj in r.energy_by_quantity_pj.items()},
        }
        for r in report.layers
    ]
    columns = dict.fromkeys(name for record in records for name in record)
    return data_frame(records, list(columns), profile=report.profile.id, images=n, time_steps=report.time_steps)
