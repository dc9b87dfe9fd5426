"""All samples of a data set at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy.datasets.dataset import Dataset, Sample
from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.errors import InputError
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions


@dataclass(frozen=True)
class Images:
    """A set of inputs.

    Attributes:
        array: ``(B, C, H, W)`` uint8 pixels or normalized floats, or event frames ``(B, T, C, H, W)``.
        names: one per image.
        labels: class indices ``(B,)`` where known.
        notices: what was done to the files that a user should know (16-bit pixels, orientation ...).
        dataset: where they come from.
        options: how they were read.
    """

    array: np.ndarray
    names: Sequence[str]
    labels: np.ndarray | None = None
    notices: tuple[str, ...] = ()
    dataset: Dataset | None = None
    options: DataOptions | None = None

    @property
    def place(self) -> dict[str, Any]:
        """Where they are and how they are read, as plain data; empty for images that come from no data set."""
        if self.dataset is None or self.options is None:
            return {}
        return {"data_path": self.dataset.address, "data_options": self.options.stored()}

    @property
    def digest(self) -> str:
        """The data set's (:attr:`Dataset.digest`); empty for images that come from none."""
        return self.dataset.digest if self.dataset is not None else ""


def load(path: str | Path, graph: Graph, **options: Any) -> Images:
    """Read everything a user points at, as :func:`qkf_deploy.datasets.opening.open_dataset` finds it.

    Raises:
        InputError: as there, or the first sample that cannot be read.
    """
    reading = DataOptions(**options)
    data = open_dataset(path, graph, reading)
    count = len(data)
    data.check_memory(count)
    samples = [_sample(data, index) for index in range(count)]
    notices = dict.fromkeys([*data.notices, *(n for s in samples for n in s.notices)])
    return Images(np.stack([s.array for s in samples]), data.names, data.labels, tuple(notices), data, reading)


def _sample(data: Dataset, index: int) -> Sample:
    try:
        return data.source.read(index)
    except InputError as error:
        raise InputError(error.message, where=error.where or data.names[index], hint=error.hint) from error
