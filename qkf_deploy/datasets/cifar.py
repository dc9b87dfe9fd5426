"""CIFAR-10 and CIFAR-100 in their published binary and python versions.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; the files' layout is described at
https://www.cs.toronto.edu/~kriz/cifar.html. An image is 3 x 32 x 32 bytes, red plane first. In the binary version a
record is the label (CIFAR-100: the coarse and the fine label) and the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from qkf_deploy import limits
from qkf_deploy.datasets import labels, plain_pickle
from qkf_deploy.datasets.dataset import Dataset, Sample
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions
from qkf_deploy.simulators.inputs import check_axes

SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


class Batch(Protocol):
    """The content of one file."""

    @property
    def path(self) -> Path: ...

    @property
    def labels(self) -> np.ndarray: ...

    def image(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class BinaryBatch:
    """Records of ``heads`` labels and an image; the last label is the class."""

    path: Path
    heads: int

    @cached_property
    def records(self) -> np.ndarray:
        """``(N, heads + 3072)`` bytes, left on the disk."""
        width = self.heads + _PIXELS
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size == 0 or size % width:
            raise InputError(f"{size} bytes are not whole records of {width}", where=str(self.path))
        return np.memmap(self.path, np.uint8, "r", shape=(size // width, width))

    @property
    def labels(self) -> np.ndarray:
        return np.array(self.records[:, self.heads - 1], np.int64)

    def image(self, index: int) -> np.ndarray:
        return np.array(self.records[index, self.heads :]).reshape(SHAPE)


@dataclass(frozen=True, eq=False)
class PickledBatch:
    """A dictionary with ``data`` and one list of class indices."""

    path: Path
    key: str

    @cached_property
    def content(self) -> tuple[np.ndarray, np.ndarray]:
        """Images ``(N, 3072)`` and labels ``(N,)``."""
        found = plain_pickle.read(self.path)
        data, known = found.get("data"), found.get(self.key)
        if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS or not len(data):
            raise InputError(f"has no images of {_PIXELS} bytes", where=str(self.path))
        if not isinstance(known, list) or len(known) != len(data) or not all(type(k) is int for k in known):
            raise InputError(f"has no {self.key!r} for {len(data)} images", where=str(self.path))
        return data, np.array([min(max(k, -1), 2**31) for k in known], np.int64)

    @property
    def labels(self) -> np.ndarray:
        return self.content[1]

    def image(self, index: int) -> np.ndarray:
        return self.content[0][index].reshape(SHAPE)


@dataclass(frozen=True)
class _Layout:
    """One published form: its files, and how they are read.

    Attributes:
        name: of the form.
        train, test: names of the files.
        classes: how many.
        names: file of the class names, and their key in a pickle.
    """

    name: str
    train: tuple[str, ...]
    test: str
    classes: int
    names: tuple[str, str]

    def batch(self, path: Path) -> Batch:
        if self.name.endswith("python"):
            return PickledBatch(path, "labels" if self.classes == 10 else "fine_labels")
        return BinaryBatch(path, 1 if self.classes == 10 else 2)


_FIVE = tuple(f"data_batch_{i}" for i in range(1, 6))
_LAYOUTS = (
    _Layout("cifar10 binary", tuple(f"{n}.bin" for n in _FIVE), "test_batch.bin", 10, ("batches.meta.txt", "")),
    _Layout("cifar10 python", _FIVE, "test_batch", 10, ("batches.meta", "label_names")),
    _Layout("cifar100 binary", ("train.bin",), "test.bin", 100, ("fine_label_names.txt", "")),
    _Layout("cifar100 python", ("train",), "test", 100, ("meta", "fine_label_names")),
)


@dataclass(frozen=True, eq=False)
class Batches:
    """Samples of several files, one after the other."""

    batches: tuple[Batch, ...]
    starts: np.ndarray

    what = "a stack of images of 3 x 32 x 32"

    @property
    def empty(self) -> np.ndarray:
        return np.empty((0, *SHAPE), np.uint8)

    def read(self, index: int) -> Sample:
        place = int(np.searchsorted(self.starts, index, "right")) - 1
        return Sample(self.batches[place].image(index - int(self.starts[place])))


def layout_of(path: Path) -> _Layout | None:
    """The published form that a folder or file has, by names; ``None`` if it has none."""
    if path.is_dir():
        return next((form for form in _LAYOUTS if _has_files(path, form)), None)
    found = [form for form in _LAYOUTS if path.name in (form.test, *form.train)]
    return found[0] if found and path.is_file() else None


def _has_files(path: Path, form: _Layout) -> bool:
    """One of its files; beside `train` or `test`, which may be anything, the names of the classes too."""
    known = form.train != ("train",) or (path / form.names[0]).is_file()
    return known and any((path / name).is_file() for name in (form.test, *form.train))


def open_cifar(path: Path, graph: Graph, options: DataOptions) -> Dataset:
    """The test images, or another part of a published folder, or those of one file.

    Raises:
        InputError: files that are damaged or missing, or a network for other images.
    """
    form = layout_of(path)
    if form is None:
        raise InputError("is none of CIFAR's published forms", where=str(path))
    files, notices = _files(path, form, options.part)
    try:
        check_axes((1, *SHAPE), np.dtype(np.uint8), graph)
    except InputError as error:
        raise InputError(error.message, where=str(path), hint=error.hint) from error
    batches = tuple(form.batch(file) for file in files)
    known = np.concatenate([batch.labels for batch in batches])
    starts = np.concatenate([[0], np.cumsum([len(batch.labels) for batch in batches])])
    if known.min() < 0 or known.max() >= form.classes:
        raise InputError(f"labels beyond the {form.classes} classes of {form.name}", where=str(path))
    names, said = _class_names(files[0].parent, form)
    known = labels.of_names(known, names, graph) if names else known
    known = labels.checked(known, len(known), graph, str(path))[: options.limit]
    shown = [f"{b.path.name}[{i}]" for b in batches for i in range(len(b.labels))][: len(known)]
    source = Batches(batches, starts[:-1])
    return Dataset(path, tuple(shown), source, known, (*notices, *said), files, {"format": form.name})


def _files(path: Path, form: _Layout, part: str | None) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    if path.is_file():
        return (path,), ()
    chosen = {"train": form.train, "all": (*form.train, form.test)}.get(part or "test", (form.test,))
    missing = [name for name in chosen if not (path / name).is_file()]
    if missing:
        raise InputError(f"has no {', '.join(missing)}", where=str(path), hint="--part says which files are read")
    said = () if part else (f"the test part of {form.name} is read (--part train, --part all)",)
    return tuple(path / name for name in chosen), said


def _class_names(folder: Path, form: _Layout) -> tuple[Sequence[str], tuple[str, ...]]:
    """Names of the classes where their file is there."""
    name, key = form.names
    if not (folder / name).is_file():
        return (), (f"{name} is not there: labels are taken as the network's class indices",)
    found: Any
    if key:
        found = plain_pickle.read(folder / name).get(key)
    else:
        found = limits.read_whole(folder / name).decode("utf-8", "replace").split()
    if not isinstance(found, list) or len(found) != form.classes or not all(isinstance(n, str) for n in found):
        raise InputError(f"does not name {form.classes} classes", where=str(folder / name))
    return found, ()
