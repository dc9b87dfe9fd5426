"""Bar charts as plain numbers for the page's SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from qkf_deploy.display.numbers import joules
from qkf_deploy.hw_models.pricing import EnergyReport
from qkf_deploy.hw_models.quantities import QUANTITIES
from qkf_deploy.report import stages

_BAR_WIDTH, _ROW = 560, 21
_LABEL = 7.0  # pixels per character of a label

#: Classes of work as people read them, with the fill of their bars.
GROUPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "synapses": ("s0", ("synapse",)),
    "attention": ("s1", ("products", "attention_sums", "gate")),
    "neurons, bias, residual": ("s2", ("neuron", "bias", "residual", "scale")),
    "pooling": ("s3", ("pool",)),
    "head": ("s4", ("head",)),
    "memory and routing": ("s5", ("memory", "routing")),
}


@dataclass(frozen=True)
class Part:
    """One segment of a bar."""

    x: float
    width: float
    style: str
    title: str


@dataclass(frozen=True)
class Row:
    """One bar: its segments, label left and text right of it."""

    label: str
    y: float
    parts: tuple[Part, ...]
    end: float
    text: str


@dataclass(frozen=True)
class Key:
    """Legend entry."""

    style: str
    name: str


@dataclass(frozen=True)
class Chart:
    """A horizontal bar chart in pixels."""

    title: str
    left: float
    width: float
    height: float
    rows: tuple[Row, ...]
    keys: tuple[Key, ...] = ()


def group_of(quantity: str) -> str:
    """The group a priced quantity belongs to."""
    work = min(QUANTITIES[quantity].work)
    return next(name for name, (_, starts) in GROUPS.items() if work.startswith(starts))


def by_layer(report: EnergyReport) -> Chart:
    """Mean energy per image of every layer, stacked by group of work."""
    bars = [(r.layer, _grouped(r.energy_by_quantity_pj, report.images)) for r in report.layers if r.energy_pj]
    return _chart(f"By layer, {report.profile.id}", bars, legend=True)


def by_stage(report: EnergyReport) -> Chart:
    """Mean energy per image of every stage, stacked by group of work."""
    bars: list[tuple[str, dict[str, Fraction]]] = []
    for stage, layers in stages.by_stage(report).items():
        sums: dict[str, Fraction] = {}
        for layer in layers:
            for quantity, energy in layer.energy_by_quantity_pj.items():
                sums[quantity] = sums.get(quantity, Fraction(0)) + Fraction(energy)
        bars.append((stage, _grouped(sums, report.images)))
    return _chart(f"By stage, {report.profile.id}", bars, legend=True)


def by_group(report: EnergyReport) -> Chart:
    """Mean energy per image by group of work."""
    grouped = _grouped(report.energy_by_quantity_pj, report.images)
    bars = [(name, {name: energy}) for name, energy in grouped.items()]
    return _chart(f"By class of operation, {report.profile.id}", bars)


def by_profile(reports: Sequence[EnergyReport]) -> Chart:
    """Mean energy per image under every profile, stacked by group of work."""
    bars = [(r.profile.id, _grouped(r.energy_by_quantity_pj, r.images)) for r in reports]
    return _chart("The same forward pass under every convention", bars, legend=True)


def _grouped(energies: Mapping[str, object], images: int) -> dict[str, Fraction]:
    out: dict[str, Fraction] = {}
    for quantity, energy in energies.items():
        if energy:
            name = group_of(quantity)
            out[name] = out.get(name, Fraction(0)) + Fraction(energy) / images  # type: ignore[arg-type]
    return {name: out[name] for name in GROUPS if name in out}


def _chart(title: str, bars: Sequence[tuple[str, Mapping[str, Fraction]]], *, legend: bool = False) -> Chart:
    left = 20 + _LABEL * max((len(label) for label, _ in bars), default=0)
    largest = max((sum(groups.values(), Fraction(0)) for _, groups in bars), default=Fraction(0)) or Fraction(1)
    rows = tuple(_row(index, label, groups, left, largest) for index, (label, groups) in enumerate(bars))
    used = dict.fromkeys(name for _, groups in bars for name in groups)
    keys = tuple(Key(style, name) for name, (style, _) in GROUPS.items() if name in used) if legend else ()
    return Chart(title, left, left + _BAR_WIDTH + 110, max(_ROW * len(bars), 1), rows, keys)


def _row(index: int, label: str, groups: Mapping[str, Fraction], left: float, largest: Fraction) -> Row:
    x, parts = left, []
    for name, energy in groups.items():
        width = round(float(energy / largest) * _BAR_WIDTH, 2)
        parts.append(Part(round(x, 2), width, GROUPS[name][0], f"{label}: {name} {joules(energy)}"))
        x += width
    return Row(label, index * _ROW + 2, tuple(parts), round(x, 2), joules(sum(groups.values(), Fraction(0))))
