"""What is to be done with every sample of a data set, and the process that does it.

A :class:`Job` says it and travels; a :class:`Bench` is a job with its network and data opened. It returns integers.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from qkf_deploy import limits
from qkf_deploy.datasets.dataset import Dataset, Samples
from qkf_deploy.datasets.opening import open_dataset
from qkf_deploy.errors import InputError
from qkf_deploy.evaluation.pace import Pace
from qkf_deploy.ir import Graph
from qkf_deploy.options import DataOptions
from qkf_deploy.passes.carry import chained
from qkf_deploy.runs.content import rows
from qkf_deploy.runs.first import SAMPLES, look
from qkf_deploy.runs.store import Row
from qkf_deploy.simulators import engines
from qkf_deploy.simulators.inputs import encode
from qkf_deploy.simulators.run import Record, Run


@dataclass(frozen=True)
class Job:
    """How every sample of a data set is run; travels to other processes.

    Attributes:
        network: digest of the network.
        engine, engine_options: of :data:`qkf_deploy.simulators.engines.ENGINES`.
        batch: samples that run together: those from ``k * batch`` on. Fixed for a whole evaluation where float sums
            may depend on it, and where membranes that the published code carries from image to image do.
        measured: nothing depends on it, so more may run together where the engine is faster then.
        data: digest of the data set.
        data_path, data_options: how another process opens it; ``None`` for arrays in memory.
        memory: bytes that reading one input may take.
    """

    network: str
    engine: str
    engine_options: Mapping[str, Any]
    batch: int
    measured: bool
    data: str
    data_path: str | None
    data_options: DataOptions
    memory: int = field(default_factory=limits.allowed)

    @functools.cached_property
    def key(self) -> str:
        """Hash of all of it: the name under which a process keeps it."""
        return hashlib.sha256(pickle.dumps(self)).hexdigest()


@dataclass(frozen=True)
class ShardResult:
    """What came of some samples.

    Attributes:
        indices: their positions in the data set.
        rows: one per sample, in order; none where they were lost.
        notices: sentences about these samples or about the engine.
        gates: what is shown of the first samples, where sample 0 is among them.
        lost: why there are no rows: the process that ran them ended each time.
    """

    indices: tuple[int, ...]
    rows: tuple[Row, ...] = ()
    notices: tuple[str, ...] = ()
    gates: tuple[Mapping[str, Any], ...] = ()
    lost: str | None = None


class Bench:
    """A job with its network, in a process that hands it out or runs it.

    Args:
        job: how to run.
        graph: the network that it names.
        dataset: the data set that it names, where it is open; otherwise the job's path is opened when it is needed.
        here: this is the machine where the data set was opened and hashed.
    """

    def __init__(self, job: Job, graph: Graph, dataset: Dataset | None = None, *, here: bool = True) -> None:
        self.job, self.graph = job, graph
        self._given, self._here = dataset, here
        self._pace = Pace(job.batch) if job.measured and engines.ENGINES[job.engine].batches else None

    @functools.cached_property
    def engine(self) -> engines.Engine:
        """Raises UsageError, MissingComponent: an engine that cannot run this graph, or is not installed here."""
        return engines.get(self.job.engine, self.graph, self.job.engine_options)

    @functools.cached_property
    def dataset(self) -> Dataset | None:
        """The data set, or ``None`` where this machine has another one, or none, at that place."""
        if self._given is not None or self.job.data_path is None:
            return self._given
        try:
            found = open_dataset(Path(self.job.data_path), self.graph, self.job.data_options)
        except InputError:
            return None
        return found if self._here or found.digest == self.job.data else None

    def read(self, indices: Sequence[int]) -> Samples:
        """Some samples. Raises InputError where the data set is not here."""
        if self.dataset is None:
            raise InputError("another data set, or none, is here", where=self.job.data_path)
        return self.dataset.read(indices)

    def needed(self, indices: Sequence[int]) -> Sequence[int]:
        """What a shard reads: the first one all samples that are looked at, whatever runs together."""
        if indices[0] or self.dataset is None or chained(self.graph):
            return indices
        return range(max(indices[-1] + 1, min(SAMPLES, len(self.dataset))))

    def run(self, indices: Sequence[int], samples: Samples | None = None) -> ShardResult:
        """Rows of some samples, which are whole batches.

        Args:
            indices: ascending positions in the data set.
            samples: of :meth:`needed` positions, where this process cannot read them itself.
        """
        fixed = (self._batch(batch, samples) for batch in _batches(indices, self.job.batch))
        parts = list(fixed if self._pace is None else self._paced(indices, samples, self._pace))
        return ShardResult(
            tuple(indices),
            tuple(row for part in parts for row in part.rows),
            tuple(dict.fromkeys(notice for part in parts for notice in part.notices)),
            tuple(gate for part in parts for gate in part.gates),
        )

    def _paced(self, indices: Sequence[int], samples: Samples | None, pace: Pace) -> Iterator[ShardResult]:
        while indices:
            batch = indices[: pace.size]
            start = time.perf_counter()
            try:
                result = self._batch(batch, samples)
            except MemoryError:
                pace.failed(len(batch))
                continue
            pace.took(len(batch), time.perf_counter() - start)
            indices = indices[len(batch) :]
            yield result

    def _batch(self, indices: Sequence[int], given: Samples | None) -> ShardResult:
        samples = self.read(indices) if given is None else _only(given, indices)
        samples, inputs, notices = _encoded(self.graph, samples)
        if inputs is None:
            return ShardResult(tuple(indices), tuple(self._rows(indices, samples, None)), samples.notices)
        first = samples.indices[0] == 0
        run = self.engine(self.graph, inputs, Record(), None)
        # What the values of a batch look like is said of the first one alone: every batch would say it otherwise.
        said = (*samples.notices, *(notices if first else ()), *run.notices)
        gates = self._looked_at(indices, samples, given) if first else ()
        return ShardResult(tuple(indices), tuple(self._rows(indices, samples, run)), said, gates)

    def _looked_at(
        self, batch: Sequence[int], samples: Samples, given: Samples | None
    ) -> tuple[Mapping[str, Any], ...]:
        if not chained(self.graph):
            more = self.read(self.needed(batch)[:SAMPLES]) if given is None else given
            samples = _encoded(self.graph, _only(more, range(SAMPLES)))[0]
        return tuple(look(self.graph, self.engine, samples.array, len(batch)).tables())

    def _rows(self, indices: Sequence[int], samples: Samples, run: Run | None) -> Iterator[Row]:
        """Names and labels are added by who has the data set: they need not travel."""
        found = dict(zip(samples.indices, rows(run), strict=True)) if run is not None else {}
        for index in indices:
            if index in found:
                yield replace(found[index], index=index, name="")
            else:
                yield Row(index, "", None, None, (), b"", samples.errors[index])


def _batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """The indices of each batch of the data set among some indices."""
    batches: dict[int, list[int]] = {}
    for index in indices:
        batches.setdefault(index // size, []).append(index)
    yield from batches.values()


def _only(samples: Samples, indices: Sequence[int]) -> Samples:
    """Some of the samples."""
    places = [place for place, index in enumerate(samples.indices) if index in set(indices)]
    return replace(
        samples,
        indices=tuple(samples.indices[place] for place in places),
        array=samples.array[places],
        errors={index: samples.errors[index] for index in indices if index in samples.errors},
    )


def _encoded(graph: Graph, samples: Samples) -> tuple[Samples, np.ndarray | None, tuple[str, ...]]:
    """Input of an engine; samples that the network cannot take become errors."""
    if not samples.indices:
        return samples, None, ()
    try:
        return samples, *encode(graph, samples.array)
    except InputError:
        errors = dict(samples.errors)
        for place, index in enumerate(samples.indices):
            try:
                encode(graph, samples.array[place : place + 1])
            except InputError as error:
                errors[index] = error.message
        if len(errors) == len(samples.errors):
            raise
        good = [index for index in samples.indices if index not in errors]
        kept = replace(_only(samples, good), errors=errors)
        return (kept, *encode(graph, kept.array)) if good else (kept, None, ())
