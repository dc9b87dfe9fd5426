"""Data sets by name: ``digits`` and ``animals`` (their test part), ``digits:train``, ``animals:all`` and so on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from qkf_deploy.datasets import animals, digits, labels
from qkf_deploy.datasets.dataset import Dataset, Sample
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions
from qkf_deploy.simulators.inputs import check_axes

_PARTS = ("test", "train", "all")


class _Split(Protocol):
    """Images uint8 ``(N, C, H, W)`` and labels int64 ``(N,)`` of both parts."""

    @property
    def train_images(self) -> np.ndarray: ...
    @property
    def train_labels(self) -> np.ndarray: ...
    @property
    def test_images(self) -> np.ndarray: ...
    @property
    def test_labels(self) -> np.ndarray: ...


@dataclass(frozen=True)
class _Known:
    """A data set that has a name: its classes, how it is read, and what to do for a network of another size."""

    class_names: tuple[str, ...]
    load: Callable[[], _Split]
    other_size: str | None = None


_NAMES = {
    "digits": _Known(digits.CLASS_NAMES, digits.load_digits),
    "animals": _Known(
        animals.CLASS_NAMES,
        animals.load_animals,
        "other sizes: scale them into a .npz file (examples/animals/small.py)",
    ),
}


@dataclass(frozen=True, eq=False)
class Held:
    """Samples that are in memory."""

    array: np.ndarray

    what = "images of a named data set"

    @property
    def empty(self) -> np.ndarray:
        return self.array[:0]

    def read(self, index: int) -> Sample:
        return Sample(self.array[index])


def named_part(path: str | Path) -> tuple[str, str] | None:
    """The data set and the part that a name means, ``""`` if it names no part; ``None`` if it is no data set's name.

    Raises:
        UsageError: a part that there is not.
    """
    name, colon, part = str(path).partition(":")
    if name not in _NAMES:
        return None
    if colon and part not in _PARTS:
        raise UsageError(f"no part {part!r} of the {name}", hint=f"{name}:test, {name}:train or {name}:all")
    return name, part


def open_named(name: str, part: str, graph: Graph, options: DataOptions) -> Dataset:
    """The digits that ship with scikit-learn (:mod:`.digits`), or the animals of `animal-mnist` (:mod:`.animals`).

    Raises:
        InputError: a network for other images, damaged files.
        UsageError: two different parts.
        MissingComponent: the package that ships them is not installed.
    """
    if part and options.part and part != options.part:
        raise UsageError(f"{name}:{part} and --part {options.part}", hint="say it once")
    chosen, known = part or options.part or "test", _NAMES[name]
    images, found = (array[: options.limit] for array in _part(known.load(), chosen))
    try:
        check_axes(images.shape, images.dtype, graph)
    except InputError as error:
        raise InputError(error.message, where=name, hint=known.other_size or error.hint) from error
    found = labels.checked(labels.of_names(found, known.class_names, graph), len(found), graph, name)
    names = tuple(f"{chosen}[{i}]" for i in range(len(found)))
    reading = {"format": name, "pixels": hashlib.sha256(images.tobytes()).hexdigest()}
    return Dataset(Path(f"{name}:{chosen}"), names, Held(images), found, (), (), reading)


def _part(split: _Split, part: str) -> tuple[np.ndarray, np.ndarray]:
    if part == "train":
        return split.train_images, split.train_labels
    if part == "test":
        return split.test_images, split.test_labels
    images = np.concatenate([split.train_images, split.test_images])
    return images, np.concatenate([split.train_labels, split.test_labels])
