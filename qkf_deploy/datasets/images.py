"""Image files, folders and arrays as network input."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".gif")
#: Shorter side before the centre crop, relative to the crop (the usual ImageNet evaluation, 256 / 224).
_CROP = 256 / 224


@dataclass(frozen=True)
class Images:
    """A set of inputs.

    Attributes:
        array: ``(B, C, H, W)`` uint8 pixels or normalized floats, or event frames ``(B, T, C, H, W)``.
        names: one per image.
        labels: class indices ``(B,)`` where known: from ``labels`` of an ``.npz``, or folders named like classes.
    """

    array: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray | None = None


def load(path: str | Path, graph: Graph, *, resize: bool = False, limit: int | None = None) -> Images:
    """Read what a user points at.

    Args:
        path: an image file, a folder of them (subfolders named like the network's classes give labels), a ``.npy``
            array, or a ``.npz`` file with ``images`` (or one array only) and optionally ``labels``.
        graph: the network they are for: channels and size.
        resize: scale the shorter side and crop the centre where the size does not fit (bicubic).
        limit: at most this many.

    Raises:
        InputError: missing, unreadable, empty, or of another size.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file or folder", where=str(path), hint="name images, a folder, a .npy or a .npz file")
    if path.suffix in (".npy", ".npz"):
        return _arrays(path, limit)
    files = _files(path)[:limit]
    shape = graph.input.type.shape
    if graph.input_encoding == "frames":
        raise InputError("the network takes event frames, not image files", where=str(path), hint="give a .npy or .npz")
    array = np.stack([_image(f, shape, resize) for f in files])
    return Images(array, tuple(f.name for f in files), _labels(files, path, graph.class_names))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise InputError("no images in this folder", where=str(path), hint=f"looked for {', '.join(SUFFIXES)}")
    return files


def _image(path: Path, shape: tuple[int, ...], resize: bool) -> np.ndarray:
    channels, height, width = shape
    mode = {1: "L", 3: "RGB"}.get(channels)
    if mode is None:
        raise InputError(f"the network takes {channels} channels, image files have 1 or 3", where=str(path))
    try:
        with Image.open(path) as opened:
            image = opened.convert(mode)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise InputError(f"not a readable image: {error}", where=str(path)) from error
    if image.size != (width, height):
        if not resize:
            raise InputError(
                f"the image is {image.size[0]}x{image.size[1]}, the network takes {width}x{height}",
                where=str(path),
                hint="add --resize, or trace the network with another --image-size",
            )
        image = _fit(image, width, height)
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if mode == "L" else np.ascontiguousarray(array.transpose(2, 0, 1))


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    factor = _CROP * max(width / image.width, height / image.height)
    size = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
    scaled = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return scaled.crop((left, top, left + width, top + height))


def _labels(files: list[Path], root: Path, classes: tuple[str, ...]) -> np.ndarray | None:
    """Class indices where every file lies in a folder named like a class."""
    names = [f.parent.name for f in files]
    if not root.is_dir() or not classes or not set(names) <= set(classes):
        return None
    return np.array([classes.index(n) for n in names])


def _arrays(path: Path, limit: int | None) -> Images:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            array, labels = loaded, None
        else:
            with loaded as file:
                array, labels = _from_npz(path, {k: file[k] for k in file.files})
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"not a readable array: {error}", where=str(path), hint="write it with numpy.save or savez"
        ) from error
    if array.ndim < 3:
        raise InputError(f"an array of shape {array.shape} holds no images", where=str(path))
    array = array[None] if array.ndim == 3 else array
    if labels is not None and labels.shape != array.shape[:1]:
        raise InputError(f"{len(array)} images but labels of shape {labels.shape}", where=str(path))
    array = array[:limit]
    names = tuple(f"{path.name}[{i}]" for i in range(len(array)))
    return Images(array, names, None if labels is None else labels[:limit])


def _from_npz(path: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    if "images" in arrays:
        return arrays["images"], arrays.get("labels")
    if len(arrays) == 1:
        return next(iter(arrays.values())), None
    raise InputError(f"has the arrays {', '.join(arrays)}", where=str(path), hint="name one of them `images`")
