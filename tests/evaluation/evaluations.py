"""Evaluations as separate programs: started, watched, killed, compared."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from qkf_deploy.runs.store import Row, Store

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}


@dataclass(frozen=True)
class Cluster:
    """A scheduler and its workers."""

    address: str
    workers: Sequence[psutil.Process]

    def processes(self) -> list[psutil.Process]:
        """The processes in which shards run."""
        return [child for nanny in self.workers for child in spawned(nanny)]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "qkf_deploy.cli", *map(str, arguments)]


def run(
    *arguments: str | Path, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=timeout, env={**ENVIRONMENT, **(env or {})}
    )


def spawned(process: psutil.Process) -> list[psutil.Process]:
    """Processes that multiprocessing started for this one, its resource tracker left out."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def rows(path: Path) -> list[Row]:
    with Store.open(path) as store:
        return list(store.rows())


@contextlib.contextmanager
def cluster(folder: Path, workers: int = 2, *, scheme: str = "tcp", options: Sequence[str] = ()) -> Iterator[Cluster]:
    """A real ``dask scheduler`` and ``dask worker`` processes on this machine.

    One lost worker is enough for the scheduler to give a task up, and workers load ``deadly.py`` first.
    """
    env = {**ENVIRONMENT, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    where = folder / "scheduler.json"
    common = ["--scheduler-file", str(where), "--no-dashboard", *options]
    started = []
    with (folder / "cluster.log").open("w") as log:

        def start(module: str, *arguments: str) -> psutil.Process:
            line = [sys.executable, "-m", f"distributed.cli.{module}", *common, *arguments]
            started.append(subprocess.Popen(line, stdout=log, stderr=log, env=env, cwd=folder))
            return psutil.Process(started[-1].pid)

        try:
            start("dask_scheduler", "--host", f"{scheme}://127.0.0.1", "--port", "0")
            nannies = [
                start("dask_worker", "--nthreads", "1", "--preload", str(HERE / "deadly.py")) for _ in range(workers)
            ]
            wait_for(lambda: where.exists() and where.stat().st_size > 0)
            yield Cluster(json.loads(where.read_text())["address"], nannies)
        finally:
            for process in reversed(started):  # their children end when they do
                process.kill()
                process.wait()


def wait_for(condition, seconds: float = 60) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
