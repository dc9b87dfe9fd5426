"""The spiking network against dense twins of itself in one price regime, and the published thresholds.

A twin has the same layers and reads every input once, densely. Arithmetic alone, and with the memory model of
:mod:`qkf_deploy.hw_models.movement` for both sides, so that both pay the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from qkf_deploy.hw_models.movement import dense_twin_energy, movement
from qkf_deploy.hw_models.pricing import EnergyReport, dense_macs, exact_product
from qkf_deploy.hw_models.quantity import reads_events
from qkf_deploy.ledger import Ledger

#: Dampfhoffer et al., IEEE TETCI 7(3):731-741, 2023 (abstract): an IF network is competitive with its ANN only below
#: 0.15 to 1.38 spikes per synapse per inference, depending on how the ANN is executed.
DAMPFHOFFER = (Fraction("0.15"), Fraction("1.38"))
#: Yan et al., arXiv 2409.08290 (fourth version, 2026): T -> (firing rate below which the spiking network beats a
#: quantized one of ceil(log2(T + 1))-bit activations, weights for which it was derived).
YAN_RATES = {
    1: (Fraction("0.297"), "8-bit weights"),
    3: (Fraction("0.082"), "8-bit weights"),
    5: (Fraction("0.057"), "4-bit weights"),
}


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


#: What "with memory" means, to print once beside the ratios.
MEMORY_SENTENCE = (
    "Arithmetic is additions and multiplications only; with memory adds, for both networks, a read of the weight at "
    "every use from the smallest SRAM that holds its layer (DRAM beyond 1 MB) and, for the spiking one, its membranes; "
    "events and activations have no price."
)
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


def weight_fetch_bound(time_steps: int) -> Fraction:
    """Firing rate at which both networks of Yan et al. need the same where fetching 8-bit weights is all that costs.

    The spiking network fetches a weight of 8 bits T x rate times, the quantized one once for ceil(log2(T + 1)) bits of
    activation: ceil(log2(T + 1)) / (8 T).
    """
    return Fraction(activation_bits(time_steps), 8 * time_steps)


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
        snn_memory_pj, twin_memory_pj: reads of weights, reads and writes of membranes, in one memory model for both.
        ratio_with_memory: as ``ratio``, arithmetic and memory together.
        break_even: spikes per synapse per inference (firing rate x T) at which both need the same: e_MAC / e_AC.
    """

    regime: Regime
    snn_pj: Fraction
    twin_pj: Fraction
    ratio: Fraction | None
    break_even: Fraction
    snn_memory_pj: Fraction
    twin_memory_pj: Fraction
    ratio_with_memory: Fraction | None


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
    events = sum(layer.total("ac_unary") for layer in ledger)
    synapses = sum(layer.border_exact_macs for layer in ledger if reads_events(layer)) * ledger.images
    spikes = Fraction(events, synapses) if synapses else Fraction(0)
    memory = sum((row.energy_pj for row in movement(ledger)), Fraction(0)), dense_twin_energy(ledger)
    twins = tuple(_twin(ledger, regime, *memory) for regime in (FP32, INT8, low_bit(ledger.time_steps)))
    rate = spikes / ledger.time_steps
    return Verdict(spikes, rate, twins, tuple(_sentences(spikes, rate, twins, ledger.time_steps)))


def additions_and_macs(ledger: Ledger) -> tuple[int, int]:
    """(additions, multiply-accumulates) of synapses, attention and head, all images."""
    adds = ("ac_unary", "coincidences_unary", "attention_sum_adds_unary", "head_adds_unary")
    return sum(ledger.total(c) for c in adds), ledger.total("mac") + ledger.total("head_macs")


def _twin(ledger: Ledger, regime: Regime, snn_memory: Fraction, twin_memory: Fraction) -> Twin:
    adds, macs = additions_and_macs(ledger)
    snn = Fraction(exact_product(adds, regime.ac_pj) + exact_product(macs, regime.wide_mac_pj)) / ledger.images
    wide = sum(layer.dense_macs for layer in ledger if "mac" in layer.counts or "head_macs" in layer.counts)
    narrow = dense_macs(ledger) - wide
    twin = Fraction(exact_product(narrow, regime.mac_pj) + exact_product(wide, regime.wide_mac_pj))
    both = (twin + twin_memory) / (snn + snn_memory) if snn + snn_memory else None
    break_even = Fraction(regime.mac_pj) / Fraction(regime.ac_pj)
    return Twin(regime, snn, twin, twin / snn if snn else None, break_even, snn_memory, twin_memory, both)


def _sentences(spikes: Fraction, rate: Fraction, twins: Sequence[Twin], steps: int) -> list[str]:
    out = [
        f"{float(spikes):.3f} spikes per synapse per inference (mean input value x T = {float(rate):.4f} x {steps})."
    ]
    for twin in twins:
        wins = twin.ratio is not None and twin.ratio > 1
        out.append(
            f"{twin.regime.name}: {'the spiking network needs less' if wins else 'the dense twin needs less'} "
            f"({float(twin.ratio or 0):.3g} x); break-even at {float(twin.break_even):.3g} spikes per synapse, "
            f"the network is at {float(spikes / twin.break_even):.2f} of it. "
            f"With memory {float(twin.ratio_with_memory or 0):.3g} x."
        )
    out.append(MEMORY_SENTENCE)
    low, high = DAMPFHOFFER
    place = "below both" if spikes < low else "above both" if spikes > high else "between them"
    out.append(
        f"Dampfhoffer et al. 2023: competitive below {float(low)} to {float(high)} spikes per synapse per inference, "
        f"depending on the ANN baseline; this network is {place}."
    )
    out.append(_yan_sentence(rate, steps))
    return out


def _yan_sentence(rate: Fraction, steps: int) -> str:
    published = YAN_RATES.get(steps)
    known = {t: YAN_RATES[t] for t in _neighbours(steps)}
    words = ", ".join(f"{float(r):.1%} at T = {t} ({weights})" for t, (r, weights) in known.items())
    bounds = [r for r, _ in known.values()]
    if published is None:
        bounds.append(weight_fetch_bound(steps))
        words += (
            f"; none is published for T = {steps}, where fetching 8-bit weights alone gives {float(bounds[-1]):.1%}"
        )
    if min(bounds) <= rate < max(bounds):
        place = "between them"
    else:
        place = f"{'below' if rate < min(bounds) else 'above'} {'it' if published else 'all of them'}"
    return f"Yan et al. 2026: the firing rate must be under {words}; this network, at {float(rate):.1%}, is {place}."


def _neighbours(steps: int) -> list[int]:
    """The published T that is asked for, or the nearest ones on both sides."""
    if steps in YAN_RATES:
        return [steps]
    below, above = [t for t in YAN_RATES if t < steps], [t for t in YAN_RATES if t > steps]
    return [*below[-1:], *above[:1]]


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
