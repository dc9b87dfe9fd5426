"""Counts x prices, exactly: integers times finite decimals, so per-layer rows add up to the total to the last digit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qkf_deploy.display.numbers import quantity
from qkf_deploy.display.overview import Overview, SelfDescribing
from qkf_deploy.hw_models import energy_table
from qkf_deploy.hw_models.energies import Energies, Term, exact_product, exact_sum
from qkf_deploy.hw_models.profiles import Profile, load_profile
from qkf_deploy.hw_models.quantities import QUANTITIES, occurring, spike_product_rate
from qkf_deploy.hw_models.quantity import WORK, input_factor, rate_times_dense, reads_events
from qkf_deploy.ir.values import EVENT_KINDS
from qkf_deploy.ledger import LayerRecord, Ledger, exact_total

if TYPE_CHECKING:
    from qkf_deploy.display.frames import DataFrame


@dataclass(frozen=True)
class LayerEnergy:
    """One row. Counts and energies are sums over all images of the run.

    Attributes:
        layer, type: node name and operator.
        input_kind: kinds of the operands, joined by ``, ``.
        firing_rate_in: mean value of the model's own input (a residual value of 3 is three spikes; a 2 x 2 average of
            one spike is 1/4), ``None`` for real input.
        nonzero_rate_in: share of input elements that are not zero, likewise.
        dense_macs: per image and step, padding counted.
        border_exact_macs: per image and step, existing taps only.
        sops_rate: synaptic operations as mean value x T x dense MACs (products: smallest rate of the spike operands).
        sops_exact: synaptic operations that occurred (products: pairs of spikes that meet).
        macs: multiply-accumulates of real-valued input and of the head, existing taps, constant input once.
        counts: priced quantity -> number.
        energy_by_quantity_pj: priced quantity -> energy.
        energy_pj: their sum.
        share: of the total, exact.
        images: of the run.
        energies: of the images.
    """

    layer: str
    type: str
    input_kind: str
    firing_rate_in: Fraction | None
    nonzero_rate_in: Fraction | None
    dense_macs: int
    border_exact_macs: int
    sops_rate: int
    sops_exact: int
    macs: int
    counts: Mapping[str, int]
    energy_by_quantity_pj: Mapping[str, Decimal]
    energy_pj: Decimal
    share: Fraction
    images: int
    energies: Energies = field(compare=False, repr=False)

    @property
    def energy_per_image_pj(self) -> tuple[Decimal, ...]:
        """One entry per image."""
        return self.energies.each(self.images)

    @property
    def sd_energy_pj(self) -> float:
        """Sample standard deviation over images; 0 for one image."""
        return self.energies.deviation(self.images)

    @property
    def sops_difference(self) -> Fraction | None:
        """How far mean value x dense MACs lies above the exact count, as a share of it; ``None`` without operations."""
        return Fraction(self.sops_rate, self.sops_exact) - 1 if self.sops_exact else None


@dataclass(frozen=True, repr=False)
class EnergyReport(SelfDescribing):
    """Energy of one run under one profile. Totals are sums over all images.

    Attributes:
        profile: the prices.
        images, time_steps: of the run.
        layers: one row per node, in network order.
        total_energy_pj: exact sum of the rows.
        energy_by_quantity_pj: priced quantity -> energy, in the profile's order.
        unpriced: ledger class -> count of work that occurred and has no price.
        assumptions: sentences to print with the numbers.
        ann_twin_energy_pj: the same network executed densely once per image at the profile's MAC price, all images;
            ``None`` where the profile has no MAC price.
        energies: of the images.
    """

    profile: Profile
    images: int
    time_steps: int
    layers: tuple[LayerEnergy, ...]
    total_energy_pj: Decimal
    energy_by_quantity_pj: Mapping[str, Decimal]
    unpriced: Mapping[str, int]
    assumptions: tuple[str, ...]
    ann_twin_energy_pj: Decimal | None
    energies: Energies = field(compare=False, repr=False)

    @property
    def energy_per_image_pj(self) -> tuple[Decimal, ...]:
        """One entry per image."""
        return self.energies.each(self.images)

    @property
    def mean_energy_pj(self) -> Fraction:
        """Mean per image, exact."""
        return Fraction(self.total_energy_pj) / self.images

    @property
    def low_energy_pj(self) -> Decimal | None:
        """Lower bound of all images where the profile gives a range; the total is the upper one."""
        parts = self.energy_by_quantity_pj.items()
        without = self.profile.low_without
        return exact_sum(pj for name, pj in parts if name not in without) if without else None

    @property
    def sd_energy_pj(self) -> float:
        """Sample standard deviation over images; 0 for one image."""
        return self.energies.deviation(self.images)

    @property
    def twin_ratio(self) -> Fraction | None:
        """Energy of the dense twin over this network's; above 1 the spiking network needs less."""
        if self.ann_twin_energy_pj is None or not self.total_energy_pj:
            return None
        return Fraction(self.ann_twin_energy_pj) / Fraction(self.total_energy_pj)

    def __getitem__(self, layer: str) -> LayerEnergy:
        """One row by node name. Raises KeyError."""
        return {row.layer: row for row in self.layers}[layer]

    def overview(self) -> Overview:
        """Headline, the layers that need most energy, totals, what has no price, assumptions; per image."""
        return energy_table.overview(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: ``energy_pj`` of the rows adds up exactly to ``total_energy_pj``, both over all images."""
        return energy_table.data(self)

    def to_pandas(self) -> DataFrame:
        """One row per layer; energies in pJ and operations per image (means), as ``float64``.

        Raises:
            MissingComponent: pandas is not installed.
        """
        return energy_table.frame(self)


def price(ledger: Ledger, profile: Profile | str | Path) -> EnergyReport:
    """Energy of a run.

    Args:
        ledger: counts of any engine.
        profile: a profile, the name of a built-in one, or the path of a TOML file.

    Raises:
        UsageError, ProfileError: the profile cannot be loaded.
    """
    chosen = profile if isinstance(profile, Profile) else load_profile(profile)
    terms = [_terms(layer, ledger, chosen) for layer in ledger]
    per_image = Energies.of(term for row in terms for term in row.values())
    total = per_image.total
    rows = tuple(_row(layer, ledger, row, total) for layer, row in zip(ledger, terms, strict=True))
    by_quantity = {
        name: exact_sum(r.energy_by_quantity_pj[name] for r in rows if name in r.energy_by_quantity_pj)
        for name in chosen.prices
    }
    return EnergyReport(
        profile=chosen,
        images=ledger.images,
        time_steps=ledger.time_steps,
        layers=rows,
        total_energy_pj=total,
        energy_by_quantity_pj=by_quantity,
        energies=per_image,
        unpriced=_unpriced(ledger, chosen),
        assumptions=_assumptions(ledger, chosen),
        ann_twin_energy_pj=_twin_energy(ledger, chosen),
    )


def _terms(layer: LayerRecord, ledger: Ledger, profile: Profile) -> dict[str, Term]:
    terms = {}
    for name, price_ in profile.prices.items():
        quantity = QUANTITIES[name]
        counts = quantity.count(layer, ledger)
        if counts.any():
            pj = price_.at(quantity.buffer(layer, ledger)) if quantity.buffer and price_.tiers else price_.pj
            terms[name] = Term(counts, pj)
    return terms


def _row(layer: LayerRecord, ledger: Ledger, terms: Mapping[str, Term], total: Decimal) -> LayerEnergy:
    by_quantity = {name: t.total for name, t in terms.items()}
    energy = exact_sum(by_quantity.values())
    products = "coincidences" in layer.counts
    rate_counts = spike_product_rate(layer, ledger) if products else rate_times_dense(layer, ledger)
    exact_class = "coincidences_unary" if products else "ac_unary"
    sums = layer.total("attention_sum_adds_unary")
    return LayerEnergy(
        layer=layer.name,
        type=layer.op,
        input_kind=", ".join(layer.input_kinds),
        firing_rate_in=_mean_value(layer, ledger),
        nonzero_rate_in=_rate(layer, ledger, "events_in_graded"),
        dense_macs=layer.dense_macs,
        border_exact_macs=layer.border_exact_macs,
        sops_rate=exact_total(rate_counts) + sums,
        sops_exact=layer.total(exact_class) + sums,
        macs=layer.total("mac") + layer.total("head_macs"),
        counts={name: exact_total(t.counts) for name, t in terms.items()},
        energy_by_quantity_pj=by_quantity,
        energy_pj=energy,
        images=ledger.images,
        energies=Energies.of(terms.values()),
        share=Fraction(energy) / Fraction(total) if total else Fraction(0),
    )


def _mean_value(layer: LayerRecord, ledger: Ledger) -> Fraction | None:
    """Mean of the model's own input; ``None`` where two operands with different factors were counted together."""
    factors = {input_factor(layer, i) for i in range(len(layer.input_factors))} or {Fraction(1)}
    rate = _rate(layer, ledger, "events_in_unary")
    return None if rate is None or len(factors) > 1 else rate * factors.pop()


def _rate(layer: LayerRecord, ledger: Ledger, name: str) -> Fraction | None:
    if name not in layer.counts or layer.timing == "image":  # after the readout there are no steps to be per
        return None
    size = sum(s for s, kind in zip(layer.input_sizes, layer.input_kinds, strict=True) if kind in EVENT_KINDS)
    return Fraction(layer.total(name), size * ledger.time_steps * ledger.images)


def _unpriced(ledger: Ledger, profile: Profile) -> dict[str, int]:
    missing: dict[str, int] = {}
    for work, name in WORK.items():
        if work in profile.accounted:
            continue
        count = sum(occurring(layer, work) for layer in ledger)
        if count:
            missing[name] = missing.get(name, 0) + count
    return missing


def _twin_energy(ledger: Ledger, profile: Profile) -> Decimal | None:
    if profile.twin_mac_pj is None:
        return None
    arithmetic = exact_product(ledger.images * dense_macs(ledger), profile.twin_mac_pj)
    return exact_sum([arithmetic, *(_twin_weights(layer, ledger, profile) for layer in ledger)])


def _twin_weights(layer: LayerRecord, ledger: Ledger, profile: Profile) -> Decimal:
    """Weight reads of a dense execution, one per MAC as for the spiking network, where the profile prices them."""
    for name, bytes_each in (("weight_bytes", -(-layer.weight_bits // 8)), ("weight_reads", 1)):
        price_, buffer = profile.prices.get(name), QUANTITIES[name].buffer
        if price_ is not None and buffer is not None and layer.weight_bits:
            reads = ledger.images * layer.dense_macs * bytes_each
            return exact_product(reads, price_.at(buffer(layer, ledger)))
    return Decimal(0)


def dense_macs(ledger: Ledger) -> int:
    """Multiply-accumulates of one dense execution of the whole network for one image, padding counted."""
    return sum(layer.dense_macs for layer in ledger)


def _assumptions(ledger: Ledger, profile: Profile) -> tuple[str, ...]:
    first = next((layer for layer in ledger if layer.dense_macs), None)
    out = list(profile.assumptions)
    if first is not None:
        out.append(_first_layer_rule(first, ledger, profile))
    out += _divided_inputs(ledger, profile)
    if ledger.arithmetic == "float":
        out.append("Counted as the folded network: batch norms and divisors are part of the weights and cost nothing.")
    if profile.twin_mac_pj is not None:
        weights = " plus one weight read" if {"weight_bytes", "weight_reads"} & set(profile.prices) else ""
        out.append(
            "Dense twin: the same network executed once per image without spikes, "
            f"every MAC at {profile.twin_mac_pj} pJ{weights}; its activations have no price."
        )
    out.append(
        f"Counted on {quantity(ledger.images, 'image')} ({_input_words(ledger)}), "
        f"T = {ledger.time_steps}, {ledger.arithmetic} network."
    )
    return tuple(out)


#: What a synapse pays for input that the model divides (average pooling, constant scales), by the quantity priced.
_BY_SPIKE = "one addition per spike, as an event-driven pool passes every one on and the weights hold the divisor"
_BY_EVENT = "one addition per sum that is not zero; the weights hold the divisor"
_AS_MAC = "multiplied, because its values are not 0 and 1"
_DIVIDED = {
    "sop_rate": "taken at its mean, as the formula has it",
    "ac_unary": _BY_SPIKE,
    "ac_unary_nonzero_weights": _BY_SPIKE,
    "ac_graded": _BY_EVENT,
    "ac_graded_nonzero_weights": _BY_EVENT,
    "integer_mac_dense": _AS_MAC,
    "integer_mac_nonzero": _AS_MAC,
}


def _divided_inputs(ledger: Ledger, profile: Profile) -> list[str]:
    """What an input counts as that the model divides, where there is one: spikes of a sum, or their mean."""
    names = [n.name for n in ledger if reads_events(n) and any(f != 1 for f in n.input_factors)]
    if not names:
        return []
    rule = next((_DIVIDED[q] for q in profile.prices if q in _DIVIDED), None)
    if rule is None:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"Input that the model averages or scales (of {', '.join(names[:3])}{more}): {rule}."]


def _input_words(ledger: Ledger) -> str:
    return "event frames" if ledger.input_encoding == "frames" else "static images shown at every step"


def _first_layer_rule(first: LayerRecord, ledger: Ledger, profile: Profile) -> str:
    if reads_events(first):
        return f"First layer {first.name}: it reads event counts, so its work is additions (AC), not multiplications."
    used = next((q for q in profile.prices if "synapse.real" in QUANTITIES[q].work), None)
    if used is None:
        return f"First layer {first.name}: it reads real values (MAC), which this profile does not price."
    repeated = used.endswith("every_step") or first.timing != "constant"
    how = f"at each of {quantity(ledger.time_steps, 'step')}" if repeated else "once per image"
    return f"First layer {first.name}: it reads real values, counted as MAC {how} ({used})."
