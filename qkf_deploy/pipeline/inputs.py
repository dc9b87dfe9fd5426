"""Images for a hardware model: of a data set, or those that a stored run is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.display.numbers import quantity
from qkf_deploy.errors import InputError, QkfError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.keywords import changed, part, takes
from qkf_deploy.ledger import Ledger
from qkf_deploy.options import DataOptions
from qkf_deploy.passes.carry import chained
from qkf_deploy.pipeline.hardware_options import InputOptions
from qkf_deploy.pipeline.running import is_stored, load_images, load_run
from qkf_deploy.runs.content import RunFile

_GIVE = "give the images instead of the run"


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images, and what a stored run counted on them.

    Attributes:
        array: as :func:`simulate` takes them.
        counted: what the run has of each; ``None`` for images of a data set.
        together: images that ran together, where membranes go from image to image; ``None``: all.
        notices: what a user should know.
    """

    array: np.ndarray
    counted: Ledger | None = None
    together: int | None = None
    notices: tuple[str, ...] = ()

    def check(self, start: int, found: Ledger) -> None:
        """Raises InputError unless images from ``start`` on did what the run says, count by count."""
        if self.counted is None:
            return
        images = slice(start, start + found.images)
        stored = {layer.name: layer.counts for layer in self.counted}
        for layer in found:
            counts = stored.get(layer.name, {})
            same = counts.keys() == layer.counts.keys()
            if not same or any((counts[name][images] != layer.counts[name]).any() for name in counts):
                raise InputError("the images do not give the counts of the run", where=layer.name, hint=_GIVE)


@takes(InputOptions)
def load_inputs(source: str | Path, graph: Graph, options: InputOptions) -> Inputs:
    """Images by path, or by a stored run: those it ran on, read from where they were.

    A run has totals, and a hardware model needs what happened at every step and place, so its images run again; that
    they are the same is checked by the digests of network and data, and later by every count.

    Args:
        source: as :func:`load_images` takes it, or a run file.
        graph: the network.

    Raises:
        UsageError: options of images with a run, several runs and none chosen, or a run that does not say where its
            images are.
        InputError: as of :func:`load_images` and :func:`load_run`; a run of another network, images that changed.
    """
    if is_stored(source):
        given = changed(options, "point", "limit")
        if given:
            raise UsageError(f"the run says which images; no {', '.join(given)} with it", hint=_GIVE)
        run = load_run(source, options.point)
        run.check_network(graph)
        return _again(run, graph, options.limit, str(source))
    if options.point is not None:
        raise UsageError("--point chooses among the runs of a file; these are images", where=str(source))
    images = load_images(source, graph, **part(options, DataOptions))
    return Inputs(images.array, notices=images.notices)


def _again(run: RunFile, graph: Graph, limit: int | None, where: str) -> Inputs:
    """The images of a run with a result, the first ones where there is a limit."""
    if limit is not None and chained(graph):
        raise UsageError(
            "membranes went from image to image, so all images of the run belong together", hint="no --limit"
        )
    path, options = _place(run.config, where)
    data = open_dataset(path, graph, options)
    if data.digest != run.data:
        raise InputError("not the data of the run any more", where=path, hint=_GIVE)
    indices = [i for i in run.indices if i not in run.errors]
    found = data.read(indices[:limit])
    for index, error in found.errors.items():
        raise InputError(error, where=str(data.names[index]), hint=_GIVE)
    missing = run.samples - len(indices)
    text = f"{missing:,} of {quantity(run.samples, 'sample')} have no result in the run and are left out"
    said = (text,) if missing else ()
    return Inputs(found.array, run.ledger, run.config.get("batch"), (*said, *data.notices, *found.notices))


def _place(config: Mapping[str, Any], where: str) -> tuple[str, DataOptions]:
    """Where the images of a run are, and how they are read."""
    if "data_path" not in config:
        raise UsageError(
            "does not say where its images are",
            where=where,
            hint=f"{_GIVE}, or make it again: `qkf-deploy simulate NETWORK IMAGES -o RUN`",
        )
    path, batch = config["data_path"], config.get("batch")
    if not isinstance(path, str) or (batch is not None and (type(batch) is not int or batch < 1)):
        raise InputError("a damaged run file: how its samples are read", where=where)
    return path, restored(config.get("data_options"))


def restored(stored: Any) -> DataOptions:
    """What :meth:`DataOptions.stored` gave, read from a file. Raises InputError: it is something else."""
    try:
        found: Any = DataOptions(**stored)
    except (TypeError, QkfError) as error:
        raise InputError("a damaged run file: how its samples are read") from error
    texts = (found.labels, found.images_key, found.labels_key)
    if not isinstance(found.resize, bool | None) or not all(isinstance(text, str | None) for text in texts):
        raise InputError("a damaged run file: how its samples are read")
    return found
