"""``python -m qkf_deploy.simulators.lava.worker FOLDER PARENT``: does one job inside the Python 3.10 environment.

It leads a process group of its own. It ends that group when its parent is gone, and reports when one of its Lava
processes dies.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from qkf_deploy.errors import EngineError
from qkf_deploy.simulators.lava.failures import report_failure
from qkf_deploy.simulators.lava.job import Job, read_job

_POLL_SECONDS = 0.2


def main(folder: Path, parent: int) -> int:
    """Run the job; 0 if its results are complete, 1 if a failure was reported. The working directory is ``folder``."""
    # Lava opens a Unix socket in the temporary directory: relative, because such a path has at most 107 characters.
    tempfile.tempdir = os.curdir
    running = threading.Event()
    threading.Thread(target=_guard, args=(folder, parent, running), daemon=True).start()
    os.register_at_fork(after_in_child=_follow_parent)
    try:
        job = read_job(folder)
        _run(job, running)
    except Exception as error:  # noqa: BLE001 - everything is reported to the parent
        report_failure(folder, error)
        return 1
    return 0


def _run(job: Job, running: threading.Event) -> None:
    started = time.perf_counter()
    from qkf_deploy.simulators.lava.network import build, execute

    imported = time.perf_counter()
    network = build(job)
    built = time.perf_counter()
    running.set()
    timings = execute(network, job.images * job.graph.time_steps, running.clear)
    timings = {"import": imported - started, "build": built - imported, **timings, "processes": len(network.processes)}
    job.timings.write_text(json.dumps(timings))


def _guard(folder: Path, parent: int, running: threading.Event) -> None:
    """End the group when the parent is gone; report a Lava process that dies while the network runs."""
    reported = False
    while True:
        if os.getppid() != parent:
            shutil.rmtree(folder, ignore_errors=True)
            os.killpg(0, signal.SIGTERM)  # multiprocessing's resource tracker ignores it and frees the shared memory
        if running.is_set() and not reported and (dead := _dead_child()) is not None and running.is_set():
            report_failure(folder, EngineError(f"a Lava process was killed: {dead}", where="lava"))
            reported = True
        time.sleep(_POLL_SECONDS)


def _dead_child() -> str | None:
    """How a child ended that nobody has waited for yet; ``None`` where that cannot be asked (macOS)."""
    if not hasattr(os, "waitid"):
        return None
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if info is None:
        return None
    how = "exit code" if info.si_code == os.CLD_EXITED else "signal"
    return f"process {info.si_pid}, {how} {info.si_status}"


def _follow_parent() -> None:
    """In every forked process: end when the process that forked it ends."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
