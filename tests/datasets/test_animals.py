"""The animals: read without running what the files say, and split the same way everywhere."""

from __future__ import annotations

import gzip
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import qkf_deploy as qd
from qkf_deploy.datasets import animals, named
from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.errors import InputError, MissingComponent, UsageError
from qkf_deploy.models import build
from qkf_deploy.options import DataOptions


def made(folder: Path, images: object, labels: object) -> Path:
    for name, array in (("data", images), ("label", labels)):
        (folder / f"animal_{name}_version_3.gz").write_bytes(gzip.compress(pickle.dumps(array, protocol=4)))
    return folder


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


def test_only_arrays_are_read(tmp_path: Path) -> None:
    images = np.zeros((3, 28, 28), np.uint8)
    for wrong in (_Evil(), {"a": 1}, images.astype(float), np.array([_Evil()], object), "text"):
        with pytest.raises(InputError):
            animals.load_animals(made(tmp_path, wrong, np.zeros(3, np.int64)))
    with pytest.raises(InputError, match=r"not the arrays of animal-mnist 0\.4"):
        animals.load_animals(made(tmp_path, images, np.zeros(3, np.int64)))
    for damage in (b"", b"\x1f\x8b", gzip.compress(b"\x80\x04"), gzip.compress(bytes(100))):
        (tmp_path / "animal_data_version_3.gz").write_bytes(damage)
        with pytest.raises(InputError):
            animals.load_animals(tmp_path)
    (tmp_path / "animal_data_version_3.gz").unlink()
    with pytest.raises(InputError):
        animals.load_animals(tmp_path)


def test_the_split_keeps_copies_together() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3000, 1, 28, 28)).astype(np.uint8)
    labels = np.arange(3000) % 10
    images[10], images[500] = images[0], images[1]
    test = animals.held_out_indices(images, labels)
    assert np.bincount(labels[test]).tolist() == [200] * 10
    assert not {0, 10, 1, 500} & set(test.tolist())
    assert test.tolist() == sorted(test.tolist()) == animals.held_out_indices(images, labels).tolist()


def test_the_installed_package() -> None:
    try:
        data = animals.load_animals()
    except MissingComponent:
        pytest.skip("animal-mnist is not installed")
    assert data.train_images.shape == (8000, 1, 28, 28)
    assert np.bincount(data.test_labels).tolist() == [200] * 10
    fractions = data.train_images / 255
    assert (round(float(fractions.mean()), 4),) == animals.MEAN
    assert (round(float(fractions.std()), 4),) == animals.STD
    known = {image.tobytes() for image in data.train_images}
    assert not any(image.tobytes() in known for image in data.test_images)


def test_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """`animals` is the test part; without the package, and for another size of image, an error says what to do."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 1, 28, 28)).astype(np.uint8)
    labels = np.array([9, 8, 7, 6, 5, 4])
    split = animals.Animals(pixels[:4], labels[:4], pixels[4:], labels[4:])
    known = replace(named._NAMES["animals"], load=lambda: split)
    graph = qd.trace(build("qkformer-animals", embed_dim=16, heads=2).eval(), preset="none")
    monkeypatch.setitem(named._NAMES, "animals", known)
    for name, options, first, count in (
        ("animals", DataOptions(), 4, 2),
        ("animals", DataOptions(part="train", limit=3), 0, 3),
        ("animals:all", DataOptions(), 0, 6),
    ):
        found = open_dataset(name, graph, options)
        assert np.array_equal(found.read([0, 1]).array, pixels[first : first + 2])
        assert found.labels is not None
        assert found.labels.tolist() == labels[first : first + count].tolist()
    with pytest.raises(UsageError, match="no part 'val' of the animals"):
        open_dataset("animals:val", graph, DataOptions())
    small = qd.trace(build("qkformer-digits", embed_dim=16, heads=2).eval(), preset="none")
    with pytest.raises(InputError) as size:
        open_dataset("animals", small, DataOptions())
    assert "examples/animals/small.py" in (size.value.hint or "")
    monkeypatch.undo()
    monkeypatch.setattr(animals.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingComponent) as missing:
        open_dataset("animals:train", graph, DataOptions())
    assert "animal-mnist==0.4" in (missing.value.hint or "")
