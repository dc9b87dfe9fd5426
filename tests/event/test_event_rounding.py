"""Integer-valued, strict, late and signed neurons in networks: float spikes, every engine, counts by brute force."""

from __future__ import annotations

from fractions import Fraction

import event_cases
import numpy as np
import pytest
import torch

import qkf_deploy as qd
from qkf_deploy.ir import Graph, GraphBuilder
from qkf_deploy.ops import Conv, Input, Linear, Neuron, Output, Readout, Scale, Sum
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.run import Record

NEURONS = [
    Neuron(4 / 3, 1.0, None, False, max_spikes=4, rounding="half_even"),
    Neuron(None, 1.0, None, max_spikes=4, rounding="half_up", decay=0.25),
    Neuron(None, 1.0, None, max_spikes=8, rounding="half_even", decay=0.0),
    Neuron(None, 0.5, 0.0, max_spikes=1, rounding="half_up"),
    Neuron(None, 1.0, None, strict=True, decay=0.5),
    Neuron(None, 1.0, 0.0, strict=True, decay=0.5),
    Neuron(None, 1.0, None, reset_delay=True, decay=0.5),
    Neuron(None, 1.0, None, reset_delay=True, strict=True),
    Neuron(None, 1.0, 0.0, signed=True),
    Neuron(None, 1.0, None, strict=True, decay=0.5, signed=True),
    Neuron(2.0, 0.5, 0.0, signed=True),
    Neuron(None, 1.0, None, max_spikes=4, rounding="half_even", decay=0.0, signed=True),
]


def network(op: Neuron, seed: int) -> Graph:
    """Two layers whose weights are eighths, on counts: ties with thresholds and halves of them are common."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder()
    x, channels = b.add("input", Input((2, 4, 4), "frames", high=3)), 2
    for i in range(2):
        weight = rng.integers(-8, 9, (5, channels, 3, 3)) / 8
        conv = b.add(f"conv{i}", Conv((1, 1), (1, 1), (1, 1)), [x], {"weight": weight})
        x, channels = b.add(f"lif{i}", op, [conv]), 5
    x = b.add("quarter", Scale(0.25), [x])
    x = b.add("sum", Sum((1, 2), role="readout"), [x])
    x = b.add("head", Linear(), [b.add("readout", Readout(), [x])], {"weight": rng.integers(-8, 9, (3, 5)) / 8})
    b.add("output", Output(), [x])
    return b.build(time_steps=4, input_encoding="frames")


@pytest.mark.parametrize("op", NEURONS, ids=str)
def test_integers_give_the_float_spikes_and_logits(op: Neuron) -> None:
    """Weights on a grid and dyadic decays lose nothing; every engine gives the reference's integers and counts."""
    graph, x = network(op, 1), np.random.default_rng(2).integers(0, 4, (4, 3, 2, 4, 4))
    wanted = reference.run(graph, x.astype(np.float64), Record.of(graph, ["lif0", "lif1"]))
    integer = qd.quantize(graph, 8)
    found = reference.run(integer, x, Record.of(integer, ["lif0", "lif1"]))
    for name in ("lif0", "lif1"):
        assert np.array_equal(found.spikes[name], wanted.spikes[name]), name
        assert wanted.spikes[name].max() > 1 or not op.graded or op.max_spikes == 1
    assert np.array_equal(found.logits, wanted.logits)
    event_cases.check(integer, x)


def test_counts_of_an_integer_valued_neuron_by_brute_force() -> None:
    """Up to D unary spikes or one graded: each event reaches the taps that exist, once or as often as it counts."""
    op = NEURONS[1]
    integer = qd.quantize(network(op, 3), 8)
    x = np.random.default_rng(4).integers(0, 4, (4, 2, 2, 4, 4))
    run = reference.run(integer, x, Record.of(integer, ["lif0"]))
    spikes = run.spikes["lif0"]
    assert set(np.unique(spikes)) == {0, 1, 2, 3, 4}
    taps = torch.nn.functional.conv_transpose2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3), padding=1)[0, 0]
    taps = 5 * taps.numpy()  # output channels times the taps of a place
    counts = run.ledger["lif0"].counts
    unary, graded = spikes.sum((0, 2, 3, 4)), (spikes > 0).sum((0, 2, 3, 4))
    assert counts["events_out_unary"].tolist() == unary.tolist()
    assert counts["events_out_graded"].tolist() == graded.tolist()
    assert counts["resets"].tolist() == unary.tolist()
    synapses = run.ledger["conv1"].counts
    assert synapses["ac_unary"].tolist() == (spikes * taps).sum((0, 2, 3, 4)).astype(int).tolist()
    assert synapses["ac_graded"].tolist() == ((spikes > 0) * taps).sum((0, 2, 3, 4)).astype(int).tolist()
    (energy,) = [row.energy_pj for row in qd.price(run.ledger, "exact-fp32").layers if row.layer == "conv1"]
    assert Fraction(energy) == Fraction(9, 10) * int((spikes * taps).sum())  # 0.9 pJ per addition of one spike
