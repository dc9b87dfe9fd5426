"""A network that was trained with membranes carried from image to image: `official` is the model run in that batch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import qkf_deploy as qd
from qkf_deploy.calibration.carry import leftovers
from qkf_deploy.converters.torch.run import torch_oracle
from qkf_deploy.converters.torch.source import TraceOptions, resolve
from qkf_deploy.errors import UsageError
from qkf_deploy.evaluation.agreement import compare_chain
from qkf_deploy.ir import Graph
from qkf_deploy.passes.carry import merged
from qkf_deploy.simulators.run import is_neuron

ANIMALS = Path(__file__).parents[2] / "examples" / "animals"
CHECKPOINT = ANIMALS / "qkformer_animals16_carried.safetensors"
#: `QKF_CARRIED=2000` takes so many test images.
COUNT = int(os.environ.get("QKF_CARRIED", "30"))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    with np.load(ANIMALS / "test.npz") as file:
        return file["images"][:: max(1, 2000 // COUNT)][:COUNT]


@pytest.fixture(scope="module")
def official() -> Graph:
    return qd.carry(qd.trace(CHECKPOINT), "official")


@pytest.mark.parametrize("batch", [4, 10, 30])
def test_official_is_the_model_run_in_that_batch(official: Graph, images: np.ndarray, batch: int) -> None:
    """Every neuron in float64, three orders."""
    oracle = torch_oracle(resolve(CHECKPOINT, TraceOptions()), together=True)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(images))
        (found,) = compare_chain(oracle, (official,), images[order], batch)
        assert (found.differ_forced, found.differ_free, found.differ_ties) == (0, 0, 0)
        assert found.logit_difference < 1e-12
        assert [layer.name for layer in found.layers] == [n.name for n in official if is_neuron(n.op.kind)]
    assert set(merged(official)) <= {layer.name for layer in found.layers if layer.spikes}


def test_own_is_another_network(official: Graph, images: np.ndarray) -> None:
    oracle = torch_oracle(resolve(CHECKPOINT, TraceOptions()), together=True)
    (found,) = compare_chain(oracle, (qd.carry(official, "own"),), images, 10)
    assert next(layer.name for layer in found.layers if layer.differ_forced) == merged(official)[0]


@pytest.mark.parametrize("bits", [None, 8])
def test_stored_is_the_last_of_a_long_batch(official: Graph, images: np.ndarray, bits: int | None) -> None:
    """An image alone gives, to the last bit, the logits it gives behind the calibration images (at most 40 images)."""
    graph = official if bits is None else qd.quantize(official, bits=bits)
    chain, others = images[: 2 * len(images) // 3], images[2 * len(images) // 3 :][:40]
    stored = qd.simulate(qd.carry(graph, "stored", chain), others).logits
    last = [qd.simulate(graph, np.concatenate([chain, image[None]])).logits[-1] for image in others]
    assert np.array_equal(stored, last)
    assert not np.array_equal(stored, qd.simulate(qd.carry(graph, "own"), others).logits)


@pytest.mark.parametrize("bits", [None, 8])
def test_leftovers_are_averaged_over_the_last_images_of_the_chain(
    official: Graph, images: np.ndarray, bits: int | None
) -> None:
    """The mean of what each of them leaves as the last of its own, shorter, batch; whole in an integer network."""
    graph = official if bits is None else qd.quantize(official, bits=bits)
    chain = images[:8]
    single = [leftovers(graph, chain[:count]) for count in (6, 7, 8)]
    for name, found in leftovers(graph, chain, 3).items():
        mean = np.mean([each[name] for each in single], axis=0)
        assert np.array_equal(found, mean if bits is None else np.rint(mean)), name
        assert found.dtype == (np.float64 if bits is None else np.int64)
        assert not np.array_equal(found, single[-1][name])
    stored = qd.carry(graph, "stored", chain, average=3)
    assert all(np.array_equal(stored[k].params["leftover"], v) for k, v in leftovers(graph, chain, 3).items())
    for count in (0, 9):
        with pytest.raises(UsageError, match="of 8 images"):
            leftovers(graph, chain, count)
