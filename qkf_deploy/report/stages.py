"""Layers by stage: the parts of a network that its modules' names tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from qkf_deploy.display.numbers import joules, percent, unless_zero, whole
from qkf_deploy.display.tables import Field, Sheet, summed, tabulate
from qkf_deploy.hw_models.pricing import EnergyReport, LayerEnergy


def stage_of(layer: str) -> str:
    """The module a layer belongs to: its first name, and its number where the name has none.

    ``stage1.0.tssa.q_conv`` belongs to ``stage1``, ``block.3.attn.q_conv`` to ``block.3``.
    """
    first, _, rest = layer.partition(".")
    number = rest.partition(".")[0]
    return f"{first}.{number}" if number.isdecimal() and not first[-1:].isdecimal() else first


def by_stage(report: EnergyReport) -> Mapping[str, tuple[LayerEnergy, ...]]:
    """The layers that compute, by stage, in network order."""
    found: dict[str, list[LayerEnergy]] = {}
    for layer in report.layers:
        if layer.energy_pj or layer.dense_macs or layer.sops_exact:
            found.setdefault(stage_of(layer.layer), []).append(layer)
    return {stage: tuple(layers) for stage, layers in found.items()}


def stage_sheet(report: EnergyReport) -> Sheet:
    """One row per stage, per image."""
    images = report.images

    def total(layers: Iterable[LayerEnergy], name: str) -> Fraction:
        return sum((Fraction(getattr(layer, name)) for layer in layers), Fraction(0))

    fields: tuple[Field[tuple[str, tuple[LayerEnergy, ...]]], ...] = (
        Field("stage", "stage", lambda r: r[0], left=True),
        summed("layers", "layers", lambda r: len(r[1])),
        summed("dense_macs_per_step", "dense MACs/step", lambda r: total(r[1], "dense_macs"), unless_zero(whole)),
        summed("sops_exact", "SOPs exact", lambda r: total(r[1], "sops_exact") / images, unless_zero(whole)),
        summed("macs", "MACs", lambda r: total(r[1], "macs") / images, unless_zero(whole)),
        summed("energy_pj", "energy", lambda r: total(r[1], "energy_pj") / images, joules),
        summed("share", "share", lambda r: total(r[1], "share"), percent),
    )
    return tabulate(f"By stage, profile {report.profile.id}", fields, by_stage(report).items())
