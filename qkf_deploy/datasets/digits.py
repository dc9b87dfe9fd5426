"""The 1,797 handwritten digits that ship with scikit-learn, as byte images with a fixed split.

Source: UCI "Optical Recognition of Handwritten Digits" (test part), 8 x 8 pixels with values 0 to 16.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qkf_deploy.errors import InputError, MissingComponent, told
from qkf_deploy.writing import write_atomically

REPEAT = 2
"""Every source pixel becomes a square of this many pixels a side: images are 16 x 16."""

HELD_OUT = 360
SPLIT_SEED = 2024
MEAN = (0.3056,)
STD = (0.3763,)
"""Mean and standard deviation of the training images as fractions of 255, per channel, rounded to four digits."""

CLASS_NAMES = tuple("0123456789")
SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
"""Of its 1,797 lines of 64 values and a label."""

_FILE = Path("datasets", "data", "digits.csv.gz")
_MOST_BYTES = 2**20
_REPAIR = 'pip install --force-reinstall --no-deps "scikit-learn>=1.3,<2"'


@dataclass(frozen=True, eq=False)
class Digits:
    """The data set, split.

    Attributes:
        train_images: ``uint8 (1437, 1, 16, 16)``.
        train_labels: ``int64 (1437,)``.
        test_images: ``uint8 (360, 1, 16, 16)``, never used in training.
        test_labels: ``int64 (360,)``.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def load_digits() -> Digits:
    """Load, scale and split the digits; the same result everywhere.

    A source value v (0 to 16) becomes the byte ``(255 v + 8) // 16``, that is 255 v / 16 rounded. The held-out part
    has :data:`HELD_OUT` images, each class in proportion, drawn with :data:`SPLIT_SEED`.

    Raises:
        MissingComponent: scikit-learn is not installed.
        InputError: its file is damaged or another one.
    """
    values, labels = _source()
    images = to_bytes(values)
    test = held_out_indices(labels)
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Digits(images[train], labels[train], images[test], labels[test])


def save_held_out(digits: Digits, path: str | Path) -> None:
    """Write the held-out images and labels as `.npz`, as every command reads them."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=digits.test_images, labels=digits.test_labels)
    write_atomically(path, buffer.getvalue())


def to_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Source values ``(B, 8, 8)`` from 0 to 16 to bytes ``(B, 1, 16, 16)``, without interpolation.

    Raises:
        InputError: values that are not whole numbers from 0 to 16.
    """
    whole = np.asarray(values).astype(np.int64)
    if not np.array_equal(whole, values) or whole.min(initial=0) < 0 or whole.max(initial=0) > 16:
        raise InputError("digit pixels must be whole numbers from 0 to 16", hint="pass scikit-learn's digits unchanged")
    scaled = ((255 * whole + 8) // 16).astype(np.uint8)
    return scaled.repeat(REPEAT, axis=1).repeat(REPEAT, axis=2)[:, np.newaxis]


def held_out_indices(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted indices of the held-out images: :data:`HELD_OUT` of them, stratified by label, seeded."""
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * HELD_OUT / len(labels)
    quota = np.floor(shares).astype(np.int64)
    # Largest remainders get the images that rounding down left over; ties go to the smaller class number.
    order = np.argsort(-(shares - quota), kind="stable")
    quota[order[: HELD_OUT - int(quota.sum())]] += 1
    rng = np.random.default_rng(SPLIT_SEED)
    picked = [rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(picked))


def normalize(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Bytes ``(B, 1, H, W)`` to the model's input ``(byte / 255 - mean) / std``, float64."""
    mean, std = (np.asarray(values).reshape(1, -1, 1, 1) for values in (MEAN, STD))
    return (images / 255.0 - mean) / std


def _source() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The values and labels, from the file itself: importing scikit-learn takes longer than evaluating all of them."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise MissingComponent("scikit-learn is not installed", hint='pip install "qkf-deploy[data]"')
    path = Path(found.origin).parent / _FILE
    try:
        with gzip.open(path) as file:
            text = file.read(_MOST_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot be read: {told(error)}", where=str(path), hint=_REPAIR) from error
    if hashlib.sha256(text).hexdigest() != SHA256:
        raise InputError("not the digits of scikit-learn", where=str(path), hint=_REPAIR)
    table = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
