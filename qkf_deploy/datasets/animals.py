"""Silhouettes of ten animals: the 10,000 images of 28 x 28 pixels of the package `animal-mnist`, with a fixed split.

Source: animal-mnist 0.4 (PyPI, MIT licence, Copyright (c) 2025 SinaSR-6). Its code, which needs TensorFlow, is not
used: the two pickled arrays it ships are read by a reader that makes arrays and nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import importlib.util
import io
import pickle
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qkf_deploy.errors import InputError, MissingComponent, told

CLASS_NAMES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
MEAN = (0.272,)
STD = (0.4053,)
"""Mean and standard deviation of the training pixels as fractions of 255, rounded to four digits."""

HELD_OUT = 200
"""Test images of each class."""
SPLIT_SEED = 2026
SHA256 = "f793f0fd41773692ad4aca4389ea7bbf84ffd25a13ed4530d9786fb0979a6adf"
"""Of the 10,000 images followed by their labels (uint8, then little-endian int64)."""

_FOLDER = Path("data", "Animal_MNIST")
_MOST_BYTES = 16 * 2**20


@dataclass(frozen=True, eq=False)
class Animals:
    """The data set, split.

    Attributes:
        train_images: ``uint8 (8000, 1, 28, 28)``.
        train_labels: ``int64 (8000,)``.
        test_images: ``uint8 (2000, 1, 28, 28)``, 200 of each class. None of them occurs among the training images.
        test_labels: ``int64 (2000,)``.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def load_animals(folder: Path | None = None) -> Animals:
    """Read and split the animals; the same result everywhere.

    Images that occur more than once (284 pairs) stay in the training part.

    Args:
        folder: that holds the package's two data files, by default that of the installed package.

    Raises:
        MissingComponent: animal-mnist is not installed.
        InputError: the files are damaged or of another version.
    """
    folder = _installed() if folder is None else folder
    images = _array(folder / "animal_data_version_3.gz")
    labels = _array(folder / "animal_label_version_3.gz")
    if hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest() != SHA256:
        raise InputError(
            "not the arrays of animal-mnist 0.4", where=str(folder), hint='pip install "animal-mnist==0.4"'
        )
    images = images[:, None]
    test = held_out_indices(images, labels)
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Animals(images[train], labels[train], images[test], labels[test])


def held_out_indices(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted indices of the test part: of each class :data:`HELD_OUT` images that occur once, drawn by a fixed seed."""
    _, index, count = np.unique(images.reshape(len(images), -1), axis=0, return_inverse=True, return_counts=True)
    single = count[index.ravel()] == 1
    rng = np.random.default_rng(SPLIT_SEED)
    chosen = [rng.permutation(np.flatnonzero(single & (labels == c)))[:HELD_OUT] for c in range(len(CLASS_NAMES))]
    return np.sort(np.concatenate(chosen))


def _installed() -> Path:
    found = importlib.util.find_spec("animal_mnist")
    if found is None or found.origin is None:
        raise MissingComponent("animal-mnist is not installed", hint='pip install --no-deps "animal-mnist==0.4"')
    return Path(found.origin).parent / _FOLDER


class _Arrays(pickle.Unpickler):
    """A reader that makes numpy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        numeric = "numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray"
        allowed = {("multiarray", "_reconstruct"): numeric, ("numpy", "ndarray"): "numpy", ("numpy", "dtype"): "numpy"}
        where = allowed.get((module.rpartition(".")[2], name))
        if where is None:
            raise pickle.UnpicklingError(f"holds {module}.{name}")
        return getattr(importlib.import_module(where), name)


def _array(path: Path) -> NDArray[Any]:
    try:
        with gzip.open(path) as file:
            data = file.read(_MOST_BYTES)
        array = _Arrays(io.BytesIO(data)).load()
        if isinstance(array, np.ndarray) and array.dtype.kind in "ui":
            return array
    except (OSError, EOFError, zlib.error, pickle.UnpicklingError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"cannot be read: {told(error)}", where=str(path)) from error
    raise InputError("holds no array of whole numbers", where=str(path))
