"""Yan et al., arXiv 2409.08290 (version 4, 2026): a spiking network against the quantized one of equal information.

The quantized twin has the same layers and activations of ceil(log2(T + 1)) bits, and is executed once. What follows
puts the paper's published figures into its terms; the text of its cost table could not be read, so it is a
reconstruction: hops of messages, and positions that reuse a fetched weight, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from qkf_deploy.hw_models.pricing import dense_macs
from qkf_deploy.hw_models.quantity import reads_events
from qkf_deploy.hw_models.twins import (
    INT8,
    YAN_RATES,
    activation_bits,
    additions_and_macs,
    low_bit,
    weight_fetch_bound,
)
from qkf_deploy.ledger import LayerRecord, Ledger

#: pJ at 22 nm, 0.80 V: one accumulation; a comparison and a subtraction cost the same there.
ACCUMULATE_PJ = Decimal("0.05448")
#: How far the threshold at T = 5 goes when every parameter moves by half, as the paper says.
YAN_RANGE = {5: (Fraction("0.0341"), Fraction("0.1080"))}


@dataclass(frozen=True)
class Movement:
    """Price of moving one bit.

    Attributes:
        name: ``minimum``, ``typical`` or ``worst`` of the paper.
        sparse_pj, dense_pj: per bit, fetched for single events or in dense order.
    """

    name: str
    sparse_pj: Decimal
    dense_pj: Decimal


MOVEMENTS = (
    Movement("minimum", Decimal(0), Decimal(0)),
    Movement("typical", Decimal("3.0"), Decimal("0.25")),
    Movement("worst, DRAM", Decimal(1300), Decimal("20.3")),
)


@dataclass(frozen=True)
class MovedTwin:
    """Spiking network and quantized twin at one price of movement; pJ per image, means.

    Attributes:
        movement: the price.
        snn_pj, twin_pj: arithmetic.
        snn_movement_pj: weights fetched by events, or densely at every step, whichever is cheaper in a layer.
        twin_movement_pj: every weight once, and the activations.
    """

    movement: Movement
    snn_pj: Fraction
    twin_pj: Fraction
    snn_movement_pj: Fraction
    twin_movement_pj: Fraction

    @property
    def ratio(self) -> Fraction:
        """Twin over spiking network; above 1 the spiking network needs less."""
        return (self.twin_pj + self.twin_movement_pj) / (self.snn_pj + self.snn_movement_pj)


def moved_twins(ledger: Ledger) -> tuple[MovedTwin, ...]:
    """The twin at every price of movement."""
    snn, twin = _spiking_arithmetic(ledger), _twin_arithmetic(ledger)
    return tuple(
        MovedTwin(
            movement,
            snn,
            twin,
            sum((_spiking_bits(layer, ledger, movement) for layer in ledger), start=Fraction(0)),
            sum((_twin_bits(layer, ledger, movement) for layer in ledger), start=Fraction(0)),
        )
        for movement in MOVEMENTS
    )


def _spiking_arithmetic(ledger: Ledger) -> Fraction:
    """Additions; a comparison per neuron and step, a subtraction per spike; real input and head as int8 MACs."""
    adds, macs = additions_and_macs(ledger)
    neurons = sum(ledger.total(c) for c in ("neuron_updates_driven", "neuron_updates_idle", "resets"))
    wide = Fraction(INT8.mac_pj) / Fraction(INT8.ac_pj)
    return Fraction(ACCUMULATE_PJ) * (adds + neurons + wide * macs) / ledger.images


def _twin_arithmetic(ledger: Ledger) -> Fraction:
    """Every MAC once; its price over that of an accumulation as in :func:`low_bit`, 22 nm giving no figure."""
    regime = low_bit(ledger.time_steps)
    wide = sum(layer.dense_macs for layer in ledger if "mac" in layer.counts or "head_macs" in layer.counts)
    narrow = dense_macs(ledger) - wide
    prices = (Fraction(regime.mac_pj) * narrow + Fraction(regime.wide_mac_pj) * wide) / Fraction(regime.ac_pj)
    return Fraction(ACCUMULATE_PJ) * prices


def _weight_bits(layer: LayerRecord) -> int:
    """All weights of a layer."""
    if layer.connections is None:
        return 0
    c = layer.connections
    return layer.weight_bits * (c.inputs // c.groups) * c.outputs * math.prod(c.kernel)


def _spiking_bits(layer: LayerRecord, ledger: Ledger, movement: Movement) -> Fraction:
    once = _weight_bits(layer) * Fraction(movement.dense_pj)
    if not reads_events(layer):
        return once
    fetched = layer.total("ac_graded") * layer.weight_bits
    return min(fetched * Fraction(movement.sparse_pj) / ledger.images, once * ledger.time_steps)


def _twin_bits(layer: LayerRecord, ledger: Ledger, movement: Movement) -> Fraction:
    activations = sum(layer.input_sizes) * activation_bits(ledger.time_steps) if layer.connections else 0
    return (_weight_bits(layer) + activations) * Fraction(movement.dense_pj)


@dataclass(frozen=True)
class CurvePoint:
    """What holds at one T.

    Attributes:
        time_steps: T.
        bits: of the twin's activations.
        dense_ratio: T / bits: energy of the spiking network over the twin's where both fetch densely.
        weight_fetch: firing rate of equal energy where event-driven fetches of 8-bit weights are all that costs.
        published: threshold of the paper, with the weights it holds for; ``None`` where it gives none.
        low, high: its range with every parameter moved by half.
    """

    time_steps: int
    bits: int
    dense_ratio: Fraction
    weight_fetch: Fraction
    published: Fraction | None
    weights: str
    low: Fraction | None
    high: Fraction | None


def curve(steps: Sequence[int] = tuple(range(1, 17))) -> tuple[CurvePoint, ...]:
    """Thresholds over T."""
    return tuple(_point(t) for t in steps)


def _point(steps: int) -> CurvePoint:
    published, weights = YAN_RATES.get(steps, (None, ""))
    low, high = YAN_RANGE.get(steps, (None, None))
    bits = activation_bits(steps)
    return CurvePoint(steps, bits, Fraction(steps, bits), weight_fetch_bound(steps), published, weights, low, high)
