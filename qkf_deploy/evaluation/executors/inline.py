"""Shards one after the other in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from qkf_deploy.evaluation.job import Bench, ShardResult


class Inline:
    """The executor of ``--jobs 1``: nothing to start, and every error with its own traceback."""

    def map(self, bench: Bench, shards: Iterable[Sequence[int]]) -> Iterator[ShardResult]:
        """Results in the order of the shards."""
        return map(bench.run, shards)
