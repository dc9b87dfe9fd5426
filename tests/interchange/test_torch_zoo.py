"""Every operator, float and integer, on the torch engine: the reference's values, spikes and counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from netbuild import small_transformer
from test_onnx import OPTIONS, assert_equal_runs
from zoo import ZOO, images

from qkf_deploy.ir import Graph
from qkf_deploy.passes.fold import fold
from qkf_deploy.passes.quantize import quantize
from qkf_deploy.simulators import reference
from qkf_deploy.simulators import torch as torch_engine
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ZOO)
def test_integers_equal_the_reference(name: str, option: str) -> None:
    rng = np.random.default_rng([len(name), len(option)])
    graph = quantize(ZOO[name](rng), OPTIONS[option])
    x, _ = encode(graph, images(graph, rng))
    record = Record.of(graph, "all", "all")
    assert_equal_runs(reference.run(graph, x, record), torch_engine.run(graph, x, record))


def assert_same_spikes(graph: Graph, x: np.ndarray) -> None:
    """Spikes, other events and every count are equal; drives, membranes and logits within rounding."""
    record = Record.of(graph, "all", "all")
    expected, got = reference.run(graph, x, record), torch_engine.run(graph, x, record)
    for node in graph:
        if node.type.is_events and node.name in expected.values:
            np.testing.assert_array_equal(got.values[node.name], expected.values[node.name], err_msg=node.name)
    for kind in ("values", "membranes"):
        want, have = getattr(expected, kind), getattr(got, kind)
        assert set(want) == set(have)
        for name in want:
            largest = np.abs(want[name]).max(initial=1e-300)
            np.testing.assert_allclose(have[name], want[name], rtol=0, atol=1e-12 * largest, err_msg=name)
    assert got.ledger == expected.ledger
    np.testing.assert_allclose(got.logits, expected.logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 4, 16])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", ZOO)
def test_float_graphs(name: str, folded: bool, steps: int) -> None:
    rng = np.random.default_rng([len(name), steps])
    graph = replace(ZOO[name](rng), time_steps=max(steps, 2) if name == "attention_over_time" else steps)
    graph = fold(graph) if folded else graph
    assert_same_spikes(graph, encode(graph, images(graph, rng))[0])


@pytest.mark.parametrize("frames", [False, True])
def test_every_float_operator(frames: bool) -> None:
    graph = small_transformer(3, frames)
    shape = (4, 2, 3, 9, 7) if frames else (1, 2, 3, 9, 7)
    x = np.random.default_rng(0).integers(0, 3, shape).astype(np.float64)
    assert_same_spikes(graph, x)
