"""Data sets of image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qkf_deploy.datasets import pictures
from qkf_deploy.datasets.dataset import Dataset, Sample
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions

_ARRAYS = "give a .npy or .npz file"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".gif")


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Samples that are image files."""

    files: tuple[Path, ...]
    shape: tuple[int, ...]
    resize: bool

    @property
    def what(self) -> str:
        return f"a stack of images of {self.shape}"

    @property
    def empty(self) -> np.ndarray:
        return np.empty((0, *self.shape), np.uint8)

    def read(self, index: int) -> Sample:
        picture = pictures.read(self.files[index], self.shape, self.resize)
        return Sample(picture.pixels, picture.notices)


def open_pictures(path: Path, graph: Graph, options: DataOptions) -> Dataset:
    """An image file, or all those below a folder.

    Raises:
        InputError: no images there, or the network takes none.
    """
    files = _files(path)[: options.limit]
    shape = graph.input.type.shape
    if graph.input_encoding == "frames":
        raise InputError("the network takes event frames, not image files", where=str(path), hint=_ARRAYS)
    if len(shape) != 3:
        raise InputError(f"the network takes vectors of shape {shape}, not image files", where=str(path), hint=_ARRAYS)
    source = PictureFiles(tuple(files), shape, options.resize)
    reading = {"format": "images", "shape": shape, "resize": options.resize}
    names = tuple(f.name for f in files)
    return Dataset(path, names, source, _labels(files, path, graph.class_names), (), source.files, reading)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise InputError("no images in this folder", where=str(path), hint=f"looked for {', '.join(SUFFIXES)}")
    return files


def _labels(files: list[Path], root: Path, classes: tuple[str, ...]) -> np.ndarray | None:
    """Class indices where every file lies in a folder named like a class."""
    names = [f.parent.name for f in files]
    if not root.is_dir() or not classes or not set(names) <= set(classes):
        return None
    return np.array([classes.index(n) for n in names])
