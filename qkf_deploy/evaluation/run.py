"""A network on a whole data set: what is missing in a store is run, wherever, and stored as it comes.

The store is the only truth. A shard is acknowledged when its rows are in the store; whatever is lost before that is run
again, and gives the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from qkf_deploy.evaluation.executors import Executor
from qkf_deploy.evaluation.job import Bench, ShardResult
from qkf_deploy.evaluation.tally import PROFILE, Tally
from qkf_deploy.hw_models.pricing import price
from qkf_deploy.hw_models.profiles import load_profile
from qkf_deploy.runs.packing import unpack
from qkf_deploy.runs.store import Head, Row, Store

#: Samples per shard where the user says nothing: rarely less than ten seconds of work for an ImageNet network.
SHARD = 32
#: Seconds between two prices of what has run.
_PRICING_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """How an evaluation ended.

    Attributes:
        tally: what is stored.
        lost: shards without rows, and why: positions in the data set and a reason.
        notices: sentences about samples and engines that the user should read.
    """

    tally: Tally
    lost: tuple[tuple[tuple[int, ...], str], ...]
    notices: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """True if every sample has a row, and none is an error."""
        return self.tally.stored == self.tally.samples and not self.tally.failed

    @property
    def kept(self) -> bool:
        """True if every row was there before."""
        return self.tally.before == self.tally.stored == self.tally.samples


def fill(
    store: Store,
    run: int,
    bench: Bench,
    executor: Executor,
    *,
    shard: int | None = None,
    tick: Callable[[Tally], None] | None = None,
) -> Outcome:
    """Run what a store lacks.

    Args:
        store: open for writing.
        run: which of its runs.
        bench: what it is a run of, with its data set.
        executor: where shards run.
        shard: samples per shard, rounded down to whole batches.
        tick: called with what is stored after every shard.

    Raises:
        QkfError: what stops the executor, or a store that cannot be written. What was stored stays.
    """
    count = _Count(store, run)
    missing = store.missing(run)
    new = set(missing)
    shards = plan(missing, bench.job.batch, shard or SHARD, store.runs[run].samples)
    energy = _Energy(store.runs[run])

    def tell() -> None:
        if tick is not None:
            tick(replace(count.tally, energy_pj=energy.mean_pj()))

    tell()
    lost: list[ShardResult] = []
    notices: dict[str, None] = {}
    for result in executor.map(bench, shards):
        notices.update(dict.fromkeys(result.notices))
        if result.lost is not None:
            lost.append(result)
            continue
        rows = [_named(row, bench) for row in result.rows]
        store.add(run, rows, gates=result.gates, notices=result.notices)
        for row in rows:
            if row.index in new:
                count.add(row)
        energy.add(rows)
        tell()
    return Outcome(count.tally, tuple((r.indices, r.lost or "") for r in lost), tuple(notices))


def counted(store: Store, run: int) -> Outcome:
    """What is stored of a run that needs nothing more."""
    return Outcome(_Count(store, run).tally, (), ())


def plan(missing: Iterable[int], batch: int, shard: int, samples: int) -> Iterator[tuple[int, ...]]:
    """Shards that cover what is missing: whole batches, the same whatever is missing.

    Args:
        missing: ascending positions without a row.
        batch: samples per batch.
        shard: samples per shard, at least one batch.
        samples: of the data set: the last batch may be shorter.
    """
    batches = list(dict.fromkeys(index // batch for index in missing))
    each = max(1, shard // batch)
    for start in range(0, len(batches), each):
        chosen = batches[start : start + each]
        yield tuple(i for b in chosen for i in range(b * batch, min((b + 1) * batch, samples)))


def _named(row: Row, bench: Bench) -> Row:
    """A row with what the data set knows of its sample."""
    dataset = bench.dataset
    if dataset is None:
        return row
    label = None if dataset.labels is None else int(dataset.labels[row.index])
    return replace(row, name=dataset.names[row.index], label=label if label is None or label >= 0 else None)


class _Count:
    """Keeps a tally."""

    def __init__(self, store: Store, run: int) -> None:
        self._start = time.monotonic()
        self.tally = Tally(store.runs[run].samples)
        for row in store.rows(run):
            self.add(row)
        self.tally = replace(self.tally, before=self.tally.stored)

    def add(self, row: Row) -> None:
        """Count a row that is stored."""
        t, labelled = self.tally, row.label is not None
        self.tally = replace(
            t,
            stored=t.stored + 1,
            failed=t.failed + (row.error is not None),
            labelled=t.labelled + labelled,
            hits=t.hits + (labelled and row.prediction == row.label),
            seconds=time.monotonic() - self._start,
        )


class _Energy:
    """Mean energy of rows, priced from time to time: that costs some milliseconds, however few they are."""

    def __init__(self, head: Head) -> None:
        self._head, self._profile = head, load_profile(PROFILE)
        self._waiting: list[bytes] = []
        self._total, self._priced = Fraction(0), 0
        self._next = 0.0

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows; failed ones have no energy."""
        self._waiting += [row.counts for row in rows if row.error is None]

    def mean_pj(self) -> float | None:
        """Picojoule per sample of those that are priced."""
        if self._waiting and time.monotonic() >= self._next:
            ledger = self._head.ledger
            layers = unpack(ledger.layers, self._waiting, ledger.time_steps)
            priced = price(replace(ledger, images=len(self._waiting), layers=layers), self._profile)
            self._total += Fraction(priced.total_energy_pj)
            self._priced += len(self._waiting)
            self._waiting = []
            self._next = time.monotonic() + _PRICING_S
        return float(self._total / self._priced) if self._priced else None
