"""The quantized twin with data movement, and thresholds over T, against the terms of the paper by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from digits_network import DigitsNetwork

from qkf_deploy.hw_models.twins import additions_and_macs, low_bit
from qkf_deploy.hw_models.yan import MOVEMENTS, curve, moved_twins


def test_arithmetic_alone_by_hand(network: DigitsNetwork) -> None:
    ledger = network.ledger
    minimum, *_ = moved_twins(ledger)
    assert (minimum.movement.sparse_pj, minimum.snn_movement_pj, minimum.twin_movement_pj) == (0, 0, 0)
    adds, macs = additions_and_macs(ledger)
    neurons = sum(ledger.total(c) for c in ("neuron_updates_driven", "neuron_updates_idle", "resets"))
    assert minimum.snn_pj == Fraction("0.05448") * (adds + neurons + 3 * macs) / ledger.images
    dense = sum(layer.dense_macs for layer in ledger)
    wide = ledger["patch_embed1.proj_conv"].dense_macs + ledger["head"].dense_macs
    regime = low_bit(4)
    assert regime.mac_pj / regime.ac_pj == Fraction(7, 4)
    assert minimum.twin_pj == Fraction("0.05448") * (Fraction(7, 4) * (dense - wide) + 3 * wide)


def test_movement_by_hand(network: DigitsNetwork) -> None:
    """Typical prices: the spiking network fetches per event at 3 pJ a bit, or densely T times at 0.25."""
    ledger, graph = network.ledger, network.integer_graph
    typical = moved_twins(ledger)[1]
    snn = twin = Fraction(0)
    for layer in ledger:
        if layer.connections is None:
            continue
        weights = graph[layer.name].params["weight"].size * layer.weight_bits
        events = Fraction(layer.total("ac_graded") * layer.weight_bits * 3, ledger.images)
        dense = Fraction(weights, 4) * ledger.time_steps
        snn += min(events, dense) if "ac_unary" in layer.counts else Fraction(weights, 4)
        twin += Fraction(weights + 3 * layer.input_sizes[0], 4)
    assert (typical.snn_movement_pj, typical.twin_movement_pj) == (snn, twin)
    assert typical.ratio == (typical.twin_pj + twin) / (typical.snn_pj + snn)


def test_dearer_movement_favours_the_twin(network: DigitsNetwork) -> None:
    """Weights of a small layer travel T times or per event; the twin's travel once."""
    ratios = [twin.ratio for twin in moved_twins(network.ledger)]
    assert len(ratios) == len(MOVEMENTS)
    assert ratios == sorted(ratios, reverse=True)


def test_thresholds_over_t() -> None:
    points = {p.time_steps: p for p in curve()}
    assert list(points) == list(range(1, 17))
    assert [points[t].bits for t in (1, 2, 3, 4, 7, 8, 15, 16)] == [1, 2, 2, 3, 3, 4, 4, 5]
    assert (points[5].published, points[5].low, points[5].high) == (
        Fraction("0.057"), Fraction("0.0341"), Fraction("0.1080"),
    )  # fmt: skip
    assert points[1].published == Fraction("0.297")
    assert points[3].weight_fetch == Fraction(2, 24)
    assert float(points[3].weight_fetch) == pytest.approx(float(points[3].published or 0), abs=0.002)
    assert points[4].dense_ratio == Fraction(4, 3)
    assert points[4].published is None
