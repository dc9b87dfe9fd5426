"""What trainings read and write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy.datasets.dataset import Dataset
from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.errors import InputError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.keywords import part
from qkf_deploy.options import DataOptions, Part


def labelled(path: str | Path, graph: Graph, options: DataOptions, role: Part) -> Labelled:
    """A data set with labels, of which ``role`` is read where it keeps parts apart and the options name none.

    Raises:
        InputError: images without labels, or that do not fit the network.
    """
    reading = DataOptions(**part(options, DataOptions))
    try:
        found = open_dataset(path, graph, replace(reading, part=reading.part or role))
    except UsageError:  # images that are not kept in parts
        found = open_dataset(path, graph, reading)
    if found.labels is None or (found.labels < 0).any():
        missing = "have no labels" if found.labels is None else "have images without a label"
        why = [notice.removeprefix("no labels") for notice in found.notices if notice.startswith("no labels: ")]
        raise InputError(
            "".join([f"the images {missing}", *why]), where=str(path), hint="folders named like classes, or --labels"
        )
    return Labelled(found, graph.class_names)


class Labelled:
    """A data set as the training reads it."""

    def __init__(self, data: Dataset, class_names: tuple[str, ...]) -> None:
        assert data.labels is not None  # noqa: S101 - checked by who makes it
        self._data, self.labels, self.class_names = data, data.labels, class_names

    @property
    def digest(self) -> str:
        return self._data.digest

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        samples = self._data.read(indices.tolist())
        for index, error in samples.errors.items():
            raise InputError(error, where=str(self._data.names[index]), hint="take it out of the data set")
        return samples.array


def check_checkpoint(output: Path) -> None:
    """Raises UsageError unless the file is to be a safetensors file."""
    if output.suffix != ".safetensors":
        raise UsageError(f"writes .safetensors files, not {output.suffix or 'one without a suffix'}", where=str(output))


def silent(line: dict[str, Any]) -> None:
    """What is called after an epoch where nobody listens."""
