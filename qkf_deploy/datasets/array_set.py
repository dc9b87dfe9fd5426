"""Data sets in `.npy` and `.npz` files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qkf_deploy.datasets import arrays, labels
from qkf_deploy.datasets.dataset import Dataset, Sample
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions
from qkf_deploy.simulators.inputs import batched_rank, check_axes, encode

IMAGE_NAMES = ("images", "frames", "x_test", "x", "data")
LABEL_NAMES = ("labels", "y_test", "y", "targets")
"""Names that arrays of images and of labels usually have, in the order of preference."""


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Samples that are rows of an array; an array without a batch axis is one sample."""

    rows: arrays.Rows
    graph: Graph

    @property
    def what(self) -> str:
        return self.rows.what

    @property
    def batched(self) -> bool:
        return len(self.rows.header.shape) == batched_rank(self.graph)

    @property
    def empty(self) -> np.ndarray:
        shape = self.rows.header.shape
        return np.empty((0, *(shape[1:] if self.batched else shape)), self.rows.header.dtype)

    def read(self, index: int) -> Sample:
        array = self.rows.read(index) if self.batched else self.rows.whole
        if array.dtype != np.uint8 or self.graph.input_encoding == "frames":
            encode(self.graph, array)  # whatever this image alone cannot be is said of this image alone
        return Sample(array)


def open_arrays(path: Path, graph: Graph, options: DataOptions) -> Dataset:
    """The images of a file, with its labels if it has some.

    Raises:
        InputError: not such a file, arrays that do not fit the network or each other, or names that leave open which.
    """
    names = arrays.npz_names(path) if path.suffix == ".npz" else ()
    image_name, label_name = _chosen(path, names, options) if names else (None, None)
    rows = arrays.Rows(path, image_name)
    try:
        check_axes(rows.header.shape, rows.header.dtype, graph)
    except InputError as error:
        raise InputError(error.message, where=str(path), hint=error.hint) from error
    source = ArrayRows(rows, graph)
    known = arrays.Rows(path, label_name).whole if label_name else None
    stored = len(rows) if source.batched else 1
    count = min(stored, options.limit or stored)
    if known is not None:
        known = labels.checked(known, stored, graph, str(path))[:count]
    reading = {"format": path.suffix.removeprefix("."), "images": image_name, "labels": label_name}
    return Dataset(path, tuple(f"{path.name}[{i}]" for i in range(count)), source, known, (), (path,), reading)


def _chosen(path: Path, names: tuple[str, ...], options: DataOptions) -> tuple[str, str | None]:
    """Names of the images' and the labels' array."""
    shown = ", ".join(sorted(names))[:200]
    for given, flag in ((options.images_key, "--images-key"), (options.labels_key, "--labels-key")):
        if given is not None and given not in names:
            raise InputError(f"has no array {given!r}", where=str(path), hint=f"{flag} is one of {shown}")
    usual = [name for name in IMAGE_NAMES if name in names]
    if options.images_key is None and len(usual) != 1 and len(names) != 1:
        raise InputError(f"has the arrays {shown}", where=str(path), hint="say which are the images: --images-key NAME")
    images = options.images_key or (usual or names)[0]
    usual = [name for name in LABEL_NAMES if name in names and name != images]
    if options.labels_key is None and len(usual) > 1:
        raise InputError(f"has the arrays {shown}", where=str(path), hint="say which are the labels: --labels-key NAME")
    return images, options.labels_key or (usual[0] if usual else None)
