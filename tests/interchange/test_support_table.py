"""Operators x formats x cases: what the declared table says is what the exporters do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from zoo import ZOO

from qkf_deploy import bundle
from qkf_deploy.converters import formats
from qkf_deploy.converters.nir import lowering
from qkf_deploy.converters.nir.export import nir_bytes, offenders
from qkf_deploy.converters.nir.partition import plan
from qkf_deploy.converters.onnx.export import OnnxOptions, build_onnx, unsupported_reasons
from qkf_deploy.converters.onnx.file import OPERATORS as KNOWN
from qkf_deploy.converters.onnx.ops import LOWERINGS
from qkf_deploy.ir import Graph, GraphBuilder
from qkf_deploy.ops import OPERATORS, Neuron
from qkf_deploy.passes.quantize import QuantizeOptions, quantize

DOCS = Path(__file__).parents[2] / "docs" / "interchange.md"


def carried_over(rng: np.random.Generator) -> Graph:
    """Membranes carried over between images."""
    graph = ZOO["convnet"](rng)
    nodes = {n.name: replace(n, op=replace(n.op, carry="official")) if n.op.kind == "neuron" else n for n in graph}
    return replace(graph, nodes=nodes)


CASES = {**ZOO, "carried_over": carried_over}
OPTIONS = {"float": None, "int8": QuantizeOptions(), "fixed": QuantizeOptions(bits=4, input="fixed")}


def case(name: str, option: str) -> Graph:
    graph = CASES[name](np.random.default_rng(0))
    chosen = OPTIONS[option]
    return graph if chosen is None else quantize(graph, chosen)


def pairs():
    return [(n, o) for n in CASES for o in OPTIONS if n != "carried_over" or o == "float"]


def test_every_operator_is_declared_for_every_format():
    assert set(formats.ONNX) == set(formats.NIR) == set(OPERATORS)
    assert set(LOWERINGS) == set(lowering.LOWERINGS) == set(OPERATORS) - {"input"}
    for operator in OPERATORS:
        for form in formats.FORMATS:
            cell = formats.support(operator, form)
            assert cell.verdict in ("yes", "partly", "no")
            assert cell.how


def signed_pool(rng: np.random.Generator) -> Graph:
    """A maximum of spikes of either polarity is no OR of them."""
    graph, builder = ZOO["spike_pooling"](rng), GraphBuilder()
    for n in graph:
        op = replace(n.op, signed=True) if isinstance(n.op, Neuron) else n.op
        builder.add(n.name, op, n.inputs, n.params, n.source)
    return replace(graph, nodes=dict(builder.nodes)).verify()


def test_spikes_of_either_polarity_are_no_truth_values():
    graph = signed_pool(np.random.default_rng(0))
    pools = [n.name for n in graph if n.op.kind == "max_pool"]
    assert all(graph.operand_type(graph[name].inputs[0]).high == 1 for name in pools)
    assert pools
    planned = plan(graph)
    assert not {n for part in planned.parts.values() for n in part.nodes} & set(pools)
    assert all("max pooling of values that are not spikes" in planned.reasons[name] for name in pools)


def test_onnx_files_have_the_operators_that_the_reader_knows():
    graphs = [case(name, option) for name in ("membrane_shortcut", "odd_neurons", "ternary") for option in OPTIONS]
    found = {n.op_type for g in graphs for n in build_onnx(g, OnnxOptions(form="sequence")).graph.node}
    assert {"Greater", "Max", "Round", "Sign"} <= found <= KNOWN


def test_the_cases_use_every_operator():
    used = {node.op.kind for name, option in pairs() for node in case(name, option)}
    assert used == set(OPERATORS)


@pytest.mark.parametrize(("name", "option"), pairs())
def test_onnx_does_what_the_table_says(name, option):
    graph = case(name, option)
    reasons = unsupported_reasons(graph)
    if not reasons:
        build_onnx(graph)
        return
    refused = {node.op.kind for node in graph if any(line.strip().startswith(f"{node.name}: ") for line in reasons)}
    assert refused
    assert all(formats.ONNX[kind].verdict != "yes" for kind in refused)


@pytest.mark.parametrize(("name", "option"), pairs())
def test_nir_does_what_the_table_says(name, option):
    graph = case(name, option)
    refused = offenders(graph)
    kinds = {graph[node].op.kind for node in refused}
    assert all(formats.NIR[kind].verdict != "yes" for kind in kinds)
    assert all(reason for reason in refused.values())
    never = {node.name for node in graph if formats.NIR[node.op.kind].verdict == "no"}
    assert never <= set(refused)
    assert nir_bytes(graph, "annotated")
    outside = set(plan(graph).reasons)
    assert never <= outside
    assert bundle.from_bytes(bundle.to_bytes(graph)).nodes.keys() == graph.nodes.keys()


def test_the_docs_show_this_table():
    assert formats.markdown() in DOCS.read_text(encoding="utf-8")
