"""The handwritten digits by name: ``digits`` (the held-out part), ``digits:test``, ``digits:train``, ``digits:all``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qkf_deploy.datasets import labels
from qkf_deploy.datasets.dataset import Dataset, Sample
from qkf_deploy.datasets.digits import CLASS_NAMES, load_digits
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions
from qkf_deploy.simulators.inputs import check_axes

_NAME = "digits"
_PARTS = ("test", "train", "all")


@dataclass(frozen=True, eq=False)
class Held:
    """Samples that are in memory."""

    array: np.ndarray

    what = "a stack of digits"

    @property
    def empty(self) -> np.ndarray:
        return self.array[:0]

    def read(self, index: int) -> Sample:
        return Sample(self.array[index])


def digits_part(path: str | Path) -> str | None:
    """The part that a name means; ``""`` if it names none, ``None`` if it is not the digits' name.

    Raises:
        UsageError: a part that they do not have.
    """
    name, colon, part = str(path).partition(":")
    if name != _NAME:
        return None
    if colon and part not in _PARTS:
        raise UsageError(f"no part {part!r} of the digits", hint="digits:test, digits:train or digits:all")
    return part


def open_digits(part: str, graph: Graph, options: DataOptions) -> Dataset:
    """The digits that ship with scikit-learn, see :mod:`qkf_deploy.datasets.digits`.

    Raises:
        InputError: a network for other images.
        UsageError: two different parts.
        MissingComponent: scikit-learn is not installed.
    """
    if part and options.part and part != options.part:
        raise UsageError(f"digits:{part} and --part {options.part}", hint="say it once")
    chosen = part or options.part or "test"
    digits = load_digits()
    arrays = {
        "test": (digits.test_images, digits.test_labels),
        "train": (digits.train_images, digits.train_labels),
        "all": (
            np.concatenate([digits.train_images, digits.test_images]),
            np.concatenate([digits.train_labels, digits.test_labels]),
        ),
    }
    images, known = (array[: options.limit] for array in arrays[chosen])
    try:
        check_axes(images.shape, images.dtype, graph)
    except InputError as error:
        raise InputError(error.message, where=_NAME, hint=error.hint) from error
    known = labels.checked(labels.of_names(known, CLASS_NAMES, graph), len(known), graph, _NAME)
    names = tuple(f"{chosen}[{i}]" for i in range(len(known)))
    reading = {"format": "digits", "pixels": hashlib.sha256(images.tobytes()).hexdigest()}
    return Dataset(Path(f"{_NAME}:{chosen}"), names, Held(images), known, (), (), reading)
