"""The first run on a machine: the kernels that a network needs are compiled by several processes at once.

All store what they make where every process finds it. This process takes part, and whatever is still missing afterwards
is compiled when it is called: helpers that cannot start, or die, cost nothing but time.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from qkf_deploy.ir import Graph
from qkf_deploy.simulators.event.cpu import Isa
from qkf_deploy.simulators.event.needed import Job, needed
from qkf_deploy.simulators.event.plan import Plan

_logger = logging.getLogger(__name__.rpartition(".")[0])
#: More helpers would wait for the longest kernels; each takes about 200 MB.
_MOST_HELPERS = 3
#: Fewer missing kernels than this are compiled when they are called.
_FEWEST_JOBS = 3
#: Seconds that the slowest kernel takes at the very most, and all of them.
_PATIENCE_ONE, _PATIENCE_ALL = 60.0, 180.0
#: A helper finds modules where this process does, and nowhere else.
_HELPER = "import sys; sys.path[:] = sys.argv[1:]; from qkf_deploy.simulators.event.ahead import serve; serve()"


def compile_missing(graph: Graph, plan: Plan, isa: Isa) -> None:
    """Compile the kernels that a plan is sure to need and that are not stored yet, if that is worth several processes.

    Processes that find the same kernels missing at the same time wait for the first of them.
    """
    jobs = _missing(needed(graph, plan, isa))
    helpers = min(_processors() - 1, _MOST_HELPERS, len(jobs) // 2)
    if len(jobs) < _FEWEST_JOBS or helpers < 1 or not sys.executable or getattr(sys, "frozen", False):
        return
    with _alone(Path(jobs[0].kernel.stats.cache_path)) as is_first:
        _compile(jobs if is_first else _missing(jobs), helpers)


def _missing(jobs: Iterable[Job]) -> list[Job]:
    return [job for job in jobs if job.can_be_stored and not job.is_stored]


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """While no other process does the same for this folder; says whether there was no need to wait.

    Where folders cannot be locked, or another process takes too long, nobody waits: no harm but double work.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    held = os.open(folder, os.O_RDONLY)
    try:
        waited, until = False, time.monotonic() + _PATIENCE_ALL
        while time.monotonic() < until:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waited:
                    _logger.info("waiting for another process that compiles the kernels")
                waited = True
                time.sleep(0.1)
            except OSError:
                break
        yield not waited
    finally:
        os.close(held)


def _compile(jobs: list[Job], helpers: int) -> None:
    waiting = sorted(jobs, key=lambda job: job.cost)
    started = [helper for _ in range(helpers) if (helper := _start()) is not None]
    feeders = [threading.Thread(target=_feed, args=(helper, waiting), daemon=True) for helper in started]
    try:
        for feeder in feeders:
            feeder.start()
        while (job := _next(waiting)) is not None:
            job.compile()
        until = time.monotonic() + _PATIENCE_ONE
        for feeder in feeders:
            feeder.join(max(until - time.monotonic(), 0))
    finally:
        for helper in started:
            helper.kill()
            helper.communicate()


def _next(waiting: list[Job]) -> Job | None:
    try:
        return waiting.pop()
    except IndexError:
        return None


def _start() -> subprocess.Popen[bytes] | None:
    line, pipe = [sys.executable, "-I", "-c", _HELPER, *sys.path], subprocess.PIPE
    try:
        return subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)  # noqa: S603 - ourselves
    except OSError:
        return None


def _feed(helper: subprocess.Popen[bytes], waiting: list[Job]) -> None:
    """Give a helper one job after the other, until none is left or it has died."""
    assert helper.stdin is not None  # noqa: S101 - pipes were asked for
    assert helper.stdout is not None  # noqa: S101
    with suppress(OSError, ValueError):
        while (job := _next(waiting)) is not None:
            pickle.dump((job.kernel.__module__, job.kernel.__name__, job.types), helper.stdin)
            helper.stdin.flush()
            if not helper.stdout.read(1):
                return


def serve() -> None:
    """Compile what is asked for on stdin, and say on stdout when each is done: what a helper does."""
    while True:
        try:
            module, name, types = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the process that started this
        except EOFError:
            return
        kernel: Any = getattr(import_module(module), name)
        kernel.compile(types)
        sys.stdout.buffer.write(b".")
        sys.stdout.buffer.flush()
