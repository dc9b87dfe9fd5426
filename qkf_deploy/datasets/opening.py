"""What a user points at, as a data set."""

from __future__ import annotations

from pathlib import Path

from qkf_deploy.datasets.array_set import open_arrays
from qkf_deploy.datasets.dataset import Dataset
from qkf_deploy.datasets.folders import open_pictures
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions


def open_dataset(path: str | Path, graph: Graph, options: DataOptions) -> Dataset:
    """Look at a data set without reading its samples.

    Another process gets the same one from the same arguments.

    Args:
        path: an image file, a folder of them, a ``.npy`` array or a ``.npz`` file.
        graph: the network it is for: channels, size, T and classes.
        options: how it is read.

    Raises:
        InputError: missing, unreadable as a whole, empty, of another size, or with labels beyond the network's classes.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("no such file or folder", where=str(path), hint="name images, a folder, a .npy or a .npz file")
    opening = open_arrays if path.suffix in (".npy", ".npz") else open_pictures
    return opening(path, graph, options)
