"""Weights that lie on a grid keep it: exact ties of the float network stay exact at every width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qkf_deploy as qd
from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph, GraphBuilder
from qkf_deploy.ops import Input, Linear, Neuron, Output, Readout
from qkf_deploy.passes.grid import find_grid

T = 5


def net(weights: list[np.ndarray], threshold: float, biases: list[np.ndarray | None] | None = None) -> Graph:
    """Linear layers and IF neurons on event frames."""
    b = GraphBuilder()
    x = b.add("input", Input((weights[0].shape[1],), format="frames"))
    for i, weight in enumerate(weights):
        bias = None if biases is None else biases[i]
        params = {"weight": weight} | ({} if bias is None else {"bias": bias})
        x = b.add(f"n{i}", Neuron(None, threshold, 0.0), [b.add(f"f{i}", Linear(), [x], params)])
    b.add("output", Output(), [b.add("readout", Readout(), [x])])
    return b.build(time_steps=T, input_encoding="frames")


def by_hand(x: np.ndarray, weights: list[np.ndarray], theta: int, biases: list[np.ndarray | int]) -> list[np.ndarray]:
    """Spikes of integer IF neurons, ``(T, B, n)`` per layer."""
    for weight, bias in zip(weights, biases, strict=True):
        v = np.zeros((len(x), len(weight)), np.int64)
        spikes = []
        for t in range(T):
            v = v + x[:, t] @ weight.T + bias
            spikes.append(v >= theta)
            v = np.where(spikes[-1], 0, v)
        x = np.stack(spikes, axis=1).astype(np.int64)
        yield x.swapaxes(0, 1)


STEPS = [0.25, 0.1, float(np.float32(0.1)), 0.7310585786300049, 3e-9]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    step=st.sampled_from(STEPS),
    largest=st.sampled_from([1, 3, 7, 100]),
    bits=st.sampled_from([4, 8, 16, 24, 32]),
    seed=st.integers(0, 2**16),
    biased=st.booleans(),
)
def test_grids_are_exact(step: float, largest: int, bits: int, seed: int, biased: bool) -> None:
    """The integers by hand, threshold on the grid: sums meet it again and again, and no output differs."""
    if largest >= 2 ** (bits - 1):
        bits = 8
    rng = np.random.default_rng(seed)
    weights = [rng.integers(-largest, largest + 1, shape) for shape in ((12, 8), (12, 12))]
    biases = [rng.integers(-2, 3, 12) if biased else 0 for _ in weights]
    theta = int(rng.integers(1, largest + 2))
    floats = [b * step for b in biases] if biased else [None, None]
    graph = net([w * step for w in weights], theta * step, floats)
    x = (rng.random((8, T, 8)) < 0.4).astype(np.int64)
    integer = qd.quantize(graph, bits, first_bits=bits)
    run = qd.simulate(integer, x, record=["n0", "n1"], engine="reference")
    for name, expected in zip(("n0", "n1"), by_hand(x, weights, theta, biases), strict=True):
        assert np.array_equal(run.spikes[name], expected), name
    if largest > 1 and not biased:
        assert all(
            np.array_equal(integer[f"f{i}"].params["weight"], weights[i]) for i in (0, 1) if _gcd(weights[i]) == 1
        )
        assert "weights that lie on a grid keep it: f0, f1" in integer.notices


def _gcd(weight: np.ndarray) -> int:
    return int(np.gcd.reduce(np.abs(weight).reshape(-1)))


def test_without_keeping_ties_flip() -> None:
    """Guards the test above: on the scale of the largest weight some outputs differ."""
    rng = np.random.default_rng(0)
    weights = [rng.integers(-7, 8, (24, 16)), rng.integers(-7, 8, (24, 24))]
    graph = net([w / 4 for w in weights], 1.0)
    x = (rng.random((20, T, 16)) < 0.4).astype(np.int64)
    keep, most = (qd.quantize(graph, 8, scales=scales) for scales in ("keep", "max"))
    assert most.provenance["quantize"].endswith("scales=max")
    assert not any("grid" in text for text in most.notices)
    wrong = []
    for integer in (keep, most):
        run = qd.simulate(integer, x, record=["n0", "n1"], engine="reference")
        expected = by_hand(x, weights, 4, [0, 0])
        wrong.append(sum(int((run.spikes[n] != e).sum()) for n, e in zip(("n0", "n1"), expected, strict=True)))
    assert wrong[0] == 0 < wrong[1]
    with pytest.raises(UsageError, match="scales: 'grid'"):
        qd.quantize(graph, 8, scales="grid")


@pytest.mark.parametrize("stored", [np.float64, np.float32])
@pytest.mark.parametrize("levels", [1, 7, 127])
def test_steps_per_channel(stored: type, levels: int) -> None:
    """Each channel its own gain, as batch norms leave them."""
    rng = np.random.default_rng(levels)
    integers = rng.integers(-levels, levels + 1, (5, 4, 3, 3))
    integers[:, 0, 0, :2] = [levels, 1]
    gains = rng.uniform(0.01, 2, 5).astype(stored)
    weight = (integers * gains.reshape(-1, 1, 1, 1)).astype(stored).astype(np.float64)
    grid = find_grid(weight, 127)
    assert grid.own.all()
    assert np.array_equal(np.rint(weight / grid.step.reshape(-1, 1, 1, 1)), integers)
    assert np.allclose(grid.step, gains, rtol=1e-7)


@pytest.mark.parametrize("bits", [8, 16, 24])
@pytest.mark.parametrize("stored", [np.float64, np.float32])
def test_arbitrary_weights_are_no_grid(bits: int, stored: type) -> None:
    weight = np.random.default_rng(bits).normal(size=(200, 9)).astype(stored).astype(np.float64)
    grid = find_grid(weight, 2 ** (bits - 1) - 1)
    assert not grid.own.any()


def test_a_bias_between_the_levels_gets_a_finer_unit() -> None:
    """Weights -7..7 in 8 bits leave room for four halvings of the step; a bias of an eighth of it needs three."""
    rng = np.random.default_rng(3)
    weight = rng.integers(-7, 8, (6, 20))
    weight[:, 0] = 7
    for bias, factor in ((np.full(6, 1 / 8), 8), (rng.normal(size=6), 16)):
        graph = net([weight / 4.0], 1.0, [bias / 4])
        assert np.array_equal(qd.quantize(graph, 8)["f0"].params["weight"], weight * factor)


@pytest.mark.parametrize(("threshold", "bits"), [(1.0, 0), (0.90625, 1), (0.859375, 2), (0.83, 8)])
def test_a_threshold_between_the_levels_of_a_leaking_neuron(threshold: float, bits: int) -> None:
    """A membrane of 3.5 units reaches a threshold of 3.5, and its floor would not: extra bits tell them apart."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-4, 5, (40, 12)) / 4
    b = GraphBuilder()
    b.add("input", Input((12,), format="frames"))
    b.add("f", Linear(), ["input"], {"weight": weight * 0.5})
    b.add("n", Neuron(2.0, threshold, 0.0), ["f"])
    b.add("output", Output(), [b.add("readout", Readout(), ["n"])])
    graph = b.build(time_steps=8, input_encoding="frames")
    x = (rng.random((40, 8, 12)) < 0.6).astype(np.int64)
    integer = qd.quantize(graph, 8)
    assert integer["n"].op.fraction_bits == bits
    runs = [qd.simulate(g, x, record=["n"], engine="reference").spikes["n"] for g in (graph, integer)]
    assert np.array_equal(*runs)
    assert 0 < runs[0].mean() < 1
