"""The spiking network against dense twins of itself in one price regime, and the published thresholds.

A twin has the same layers and reads every input once, densely. Arithmetic only, so that both sides pay the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from qkf_deploy.hw_models.pricing import EnergyReport, dense_macs, exact_product
from qkf_deploy.hw_models.quantities import class_counts, reads_events
from qkf_deploy.ledger import Ledger

#: Dampfhoffer et al., IEEE TETCI 7(3):731-741, 2023 (abstract): an IF network is competitive with its ANN only below
#: 0.15 to 1.38 spikes per synapse per inference, depending on how the ANN is executed.
DAMPFHOFFER = (Fraction("0.15"), Fraction("1.38"))
#: Yan et al., arXiv 2409.08290 (abstract, version of 2025): the firing rate must stay below 6.4 % for T in 5..10 to
#: beat a quantized network of ceil(log2(T + 1))-bit activations.
YAN_RATE = Fraction("0.064")
YAN_STEPS = (5, 10)


@dataclass(frozen=True)
class Regime:
    """Prices of one accumulation and one multiply-accumulate in the same technology and precision.

    Attributes:
        name: of the regime.
        ac_pj, mac_pj: picojoule.
        wide_mac_pj: MAC of pixels and of the head's sums, which keep their width on both sides.
        source: citation.
    """

    name: str
    ac_pj: Decimal
    mac_pj: Decimal
    wide_mac_pj: Decimal
    source: str


_HOROWITZ = "Horowitz, ISSCC 2014, 45 nm"
FP32 = Regime("fp32", Decimal("0.9"), Decimal("4.6"), Decimal("4.6"), f"{_HOROWITZ}: FAdd 0.9, FMult 3.7 + FAdd 0.9 pJ")
INT8 = Regime(
    "int8", Decimal("0.1"), Decimal("0.3"), Decimal("0.3"), f"{_HOROWITZ}: 32-bit add 0.1, 8-bit multiply 0.2 pJ"
)


def low_bit(time_steps: int) -> Regime:
    """The quantized twin of Yan et al.: int8 weights, ceil(log2(T + 1))-bit activations.

    The multiplication is taken as bits / 8 of the 8-bit one (an array multiplier grows with the product of its operand
    widths); Horowitz gives no figure below 8 bits, so this is an assumption.
    """
    bits = activation_bits(time_steps)
    mac = Decimal("0.2") * bits / 8 + Decimal("0.1")
    source = f"{_HOROWITZ}, multiplication scaled by {bits}/8"
    return Regime(f"int8 x {bits}-bit", INT8.ac_pj, mac, INT8.mac_pj, source)


def activation_bits(time_steps: int) -> int:
    """ceil(log2(T + 1)): T steps of spikes carry as many values as this many bits."""
    return time_steps.bit_length()


@dataclass(frozen=True)
class Twin:
    """SNN and dense twin in one regime, per image.

    Attributes:
        regime: prices.
        snn_pj, twin_pj: arithmetic energy of synapses, attention and head, mean per image.
        ratio: twin over SNN; above 1 the spiking network needs less.
        break_even: spikes per synapse per inference (firing rate x T) at which both need the same: e_MAC / e_AC.
    """

    regime: Regime
    snn_pj: Fraction
    twin_pj: Fraction
    ratio: Fraction | None
    break_even: Fraction


@dataclass(frozen=True)
class Verdict:
    """Spikes per synapse per inference and where that stands.

    Attributes:
        spikes_per_synapse: additions caused by events over dense MACs of the layers that read events, per image.
        firing_rate: the same over T.
        twins: fp32, int8 and low-bit.
        sentences: the thresholds and the answer, in words.
    """

    spikes_per_synapse: Fraction
    firing_rate: Fraction
    twins: tuple[Twin, ...]
    sentences: tuple[str, ...]


def verdict(ledger: Ledger) -> Verdict:
    """Compare a run with its dense twins.

    Exact unary counts; real-valued input and the head as MAC (existing taps, constant input once).
    """
    events = sum(sum(class_counts(layer, ledger, "ac_unary")) for layer in ledger)
    synapses = sum(layer.border_exact_macs for layer in ledger if reads_events(layer)) * ledger.images
    spikes = Fraction(events, synapses) if synapses else Fraction(0)
    twins = tuple(_twin(ledger, regime) for regime in (FP32, INT8, low_bit(ledger.time_steps)))
    rate = spikes / ledger.time_steps
    return Verdict(spikes, rate, twins, tuple(_sentences(spikes, rate, twins, ledger.time_steps)))


def additions_and_macs(ledger: Ledger) -> tuple[int, int]:
    """(additions, multiply-accumulates) of synapses, attention and head, all images."""
    adds = ("ac_unary", "coincidences", "attention_sum_adds_unary", "head_adds_unary")
    return sum(ledger.total(c) for c in adds), ledger.total("mac") + ledger.total("head_macs")


def _twin(ledger: Ledger, regime: Regime) -> Twin:
    adds, macs = additions_and_macs(ledger)
    snn = Fraction(exact_product(adds, regime.ac_pj) + exact_product(macs, regime.wide_mac_pj)) / ledger.images
    wide = sum(layer.dense_macs for layer in ledger if "mac" in layer.counts or "head_macs" in layer.counts)
    narrow = dense_macs(ledger) - wide
    twin = Fraction(exact_product(narrow, regime.mac_pj) + exact_product(wide, regime.wide_mac_pj))
    return Twin(regime, snn, twin, twin / snn if snn else None, Fraction(regime.mac_pj) / Fraction(regime.ac_pj))


def _sentences(spikes: Fraction, rate: Fraction, twins: Sequence[Twin], steps: int) -> list[str]:
    out = [
        f"{float(spikes):.3f} spikes per synapse per inference (mean input value x T = {float(rate):.4f} x {steps})."
    ]
    for twin in twins:
        wins = twin.ratio is not None and twin.ratio > 1
        out.append(
            f"{twin.regime.name}: {'the spiking network needs less' if wins else 'the dense twin needs less'} "
            f"({float(twin.ratio or 0):.3g} x); break-even at {float(twin.break_even):.3g} spikes per synapse, "
            f"the network is at {float(spikes / twin.break_even):.2f} of it."
        )
    low, high = DAMPFHOFFER
    place = "below both" if spikes < low else "above both" if spikes > high else "between them"
    out.append(
        f"Dampfhoffer et al. 2023: competitive below {float(low)} to {float(high)} spikes per synapse per inference, "
        f"depending on the ANN baseline; this network is {place}."
    )
    first, last = YAN_STEPS
    scope = "" if first <= steps <= last else f" (derived for T from {first} to {last}, here T = {steps})"
    under = "below" if rate < YAN_RATE else "above"
    out.append(f"Yan et al. 2025: firing rate must be under {float(YAN_RATE):.1%}{scope}; this network is {under} it.")
    return out


def mixed_regimes(reports: Sequence[EnergyReport]) -> str | None:
    """A warning where reports of different price regimes or scopes stand side by side, else ``None``."""
    regimes = list(dict.fromkeys(r.profile.regime for r in reports))
    scopes = list(dict.fromkeys(r.profile.scope for r in reports))
    parts = []
    if len(regimes) > 1:
        parts.append(f"price regimes differ ({', '.join(regimes)})")
    if len(scopes) > 1:
        parts.append("all-in and per-term figures are mixed")
    return f"Not like with like: {'; '.join(parts)}. Compare totals only within one regime." if parts else None
