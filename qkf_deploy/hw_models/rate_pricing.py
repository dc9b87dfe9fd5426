"""Energy from firing rates alone: no weights, no images.

A mean value per layer determines some quantities (rate x T x dense operations, dense counts) and not others (which taps
an event meets, which spikes coincide). Only the former have a rule here; a profile that prices anything else is refused
by the name of the quantity. Rates are rounded numbers, so operations and energies are fractions, not counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from qkf_deploy.errors import UsageError
from qkf_deploy.hw_models.network_shape import LayerShape, NetworkShape
from qkf_deploy.hw_models.profiles import Profile
from qkf_deploy.hw_models.quantities import QUANTITIES
from qkf_deploy.hw_models.rate_table import RateTable
from qkf_deploy.hw_models.rate_values import Means

Rule = Callable[[LayerShape, int, Means], Fraction]


@dataclass(frozen=True)
class RateRow:
    """One layer, per image.

    Attributes:
        layer, type: node name and operator.
        mean_in: mean value of what it reads, ``None`` where it has no part in the price.
        dense_macs: per step, padding counted.
        operations: priced quantity -> number.
        energy_pj: of all of them.
    """

    layer: str
    type: str
    mean_in: Fraction | None
    dense_macs: int
    operations: Mapping[str, Fraction]
    energy_pj: Fraction


@dataclass(frozen=True)
class RateReport:
    """Energy of one image from mean values, under one profile.

    Attributes:
        profile: the prices.
        network: name of the network.
        time_steps: T.
        rows: layers that cost something, in network order.
        unpriced: work that has no price -> number, where the rates or the shapes determine it.
        notes: sentences to print with the numbers.
    """

    profile: Profile
    network: str
    time_steps: int
    rows: tuple[RateRow, ...]
    unpriced: Mapping[str, Fraction]
    notes: tuple[str, ...]

    @property
    def energy_pj(self) -> Fraction:
        """Sum of the rows."""
        return sum((row.energy_pj for row in self.rows), start=Fraction(0))

    @property
    def operations(self) -> dict[str, Fraction]:
        """Priced quantity -> number in all layers."""
        return {
            q: sum((row.operations.get(q, Fraction(0)) for row in self.rows), start=Fraction(0))
            for q in self.profile.prices
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, per image."""
        return {
            "profile": self.profile.id,
            "network": self.network,
            "time_steps": self.time_steps,
            "energy_pj": self.energy_pj,
            "operations": self.operations,
            "unpriced": dict(self.unpriced),
            "layers": [{**vars(row), "operations": dict(row.operations)} for row in self.rows],
            "notes": list(self.notes),
        }


def price_rates(network: NetworkShape, rates: RateTable, profile: Profile) -> RateReport:
    """Energy of one image.

    Args:
        network: layers and sizes.
        rates: mean values.
        profile: prices.

    Raises:
        UsageError: the profile prices what mean values do not determine; names the quantity.
        InputError: rates of layers that do not exist, that are missing, or that no spikes can have.
    """
    check_derivable(profile)
    means = Means(network, rates, virtual_steps=profile.virtual_steps)
    rows = [_row(layer, network, profile, means) for layer in network]
    means.check()
    return RateReport(
        profile=profile,
        network=network.name,
        time_steps=network.time_steps,
        rows=tuple(row for row in rows if row.energy_pj or row.dense_macs),
        unpriced=_unpriced(network, profile, means),
        notes=(*rates.notes, *_bias_note(network, profile, means), *profile.assumptions),
    )


def check_derivable(profile: Profile) -> None:
    """Raises UsageError if a price of the profile needs more than mean values."""
    missing = [name for name in profile.prices if name not in RULES]
    if missing:
        helps = "; ".join(f"{name} ({QUANTITIES[name].help})" for name in missing[:3])
        raise UsageError(
            f"profile {profile.id} prices what mean values do not determine: {helps}",
            hint="count it on images, or use a convention of rates such as paper-eq23 or spikformer-hand",
        )


def _row(layer: LayerShape, network: NetworkShape, profile: Profile, means: Means) -> RateRow:
    counts = {name: RULES[name](layer, network.time_steps, means) for name in profile.prices}
    counts = {name: count for name, count in counts.items() if count}
    energy = sum((n * Fraction(profile.prices[q].pj) for q, n in counts.items()), start=Fraction(0))
    return RateRow(layer.name, layer.op, means.used(layer), layer.dense_macs, counts, energy)


def _events(layer: LayerShape) -> bool:
    return layer.is_synapse and layer.reads_events and layer.timing != "image"


def _real(layer: LayerShape) -> bool:
    return bool(layer.dense_macs) and not layer.reads_events and layer.timing != "image"


