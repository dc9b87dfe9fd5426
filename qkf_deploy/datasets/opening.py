"""What a user points at, as a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qkf_deploy.datasets.array_set import open_arrays
from qkf_deploy.datasets.cifar import layout_of, open_cifar
from qkf_deploy.datasets.dataset import Dataset
from qkf_deploy.datasets.events.event_set import holds_events, open_events
from qkf_deploy.datasets.folders import open_pictures
from qkf_deploy.datasets.named import named_part, open_named
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.filekinds import refuse_others
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions

_HINT = "name images, a folder, a .npy or a .npz file, `digits` or `animals`"


def open_dataset(path: str | Path, graph: Graph, options: DataOptions) -> Dataset:
    """Look at a data set without reading its samples.

    Another process gets the same one from the same arguments.

    Args:
        path: an image file, a folder of them, a ``.npy`` array, a ``.npz`` file, the
            folder of a published data set, ``digits`` or ``animals`` (docs/datasets.md).
        graph: the network it is for: channels, size, T and classes.
        options: how it is read.

    Raises:
        InputError: missing, unreadable as a whole, empty, of another size, or with labels beyond the network's classes.
    """
    if (known := named_part(path)) is not None and not Path(path).exists():
        _refuse_others(options, {"part"}, Path(path))
        return open_named(*known, graph, options)
    path = Path(path)
    if not path.exists():
        raise InputError("no such file or folder", where=str(path), hint=_HINT)
    refuse_others(path, "data")
    opener = _opener(path)
    _refuse_others(options, _TAKEN[opener], path)
    try:
        return opener(path, graph, options)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=str(path)) from error


#: Options that are about one form of data set or another, with what they are where they are not given.
_SPECIAL = {"resize": None, "part": None, "labels": None, "images_key": None, "labels_key": None, "frames_by": "number"}
_Opener = Callable[[Path, Graph, DataOptions], Dataset]
_TAKEN: dict[_Opener, set[str]] = {
    open_arrays: {"images_key", "labels_key"},
    open_pictures: {"resize", "part", "labels"},
    open_cifar: {"part"},
    open_events: {"part", "frames_by"},
}


def _refuse_others(options: DataOptions, taken: set[str], path: Path) -> None:
    """Raises UsageError for an option that would have no effect."""
    for name, default in _SPECIAL.items():
        if name not in taken and getattr(options, name) != default:
            given = "no-resize" if name == "resize" and not options.resize else name
            raise UsageError(f"--{given.replace('_', '-')} is not about this form of data set", where=str(path))


def _opener(path: Path) -> _Opener:
    if layout_of(path):
        return open_cifar
    if holds_events(path):
        return open_events
    return open_arrays if path.suffix in (".npy", ".npz") else open_pictures
