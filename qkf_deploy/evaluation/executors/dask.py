"""Shards on the workers of a Dask cluster: local processes, or any cluster with a scheduler.

Dask's wire is pickle: whoever can speak to a scheduler or a worker runs code there. Local processes therefore speak
TLS with a certificate made for the run, and a scheduler elsewhere is reached over TLS only, unless the user insists.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import logging
import pickle
import secrets
import signal
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dask import config
from distributed import Client, Future, LocalCluster, Security, wait
from distributed.client import FuturesCancelledError
from distributed.scheduler import KilledWorker

from qkf_deploy import bundle, limits
from qkf_deploy.errors import EngineError, UsageError, told
from qkf_deploy.evaluation.executors.worker import Delivery, build, run_shard
from qkf_deploy.evaluation.job import Bench, ShardResult
from qkf_deploy.options import ExecutionOptions

#: Shards that wait for each worker thread while one runs.
_AHEAD = 1
#: Seconds in which nothing is finished until the cluster is looked at, and how often it may have no worker then.
_SILENCE_S, _PATIENCE = 30.0, 10
#: Seconds to reach a scheduler.
_CONNECT_S = 15.0
#: How often the process of a shard may end before the shard is set aside.
_LOCAL_DEATHS = 1
#: Libraries that would start threads of their own in every process.
_LIBRARIES = ("OMP", "OPENBLAS", "MKL", "NUMBA", "BLIS", "VECLIB_MAXIMUM")
#: One thread each, and no module of the folder where the user happens to be.
_ENVIRONMENT = {**{f"{name}_NUM_THREADS": "1" for name in _LIBRARIES}, "PYTHONSAFEPATH": "1"}
_RESUME = "what is stored stays; go on with `qkf-deploy evaluate --resume`"


_CONFIG = {
    "distributed.nanny.pre-spawn-environ": _ENVIRONMENT,
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,  # a sample every 10 ms, kept: memory grows by the hour
    "distributed.admin.large-graph-warning-threshold": "1TB",  # samples travel with their shard, on purpose
}


@contextlib.contextmanager
def connected(options: ExecutionOptions) -> Iterator[Cluster]:
    """A cluster for the time of the block.

    Raises:
        UsageError, EngineError: as of :func:`qkf_deploy.evaluation.executors.executor`.
    """
    with _silence(), config.set(_CONFIG), contextlib.ExitStack() as stack:
        if options.scheduler is None:
            with _uninterrupted():
                client = Client(stack.enter_context(_local(options.jobs)), set_as_default=False)
        else:
            client = _remote(options.scheduler, options)
        yield Cluster(stack.enter_context(client))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Dask's own messages stay unsaid (a lost worker is pages of them): what matters is said here."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado", "asyncio")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Threads and processes that start here do not get Ctrl-C, now or later: this process ends them in order."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # it would let the signal through again in the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _local(jobs: int) -> LocalCluster:
    """Processes on this machine, reachable with the run's own certificate only."""
    return LocalCluster(
        n_workers=jobs,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        security=Security.temporary(),
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=logging.CRITICAL,
        scheduler_kwargs={"allowed_failures": _LOCAL_DEATHS, "dashboard": False},
    )


