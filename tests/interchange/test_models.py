"""The trained digits network and one block of HST-10-384, on real images, in other people's runtimes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from qkf_deploy import api, bundle
from qkf_deploy.converters.export_check import check_portable
from qkf_deploy.converters.nir.clients import CLIENTS
from qkf_deploy.converters.nir.export import export_nir
from qkf_deploy.converters.nir.partition import export_parts, load_parts, run_parts
from qkf_deploy.converters.nir.read import import_nir
from qkf_deploy.ir import Graph, GraphBuilder
from qkf_deploy.ops import Input, Output
from qkf_deploy.passes.quantize import QuantizeOptions, quantize
from qkf_deploy.simulators import onnx, reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
CHECKPOINT = Path(__file__).parents[2] / "qkf_deploy" / "models" / "qkformer_digits.safetensors"


@lru_cache(1)
def digits() -> Graph:
    return api.trace(CHECKPOINT)


@lru_cache(1)
def images() -> np.ndarray:
    from qkf_deploy.datasets.digits import load_digits

    return load_digits().test_images


@pytest.mark.parametrize("form", ["step", "sequence"])
@pytest.mark.parametrize("bits", [4, 8, 24])
def test_digits_in_onnxruntime(bits, form):
    graph = quantize(digits(), QuantizeOptions(bits=bits))
    x, _ = encode(graph, images()[:12])
    record = Record.of(graph, "all", "all")
    expected = reference.run(graph, x, record)
    actual = onnx.run(graph, x, record, form=form, threads=1)
    np.testing.assert_array_equal(actual.logits, expected.logits)
    for kind in ("values", "membranes"):
        for name, want in getattr(expected, kind).items():
            np.testing.assert_array_equal(getattr(actual, kind)[name], want, err_msg=name)
    assert actual.ledger.to_dict() == expected.ledger.to_dict()


@pytest.mark.parametrize("client", CLIENTS)
def test_digits_in_parts(client, tmp_path):
    """Every partition in a foreign simulator, chained: equal spikes at every cut and equal logits."""
    pytest.importorskip(client)
    export_parts(digits(), tmp_path / "parts")
    planned, files = load_parts(tmp_path / "parts")
    assert len(files) >= 8
    x, _ = encode(planned.graph, images()[:10])
    expected = reference.run(planned.graph, x, Record.of(planned.graph, "all"))
    values = run_parts(planned, files, x, CLIENTS[client])
    np.testing.assert_array_equal(values[planned.graph.output.name], expected.raw_output)
    spikes = [n for n in values if n in expected.spikes]
    assert len(spikes) >= 6
    for name in spikes:
        np.testing.assert_array_equal(values[name], expected.spikes[name], err_msg=name)


def test_digits_annotated_round_trip(tmp_path):
    for graph in (digits(), quantize(digits(), QuantizeOptions())):
        export_nir(graph, tmp_path / "net.nir", "annotated")
        assert bundle.to_bytes(import_nir(tmp_path / "net.nir")) == bundle.to_bytes(graph)


def first_stage() -> Graph:
    """The digits network up to the end of its first stage, which stock NIR says completely."""
    graph = digits()
    builder = GraphBuilder()
    for node in graph:
        builder.add(node.name, node.op, node.inputs, node.params)
        if node.name == "stage1.0.add#2":
            break
    builder.add("output", Output(), ["stage1.0.add#2"])
    built = builder.build(time_steps=graph.time_steps)
    return replace(built, preprocessing=graph.preprocessing)


def test_first_stage_neuron_by_neuron():
    """Convolutions, shortcut, Q-K token attention, MLP with trained weights: no spike differs in any client."""
    results = check_portable(first_stage(), images()[:16])
    assert results
    for result in results:
        assert result.same, result
        assert result.compared > 100_000


def events_into(graph: Graph, high: int) -> Graph:
    """The graph reading spike counts instead of real values."""
    builder = GraphBuilder()
    for node in graph:
        op = Input(node.type.shape, format="frames", high=high) if isinstance(node.op, Input) else node.op
        builder.add(node.name, op, node.inputs, node.params)
    return builder.build(time_steps=graph.time_steps, input_encoding="frames")


@pytest.mark.parametrize("stage", [0, 2])
def test_one_block_of_hst_10_384(stage):
    """Token attention on 56 x 56 (stage 1) and self-attention on 14 x 14 (stage 3), random weights, real sizes."""
    from qkf_deploy.converters.torch.trace import InputSpec, trace_module
    from qkf_deploy.models.builds import build_config
    from qkf_deploy.models.calibrate import calibrate_batchnorm, randomize_norms
    from qkf_deploy.models.layers import Block

    torch.manual_seed(stage)
    config = build_config("qkformer-10-384")
    block, size, channels = Block(stage, config), 56 >> stage, config.stage_dims[stage]
    randomize_norms(block)
    x = torch.randint(0, 3, (4, 1, channels, size, size)).float()
    calibrate_batchnorm(block, x)
    traced = trace_module(block.eval(), InputSpec("sequence", (channels, size, size), 4))
    graph = quantize(events_into(traced, 2), QuantizeOptions())
    record = Record.of(graph, "all")
    expected = reference.run(graph, x.numpy().astype(np.int64), record)
    actual = onnx.run(graph, x.numpy().astype(np.int64), record, form="sequence", threads=1)
    assert all(s.any() for s in expected.spikes.values())
    for name, want in expected.values.items():
        np.testing.assert_array_equal(actual.values[name], want, err_msg=name)
