"""Networks on images: runs, and what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qkf_deploy.errors import UsageError
from qkf_deploy.filekinds import kind_of, refuse_others
from qkf_deploy.ir import Graph
from qkf_deploy.keywords import changed, checked, part, takes
from qkf_deploy.options import DataOptions, MeasureOptions, SimulateOptions
from qkf_deploy.passes.carry import chained
from qkf_deploy.pipeline.networks import load
from qkf_deploy.runs.content import RunFile
from qkf_deploy.simulators import engines, reference
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record, Run, join

if TYPE_CHECKING:
    from qkf_deploy.datasets.images import Images

#: Names that only runs have: today's, and those that were JSON.
_RUNS = (".sqlite", ".json")
#: Values of one batch that an engine may hold at a time, in array elements (int64: 8 bytes each).
_BATCH_ELEMENTS = 40_000_000


@takes(DataOptions)
def load_images(path: str | Path, graph: Graph, options: DataOptions) -> Images:
    """Read a whole data set for a network.

    Args:
        path: in one of the forms of docs/datasets.md: an image file, a folder, a ``.npy`` array, a ``.npz`` file ...
        graph: the network it is for: channels, size, T and classes.

    Returns:
        ``array``, ``names`` and, where known, ``labels``.

    Raises:
        InputError: missing, unreadable, empty, or of another size.
        UsageError: options for another form of data set.
    """
    from qkf_deploy.datasets import images

    return images.load(path, graph, **part(options, DataOptions))


@takes(SimulateOptions)
def simulate(graph: Graph, images: np.ndarray, options: SimulateOptions) -> Run:
    """Run a network on images and count every operation.

    Args:
        graph: float (runs in float64) or integer.
        images: ``(B, C, H, W)`` or one ``(C, H, W)``; event frames ``(B, T, C, H, W)`` or ``(T, C, H, W)``. ``uint8``
            are raw pixels, floats are already normalized.

    Raises:
        InputError: images that do not fit the network.
        UsageError, MissingComponent: an engine that is unknown, not installed, or cannot run this graph.
        ProofError: stored widths that the weights do not support.
    """
    recorded = Record.of(graph, options.record, options.membranes)
    encoded, notices = encode(graph, images)
    total = encoded.shape[1]
    run = engines.get(options.engine, graph, engines.given(options), total)
    size = options.batch or (total if chained(graph) else default_batch(graph))
    parts: list[Run] = []
    for start in range(0, total, size):
        parts.append(run(graph, encoded[:, start : start + size], recorded, None))
        if options.progress is not None:
            options.progress(min(start + size, total), total)
    joined = join(parts)
    if chained(graph) and total > 1:
        notices = (*notices, f"membranes went from image to image: results belong to batches of {min(size, total)}")
    return replace(joined, notices=(*notices, *joined.notices))


def event_values(graph: Graph, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """The input and every value that consists of events, of the first image, ``(T or 1, 1, *shape)``.

    Raises:
        InputError: images that do not fit the network.
    """
    encoded, _ = encode(graph, images)
    return reference.run(graph, encoded[:, :1], Record.of(graph, ["events", graph.input.name])).values


def as_batch(graph: Graph, images: np.ndarray) -> np.ndarray:
    """One image as a batch of one; several as they are.

    Raises:
        InputError: images that do not fit the network.
    """
    encode(graph, images[:1] if images.ndim > 3 else images)
    rank = len(graph.input.type.shape) + (2 if graph.input_encoding == "frames" else 1)
    return images if images.ndim == rank else images[None]


@checked
def default_batch(graph: Graph) -> int:
    """Images per batch so that the largest values stay within a few hundred megabytes.

    Args:
        graph: float or integer.
    """
    largest = max(node.type.size for node in graph) * graph.time_steps
    return max(1, _BATCH_ELEMENTS // (4 * largest))


def is_stored(path: str | Path) -> bool:
    """Whether a path is that of a run file, by what it holds or, where that cannot be told, by its name."""
    from qkf_deploy.runs import database

    return database.is_run(path) or Path(path).suffix in _RUNS


@takes(MeasureOptions)
def measure(source: str | Path | Graph, images: str | Path | np.ndarray | None, options: MeasureOptions) -> RunFile:
    """What a network does on images, in counts: read from a stored run, or found by running it.

    Args:
        source: a run file, which takes no images; a ``.qkf`` file, or a graph.
        images: as :func:`load_images` or :func:`simulate` takes them; ``None`` with a run file.

    Returns:
        The same as :func:`load_run` gives for what :func:`save_run` wrote.

    Raises:
        UsageError: images with a run file, or a network without them.
        InputError, MissingComponent, ProofError: as of :func:`load`, :func:`load_images` and :func:`simulate`.
    """
    from qkf_deploy.runs import content

    if not isinstance(source, Graph) and is_stored(source):
        if images is not None:
            raise UsageError("a run file has its counts already", hint="leave IMAGES out, or give the .qkf file")
        for keyword in changed(options, "point", "progress"):
            raise UsageError(f"{keyword} is about running a network; this run is stored", hint="leave it out")
        return load_run(source, options.point)
    if options.point is not None:
        raise UsageError("--point chooses among the runs of a file; this is a network", where=str(source))
    if images is None:
        if not isinstance(source, Graph) and kind_of(source) != "network":
            refuse_others(source, "run")
        raise UsageError("no images to count on", hint="give the images, or a run file instead of the network")
    graph = source if isinstance(source, Graph) else load(source)
    said: tuple[str, ...] = ()
    about = content.About()
    if isinstance(images, np.ndarray):
        images = as_batch(graph, images)[: options.limit]
    else:
        given = load_images(images, graph, **part(options, DataOptions))
        images, said, about = given.array, given.notices, content.About(given.names, given.labels)
    about = replace(about, image=images[0])
    chosen: dict[str, Any] = {"engine": options.engine, **engines.given(options)}
    run = simulate(graph, images, record="gates", progress=options.progress, **chosen)
    return content.stored(graph, replace(run, notices=(*said, *run.notices)), about)


@checked
def load_run(path: str | Path, run: int | str | None = None) -> RunFile:
    """Read what :func:`save_run` (``simulate -o``) or ``evaluate`` wrote.

    Args:
        path: of the file.
        run: number or name of a run, where the file holds several.

    Raises:
        UsageError: several runs and none chosen, or no such run.
        InputError: missing, truncated, not a run file, damaged, or nothing has run yet.
    """
    from qkf_deploy.runs.file import read_run

    return read_run(path, run)


@checked
def save_run(
    graph: Graph,
    run: Run,
    path: str | Path,
    *,
    names: Sequence[str] = (),
    labels: Sequence[int] | np.ndarray | None = None,
    data: str = "",
    image: np.ndarray | None = None,
    place: Mapping[str, Any] | None = None,
) -> None:
    """Write predictions, counts, widths and provenance of a run, atomically.

    Args:
        graph: the network that ran.
        run: its result; gate pictures appear where it was made with ``record="gates"``.
        path: of the file, ``.sqlite`` by custom.
        names: of the images, one each.
        labels: class of each image, negative where unknown.
        data: digest of the data set.
        image: the first one as :func:`simulate` took it, to be shown beside the gates.
        place: where the images are and how they are read: ``place`` of what :func:`load_images` gave.

    Raises:
        InputError: the place cannot be written, or not one name and label per image.
    """
    from qkf_deploy.runs.content import About
    from qkf_deploy.runs.file import write_run

    write_run(path, graph, run, About(names, labels, data, image, place or {}))


@checked
def save_arrays(run: Run, path: str | Path) -> None:
    """Write ``logits``, ``raw_output`` and every recorded value under its node's name as `.npz`, atomically.

    Args:
        run: its values are those that were recorded.
        path: of the file.

    Raises:
        InputError: the place cannot be written.
    """
    from qkf_deploy.runs.arrays import write_arrays

    write_arrays(path, run)


@checked
def export_events(run: Run, folder: str | Path, fmt: Literal["npz", "aer"] = "npz") -> Path:
    """Write the events of every recorded layer as ``t, c, y, x, value``; returns the manifest.

    Args:
        run: with recorded values, for example ``record="events"``.
        folder: created if missing.
        fmt: ``npz`` or ``aer`` (text).

    Raises:
        UsageError: an unknown format, or nothing was recorded.
        InputError: the folder cannot be written.
    """
    from qkf_deploy.converters.event_streams import write_events

    return write_events(run, folder, fmt)
