"""ONNX export under ONNX Runtime: equal integers, both forms, every operator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from zoo import ZOO, images

from qkf_deploy.converters.onnx.export import OnnxOptions, build_onnx, unsupported_reasons
from qkf_deploy.errors import UnsupportedError
from qkf_deploy.passes.quantize import QuantizeOptions, quantize
from qkf_deploy.simulators import onnx as onnx_engine
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record

OPTIONS = {
    "int8": QuantizeOptions(),
    "int2": QuantizeOptions(bits=2, first_bits=2),
    "int24": QuantizeOptions(bits=24),
    "fixed": QuantizeOptions(bits=4, input="fixed"),
    "fraction": QuantizeOptions(fraction_bits=5, decay_bits=7),
}


def assert_equal_runs(expected, actual) -> None:
    np.testing.assert_array_equal(actual.raw_output, expected.raw_output)
    np.testing.assert_array_equal(actual.logits, expected.logits)
    for kind in ("values", "membranes", "spikes"):
        want, got = getattr(expected, kind), getattr(actual, kind)
        assert set(want) == set(got)
        for name in want:
            np.testing.assert_array_equal(got[name], want[name], err_msg=f"{kind} of {name}")
    assert actual.ledger.to_dict() == expected.ledger.to_dict()


@pytest.mark.parametrize("form", ["step", "sequence"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ZOO)
def test_integers_equal_the_reference(name, option, form):
    rng = np.random.default_rng([len(name), len(option)])
    graph = quantize(ZOO[name](rng), OPTIONS[option])
    x, _ = encode(graph, images(graph, rng))
    record = Record.of(graph, "all", "all")
    expected = reference.run(graph, x, record)
    assert any(s.any() for s in expected.spikes.values()), "a silent network proves nothing"
    if form == "step" and graph.not_causal:
        with pytest.raises(UnsupportedError, match="not causal"):
            onnx_engine.run(graph, x, record, form=form, threads=1)
        return
    assert_equal_runs(expected, onnx_engine.run(graph, x, record, form=form, threads=1))


@pytest.mark.parametrize("form", ["step", "sequence"])
@pytest.mark.parametrize("name", ZOO)
def test_float_graphs(name, form):
    """float64 agrees with the reference spike for spike (dyadic weights: no ties by rounding); float32 nearly."""
    rng = np.random.default_rng(len(name))
    graph = ZOO[name](rng)
    x, _ = encode(graph, images(graph, rng))
    record = Record.of(graph, [n.name for n in graph if n.op.kind == "neuron"])
    expected = reference.run(graph, x, record)
    if form == "step" and graph.not_causal:
        with pytest.raises(UnsupportedError, match="not causal"):
            onnx_engine.run(graph, x, record, form=form, precision="float64", threads=1)
        return
    double = onnx_engine.run(graph, x, record, form=form, precision="float64", threads=1)
    for neuron, spikes in expected.spikes.items():
        np.testing.assert_array_equal(double.spikes[neuron], spikes, err_msg=neuron)
    np.testing.assert_allclose(double.logits, expected.logits, rtol=1e-12, atol=1e-12)
    single = onnx_engine.run(graph, x, record, form=form, threads=1)
    flips = sum(int((single.spikes[n] != s).sum()) for n, s in expected.spikes.items())
    assert flips <= 1e-4 * sum(s.size for s in expected.spikes.values())


@pytest.mark.parametrize("form", ["step", "sequence"])
def test_only_standard_operators_and_integer_weights(form):
    graph = quantize(ZOO["self_attention"](np.random.default_rng(0)), QuantizeOptions())
    model = build_onnx(graph, OnnxOptions(form))
    assert {o.domain for o in model.opset_import} == {""}
    assert {n.domain for n in model.graph.node} == {""}
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    assert kinds["conv.weight"] == onnx.TensorProto.INT8
    assert all(o.type.tensor_type.HasField("shape") for o in model.graph.output)


def test_refusals_are_listed_together():
    graph = ZOO["convnet"](np.random.default_rng(0))
    nodes = {n.name: replace(n, op=replace(n.op, carry="official")) if n.op.kind == "neuron" else n for n in graph}
    with pytest.raises(UnsupportedError) as caught:
        build_onnx(replace(graph, nodes=nodes))
    assert "stem.lif" in str(caught.value)
    assert len(unsupported_reasons(replace(graph, nodes=nodes))) >= 2


def test_sums_beyond_53_bits_are_refused():
    graph = quantize(ZOO["convnet"](np.random.default_rng(0)), QuantizeOptions(bits=24, fraction_bits=24, scales="max"))
    with pytest.raises(UnsupportedError, match="53 bits"):
        build_onnx(graph)
