"""Labels: class indices that a network can answer with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph

#: Labels of all samples, if they are known, and how they were found.
Labels = tuple[np.ndarray | None, tuple[str, ...]]


def classes_of(graph: Graph) -> int | None:
    """How many classes a network tells apart; ``None`` if none of its outputs is one number per class."""
    return None if graph.classes is None else graph.classes.size


def checked(labels: np.ndarray, count: int, graph: Graph, where: str) -> np.ndarray:
    """Class indices, int64 ``(count,)``.

    Raises:
        InputError: not one whole number per sample, or one that is no class of the network.
    """
    if labels.shape not in ((count,), (count, 1)):
        raise InputError(f"{count} images but labels of shape {labels.shape}", where=where)
    labels = labels.reshape(-1)
    if labels.dtype.kind not in "iu" or not 0 <= int(labels.min()) <= int(labels.max()) < 2**31:
        raise InputError(
            f"labels of type {labels.dtype}, {_extent(labels)}, are not class indices",
            where=where,
            hint="use whole numbers from 0",
        )
    classes = classes_of(graph)
    if classes is not None and int(labels.max()) >= classes:
        index = int(labels.argmax())
        raise InputError(
            f"label {labels[index]} of image {index} is not a class",
            where=where,
            hint=f"classes are 0 to {classes - 1}; are the labels, or the network, of another data set?",
        )
    return labels.astype(np.int64)


def _extent(labels: np.ndarray) -> str:
    return f"{labels.min()} to {labels.max()}" if labels.dtype.kind in "iuf" else "no numbers"


def of_folders(files: Sequence[Path], root: Path, graph: Graph) -> Labels:
    """Class indices of files that lie in one folder per class.

    Folders named like the network's classes are those. Otherwise the folders below ``root``, empty ones too, are the
    classes in the order of their names' text, as torchvision's ``ImageFolder`` and SpikingJelly number them, if there
    are as many as the network has classes.
    """
    parents = [file.parent.name for file in files]
    if graph.class_names and set(parents) <= set(graph.class_names):
        return _indices(parents, graph.class_names), ()
    below = [file.relative_to(root).parts for file in files]
    if any(len(parts) < 2 for parts in below):
        return None, ()
    folders = sorted(d.name for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))
    count, classes = len(folders), classes_of(graph)
    if count != classes:
        are = "is" if count == 1 else "are"
        known = f"{quantity(count, 'folder')} {are} not the network's {classes} classes"
        return None, (f"no labels: {known}, nor named like them",)
    return _indices([parts[0] for parts in below], folders), (sorted_notice(folders),)


def sorted_notice(folders: Sequence[str]) -> str:
    """How folders that the network does not name are numbered."""
    shown = ", ".join(f"{i} {name}" for i, name in enumerate(folders[:3]))
    order = "; by text, so 10 comes before 2" if all(n.isdecimal() for n in folders) and len(folders) > 10 else ""
    return f"classes are the folders in the order of their names: {shown} ... {len(folders) - 1} {folders[-1]}{order}"


def of_names(indices: np.ndarray, names: Sequence[str], graph: Graph) -> np.ndarray:
    """Class indices of a data set with names of its own, in the order of the network's if it has the same names."""
    if graph.class_names and set(names) <= set(graph.class_names) and len(set(names)) == len(names):
        return _indices(names, graph.class_names)[indices]
    return indices


def _indices(names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    places = {name: place for place, name in reversed(list(enumerate(classes)))}
    return np.array([places[name] for name in names], np.int64)
