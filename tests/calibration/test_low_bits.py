"""Integers fitted to images: they do less wrong, quantization finds them again, and they are the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from netbuild import Net, small_transformer

import qkf_deploy as qd
from qkf_deploy import ops
from qkf_deploy.calibration.fitting import METHODS as FITTING
from qkf_deploy.calibration.fitting import Local, fit
from qkf_deploy.calibration.local import Judge, Place, product
from qkf_deploy.calibration.low_bits import calibrated
from qkf_deploy.calibration.methods import METHODS
from qkf_deploy.cli import run as command
from qkf_deploy.errors import UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.options import QuantizeOptions
from qkf_deploy.passes.clipping import clipped_scale
from qkf_deploy.passes.learned import own_neurons
from qkf_deploy.passes.quantize import prepare
from qkf_deploy.simulators.run import is_neuron


def pixels(graph: Graph, count: int = 8, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *graph.input.type.shape)).astype(np.uint8)


def wrong(integers: Graph, graph: Graph, images: np.ndarray) -> int:
    """Spikes that differ from the float network's."""
    return qd.compare(integers, graph, images).differ_free


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_it_does_less_wrong(bits: int) -> None:
    graph = qd.fold(small_transformer(3))
    images = pixels(graph, 24)
    found = qd.calibrate(graph, _images(images), bits=bits, sample=16)
    assert found.fit is not None
    before = wrong(qd.quantize(graph, bits, scales="max"), graph, images)
    assert wrong(found.graph, graph, images) < (0.8 if bits < 4 else 1.0) * before
    for layer in found.fit.layers:
        steps = list(layer.errors.values())
        assert steps == sorted(steps, reverse=True), layer  # no method makes it worse
    assert "16 images" in found.graph.provenance["calibrate"]
    assert found.fit.digest in found.graph.provenance["calibrate"]


def test_it_is_the_same_each_time_and_differs_with_the_seed() -> None:
    graph = qd.fold(small_transformer(1))
    data = _images(pixels(graph, 12))
    a, b, other = (qd.calibrate(graph, data, bits=3, sample=6, seed=s).graph for s in (0, 0, 1))
    assert _same(a, b)
    assert not _same(a, other)


def test_what_was_counted_is_what_the_network_does() -> None:
    """The search runs its own integers; what an engine computes with the network in the end are the same spikes."""
    for seed, bits in ((0, 2), (2, 4), (4, 8)):
        graph = qd.fold(small_transformer(seed))
        images = pixels(graph)
        fitted, layers = calibrated(graph, images, QuantizeOptions(bits), METHODS)
        integers = qd.quantize(fitted, bits=bits)
        own = {synapse: neuron for neuron, synapse in own_neurons(prepare(graph, QuantizeOptions(bits)).graph).items()}
        names = [n.name for n in integers if is_neuron(n.op.kind)]
        real = qd.simulate(graph, images, engine="torch", precision="float32", record=names)
        whole = qd.simulate(integers, images, engine="reference", record=names)
        counted = [layer for layer in layers if layer.outputs]
        assert counted
        for layer in counted:
            off = whole.spikes[own[layer.name]] - real.spikes[own[layer.name]]
            errors = float(np.abs(off).sum())
            assert errors <= layer.errors[layer.last] <= 2 * errors, layer


def test_scales_that_cut_off_miss_least() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (5, 40))
    weight[2] = 0
    for limit in (1, 3, 7):
        scale = clipped_scale(weight, limit)
        error = _missed(weight, scale, limit)
        for share in np.linspace(0.2, 1, 41):
            assert (error <= _missed(weight, np.abs(weight).max(1).clip(1e-9) * share / limit, limit) + 1e-12).all()
        assert (scale > 0).all()


def _missed(weight: np.ndarray, scale: np.ndarray, limit: int) -> np.ndarray:
    integers = np.clip(np.rint(weight / scale[:, None]), -limit, limit)
    return np.square(integers * scale[:, None] - weight).sum(1)


@pytest.mark.parametrize("linear", [False, True])
def test_rounding_finds_what_is_to_be_found(linear: bool) -> None:
    """A neuron whose target needs one weight rounded the wrong way."""
    net = Net(0, (3, 1, 1))
    if linear:
        net.add("flat", ops.Sum((1, 2)), "input")
        net.add("w", ops.Linear(), weight=np.zeros((2, 3)), bias=np.zeros(2))
    else:
        net.conv("w", "input", 2, kernel=1)
    net.lif("lif", "w", tau=None)
    net.head("lif")
    graph = net.build()
    node = graph["w"]
    assert isinstance(node.op, ops.Conv | ops.Linear)
    place = Place(graph, node, node.op, (), graph["lif"], QuantizeOptions(4))
    shape = (1, 8, 3) if linear else (1, 8, 3, 1, 1)
    x = torch.from_numpy(np.random.default_rng(2).integers(0, 2, shape)).float()
    weight = np.array([[0.4, 0.45, 0.30], [0.21, 0.35, 0.6]]).reshape(2, 3, *[1] * (len(shape) - 3))
    target = place.fire_real(product(node.op, x, weight))
    local = Local(Judge(place, target, place.channels()), x, weight, np.zeros(2), 1, None)
    state, errors = fit(local, ("scale", "rounding"))
    assert list(errors) == ["max", "scale", "rounding"]
    assert errors["rounding"] <= errors["scale"] <= errors["max"]
    again = local.judge.errors(local.drive(state.found), state.found.scale)
    assert np.array_equal(again, state.error)  # what was added up step by step is what the integers give
    assert set(FITTING) == set(METHODS)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = qd.fold(small_transformer(2))
    qd.save(graph, tmp_path / "net.qkf")
    np.save(tmp_path / "images.npy", pixels(graph))
    words = ["calibrate", str(tmp_path / "net.qkf"), str(tmp_path / "images.npy"), "-o", str(tmp_path / "int.qkf")]
    assert command([*words, "--bits", "3", "--sample", "4", "--methods", "scale,bias"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Integers fitted to 4 images by scale, bias\n")
    loaded = qd.load(tmp_path / "int.qkf")
    assert loaded.provenance["calibrate"].startswith("scale, bias fitted to 4 images, seed 0, sha256 ")
    assert max(int(abs(n.params["weight"]).max()) for n in loaded if n.op.kind == "linear") <= 3


def test_what_cannot_be() -> None:
    graph = qd.fold(small_transformer(2))
    data = _images(pixels(graph))
    for options in ({}, {"sample": 4}, {"bits": 9}, {"bits": 4, "methods": ("nothing",)}, {"bits": 4, "held_out": "x"}):
        with pytest.raises(UsageError):
            qd.calibrate(graph, data, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="integer graph already"):
        qd.calibrate(qd.quantize(graph, 8), data, bits=4)


def _same(a: Graph, b: Graph) -> bool:
    return all(np.array_equal(n.params[k], b[n.name].params[k]) for n in a for k in n.params)


def _images(array: np.ndarray) -> object:
    from qkf_deploy.datasets.images import Images

    return Images(array, [str(i) for i in range(len(array))])
