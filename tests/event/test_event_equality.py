"""The event engine gives the reference engine's integers: every value, membrane and count."""

from __future__ import annotations

import numpy as np
import pytest
from event_cases import TIERS, Case, assert_equal, cases, check, neurons
from hypothesis import HealthCheck, given, settings
from netbuild import random_pixels, small_transformer

import qkf_deploy as qd
from qkf_deploy.ir import Graph, GraphBuilder
from qkf_deploy.ops import Conv, Input, IntegerNeuron, Output
from qkf_deploy.passes.quantize import QuantizeOptions, quantize
from qkf_deploy.passes.widths import attach
from qkf_deploy.simulators import event, reference
from qkf_deploy.simulators.event import layers
from qkf_deploy.simulators.event.engine import Engine
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record

_SETTINGS = dict(deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_digits_model(digits_int8: Graph, digits_data, tier: str, threads: int) -> None:
    inputs, _ = encode(digits_int8, digits_data.test_images[:5])
    check(digits_int8, inputs, tier, threads)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 16, 24])
def test_digits_model_at_other_widths(digits_float: Graph, digits_data, bits: int) -> None:
    graph = qd.quantize(digits_float, bits)
    inputs, _ = encode(graph, digits_data.test_images[:1])
    check(graph, inputs)


def test_fixed_point_input(digits_float: Graph, digits_data) -> None:
    graph = quantize(digits_float, QuantizeOptions(input="fixed", input_bits=9))
    inputs, _ = encode(graph, digits_data.test_images[:1])
    assert inputs.min() < 0
    check(graph, inputs)


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("tier", TIERS)
def test_every_operator(frames: bool, tier: str) -> None:
    graph = quantize(small_transformer(3, frames), QuantizeOptions())
    if frames:
        inputs = np.random.default_rng(0).integers(0, 3, (4, 3, 3, 9, 7))
    else:
        inputs, _ = encode(graph, random_pixels(1, (3, 9, 7)))
    check(graph, inputs, tier)


def _small(layout: str, **fields: object) -> tuple[Graph, np.ndarray]:
    import torch

    from qkf_deploy.converters.torch.trace import InputSpec, trace_module
    from qkf_deploy.models import build, calibrate_batchnorm

    torch.manual_seed(0)
    name = {"imagenet": "qkformer-10-384", "cifar": "qkformer-4-384-cifar10", "dvs": "qkformer-2-256-dvs128"}[layout]
    size = 16 if layout == "cifar" else 32
    model = build(name, image_size=size, num_classes=5, time_steps=3, **fields)
    shape = (model.config.in_channels, size, size)
    rng = np.random.default_rng(1)
    if layout == "dvs":
        x = rng.integers(0, 3, (2, 3, *shape)) * (rng.random((2, 3, *shape)) < 0.3)
        encoded = np.swapaxes(x, 0, 1).astype(np.int64)
        calibrate_batchnorm(model, torch.tensor(x).float())
        graph = trace_module(model, InputSpec("frames", shape, 3))
    else:
        x = rng.integers(0, 256, (2, *shape))
        encoded = x[None].astype(np.int64)
        calibrate_batchnorm(model, torch.tensor(x).float() / 255)
        graph = trace_module(model, InputSpec("image", shape, 3))
    return quantize(graph, QuantizeOptions()), encoded


