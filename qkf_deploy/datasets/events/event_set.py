"""Data sets of recordings and of frames made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from qkf_deploy.datasets import arrays, labels, pictures
from qkf_deploy.datasets.dataset import Dataset, Sample
from qkf_deploy.datasets.events import formats, gesture
from qkf_deploy.datasets.events.recording import Events, SplitBy, frames
from qkf_deploy.datasets.finding import files_below, names_below, part_of
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions
from qkf_deploy.simulators.inputs import encode

SUFFIXES = tuple(formats.READERS)
_FRAMES = "frames"
_CIFAR10_DVS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BACKWARDS = (
    "the time of recordings goes backwards: frames by time may hold events there twice or not at all, as those of "
    "SpikingJelly do (--frames-by number takes each once)"
)
#: Part of each class that is training data of CIFAR10-DVS by the field's custom.
_TRAINING = 0.9


@dataclass(frozen=True, eq=False)
class Recordings:
    """Samples that are cut out of recordings, or frames that lie there ready."""

    loads: tuple[Callable[[], Events | np.ndarray], ...]
    graph: Graph
    split_by: SplitBy
    sensor: tuple[int, int] | None

    what = "a stack of event frames"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.graph.time_steps, *self.graph.input.type.shape

    @property
    def empty(self) -> np.ndarray:
        return np.empty((0, *self.shape), np.int32)

    def read(self, index: int) -> Sample:
        found, notices = self.loads[index](), ()
        if isinstance(found, Events):
            notices = (_BACKWARDS,) if self.split_by == "time" and found.goes_back else ()
            found = frames(found, self.shape[0], self.split_by, self.shape[2], self.shape[3])
        if found.shape != self.shape:
            raise InputError(f"has frames of shape {found.shape}, the network takes {self.shape}")
        encode(self.graph, found)  # counts are whole and within the network's range
        return Sample(found.astype(np.int32), notices)


def holds_events(path: Path) -> bool:
    """Whether a file or folder is one of recordings or of frames, by suffixes; a single `.npz` by its arrays.

    Beside images, other files are no samples.
    """
    if path.is_file():
        return path.suffix == ".aedat" or path.suffix == ".bin" or (path.suffix == ".npz" and _is_recording(path))
    return path.is_dir() and (
        gesture.is_gesture_folder(path)
        or (bool(files_below(path, SUFFIXES)) and not files_below(path, pictures.SUFFIXES))
    )


def _is_recording(path: Path) -> bool:
    try:
        return {"t", "x", "y", "p"} <= set(arrays.npz_names(path))
    except InputError:
        return False


def open_events(path: Path, graph: Graph, options: DataOptions) -> Dataset:
    """A recording, or a folder of them.

    Raises:
        InputError: none there, damaged lists, or a network that takes no event frames of that size.
    """
    shape = graph.input.type.shape
    if graph.input_encoding != "frames" or len(shape) != 3 or shape[0] != 2:
        raise InputError(
            f"recordings give event frames of 2 polarities, the network takes {graph.input_encoding} input of {shape}",
            where=str(path),
            hint="trace the network with --input frames",
        )
    opening = _open_gestures if path.is_dir() and gesture.is_gesture_folder(path) else _open_files
    return opening(path, graph, options)


def _open_gestures(path: Path, graph: Graph, options: DataOptions) -> Dataset:
    found = gesture.gestures(path, options.part or "test")
    said = () if options.part else ("the part in trials_to_test.txt is read (--part train, --part all)",)
    classes = sorted(map(str, range(11)))
    known = np.array([classes.index(str(g.label)) for g in found], np.int64)
    if graph.class_names and set(classes) == set(graph.class_names):
        known = labels.of_names(known, classes, graph)
    else:
        said += (labels.sorted_notice(classes),)
    known = labels.checked(known, len(found), graph, str(path))[: options.limit]
    found = found[: options.limit]
    loads = tuple(_cut(g) for g in found)
    files = tuple(sorted({g.file for g in found}))
    reading = {"format": "dvs128 gesture", "cut": [[g.name, g.start, g.end] for g in found]}
    return _dataset(path, [g.name for g in found], loads, graph, options, known, said, files, reading, (128, 128))


def _cut(sample: gesture.Gesture) -> Callable[[], Events]:
    return lambda: _last_recording(sample.file).between(sample.start, sample.end)


@lru_cache(maxsize=1)
def _last_recording(path: Path) -> Events:
    """Gestures of a recording are read one after the other."""
    return formats.read_aedat3(path)


def _open_files(path: Path, graph: Graph, options: DataOptions) -> Dataset:
    root, said = (path, ()) if path.is_file() else part_of(path, options.part, own_split=_is_cifar10_dvs(path))
    files = [path] if path.is_file() else files_below(root, SUFFIXES)
    known, more = (None, ()) if path.is_file() else labels.of_folders(files, root, graph)
    sensor = _sensor(files, root)
    if root.is_dir() and _is_cifar10_dvs(root):
        kept, split = _cifar10_dvs_part(files, options.part)
        files, known = [files[i] for i in kept], None if known is None else known[kept]
        more += split
    files = files[: options.limit]
    known = None if known is None else labels.checked(known[: len(files)], len(files), graph, str(path))
    loads = tuple(_whole(file) for file in files)
    reading = {"format": "recordings"}
    names = names_below(root, files)
    return _dataset(path, names, loads, graph, options, known, (*said, *more), tuple(files), reading, sensor)


def _whole(file: Path) -> Callable[[], Events | np.ndarray]:
    if file.suffix == ".npz":
        return lambda: _frames_or_events(file)
    return lambda: formats.READERS[file.suffix.lower()](file)


def _frames_or_events(file: Path) -> Events | np.ndarray:
    if _FRAMES in arrays.npz_names(file):
        return arrays.Rows(file, _FRAMES).whole
    return formats.read_arrays(file)


def _is_cifar10_dvs(root: Path) -> bool:
    """Whether a folder has CIFAR10-DVS's class folders and nothing else."""
    return sorted(d.name for d in root.iterdir() if d.is_dir()) == list(_CIFAR10_DVS)