def _remote(address: str, options: ExecutionOptions) -> Client:
    security = _security(address, options)
    try:
        return Client(address, security=security, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise EngineError(
            f"no Dask scheduler answers: {told(error)}",
            where=address,
            hint="start one with `dask scheduler`, and workers with `dask worker`",
        ) from error


def _security(address: str, options: ExecutionOptions) -> Security:
    """How to speak to a scheduler.

    Raises:
        UsageError: no address, certificates that are missing or not needed, or a wire that others can write on.
    """
    files = (options.tls_ca, options.tls_cert, options.tls_key)
    given = [str(file) for file in files if file is not None]
    url = urlsplit(address)
    if url.scheme not in ("tcp", "tls") or not url.hostname:
        raise UsageError(f"no scheduler's address: {address!r}", hint="write tls://HOST:8786 or tcp://127.0.0.1:8786")
    if url.scheme == "tcp":
        if given:
            raise UsageError("certificates are for a tls:// address", hint=f"write tls://{url.netloc}")
        if not _loopback(url.hostname) and not options.insecure:
            raise UsageError(
                f"{address} is another machine without encryption: whoever is between can run code on both",
                hint="use tls:// with --tls-ca, --tls-cert and --tls-key; in a network that you trust, --insecure",
            )
        return Security(require_encryption=False)
    if not given:
        security = Security(require_encryption=True)  # of Dask's own configuration
        if security.tls_ca_file is None or security.tls_client_cert is None:
            raise UsageError(
                "a tls:// scheduler needs certificates",
                hint="--tls-ca, --tls-cert and --tls-key, or distributed.comm.tls in Dask's configuration",
            )
        return security
    if len(given) < len(files):
        raise UsageError("--tls-ca, --tls-cert and --tls-key belong together", hint="give all three")
    for file in given:
        limits.read_whole(Path(file))  # a clear error for a file that is not there
    ca, cert, key = given
    return Security(require_encryption=True, tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key)


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Cluster:
    """The executor of ``--jobs N`` and ``--scheduler``."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def map(self, bench: Bench, shards: Iterable[Sequence[int]]) -> Iterator[ShardResult]:
        """Results in the order in which workers finish; a shard that always ends its worker comes last, as lost."""
        with self._delivered(bench), self._client.as_current():
            desk = _Desk(self._client, bench)
            suspects: list[ShardResult] = []
            for result in desk.run(shards):
                if result.lost is None:
                    yield result
                else:
                    suspects.append(result)
            # A worker that ended took the shard beside it down too. One at a time shows which of them it was.
            for suspect in suspects:
                yield from desk.run([suspect.indices])

    @contextlib.contextmanager
    def _delivered(self, bench: Bench) -> Iterator[None]:
        """Every worker has the job and its network, those that join later too."""
        content = pickle.dumps((bench.job, bundle.to_bytes(bench.graph)))
        delivery = Delivery(bench.job.key, build(), content, self._client.cluster is not None)
        try:
            self._client.register_plugin(delivery)
            yield
        except (ImportError, AttributeError) as error:
            raise EngineError(
                f"a worker cannot load this version of qkf-deploy: {told(error)}",
                hint="install the same version on every worker",
            ) from error
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone; nothing depends on it
                self._client.unregister_worker_plugin(delivery.name)


class _Desk:
    """Hands out shards of one job: a few more than run, so that no worker waits and little is held in memory."""

    def __init__(self, client: Client, bench: Bench) -> None:
        self._client: Any = client  # its methods are typed for callers that await them, too
        self._bench = bench
        self._sending = False

    def run(self, shards: Iterable[Sequence[int]]) -> Iterator[ShardResult]:
        """Results of all shards, lost ones among them.

        Raises:
            EngineError: the scheduler is gone, or there is no worker.
            QkfError: of a worker, about the job itself.
        """
        waiting = map(tuple, shards)
        running: dict[Future[ShardResult | None], tuple[int, ...]] = {}
        while True:
            for shard in itertools.islice(waiting, max(0, self._room() - len(running))):
                running[self._submit(shard)] = shard
            if not running:
                return
            for future in self._finished(running):
                shard = running.pop(future)
                result = _result(future, shard)
                if result is None:  # its machine has no such data set: from now on the samples are sent along
                    self._sending = True
                    running[self._submit(shard)] = shard
                else:
                    yield result

    def _submit(self, shard: tuple[int, ...]) -> Future[ShardResult | None]:
        samples = self._bench.read(self._bench.needed(shard)) if self._sending else None
        name = f"samples {shard[0]} to {shard[-1]}, {secrets.token_hex(4)}"
        return self._client.submit(run_shard, self._bench.job.key, shard, samples, key=name, pure=False)

    def _room(self) -> int:
        """How many shards to have handed out."""
        return max(1, sum(self._client.nthreads().values())) * (1 + _AHEAD)

    def _finished(self, running: Iterable[Future[Any]]) -> list[Future[Any]]:
        """The futures that are done, at least one."""
        for _ in range(_PATIENCE):
            try:
                ended: Any = wait(list(running), timeout=_SILENCE_S, return_when="FIRST_COMPLETED")
                return list(ended.done)
            except FuturesCancelledError as error:
                raise EngineError(f"the scheduler dropped the work: {told(error)}", hint=_RESUME) from error
            except TimeoutError:
                pass
        raise EngineError("there is no worker", hint=_RESUME)


def _result(future: Any, shard: tuple[int, ...]) -> ShardResult | None:
    """What a worker returned; a shard whose worker ended each time, or lacked memory, is lost.

    Raises:
        QkfError: as the worker raised it.
    """
    if future.status != "error":
        return future.result()
    error = future.exception()
    if isinstance(error, KilledWorker):
        return ShardResult(shard, lost="every process that ran it ended")
    if isinstance(error, MemoryError):
        return ShardResult(shard, lost="not enough memory")
    raise error or EngineError("a worker failed and did not say why")