def _repeats(layer: LayerShape, steps: int) -> int:
    return steps if layer.timing == "step" else 1


def _rate(layer: LayerShape, steps: int, means: Means) -> Fraction:
    return means.of(layer) * steps * layer.dense_macs if _events(layer) else Fraction(0)


def _binary_rate(layer: LayerShape, steps: int, means: Means) -> Fraction:
    if not _events(layer):
        return Fraction(0)
    if layer.input_kinds != ("spike",):
        raise UsageError(
            "whether every value it reads is 0 or 1 needs exact counts (binary_ac_rate, integer_mac_dense)",
            where=layer.name,
            hint="use a convention that prices by value, such as paper-eq23 or spikformer-hand",
        )
    return _rate(layer, steps, means)


def _integer_dense(layer: LayerShape, steps: int, means: Means) -> Fraction:
    _binary_rate(layer, steps, means)
    return Fraction(0)


def _product(layer: LayerShape, steps: int, means: Means) -> Fraction:
    if layer.op != "matmul" or not layer.reads_events:
        return Fraction(0)
    spikes = [i for i, kind in enumerate(layer.input_kinds) if kind == "spike"]
    operands = spikes or range(len(layer.input_kinds))
    return min(means.of_operand(layer, i) for i in operands) * steps * layer.dense_macs


def _sum(layer: LayerShape, steps: int, means: Means) -> Fraction:
    if layer.op != "sum" or not layer.reads_events or not means.is_attention(layer):
        return Fraction(0)
    return means.of(layer) * layer.input_sizes[0] * steps


def _dense(layer: LayerShape, steps: int, border: bool = False, every: bool = False) -> Fraction:
    macs = layer.border_exact_macs if border else layer.dense_macs
    return Fraction(macs * (steps if every else _repeats(layer, steps)) * _real(layer))


def _bias_rate(layer: LayerShape, steps: int, means: Means) -> Fraction:
    at = means.of(layer) if _events(layer) and layer.bias else Fraction(1)
    return layer.bias * _repeats(layer, steps) * at


def _head(layer: LayerShape, steps: int, means: Means) -> Fraction:
    return Fraction(layer.dense_macs * (layer.timing == "image"))


#: Quantity -> what it is of one layer and image. A quantity without a rule needs counts.
RULES: Mapping[str, Rule] = {
    "sop_rate": _rate,
    "binary_ac_rate": _binary_rate,
    "integer_mac_dense": _integer_dense,
    "product_rate": _product,
    "attention_sum_adds_unary": _sum,
    "mac_dense": lambda layer, steps, means: _dense(layer, steps),
    "mac_dense_every_step": lambda layer, steps, means: _dense(layer, steps, every=True),
    "mac": lambda layer, steps, means: _dense(layer, steps, border=True),
    "mac_every_step": lambda layer, steps, means: _dense(layer, steps, border=True, every=True),
    "bias_adds": lambda layer, steps, means: Fraction(layer.bias * _repeats(layer, steps)),
    "bias_rate": _bias_rate,
    "neuron_updates": lambda layer, steps, means: Fraction(layer.output_size * steps * (layer.op == "neuron")),
    "state_accesses_per_step": lambda layer, steps, means: Fraction(
        2 * layer.output_size * steps * (layer.op == "neuron")
    ),
    "weights_loaded": lambda layer, steps, means: Fraction(layer.weights),
    "head_macs": _head,
}


def _unpriced(network: NetworkShape, profile: Profile, means: Means) -> dict[str, Fraction]:
    """What shapes alone say about work without a price."""
    known = {"bias": "bias_adds", "neuron.driven": "neuron_updates", "head.macs": "head_macs"}
    out: dict[str, Fraction] = {}
    for work, quantity in known.items():
        if work not in profile.accounted:
            total = sum((RULES[quantity](layer, network.time_steps, means) for layer in network), start=Fraction(0))
            out |= {quantity: total} if total else {}
    return out


def _bias_note(network: NetworkShape, profile: Profile, means: Means) -> tuple[str, ...]:
    """What hooks on modules would add: they count a bias like one more input, at the rate of its layer."""
    price = next((profile.prices[q] for q in ("sop_rate", "binary_ac_rate") if q in profile.prices), None)
    if "bias" in profile.accounted or price is None:
        return ()
    steps = network.time_steps
    added = sum((_bias_rate(layer, steps, means) for layer in network if _events(layer)), start=Fraction(0))
    millijoule = float(added * Fraction(price.pj)) * 1e-9
    return (
        f"Bias has no price here. Counters that hook modules add it at the mean value of its layer's input: "
        f"{float(added):.4g} additions, {millijoule:.4g} mJ at {price.pj} pJ.",
    )
