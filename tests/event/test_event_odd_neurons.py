"""Neurons beyond the canonical form on the event engine: every integer as in the reference, counts and ledger too."""

from __future__ import annotations

from dataclasses import replace

import event_cases
import numpy as np
import pytest

from qkf_deploy.ir import Graph, GraphBuilder
from qkf_deploy.ops import Add, Conv, Input, IntegerNeuron, Output, Readout, Sum
from qkf_deploy.passes.widths import attach, bound_spikes

STEPS = 3


def network(seed: int) -> Graph:
    """Convolutions and neurons of all kinds, a residual addition of counts, on event frames."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder()
    x, channels = b.add("input", Input((3, 5, 4), "frames", high=3)), 3
    for i in range(3):
        weight = rng.integers(-7, 8, (4, channels, 3, 3)).astype(np.int8)
        drive = b.add(f"conv{i}", Conv((1, 1), (1, 1), (1, 1), weight_bits=4), [x], {"weight": weight})
        before, x, channels = x, neuron(b, rng, f"lif{i}", drive), 4
        if i == 1:
            x = b.add("add", Add(), [before, x])
    b.add("sum", Sum((1, 2), role="readout"), [x])
    b.add("readout", Readout(), ["sum"])
    b.add("output", Output(), ["readout"], {"scale": np.ones(1)})
    graph = b.build(time_steps=STEPS, input_encoding="frames", arithmetic="integer")
    return attach(bound_spikes(graph))


def neuron(b: GraphBuilder, rng: np.random.Generator, name: str, drive: str) -> str:
    shape, shift = b.nodes[drive].type.shape, int(rng.integers(0, 3))
    reach = int(rng.choice([4, 30, 2**20, 2**34]))  # the last ones need more than 16 and 32 bits
    params = {"theta": rng.integers(1, 31, [(1, 1, 1), (4, 1, 1), shape][int(rng.integers(3))])}
    if rng.random() < 0.7:
        params["initial"] = rng.integers(-reach, reach + 1, [(1, 1, 1), (4, 1, 1), shape][int(rng.integers(3))])
    if rng.random() < 0.4:
        params["decay_multiplier"] = rng.integers(0, 2**shift + 1, (4, 1, 1))
    if rng.random() < 0.4:
        params["lowest"] = rng.integers(-9, 1, (4, 1, 1))
    most = [1, 1, 2, None][int(rng.integers(4))]
    multiplier = int(params["decay_multiplier"].max()) if "decay_multiplier" in params else 1
    rounding = ("floor", "half_up", "half_even")[int(rng.integers(3))]
    op = IntegerNeuron(multiplier, shift, int(rng.integers(0, 2)), bool(rng.integers(2)), max_spikes=most,
                       rounding=rounding)  # type: ignore[arg-type]  # fmt: skip
    if not op.graded:
        late = op.soft_reset and "lowest" not in params and bool(rng.integers(2))
        op = replace(op, strict=bool(rng.integers(2)), reset_delay=late)
    return b.add(name, op, [drive], params)


@pytest.mark.parametrize("seed", range(24))
def test_every_integer(seed: int) -> None:
    graph = network(seed)
    x = np.random.default_rng(seed).integers(0, 4, (STEPS, 2, 3, 5, 4))
    event_cases.check(graph, x)


def test_counts_reach_the_proven_maximum() -> None:
    """One weight of 7 on a pixel of 3 and a membrane that starts at 14: 35 // 5 spikes, and no more are ever proven."""
    b = GraphBuilder()
    b.add("input", Input((1, 1, 1), "frames", high=3))
    b.add("conv", Conv((1, 1), (0, 0), (1, 1), weight_bits=4), ["input"], {"weight": np.full((1, 1, 1, 1), 7, np.int8)})
    params = {"theta": np.array([5]), "initial": np.array([14])}
    b.add("lif", IntegerNeuron(1, 0, soft_reset=True, max_spikes=None), ["conv"], params)
    b.add("readout", Readout(), ["lif"])
    b.add("output", Output(), ["readout"], {"scale": np.ones(1)})
    graph = attach(bound_spikes(b.build(time_steps=2, input_encoding="frames", arithmetic="integer")))
    assert graph["lif"].op.max_spikes == graph["lif"].type.high == 7  # type: ignore[attr-defined]
    x = np.full((2, 1, 1, 1, 1), 3)
    event_cases.check(graph, x)
    run = event_cases.reference.run(graph, x, event_cases.Record.of(graph, ["lif"]))
    assert run.spikes["lif"].ravel().tolist() == [7, 4]
    assert run.ledger["lif"].counts["resets"].tolist() == [11]
    assert run.ledger["lif"].counts["events_out_graded"].tolist() == [2]
