"""What happens in a Dask worker: a job is kept there once, and its shards are run."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin

import qkf_deploy
from qkf_deploy import bundle, limits
from qkf_deploy.datasets.dataset import Samples
from qkf_deploy.errors import EngineError, QkfError
from qkf_deploy.evaluation.job import Bench, Job, ShardResult
from qkf_deploy.simulators.engines import ENGINES

_benches: dict[str, Bench] = {}
#: One shard at a time in a process, however many threads the worker has: engines use the threads themselves.
_working = threading.Lock()


class Delivery(WorkerPlugin):
    """Brings a job and its network to every worker once, also to those that join later, and refuses other builds.

    Args:
        key: of the job.
        build: :func:`build` of the sender.
        content: pickled job and content of its `.qkf` file; bytes until it is known that this worker understands them.
        here: workers are on the machine of the sender.
    """

    def __init__(self, key: str, build: str, content: bytes, here: bool) -> None:
        self.name = f"qkf-deploy {key}"
        self._key, self._build, self._content, self._here = key, build, content, here

    def setup(self, worker: Any) -> None:
        """Open the job.

        Raises:
            EngineError: this worker runs other code than the sender.
        """
        if self._build != build():
            raise EngineError(
                f"it runs qkf-deploy {build()}, this process {self._build}",
                where=f"worker {worker.address}",
                hint="install the same version on every worker",
            )
        job, network = pickle.loads(self._content)  # noqa: S301 - Dask's own wire is pickle
        self._content = b""
        with limits.memory_limit(job.memory):
            graph = bundle.from_bytes(network)
        _benches[self._key] = Bench(_threaded(job, worker.state.nthreads), graph, here=self._here)

    def teardown(self, worker: Any) -> None:
        """Forget the job."""
        _benches.pop(self._key, None)


def run_shard(key: str, indices: Sequence[int], samples: Samples | None = None) -> ShardResult | None:
    """Rows of some samples; ``None`` where this machine cannot read them and they are to be sent.

    Args:
        key: of a job that was delivered.
        indices: ascending positions in the data set, whole batches.
        samples: where they have been sent.
    """
    bench = _benches[key]
    with _working, limits.memory_limit(bench.job.memory):
        if samples is None and bench.dataset is None:
            return None
        try:
            return bench.run(indices, samples)
        except (QkfError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - a bug: its text travels, what others raise need not be picklable
            raise RuntimeError("".join(traceback.format_exception(error))) from None


def _threaded(job: Job, threads: int) -> Job:
    """The job on as many threads as the worker has, unless the user said otherwise."""
    if "threads" not in ENGINES[job.engine].options or "threads" in job.engine_options:
        return job
    return replace(job, engine_options={**job.engine_options, "threads": threads})


@functools.cache
def build() -> str:
    """Version of this package and a hash of its source."""
    from importlib import metadata

    root = Path(qkf_deploy.__file__).parent
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(os.fsencode(path.relative_to(root)) + b"\0" + path.read_bytes())
    return f"{metadata.version('qkf-deploy')} {found.hexdigest()[:12]}"
