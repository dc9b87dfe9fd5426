"""What the front-end tests share: weights that make a model fire, and the checks every model must pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import functional
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import qkf_deploy as qd
from qkf_deploy.converters.torch.run import _tensor, torch_oracle
from qkf_deploy.converters.torch.source import Source, TraceOptions, resolve
from qkf_deploy.converters.torch.trace import InputSpec, trace_module
from qkf_deploy.evaluation.agreement import Agreement, compare_chain
from qkf_deploy.ir import Graph
from qkf_deploy.ledger import Ledger
from qkf_deploy.models import calibrate_batchnorm, randomize_norms
from qkf_deploy.simulators import reference
from qkf_deploy.simulators.inputs import encode

IMAGES = 2


@dataclass(frozen=True)
class Traced:
    """A model that was made to fire, and its float graph, folded."""

    source: Source
    graph: Graph
    images: np.ndarray


def pixels(source: Source, seed: int = 0, count: int = IMAGES) -> np.ndarray:
    """Random bytes; event frames of counts 0..2. The first image is black, the last one white."""
    rng = np.random.default_rng(seed)
    if source.layout == "frames":
        return rng.integers(0, 3, (count, source.time_steps, *source.shape)).astype(np.float32)
    images = rng.integers(0, 256, (count, *source.shape)).astype(np.uint8)
    if len(source.shape) > 1:
        images[0, :, : source.shape[1] // 3] = 0
        images[-1, :, -source.shape[1] // 3 :] = 255
    return images


def awake(source: Source, images: np.ndarray, seed: int = 0) -> None:
    """Random batch norms with statistics of these images, so that an untrained model fires."""
    if not any(isinstance(m, _BatchNorm) for m in source.model.modules()):
        return
    randomize_norms(source.model, seed)
    calibrate_batchnorm(source.model, _tensor(images, source).float())


def traced(model: nn.Module, seed: int = 0, **options: Any) -> Traced:
    """The model traced and folded."""
    torch.manual_seed(seed)
    source = resolve(model, TraceOptions(**options))
    images = pixels(source, seed)
    awake(source, images, seed)
    graph = trace_module(source.model, InputSpec(source.layout, source.shape, source.time_steps, source.outputs))  # type: ignore[arg-type]
    return Traced(source, qd.fold(replace(graph, preprocessing=source.preprocessing)), images)


def assert_faithful(net: Traced, written: int = 0) -> Agreement:
    """Every neuron output of the float graph equals torch's in float64 at batch size 1, and the network fires.

    ``written``: neurons that are no modules known as such.
    """
    (found,) = compare_chain(torch_oracle(net.source, net.graph), (net.graph,), net.images)
    assert found.differ_free == 0
    assert found.differ_forced == 0
    assert found.logit_difference < 1e-12
    assert sum(layer.spikes for layer in found.layers) > 0.02 * found.outputs
    neurons = [m for m in net.source.model.modules() if hasattr(m, "v_threshold")]
    assert len(found.layers) == len(neurons) + written
    return found


def assert_exact(graph: Graph, images: np.ndarray, bits: int = 8) -> Graph:
    """The integer network gives the same integers and counts in every engine here."""
    integer = qd.quantize(graph, bits)
    runs = [qd.simulate(integer, images, engine=engine) for engine in ("reference", "event")]
    assert np.array_equal(runs[0].raw_output, runs[1].raw_output)
    assert runs[0].ledger.to_dict() == runs[1].ledger.to_dict()
    return integer


def ledger_of_ones(graph: Graph) -> Ledger:
    """Counts of a run in which every spike and count of the network is 1."""
    shape = graph.input.type.shape
    frames = graph.input_encoding == "frames"
    blank = np.ones((1, graph.time_steps, *shape) if frames else (1, *shape))
    inputs, _ = encode(graph, blank if frames or graph.arithmetic == "float" else blank.astype(np.uint8))

    def one(name: str, value: np.ndarray) -> np.ndarray:
        return np.ones_like(value) if graph[name].type.is_events else value

    return reference.run(graph, inputs, replace_value=one).ledger


def assert_counts_equal_dense(graph: Graph) -> None:
    """With every input 1, the additions of each synapse are its existing taps, once per time step."""
    seen = 0
    for layer in ledger_of_ones(graph):
        if layer.op in ("conv", "linear") and layer.timing == "step" and layer.input_kinds[0] in ("spike", "count"):
            assert layer.total("ac_unary") == layer.border_exact_macs * graph.time_steps
            assert layer.total("ac_graded") == layer.border_exact_macs * graph.time_steps
            seen += 1
        if layer.op == "matmul":
            assert layer.total("coincidences") == layer.dense_macs * graph.time_steps
    assert seen > 0


def assert_sound(net: Traced, written: int = 0) -> Agreement:
    """All of the above, for the float graph and the 8-bit network."""
    found = assert_faithful(net, written)
    integer = assert_exact(net.graph, net.images)
    for graph in (net.graph, integer):
        assert_counts_equal_dense(graph)
    return found


def multi_step(model: nn.Module) -> nn.Module:
    """A SpikingJelly model in multi-step mode."""
    functional.set_step_mode(model, "m")
    return model
