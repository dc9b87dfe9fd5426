"""The digits data set and the committed checkpoint trained on it."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional

from qkf_deploy.converters.torch.checkpoint import Checkpoint, load_model
from qkf_deploy.datasets import digits
from qkf_deploy.errors import InputError, MissingComponent
from qkf_deploy.models import BUILDS, QKFormer

pytest.importorskip("sklearn")

CHECKPOINT = Path(__file__).parents[2] / "qkf_deploy" / "models" / "qkformer_digits.safetensors"


@pytest.fixture(scope="module")
def data() -> digits.Digits:
    return digits.load_digits()


@pytest.fixture(scope="module")
def trained() -> tuple[QKFormer, Checkpoint]:
    return load_model(CHECKPOINT)


def test_shapes_and_types(data: digits.Digits) -> None:
    assert (data.train_images.shape, data.train_images.dtype) == ((1437, 1, 16, 16), np.uint8)
    assert (data.test_images.shape, data.test_images.dtype) == ((360, 1, 16, 16), np.uint8)
    assert (data.train_labels.shape, data.test_labels.shape) == ((1437,), (360,))


def test_split_is_stratified_complete_and_fixed(data: digits.Digits) -> None:
    assert np.bincount(data.test_labels).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    labels = np.concatenate([data.train_labels, data.test_labels])
    picked = digits.held_out_indices(labels)
    assert len(np.unique(picked)) == 360
    assert np.array_equal(picked, digits.held_out_indices(labels))


def test_pixels_follow_the_stated_rule() -> None:
    values = np.arange(64).reshape(1, 8, 8) % 17
    images = digits.to_bytes(values)
    assert images.shape == (1, 1, 16, 16)
    for row in range(16):
        for column in range(16):
            assert images[0, 0, row, column] == (255 * values[0, row // 2, column // 2] + 8) // 16
    assert (images.min(), images.max()) == (0, 255)


@pytest.mark.parametrize("value", [-1, 17, 0.5])
def test_other_pixels_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="whole numbers from 0 to 16"):
        digits.to_bytes(np.full((1, 8, 8), value))


def test_the_values_are_those_that_scikit_learn_loads(data: digits.Digits) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    test = digits.held_out_indices(bunch.target)
    assert np.array_equal(digits.to_bytes(bunch.images)[test], data.test_images)
    assert np.array_equal(bunch.target[test], data.test_labels)
    assert np.array_equal(digits.to_bytes(np.delete(bunch.images, test, 0)), data.train_images)
    assert np.array_equal(np.delete(bunch.target, test), data.train_labels)


def _installed(folder: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package called sklearn with this file of digits."""
    path = folder / "sklearn" / "datasets" / "data" / "digits.csv.gz"
    path.parent.mkdir(parents=True)
    (folder / "sklearn" / "__init__.py").touch()
    if content is not None:
        path.write_bytes(content)
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(folder)


ROW = b",".join([b"3"] * 65) + b"\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "not the digits"),
        (ROW, "cannot be read"),
        (gzip.compress(ROW * 1797), "not the digits of scikit-learn"),
        (gzip.compress(ROW * 1797)[:-9], "cannot be read"),
        (gzip.compress(b"3,x\n"), "not the digits"),
    ],
)
def test_another_file_is_refused(
    content: bytes | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _installed(tmp_path, content, monkeypatch)
    with pytest.raises(InputError, match=words) as caught:
        digits.load_digits()
    assert "digits.csv.gz" in str(caught.value.where)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingComponent, match="scikit-learn is not installed"):
        digits.load_digits()


def test_mean_and_std_are_those_of_the_training_images(data: digits.Digits) -> None:
    fractions = data.train_images / 255
    assert (round(fractions.mean(), 4),) == digits.MEAN
    assert (round(fractions.std(), 4),) == digits.STD
    normalized = digits.normalize(data.train_images)
    assert abs(normalized.mean()) < 1e-3
    assert abs(normalized.std() - 1) < 1e-3


def test_checkpoint_is_complete_and_small(trained: tuple[QKFormer, Checkpoint]) -> None:
    model, checkpoint = trained
    assert model.config == BUILDS["qkformer-digits"]
    assert json.loads(checkpoint.metadata["mean"]) == list(digits.MEAN)
    assert json.loads(checkpoint.metadata["std"]) == list(digits.STD)
    assert json.loads(checkpoint.metadata["class_names"]) == list(digits.CLASS_NAMES)
    assert checkpoint.metadata["training_command"].startswith("python examples/digits/train.py")
    assert CHECKPOINT.stat().st_size < 2_000_000
    assert sum(p.numel() for p in model.parameters()) == 140_162


def test_checkpoint_reaches_its_accuracy(trained: tuple[QKFormer, Checkpoint], data: digits.Digits) -> None:
    model, checkpoint = trained
    correct = 0
    for start in range(0, 360, 60):
        part = slice(start, start + 60)
        functional.reset_net(model)
        with torch.no_grad():
            logits = model(torch.from_numpy(digits.normalize(data.test_images[part])).float())
        correct += int((logits.argmax(1).numpy() == data.test_labels[part]).sum())
    functional.reset_net(model)
    assert correct >= 0.97 * 360
    # Another machine rounds otherwise: a membrane on its threshold may tip an image either way.
    assert abs(100 * correct / 360 - float(checkpoint.metadata["held_out_accuracy_percent"])) < 0.6
