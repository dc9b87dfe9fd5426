"""Data sets of image files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from qkf_deploy.datasets import labels, pictures
from qkf_deploy.datasets.dataset import Dataset, Sample
from qkf_deploy.datasets.finding import files_below, names_below, part_of
from qkf_deploy.datasets.tables import read_table
from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph, Resize
from qkf_deploy.options import DataOptions

_ARRAYS = "give a .npy or .npz file"


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Samples that are image files."""

    files: tuple[Path, ...]
    shape: tuple[int, ...]
    resize: bool | Resize

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
        InputError: no images there, labels that are no classes, or the network takes no images.
        UsageError: options for something else.
    """
    root, files, (known, notices) = _listed(path, graph, options)
    shape = graph.input.type.shape
    if graph.input_encoding == "frames":
        raise InputError("the network takes event frames, not image files", where=str(path), hint=_ARRAYS)
    if len(shape) != 3:
        raise InputError(f"the network takes vectors of shape {shape}, not image files", where=str(path), hint=_ARRAYS)
    files = files[: options.limit]
    known = None if known is None else known[: len(files)]
    resize = _resizing(graph, options)
    if isinstance(resize, Resize):
        size = f"{resize.shorter} pixels ({resize.interpolation}) and cropped to {shape[2]} x {shape[1]}"
        notices += (f"images are resized to {size}, as stored with the network (--no-resize: taken as they are)",)
    source = PictureFiles(tuple(files), shape, resize)
    how = asdict(resize) if isinstance(resize, Resize) else resize
    reading = {"format": "images", "shape": shape, "resize": how}
    return Dataset(path, names_below(root, files), source, known, notices, source.files, reading)


def _resizing(graph: Graph, options: DataOptions) -> bool | Resize:
    stored = graph.preprocessing.resize if graph.preprocessing else None
    return False if options.resize is False else stored or bool(options.resize)


def _listed(path: Path, graph: Graph, options: DataOptions) -> tuple[Path, list[Path], labels.Labels]:
    """The folder, its images, their labels."""
    if path.is_file():
        if options.labels is not None or options.part is not None:
            raise UsageError("--labels and --part are about a folder", hint="name the folder of the images")
        return path, [path], (None, ())
    root, notices = part_of(path, options.part)
    found = files_below(root, pictures.SUFFIXES)
    if options.labels is not None:
        files, (known, more) = read_table(Path(options.labels), root, graph)
        left, table = len(set(found) - set(files)), Path(options.labels).name
        are = "is" if left == 1 else "are"
        text = f"{quantity(left, 'image')} of the folder {are} not in {table} and {are} left out"
        said = (text,) if left else ()
        return root, files, (known, (*notices, *more, *said))
    if not found:
        raise InputError("no images in this folder", where=str(path), hint=f"looked for {', '.join(pictures.SUFFIXES)}")
    known, more = labels.of_folders(found, root, graph)
    return root, found, (known, (*notices, *more))
