"""Products over chunks of time steps: plain loops, ranges, counts, energy, random graphs in every engine."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from netbuild import interval, spike_type

import qkf_deploy as qd
from qkf_deploy import ops
from qkf_deploy.errors import GraphError
from qkf_deploy.hw_models.architecture.reading import load_chip
from qkf_deploy.hw_models.mapping import map_network
from qkf_deploy.ir import Graph, GraphBuilder, Operand, View, identity
from qkf_deploy.passes.widths import attach
from qkf_deploy.report.mapping_table import render_mapping
from qkf_deploy.simulators import engines, reference
from qkf_deploy.simulators.run import Record

HEADS, DIM, TOKENS = 2, 3, 4


def merged(a: np.ndarray, b: np.ndarray, chunk: int) -> np.ndarray:
    """The product as models write it: the steps of a chunk stand beside the summed axis."""
    steps, images, heads, rows, terms = a.shape
    parts = steps // chunk
    left = a.reshape(parts, chunk, images, heads, rows, terms).transpose(0, 2, 3, 4, 1, 5)
    right = b.reshape(parts, chunk, images, heads, terms, -1).transpose(0, 2, 3, 1, 4, 5)
    y = left.reshape(parts, images, heads, rows, -1) @ right.reshape(parts, images, heads, chunk * terms, -1)
    return np.repeat(y, chunk, axis=0)


@pytest.mark.parametrize("chunk", [1, 2, 3, 6])
def test_equals_the_product_over_merged_tokens(chunk: int) -> None:
    rng = np.random.default_rng(chunk)
    a, b = rng.integers(-3, 4, (6, 2, 2, 3, 4)), rng.integers(0, 2, (6, 2, 2, 4, 5))
    assert np.array_equal(ops.MatMul(chunk).run([a, b], {}, 6), merged(a, b, chunk))
    constant = [a[:1], b[:1]]
    assert np.array_equal(ops.MatMul(chunk).run(constant, {}, 6), chunk * (a[:1] @ b[:1]))


def test_ranges_are_reached() -> None:
    """Extremes over a whole chunk: every product at its largest."""
    op, types = ops.MatMul(3), [spike_type((1, 2, 5), 4), spike_type((1, 5, 2), 7)]
    found = op.interval([interval(0, 4, 3), interval(0, 7, 3)], {}, types, 6)
    high = op.run([np.full((6, 1, 1, 2, 5), 4), np.full((6, 1, 1, 5, 2), 7)], {}, 6)
    assert int(found.low.min()) == 0
    assert int(found.high.max()) == high.max() == op.infer(types, {}).high == 3 * 5 * 4 * 7


def test_chunks_part_the_time_steps() -> None:
    with pytest.raises(GraphError, match="4 time steps do not part into chunks of 3"):
        network(0, 3, 4)
    with pytest.raises(GraphError, match="a chunk of 0 time steps"):
        network(0, 0, 4)


def network(seed: int, chunk: int, steps: int, high: int = 1) -> Graph:
    """q, k and v straight from the frames, Q (K^T V), a neuron, an addition of the early events; random thresholds."""
    rng, channels = np.random.default_rng(seed), HEADS * DIM
    b = GraphBuilder()
    b.add("input", ops.Input((3 * channels, TOKENS), "frames", high=high))
    split = View.of((3, HEADS, DIM, TOKENS), (0, 1, 2, 3), (3, HEADS, DIM, TOKENS))
    parts = [split.narrowed(0, i, i + 1).then((HEADS, DIM, TOKENS)) for i in range(3)]
    q, k, _ = (Operand("input", part) for part in parts)
    turned = [Operand("input", part.transposed((0, 2, 1))) for part in parts]
    b.add("kv", ops.MatMul(chunk), [k, turned[2]])
    b.add("y", ops.MatMul(), [turned[0], "kv"])
    theta = rng.integers(1, 6 * chunk, (HEADS, 1, DIM))
    b.add("lif", ops.IntegerNeuron(1, 1), ["y"], {"theta": theta})
    b.add("add", ops.Add(), [Operand("lif", identity((HEADS, TOKENS, DIM)).transposed((0, 2, 1))), q])
    b.add("readout", ops.Readout(), ["add"])
    b.add("output", ops.Output(), ["readout"], {"scale": np.ones((1, 1, 1))})
    return attach(b.build(time_steps=steps, input_encoding="frames", arithmetic="integer"))


def frames(seed: int, graph: Graph, images: int = 2) -> np.ndarray:
    """Random events; the first image is empty, the second one full."""
    high, shape = graph.input.type.high or 1, graph.input.type.shape
    x = np.random.default_rng(seed).integers(0, high + 1, (graph.time_steps, images + 2, *shape))
    x[:, 0], x[:, 1] = 0, high
    return x


@pytest.mark.parametrize(("seed", "chunk", "steps", "high"), [(1, 2, 4, 1), (2, 3, 3, 1), (3, 2, 6, 5), (4, 4, 4, 255)])
def test_random_graphs_in_every_engine(seed: int, chunk: int, steps: int, high: int) -> None:
    graph = network(seed, chunk, steps, high)
    x, record = frames(seed, graph), Record.of(graph, "all", "all")
    wanted = reference.run(graph, x, record)
    for engine in ("event", "torch", "onnx"):
        options = {"form": "sequence"} if engine == "onnx" else {}
        found = engines.get(engine, graph, options)(graph, x, record, None)
        assert found.ledger == wanted.ledger, engine
        for name, value in wanted.values.items():
            assert np.array_equal(found.values[name], value), (engine, name)
    assert 0 < wanted.values["lif"].mean() < 1


def test_counts_and_energy_by_brute_force() -> None:
    """Coincidences over all tokens of all steps of a chunk, in plain loops; a sum over a chunk is executed once."""
    graph = network(7, 2, 4)
    x = frames(3, graph)
    run = reference.run(graph, x, Record.of(graph, "all"))
    q, k, v = (x[:, :, i * HEADS * DIM : (i + 1) * HEADS * DIM].reshape(4, -1, HEADS, DIM, TOKENS) for i in range(3))
    kv, images = run.values["kv"], x.shape[1]
    both, asked = np.zeros(images, int), np.zeros(images, int)
    asked_unary = np.zeros(images, int)
    for h, i, j in itertools.product(range(HEADS), range(DIM), range(DIM)):
        for part, step, n in itertools.product(range(2), range(2), range(TOKENS)):
            t = 2 * part + step
            both += k[t, :, h, i, n] & v[t, :, h, j, n]
            total = sum(k[2 * part + s, :, h, i, m] & v[2 * part + s, :, h, j, m] for s in range(2) for m in range(4))
            assert np.array_equal(kv[t, :, h, i, j], total)
            asked += q[t, :, h, i, n] & (total > 0)
            asked_unary += q[t, :, h, i, n] * total
    first, second = run.ledger["kv"], run.ledger["y"]
    assert first.counts["coincidences"].tolist() == first.counts["coincidences_unary"].tolist() == both.tolist()
    assert second.counts["coincidences"].tolist() == asked.tolist()
    assert second.counts["coincidences_unary"].tolist() == asked_unary.tolist()
    assert first.counts["fanout_left"].tolist() == (k.sum((0, 2, 3, 4)) * DIM).tolist()
    report = {row.layer: row.energy_pj for row in qd.price(run.ledger, "exact-fp32").layers}
    assert Fraction(report["kv"]) == Fraction(9, 10) * int(both.sum())
    assert Fraction(report["y"]) == Fraction(9, 10) * int(asked_unary.sum())


def test_mapping_charges_what_waits() -> None:
    """Both operands of the product, the queries and the shortcut are held for a chunk; causal networks hold nothing."""
    chip = load_chip("generic-digital")
    values = HEADS * DIM * TOKENS
    for chunk in (1, 2, 4):
        mapping = map_network(network(5, chunk, 4, high=3), chip)
        held = {p.unit.name: p.unit.held_bits for p in mapping.placements if p.unit.held_bits}
        if chunk == 1:
            assert held == {}
            causal = mapping
            continue
        assert held == {"kv": chunk * 2 * values * 2, "y": chunk * values * 2}  # counts up to 3 in two bits
        more = {p.unit.name: p.memory_per_core_bytes * p.cores for p in mapping.placements}
        before = {p.unit.name: p.memory_per_core_bytes * p.cores for p in causal.placements}
        assert more["kv"] >= before["kv"] + held["kv"] // 8
        assert "not causal" in render_mapping(mapping, "table")
    assert "not causal" not in render_mapping(causal, "table")


def test_a_shortcut_that_waits_is_held_where_its_events_come_from() -> None:
    b = GraphBuilder()
    b.add("input", ops.Input((HEADS, DIM, TOKENS), "frames", high=1))
    b.add("early", ops.IntegerNeuron(1, 0), ["input"], {"theta": np.ones((1, 1, 1), np.int64)})
    turned = Operand("early", identity((HEADS, DIM, TOKENS)).transposed((0, 2, 1)))
    b.add("kv", ops.MatMul(2), ["early", turned])
    b.add("y", ops.MatMul(), ["kv", "early"])
    b.add("late", ops.IntegerNeuron(1, 0), ["y"], {"theta": np.full((1, 1, 1), 3)})
    b.add("add", ops.Add(), ["early", "late"])
    b.add("output", ops.Output(), [b.add("readout", ops.Readout(), ["add"])], {"scale": np.ones((1, 1, 1))})
    graph = attach(b.build(time_steps=4, input_encoding="frames", arithmetic="integer"))
    held = {p.unit.name: p.unit.held_bits for p in map_network(graph, load_chip("generic-digital")).placements}
    size = HEADS * DIM * TOKENS
    assert held == {"early": 2 * size, "kv": 2 * 2 * size, "y": 2 * size, "late": 0, "readout": 0}