def _cifar10_dvs_part(files: Sequence[Path], part: str | None) -> tuple[list[int], tuple[str, ...]]:
    """Places of the files of a part: of each class the first nine tenths by name, or the rest."""
    if part in (None, "all"):
        said = "CIFAR10-DVS has no test part of its own; published accuracies are those of --part test, the last tenth"
        return list(range(len(files))), () if part else (f"{said} of each class by name",)
    kept = []
    for name in _CIFAR10_DVS:
        own = [i for i, file in enumerate(files) if file.parent.name == name]
        cut = math.ceil(len(own) * _TRAINING)
        kept += own[:cut] if part == "train" else own[cut:]
    return kept, ()


def _sensor(files: Sequence[Path], root: Path) -> tuple[int, int] | None:
    """Rows and columns of the camera where the data set tells; ``None``: as the network has."""
    suffixes = {file.suffix.lower() for file in files}
    if ".aedat" in suffixes:
        return 128, 128
    if ".bin" not in suffixes or not root.is_dir():
        return None
    folders = {file.parent.name for file in files}
    return (34, 34) if all(len(name) == 1 and name.isdecimal() for name in folders) else (180, 240)


def _dataset(
    path: Path, names: Sequence[str], loads: tuple[Callable[[], Events | np.ndarray], ...], graph: Graph,
    options: DataOptions, known: np.ndarray | None, notices: tuple[str, ...], files: tuple[Path, ...],
    reading: Mapping[str, object], sensor: tuple[int, int] | None,
) -> Dataset:  # fmt: skip
    shape = graph.input.type.shape
    if sensor is not None and shape[1:] != sensor:
        raise InputError(
            f"recordings of {sensor[1]} x {sensor[0]} pixels, the network takes {shape[2]} x {shape[1]}",
            where=str(path),
            hint="give frames of the network's size as .npz, or trace it with another --image-size",
        )
    source = Recordings(loads, graph, options.frames_by, sensor)
    reading = {**reading, "shape": source.shape, "frames_by": options.frames_by}
    return Dataset(path, tuple(names), source, known, notices, files, reading)
