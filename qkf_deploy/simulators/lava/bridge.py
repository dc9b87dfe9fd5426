"""Runs an integer graph in Lava processes from any environment, watches it, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from qkf_deploy.errors import EngineError, InputError, UnsupportedError, UsageError
from qkf_deploy.ir import Graph
from qkf_deploy.ir.needs import need_integers
from qkf_deploy.ops import IntegerNeuron
from qkf_deploy.options import Granularity
from qkf_deploy.simulators.lava.environment import LavaEnvironment, find_lava
from qkf_deploy.simulators.lava.failures import first_failure
from qkf_deploy.simulators.lava.groups import end_group
from qkf_deploy.simulators.lava.job import Job, collect, write_job
from qkf_deploy.simulators.lava.partition import PROCESS_NAMES, check_causal
from qkf_deploy.simulators.run import Progress, Record, Run, keeps_fired

#: Seconds until a run that has not ended is stopped.
TIMEOUT_S = 600.0
_POLL_SECONDS = 0.02
_WORKER = "qkf_deploy.simulators.lava.worker"
_LOG_LINES = 5
#: One thread per process: there are as many processes as operators, and threads do not survive a fork.
_SINGLE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


@dataclass(frozen=True)
class LavaRun:
    """A finished run.

    Attributes:
        run: as of every engine.
        seconds: wall-clock seconds by phase: ``import``, ``build``, ``compile``, ``start``, ``run``, ``stop``, and
            ``total`` (with the start of the interpreter and all files).
        processes: number of Lava processes.
    """

    run: Run
    seconds: Mapping[str, float]
    processes: int


@keeps_fired
def run(
    graph: Graph,
    inputs: np.ndarray,
    record: Record = Record(),  # noqa: B008 - frozen
    progress: Progress | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
    granularity: Granularity = "block",
) -> Run:
    """Simulate a batch in Lava; arguments and result as of :func:`qkf_deploy.simulators.reference.run`.

    Images run one after the other, T Lava time steps each.

    Args:
        graph: integer graph.
        inputs: encoded, int64.
        record: values and membranes to keep.
        progress: called with (images done, images in all).
        timeout_s: seconds until the run is stopped.
        granularity: ``block`` (one process per residual half) or ``operator`` (one per node).

    Raises:
        MissingComponent: no Python 3.10 environment with Lava.
        UsageError: a float graph.
        UnsupportedError: neurons that carry their membrane from image to image.
        EngineError: the run failed, was killed or ran out of time. No process is left.
    """
    return simulate(graph, inputs, record, progress, timeout_s=timeout_s, granularity=granularity).run


def simulate(
    graph: Graph,
    inputs: np.ndarray,
    record: Record = Record(),  # noqa: B008 - frozen
    progress: Progress | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
    granularity: Granularity = "block",
) -> LavaRun:
    """As :func:`run`, with the time it took."""
    started = time.monotonic()
    _check(graph, inputs, timeout_s, granularity)
    environment = find_lava()
    folder = Path(tempfile.mkdtemp(prefix="qkf-lava-"))
    try:
        job = Job(folder, graph, inputs, record, granularity)
        write_job(job)
        _work(environment, job, started + timeout_s, timeout_s, progress)
        timings = json.loads(job.timings.read_text())
        processes = int(timings.pop("processes"))
        result = collect(job)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return LavaRun(result, {**timings, "total": time.monotonic() - started}, processes)


def _check(graph: Graph, inputs: np.ndarray, timeout_s: float, granularity: str) -> None:
    need_integers(graph, "Lava runs integer graphs")
    if granularity not in get_args(Granularity):
        raise UsageError(f"granularity {granularity!r}", hint=f"use {' or '.join(get_args(Granularity))}")
    if not timeout_s > 0:
        raise UsageError(f"a timeout of {timeout_s} seconds")
    frames = graph.time_steps if graph.input_encoding == "frames" else 1
    if inputs.ndim < 2 or inputs.shape[0] != frames or inputs.shape[2:] != graph.input.type.shape or not inputs.size:
        wanted = (frames, "B", *graph.input.type.shape)
        raise InputError(f"the input has shape {inputs.shape}, the network takes {wanted}")
    if inputs.dtype.kind not in "iu":
        raise InputError(f"the input has type {inputs.dtype}", hint="encode the images for an integer graph")
    foreign = sorted({n.op.kind for n in graph if n.op.kind not in (*PROCESS_NAMES, "input", "output")})
    if foreign:
        raise UnsupportedError(f"no Lava process for {', '.join(foreign)}", hint="use another engine")
    check_causal(graph)
    carrying = [n.name for n in graph if isinstance(n.op, IntegerNeuron) and n.op.carry == "official"]
    if carrying and inputs.shape[1] > 1:
        raise UnsupportedError(
            f"{', '.join(carrying)}: carry-over from image to image within a time step; Lava runs image after image",
            hint="use batch 1, or choose carry 'own' or 'stored'",
        )


def _work(environment: LavaEnvironment, job: Job, deadline: float, timeout_s: float, progress: Progress | None) -> None:
    """Run the worker to its end; raises EngineError (or what the worker raised) if that is not a good one."""
    command = [str(environment.python), "-m", _WORKER, str(job.folder), str(os.getpid())]
    log = job.folder / "log"
    with log.open("wb") as output:
        leader = subprocess.Popen(  # noqa: S603 - an interpreter the user chose
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, **_SINGLE_THREAD}, cwd=job.folder,
        )  # fmt: skip
    try:
        _watch(leader, job, deadline, timeout_s, progress)
    finally:
        end_group(leader)
    if not job.timings.is_file():
        tail = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        raise EngineError(
            f"the Lava run ended with exit code {leader.returncode}", where="lava", hint=" | ".join(tail) or None
        )


def _watch(
    leader: subprocess.Popen[bytes], job: Job, deadline: float, timeout_s: float, progress: Progress | None
) -> None:
    """Wait for the end of the worker; raise as soon as a failure is reported or the time is up."""
    done = 0
    while True:
        ended = leader.poll() is not None
        failure = first_failure(job.folder)
        if failure is not None:
            raise failure
        now_done = job.progress.stat().st_size if job.progress.is_file() else 0
        if progress is not None and now_done != done:
            progress(now_done, job.images)
        done = now_done
        if ended:
            return
        if time.monotonic() > deadline:
            raise EngineError(
                f"the Lava run did not end within {timeout_s:g} s ({done} of {job.images} images were done)",
                where="lava",
                hint="give it more time, fewer images, or granularity 'block'",
            )
        time.sleep(_POLL_SECONDS)
