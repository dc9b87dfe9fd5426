"""Parts that are chains, in norse and sinabs where they are installed, and what is told to them without them."""

from __future__ import annotations

import nir
import numpy as np
import pytest
from zoo import ZOO, images

import qkf_deploy as qd
from qkf_deploy.converters.nir.builder import DT, lif
from qkf_deploy.converters.nir.chains import CHAINS, for_norse, for_sinabs
from qkf_deploy.converters.nir.clients import own
from qkf_deploy.converters.nir.export import export_nir
from qkf_deploy.converters.nir.partition import export_parts, load_parts, plan, run_parts
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record

NETWORKS = sorted(set(ZOO) - {"membrane_shortcut"})


def integer(name: str) -> Graph:
    return qd.quantize(ZOO[name](np.random.default_rng(5)), 8, input="fixed")


@pytest.fixture(params=CHAINS)
def client(request):
    pytest.importorskip(request.param)
    return CHAINS[request.param]


def equal(graph: Graph, folder, client) -> None:
    export_parts(graph, folder, chains=True)
    planned, files = load_parts(folder)
    x, _ = encode(planned.graph, images(planned.graph, np.random.default_rng(5)))
    expected = reference.run(planned.graph, x, Record.of(planned.graph, "all"))
    values = run_parts(planned, files, x, client)
    np.testing.assert_array_equal(values[planned.graph.output.name], expected.raw_output)
    for node in (n for n in values if planned.graph[n].type.is_events and n in expected.values):
        np.testing.assert_array_equal(values[node], expected.values[node], err_msg=node)


@pytest.mark.parametrize("name", NETWORKS)
def test_chains_in_other_tools(name, client, tmp_path):
    equal(ZOO[name](np.random.default_rng(5)), tmp_path / "parts", client)


@pytest.mark.parametrize("name", ["convnet", "residual", "token_attention"])
def test_integers_in_other_tools(name, client, tmp_path):
    equal(integer(name), tmp_path / "parts", client)


def test_integer_chains_in_our_own_reading(tmp_path):
    equal(integer("residual"), tmp_path / "parts", own)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_value_meets_another_inside_a_part(name):
    graph = ZOO[name](np.random.default_rng(5))
    inside = [node for part in plan(graph, chains=True).parts.values() for node in part.nodes]
    assert all(len(graph[node].inputs) == 1 for node in inside if node in graph.nodes)


@pytest.mark.parametrize("name", ["residual", "convnet"])
def test_what_meets_is_refused_by_name(name, client, tmp_path):
    graph = ZOO[name](np.random.default_rng(0))
    export_nir(graph, tmp_path / "net.nir")
    x = np.zeros((graph.time_steps, 1, *graph.input.type.shape), np.float32)
    with pytest.raises(InputError, match=r"meet at one node|does not take AvgPool2d"):
        client(tmp_path / "net.nir", x)


def chain(node) -> nir.NIRGraph:
    shape = np.array([3])
    nodes = {"a": nir.Input({"input": shape}), "b": node, "c": nir.Output({"output": shape})}
    return nir.NIRGraph(nodes, [("a", "b"), ("b", "c")])


def euler(tau, threshold, x) -> np.ndarray:
    """Spikes of NIR's LIF with r = 1, in float64."""
    v, spikes = np.zeros(x.shape[1:]), []
    for step in x:
        v = v + (step - v) / tau
        spikes.append(v > threshold)
        v = np.where(spikes[-1], 0.0, v)
    return np.array(spikes)


@pytest.mark.parametrize("r", [1.0, 2.0, 4.0])
def test_what_is_told_to_norse_is_the_same_neuron(r):
    x = np.random.default_rng(0).integers(-8, 20, (40, 3)) / 8.0
    told = for_norse(chain(lif((3,), tau=2.0, r=r, threshold=0.9)))
    node = told.nodes["b"]
    assert (node.tau == 2).all()
    assert (node.r == 1).all()
    spikes = euler(2.0, np.float64(np.float32(0.9)), r * x)
    assert spikes.any()
    np.testing.assert_array_equal(euler(node.tau.astype(float), node.v_threshold.astype(float), x), spikes)


@pytest.mark.parametrize(("tau", "r"), [(2.0, 1.0), (2.0, 2.0), (1.001, 1.0), (3.0, 1.0)])
def test_what_is_told_to_sinabs_is_the_same_neuron(tau, r):
    x = np.random.default_rng(1).integers(-8, 20, (40, 3)) / 8.0
    told = for_sinabs(chain(lif((3,), tau=tau, r=r, threshold=0.9)), lambda t: np.exp(np.float32(-1) / t))
    node = told.nodes["b"]
    kept, v, spikes = np.exp(np.float32(-1) / node.tau).astype(float), np.zeros(3), []
    if tau == 2.0:
        assert (kept == 0.5).all(), "a half decays by exactly a half"
    for step in x:
        v = kept * v + step
        spikes.append(v >= node.v_threshold)
        v = np.where(spikes[-1], 0.0, v)
    expected = euler(tau, 0.9, r * x)
    assert 10 < expected.sum() < expected.size - 10
    np.testing.assert_array_equal(spikes, expected)
    assert np.isclose(DT, 1e-4)
