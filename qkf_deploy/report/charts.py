"""What the charts of a page show, as plain rows: a script of the page draws them and offers them as SVG and CSV."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Literal

from qkf_deploy.hw_models.pricing import EnergyReport
from qkf_deploy.hw_models.quantities import QUANTITIES
from qkf_deploy.ledger import Ledger
from qkf_deploy.report import stages
from qkf_deploy.runs.content import RunFile
from qkf_deploy.runs.first import RATES
from qkf_deploy.statistics.comparison import Side
from qkf_deploy.statistics.comparison_tables import bits_of

#: Classes of work as people read them, in the order of their colours.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "synapses": ("synapse",),
    "attention": ("products", "attention_sums", "gate"),
    "neurons, bias, residual": ("neuron", "bias", "residual", "scale"),
    "pooling": ("pool",),
    "head": ("head",),
    "memory and routing": ("memory", "routing"),
}
#: Classes that a chart of wrong answers has room for.
_CLASSES = 40


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        id: of its figure.
        title, caption: what it shows.
        kind: ``bars`` along x, one per y, stacked by group; ``lines`` and ``points`` of y over x by group; ``cells``.
        x, y: columns of ``rows``.
        unit: of the numbers: ``pJ``, ``share``, or empty for counts.
        rows: every number; the columns are those of its CSV.
        group: column whose values have colours, empty where there is none.
        groups: those values, with the number of their colour.
    """

    id: str
    title: str
    caption: str
    kind: Literal["bars", "lines", "points", "cells"]
    x: str
    y: str
    unit: str
    rows: tuple[Mapping[str, Any], ...]
    group: str = ""
    groups: tuple[tuple[str, int], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the page's script."""
        return asdict(self)


def group_of(quantity: str) -> str:
    """The group a priced quantity belongs to."""
    work = min(QUANTITIES[quantity].work)
    return next(name for name, starts in GROUPS.items() if work.startswith(starts))


def by_profile(reports: Sequence[EnergyReport]) -> Chart:
    """Mean energy per image under every profile."""
    bars = [(r.profile.id, r.energy_by_quantity_pj, r.images) for r in reports]
    caption = "The same forward pass under every convention: mean energy per image by kind of work."
    return _energy("by-profile", "By convention", caption, "profile", bars)


def by_stage(report: EnergyReport) -> Chart:
    """Mean energy per image of every stage."""
    bars = [
        (n, _sum(r.energy_by_quantity_pj for r in rows), report.images) for n, rows in stages.by_stage(report).items()
    ]
    caption = f"Mean energy per image of every stage by kind of work, profile {report.profile.id}."
    return _energy("by-stage", "By stage", caption, "stage", bars)


def by_layer(report: EnergyReport) -> Chart:
    """Mean energy per image of every layer."""
    bars = [(r.layer, r.energy_by_quantity_pj, report.images) for r in report.layers if r.energy_pj]
    caption = f"Mean energy per image of every layer that has some, by kind of work, profile {report.profile.id}."
    return _energy("by-layer", "By layer", caption, "layer", bars)


def by_work(report: EnergyReport) -> Chart:
    """Mean energy per image by group of work."""
    bars = [
        (name, {q: e for q, e in report.energy_by_quantity_pj.items() if group_of(q) == name}, report.images)
        for name in GROUPS
    ]
    caption = f"Mean energy per image by kind of work, profile {report.profile.id}."
    return _energy("by-work", "By kind of work", caption, "kind", [bar for bar in bars if any(bar[1].values())])


def _sum(parts: Iterable[Mapping[str, Any]]) -> dict[str, Fraction]:
    found: dict[str, Fraction] = {}
    for part in parts:
        for quantity, energy in part.items():
            found[quantity] = found.get(quantity, Fraction(0)) + Fraction(energy)
    return found


def _energy(id_: str, title: str, caption: str, of: str, bars: Sequence[tuple[str, Mapping[str, Any], int]]) -> Chart:
    rows: list[dict[str, Any]] = []
    for label, energies, images in bars:
        grouped: dict[str, Fraction] = {}
        for quantity, energy in energies.items():
            name = group_of(quantity)
            grouped[name] = grouped.get(name, Fraction(0)) + Fraction(energy) / images
        rows += [{of: label, "work": n, "energy_pj": float(grouped[n])} for n in GROUPS if grouped.get(n)]
    groups = tuple((name, i) for i, name in enumerate(GROUPS) if any(row["work"] == name for row in rows))
    return Chart(id_, title, caption, "bars", "energy_pj", of, "pJ", tuple(rows), "work", groups)


def rates(ledger: Ledger) -> Chart:
    """Firing rate of every stage at each step."""
    spikes: dict[str, list[int]] = {}
    neurons: Counter[str] = Counter()
    for layer in ledger:
        if layer.spikes_per_step is not None and "resets" in layer.counts:
            stage = stages.stage_of(layer.name)
            counts = [int(sum(map(int, row))) for row in layer.spikes_per_step]
            spikes[stage] = [a + b for a, b in zip(spikes.get(stage, [0] * len(counts)), counts, strict=True)]
            neurons[stage] += layer.output_size
    rows = tuple(
        {"stage": stage, "step": step, "firing_rate": count / (neurons[stage] * ledger.images)}
        for stage, counts in spikes.items()
        for step, count in enumerate(counts)
    )
    caption = "Spikes per neuron at each time step, mean over images and over the neurons of a stage."
    groups = tuple((stage, i) for i, stage in enumerate(spikes))
    return Chart(
        "rates-by-step", "Firing rate by step", caption, "lines", "step", "firing_rate", "", rows, "stage", groups
    )


def firing(run: RunFile) -> list[Chart]:
    """How many neurons fire how often, and in which layers they never or always do; none where it is not known."""
    if not run.activity:
        return []
    images = run.activity[0]["images"]
    of = f"over the first {images} samples" if images > 1 else "for the first sample"
    names = ["never", *(f"{n}0 to {n + 1}0 %" for n in range(RATES - 2)), "always"]
    names[1] = "up to 10 %"
    sums = [sum(row["rates"][i] for row in run.activity) for i in range(RATES)]
    histogram = tuple({"firing_rate": n, "neurons": count} for n, count in zip(names, sums, strict=True))
    parts = [(row["node"], row["rates"][0], row["rates"][-1], row["neurons"]) for row in run.activity]
    layers = tuple(
        {"layer": node, "fires": fires, "neurons": count, "share": count / neurons}
        for node, never, always, neurons in parts
        for fires, count in (("never", never), ("sometimes", neurons - never - always), ("always", always))
        if count
    )
    groups = tuple(
        (n, i) for n, i in (("never", 5), ("sometimes", 0), ("always", 1)) if any(r["fires"] == n for r in layers)
    )
    return [
        Chart(
            "firing",
            "How often neurons fire",
            f"Neurons by their firing rate {of}.",
            "bars",
            "neurons",
            "firing_rate",
            "",
            histogram,
        ),
        Chart(
            "silent",
            "Neurons that never or always fire",
            f"Share of each layer's neurons, {of}.",
            "bars",
            "share",
            "layer",
            "share",
            layers,
            "fires",
            groups,
        ),
    ]


def confusion(run: RunFile) -> Chart | None:
    """Answers by class; ``None`` without labels, or with too many classes to be read."""
    pairs = Counter((c, p) for c, p in zip(run.labels, run.predictions, strict=True) if c is not None and p is not None)
    classes = sorted({c for pair in pairs for c in pair})
    if not pairs or len(classes) > _CLASSES:
        return None
    sums = Counter(c for c, _ in pairs.elements())
    name = (lambda c: run.class_names[c]) if run.class_names else str
    rows = tuple(
        {
            "label": name(c),
            "answer": name(p),
            "samples": pairs[c, p],
            "share": pairs[c, p] / sums[c] if sums[c] else 0.0,
        }
        for c in classes
        for p in classes
    )
    caption = (
        "Samples by label and answer; the shade is the share of the label's samples. Right answers lie on the diagonal."
    )
    return Chart("confusion", "Answers by class", caption, "cells", "answer", "label", "", rows)


def accuracy_over_energy(points: Sequence[Side], profile: str) -> Chart | None:
    """One mark per run or point of a sweep, a line per T; ``None`` where nothing has an accuracy."""
    rows: list[dict[str, Any]] = []
    for point in points:
        share = point.accuracy
        if share is None or share.value is None or share.interval is None:
            continue
        place = {"energy_pj": float(point.energy_pj.mean), "accuracy": float(share.value)}
        ends = {"accuracy_low": float(share.interval.low), "accuracy_high": float(share.interval.high)}
        label = str(min(point.bits)) if point.bits else point.arithmetic  # the first layer keeps more
        named = {"run": point.name, "T": f"T = {point.time_steps}", "bits": bits_of(point), "label": label}
        rows.append({**named, **place, **ends})
    if not rows:
        return None
    groups = tuple((name, i) for i, name in enumerate(sorted({r["T"] for r in rows}, key=lambda n: int(n[4:]))))
    caption = f"One mark per run, labelled with its bits; bars are 95 % intervals; mean energy per image by {profile}."
    title = "Accuracy over energy per image"
    return Chart(
        "accuracy-over-energy", title, caption, "points", "energy_pj", "accuracy", "pJ", tuple(rows), "T", groups
    )
