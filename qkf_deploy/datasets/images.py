"""Image files, folders and arrays as network input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qkf_deploy import limits
from qkf_deploy.datasets import arrays, pictures
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.simulators.inputs import batched_rank, check_shape

_ARRAYS = "give a .npy or .npz file"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".gif")


@dataclass(frozen=True)
class Images:
    """A set of inputs.

    Attributes:
        array: ``(B, C, H, W)`` uint8 pixels or normalized floats, or event frames ``(B, T, C, H, W)``.
        names: one per image.
        labels: class indices ``(B,)`` where known: from ``labels`` of an ``.npz``, or folders named like classes.
        notices: what was done to the files that a user should know (16-bit pixels, orientation ...).
    """

    array: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray | None = None
    notices: tuple[str, ...] = ()


def load(path: str | Path, graph: Graph, *, resize: bool = False, limit: int | None = None) -> Images:
    """Read what a user points at.

    Args:
        path: an image file, a folder of them (subfolders named like the network's classes give labels), a ``.npy``
            array, or a ``.npz`` file with ``images`` (or one array only) and optionally ``labels``.
        graph: the network they are for: channels and size.
        resize: scale the shorter side and crop the centre where the size does not fit (bicubic).
        limit: at most this many.

    Raises:
        InputError: missing, unreadable, empty, of another size, or with labels beyond the network's classes.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file or folder", where=str(path), hint="name images, a folder, a .npy or a .npz file")
    if path.suffix in (".npy", ".npz"):
        return _arrays(path, graph, limit)
    files = _files(path)[:limit]
    shape = graph.input.type.shape
    if graph.input_encoding == "frames":
        raise InputError("the network takes event frames, not image files", where=str(path), hint="give a .npy or .npz")
    if len(shape) != 3:
        raise InputError(f"the network takes vectors of shape {shape}, not image files", where=str(path), hint=_ARRAYS)
    limits.check(len(files) * math.prod(shape), f"{len(files)} images of {shape}", str(path))
    read = [pictures.read(f, shape, resize) for f in files]
    notices = tuple(dict.fromkeys(n for picture in read for n in picture.notices))
    array = np.stack([picture.pixels for picture in read])
    return Images(array, tuple(f.name for f in files), _labels(files, path, graph.class_names), notices)


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


def _arrays(path: Path, graph: Graph, limit: int | None) -> Images:
    names = arrays.npz_names(path) if path.suffix == ".npz" else ()
    array = _images_of(path, names, limit) if names else arrays.read_npy(path, limit)
    labels = arrays.read_npz(path, "labels", limit) if {"images", "labels"} <= set(names) else None
    try:
        check_shape(array, graph)
    except InputError as error:
        raise InputError(error.message, where=str(path), hint=error.hint) from error
    array = array if array.ndim == batched_rank(graph) else array[None]
    array = array[:limit]
    shown = tuple(f"{path.name}[{i}]" for i in range(len(array)))
    return Images(array, shown, None if labels is None else _checked_labels(labels, len(array), graph, path))


def _images_of(path: Path, names: tuple[str, ...], limit: int | None) -> np.ndarray:
    """The array called ``images``, or the only one."""
    if "images" not in names and len(names) != 1:
        shown = ", ".join(sorted(names))[:200]
        raise InputError(f"has the arrays {shown}", where=str(path), hint="name one of them `images`")
    return arrays.read_npz(path, "images" if "images" in names else names[0], limit)


def _checked_labels(labels: np.ndarray, count: int, graph: Graph, path: Path) -> np.ndarray:
    """Class indices, int64 ``(count,)``."""
    if labels.shape != (count,):
        raise InputError(f"{count} images but labels of shape {labels.shape}", where=str(path))
    if labels.dtype.kind not in "iu" or not 0 <= int(labels.min()) <= int(labels.max()) < 2**31:
        raise InputError(
            f"labels of type {labels.dtype} are not class indices", where=str(path), hint="use whole numbers from 0"
        )
    sizes = [n for n in graph.output.type.shape if n > 1]
    if len(sizes) == 1 and int(labels.max()) >= sizes[0]:  # one number per class
        index = int(labels.argmax())
        raise InputError(
            f"label {labels[index]} of image {index} is not a class",
            where=str(path),
            hint=f"classes are 0 to {sizes[0] - 1}; are the labels, or the network, of another data set?",
        )
    return labels.astype(np.int64)
