"""Faithful: in float64 the graph gives the torch model's spikes, every neuron, every step, at batch size 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from realdata import event_frames, photo_crops

import qkf_deploy as qd
from qkf_deploy.converters.torch.pixels import PRESETS
from qkf_deploy.converters.torch.run import torch_oracle
from qkf_deploy.converters.torch.source import TraceOptions, resolve
from qkf_deploy.evaluation.agreement import Agreement, compare_chain
from qkf_deploy.ir import Graph
from qkf_deploy.models import QKFormer, build, calibrate_batchnorm, randomize_norms
from qkf_deploy.simulators.inputs import normalize


@dataclass(frozen=True)
class Case:
    """A build made small, and the images it sees."""

    build: str
    overrides: dict[str, Any]
    preset: str | None = None

    def make(self) -> tuple[QKFormer, np.ndarray]:
        """The model with random weights, calibrated on other real images than those it is tested on; and the latter."""
        torch.manual_seed(0)
        model = build(self.build, **self.overrides)
        images = self.images(model, 6)
        randomize_norms(model)
        pre = PRESETS[self.preset] if self.preset else None
        seen = images[:4] / 255.0 if pre is None and images.dtype == np.uint8 else images[:4]
        seen = normalize(images[:4], pre) if pre is not None else seen
        calibrate_batchnorm(model, torch.from_numpy(seen.astype(np.float32)))
        return model, images[4:]

    def images(self, model: QKFormer, count: int) -> np.ndarray:
        config = model.config
        if config.layout == "dvs":
            return event_frames(count, config.time_steps, config.image_size)
        return photo_crops(count, config.image_size)[:, : config.in_channels]


IMAGENET = dict(embed_dim=96, image_size=64, depths=(1, 2, 2), heads=(2, 4, 6), num_classes=20)
CIFAR = dict(embed_dim=96, depths=(1, 1, 2), heads=(2, 4, 8))
DVS = dict(embed_dim=64, image_size=64, heads=(4, 4), time_steps=5)
CASES = {
    "imagenet": Case("qkformer-10-384", IMAGENET, "imagenet"),
    "imagenet, IF, T=2": Case("qkformer-10-512", {**IMAGENET, "neuron": "if", "time_steps": 2}, "imagenet"),
    "imagenet, no shortcut, Q-K channel": Case(
        "qkformer-10-768", {**IMAGENET, "speds": False, "attention": ("qkca", "qkta", "ssa")}, "imagenet"
    ),
    "cifar10": Case("qkformer-4-384-cifar10", CIFAR, "cifar10"),
    "cifar100, PLIF": Case("qkformer-4-384-cifar100", {**CIFAR, "neuron": "plif"}, "cifar10"),
    "cifar10, pre-activation": Case("qkformer-4-384-cifar10", {**CIFAR, "shortcut": "pa", "image_size": 16}, "cifar10"),
    "cifar10, T=1": Case("qkformer-4-384-cifar10", {**CIFAR, "time_steps": 1, "image_size": 16}, "cifar10"),
    "cifar10-dvs": Case("qkformer-2-256-cifar10dvs", DVS),
    "dvs128": Case("qkformer-2-256-dvs128", {**DVS, "time_steps": 16, "embed_dim": 32}),
}


def agreement(model: QKFormer, graph: Graph, images: np.ndarray, **options: Any) -> Agreement:
    """The graph against the torch model in float64."""
    source = resolve(model, TraceOptions(**options))
    return compare_chain(torch_oracle(source), (graph,), images)[0]


def assert_faithful(found: Agreement) -> None:
    """0 differ, each layer alone and the network on its own; and there is something to differ: every layer fires."""
    for layer in found.layers:
        assert (layer.differ_forced, layer.differ_ties, layer.differ_free) == (0, 0, 0), layer
        assert 0 < layer.spikes < layer.outputs, f"{layer.name} never fires or never rests"
    assert found.logit_difference < 1e-9
    assert found.same_class == found.images


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_random_weights_on_real_images(case: Case) -> None:
    model, images = case.make()
    options = {} if case.preset is None else {"preset": case.preset}
    graph = qd.trace(model, **options)
    assert_faithful(agreement(model, graph, images, **options))
    assert_faithful(agreement(model, qd.fold(graph), images, **options))
    assert sum(n.op.kind == "neuron" for n in graph) == sum(hasattr(m, "v_threshold") for m in model.modules())


@pytest.mark.slow
def test_full_size() -> None:
    """HST-10-384 at 224 x 224, T = 4, one photograph: all 49,185,024 neuron outputs."""
    model, images = Case("qkformer-10-384", {}, "imagenet").make()
    graph = qd.fold(qd.trace(model, preset="imagenet"))
    found = agreement(model, graph, images[:1], preset="imagenet")
    assert (found.outputs, len(found.layers)) == (49_185_024, 77)
    assert_faithful(found)


@pytest.mark.parametrize("case", ["imagenet", "cifar10, pre-activation", "cifar10-dvs"])
def test_lossless_on_random_weights(case: str) -> None:
    """The 24-bit integer network too: byte images or event frames in, 0 of all spikes differ from torch."""
    model, images = CASES[case].make()
    options = {} if CASES[case].preset is None else {"preset": CASES[case].preset}
    integer = qd.quantize(qd.trace(model, **options), 24)
    assert [note for note in integer.notices if "decay" in note] == []
    found = agreement(model, integer, images, **options)
    assert (found.differ_forced, found.differ_free) == (0, 0)
    assert min(layer.spikes for layer in found.layers) > 0


def test_digits(digits_checkpoint, digits_float: Graph, digits_data) -> None:
    source = resolve(digits_checkpoint, TraceOptions())
    assert_faithful(compare_chain(torch_oracle(source), (digits_float,), digits_data.test_images[:40])[0])


def test_a_wrong_weight_is_seen(digits_checkpoint, digits_float: Graph, digits_data) -> None:
    """The comparison above can fail: one threshold moved, and the layer is named."""
    node = digits_float["stage2.0.mlp.mlp1_lif"]
    moved = replace(node, op=replace(node.op, v_threshold=1.01))
    graph = replace(digits_float, nodes={**digits_float.nodes, node.name: moved})
    oracle = torch_oracle(resolve(digits_checkpoint, TraceOptions()))
    (found,) = compare_chain(oracle, (graph,), digits_data.test_images[:4])
    assert [layer.name for layer in found.layers if layer.differ_forced] == [node.name]
    assert found.differ_free > found.differ_forced > 0


@pytest.mark.parametrize("case", ["imagenet", "cifar10", "cifar10-dvs"])
def test_batch_carry_over_is_said(case: str) -> None:
    """The official files run the last neuron of SSA over time and batch merged; the graph says so and runs B = 1."""
    model, _ = CASES[case].make()
    graph = qd.trace(model)
    merged = [n.name for n in graph if getattr(n.op, "time_merged_with_batch", False)]
    assert merged
    assert all(name.endswith("proj_lif") for name in merged)
    (notice,) = [note for note in graph.notices if "merged time and batch axis" in note]
    assert merged[0] in notice


def test_official_carry_is_the_batch_of_the_official_code() -> None:
    """With carry ``official`` the graph gives what the model gives for a whole batch at once."""
    model, images = CASES["cifar10"].make()
    graph = qd.carry(qd.trace(model, preset="cifar10"), "official")
    wide = model.double().eval()
    spikes: dict[str, np.ndarray] = {}
    for path, module in wide.named_modules():
        if path.endswith("proj_lif"):
            module.register_forward_hook(lambda _m, _i, out, path=path: spikes.update({path: out.numpy()}))
    with torch.no_grad():
        wide(torch.from_numpy(normalize(images, PRESETS["cifar10"])))  # type: ignore[arg-type]
    run = qd.simulate(graph, images, record=list(spikes))
    own = qd.simulate(qd.carry(graph, "own"), images, record=list(spikes))
    differs = 0
    for path, expected in spikes.items():
        assert np.array_equal(run.spikes[path].reshape(-1), expected.reshape(-1)), path
        differs += int((own.spikes[path].reshape(-1) != expected.reshape(-1)).sum())
    assert differs > 0
