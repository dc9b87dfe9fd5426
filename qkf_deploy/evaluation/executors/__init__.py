"""Where the shards of an evaluation run: in this process, in local processes, or on a Dask cluster.

An executor never stores a result and may lose any: what counts is what the caller has written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from qkf_deploy.errors import MissingComponent, UsageError
from qkf_deploy.evaluation.job import Bench, ShardResult
from qkf_deploy.options import ExecutionOptions


class Executor(Protocol):
    """Runs shards of jobs."""

    def map(self, bench: Bench, shards: Iterable[Sequence[int]]) -> Iterator[ShardResult]:
        """Results of all shards, in the order in which they are done.

        Args:
            bench: what to run, with its data set.
            shards: ascending positions in the data set, whole batches each.

        Raises:
            QkfError: what stops all shards alike: an engine that a machine lacks, a scheduler that is gone.
        """
        ...


@contextlib.contextmanager
def executor(options: ExecutionOptions) -> Iterator[Executor]:
    """The executor that the options ask for; Dask is imported only where it is used.

    Raises:
        UsageError: options that contradict each other, or an address that is not to be trusted.
        MissingComponent: Dask is not installed.
        EngineError: the scheduler cannot be reached, or has workers of another version.
    """
    if options.scheduler is not None and options.jobs > 1:
        raise UsageError("either --jobs or --scheduler", hint="a cluster has as many processes as it has workers")
    if options.scheduler is None and (options.tls_ca or options.tls_cert or options.tls_key or options.insecure):
        raise UsageError("certificates are for a --scheduler", hint="processes on this machine have their own")
    if options.scheduler is None and options.jobs == 1:
        from qkf_deploy.evaluation.executors.inline import Inline

        yield Inline()
        return
    try:
        from qkf_deploy.evaluation.executors import dask
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("dask", "distributed", "cryptography"):
            raise
        raise MissingComponent(f"{error.name} is not installed", hint='pip install "qkf-deploy[cluster]"') from error
    with dask.connected(options) as cluster:
        yield cluster
