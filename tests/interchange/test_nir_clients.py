"""Our NIR files in SpikingJelly and snnTorch: the same spikes, node by node; annotated files refuse to run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
from zoo import CHANNELS, ZOO, images, pixels

import qkf_deploy as qd
from qkf_deploy import ops
from qkf_deploy.converters.nir.builder import placed_array
from qkf_deploy.converters.nir.clients import CLIENTS
from qkf_deploy.converters.nir.export import export_nir, folded, lower, offenders
from qkf_deploy.converters.nir.partition import export_parts, load_parts, run_parts
from qkf_deploy.converters.nir.refusals import check_start
from qkf_deploy.errors import InputError, UnsupportedError
from qkf_deploy.ir import Graph
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record

#: Networks that stock NIR says completely.
PORTABLE = ("convnet", "residual", "token_attention", "channel_attention", "spike_pooling", "normed", "events")
SEEDS = range(4)


@pytest.fixture(params=CLIENTS)
def client(request):
    pytest.importorskip(request.param)
    return CLIENTS[request.param]


def client_input(graph: Graph, x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, (graph.time_steps, *x.shape[1:])).astype(np.float32)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", PORTABLE)
def test_every_neuron_fires_the_same(name, seed, client, tmp_path):
    rng = np.random.default_rng(seed)
    graph = ZOO[name](rng)
    export_nir(graph, tmp_path / "net.nir")
    x, _ = encode(graph, images(graph, rng))
    names = [n.name for n in graph if n.op.kind in ("neuron", "mask")]
    expected = reference.run(graph, x, Record.of(graph, names))
    run = client(tmp_path / "net.nir", client_input(graph, x))
    places = lower(folded(graph), "portable").values
    fired = 0
    for node in names:
        place = places[node]
        want = placed_array(expected.values[node], place.view, place.shape, lead=2)
        np.testing.assert_array_equal(run.values[place.sources[0]], want, err_msg=node)
        fired += int(want.sum())
    assert fired > 100, "a silent network proves nothing"
    logits = run.output.mean(axis=0) if graph.input_encoding == "direct" else run.output
    np.testing.assert_allclose(logits, expected.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"membrane_shortcut"}))
def test_partitions_chained_give_equal_logits(name, client, tmp_path):
    rng = np.random.default_rng(5)
    export_parts(ZOO[name](rng), tmp_path / "parts")
    planned, files = load_parts(tmp_path / "parts")
    x, _ = encode(planned.graph, images(planned.graph, rng))
    expected = reference.run(planned.graph, x, Record.of(planned.graph, "all"))
    values = run_parts(planned, files, x, client)
    np.testing.assert_array_equal(values[planned.graph.output.name], expected.raw_output)
    events = [n for n in values if n in expected.values and planned.graph[n].type.is_events]
    assert events or name == "events"  # its only cut is the linear layer at the end
    for node in events:
        np.testing.assert_array_equal(values[node], expected.values[node], err_msg=node)


@pytest.mark.parametrize("name", ["self_attention", "membrane_shortcut", "grouped"])
def test_annotated_files_parse_everywhere_and_run_nowhere(name, client, tmp_path):
    graph = ZOO[name](np.random.default_rng(0))
    path: Path = tmp_path / "net.nir"
    export_nir(graph, path, "annotated")
    assert len(nir.read(path).nodes) > 5
    with pytest.raises(InputError, match="refuses the file"):
        client(path, client_input(graph, np.zeros((1, 1, *graph.input.type.shape))))


def test_portable_files_parse_with_stock_nir(tmp_path):
    for name in PORTABLE:
        export_nir(ZOO[name](np.random.default_rng(0)), tmp_path / f"{name}.nir")
        read = nir.read(tmp_path / f"{name}.nir", type_check=True)
        assert list(read.nodes) == sorted(read.nodes)
        order = {node: i for i, node in enumerate(read.nodes)}
        assert all(order[a] < order[b] for a, b in read.edges)


def test_portable_mode_lists_every_offender(tmp_path):
    graph = ZOO["self_attention"](np.random.default_rng(0))
    with pytest.raises(UnsupportedError) as caught:
        export_nir(graph, tmp_path / "net.nir")
    assert set(offenders(graph)) == {"kv", "qkv", "maxpool"}
    assert all(name in str(caught.value) for name in offenders(graph))
    assert not list(tmp_path.iterdir())


def test_a_strict_threshold_of_integers_is_refused():
    """Floors do not nest below it: 1.5 rounds down to a threshold of 1, which integers do not pass and NIR does."""
    builder = pixels(np.random.default_rng(0))
    builder.synapse("conv", "input", (CHANNELS, 2, 3, 3), padding=1)
    builder.add("lif", ops.Neuron(2.0, 1.0, 0.0), "conv")
    node = qd.quantize(builder.head("lif"), 8)["lif"]
    check_start(node.op, node)
    with pytest.raises(UnsupportedError, match="must be passed by a rounded membrane"):
        check_start(replace(node.op, strict=True), node)