@pytest.mark.parametrize(
    ("layout", "fields"),
    [
        ("imagenet", {"embed_dim": 64, "depths": (1, 1, 1), "heads": 2}),
        ("imagenet", {"embed_dim": 48, "depths": (1, 1, 1), "heads": 4, "attention": ("qkca", "qkta", "ssa")}),
        ("cifar", {"embed_dim": 64, "depths": (1, 1, 1), "heads": 4, "attention": ("qkta", "qkca", "ssa")}),
        ("cifar", {"embed_dim": 32, "depths": (1, 1, 1), "heads": 4, "shortcut": "pa", "neuron": "if"}),
        ("dvs", {"embed_dim": 64, "depths": (1, 1), "heads": 4, "neuron": "plif"}),
    ],
)
def test_layouts(layout: str, fields: dict[str, object]) -> None:
    graph, inputs = _small(layout, **fields)
    check(graph, inputs)
    kinds = {type(s).__name__ for s in Engine(graph).plan.steps}
    assert {"SynapseStep", "AttentionStep", "TokenSumStep"} <= kinds
    assert fields.get("attention", ("qkta",))[0] != "qkca" or "ChannelGateStep" in kinds


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize(("channels", "out", "groups"), [(6, 6, 6), (6, 12, 6), (6, 4, 2), (70, 35, 5)])
def test_grouped_convolutions(
    channels: int, out: int, groups: int, frames: bool, tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Depthwise and with several channels a group, on events and on pixels; the general path if they are too wide."""
    rng = np.random.default_rng(channels + out)
    b = GraphBuilder()
    b.add("input", Input((channels, 9, 7), "frames" if frames else "bytes", high=3))
    weight = rng.integers(-127, 128, (out, channels // groups, 3, 3)).astype(np.int8)
    weight[rng.random(weight.shape) < 0.3] = 0
    arrays = {"weight": weight, "bias": rng.integers(-50, 50, out)}
    b.add("conv", Conv((2, 1), (1, 1), (1, 1), groups, 8), ["input"], arrays)
    b.add("lif", IntegerNeuron(1, 1), ["conv"], {"theta": rng.integers(1, 300, (out, 1, 1))})
    b.add("output", Output(), ["lif"])
    graph = attach(b.build(time_steps=3, input_encoding="frames" if frames else "direct", arithmetic="integer"))
    inputs = rng.integers(0, 4, (3 if frames else 1, 2, channels, 9, 7))
    inputs *= rng.random(inputs.shape) < 0.5
    assert "synapse: conv, lif" in Engine(graph, tier=tier).plan.explain()
    check(graph, inputs, tier)
    monkeypatch.setattr(layers, "_MOST_WEIGHTS", 0)
    assert "synapse: conv, lif" not in Engine(graph, tier=tier).plan.explain()
    check(graph, inputs, tier)


@given(case=cases())
@settings(max_examples=60, **_SETTINGS)
def test_random_graphs(case: Case) -> None:
    check(case.graph, case.inputs)


@pytest.mark.parametrize("tier", TIERS)
@given(case=cases())
@settings(max_examples=15, **_SETTINGS)
def test_random_graphs_on_every_tier(tier: str, case: Case) -> None:
    check(case.graph, case.inputs, tier, threads=2)


def test_results_do_not_depend_on_threads(digits_int8: Graph, digits_data) -> None:
    """Nor on how many images take each step together."""
    inputs, _ = encode(digits_int8, digits_data.test_images[:11])
    record = Record.of(digits_int8, neurons(digits_int8))
    wanted = reference.run(digits_int8, inputs, record)
    for threads in (1, 2, 3, 5, 12):
        assert_equal(event.run(digits_int8, inputs, record, threads=threads), wanted)


def test_official_carry_over_runs_the_batch_in_order(digits_float: Graph, digits_data) -> None:
    from dataclasses import replace

    graph = qd.quantize(digits_float, 8)
    name = "stage3.0.ssa.proj_lif"
    node = graph[name]
    carried = replace(node, op=replace(node.op, carry="official"))
    graph = replace(graph, nodes={**graph.nodes, name: carried}, widths={})
    graph = attach(graph)
    inputs, _ = encode(graph, digits_data.test_images[:3])
    wanted = reference.run(graph, inputs)
    assert_equal(event.run(graph, inputs, threads=2), wanted)
    own = reference.run(qd.quantize(digits_float, 8), inputs)
    assert not np.array_equal(own.raw_output, wanted.raw_output)


def test_progress_reaches_the_end(digits_int8: Graph, digits_data) -> None:
    inputs, _ = encode(digits_int8, digits_data.test_images[:2])
    seen: list[tuple[int, int]] = []
    event.run(digits_int8, inputs, progress=lambda done, total: seen.append((done, total)), threads=2)
    assert seen[-1][0] == seen[-1][1] == max(done for done, _ in seen)
